"""Reads the command line of a check without typer, where it holds nothing but the usual.

Loading typer and declaring the options takes as long as all that a clean check does besides, and hooks, timers and
monitoring call it all day. What is not read here, mistakes and --help among it, typer reads from the beginning: it
alone says what is wrong with a command line. tests/unit/test_direct.py holds the two equal.
"""

from __future__ import annotations

import getopt
import os
from collections.abc import Sequence
from typing import Any

SWITCHES = (
    "--fix",
    "--diff",
    "--no-reload",
    "--flush",
    "--force",
    "--strict",
    "--probe",
    "--no-dns",
    "--trust-stat",
    "--quiet",
)
VALUES = ("--root", "--config", "--rules", "--state", "--trigger", "--format")
SECONDS = "--wait"
SHORT = {"-q": "--quiet"}
IN_FULL = {*SWITCHES, *VALUES, SECONDS, "--"}
LONG = [one[2:] for one in SWITCHES] + [f"{one[2:]}=" for one in (*VALUES, SECONDS)]


def parse(arguments: Sequence[str]) -> dict[str, Any] | None:
    """The arguments of chrootsync.cli.check.check() that a command line asks for; None where typer has to read it."""
    # getopt takes beginnings of long options for the whole, and with POSIXLY_CORRECT ends at the first name.
    whole = (one.partition("=")[0] in IN_FULL for one in arguments[1:] if one.startswith("--"))
    if arguments[:1] != ["check"] or not all(whole) or "POSIXLY_CORRECT" in os.environ:
        return None
    try:
        options, names = getopt.gnu_getopt(arguments[1:], "q", LONG)
    except getopt.GetoptError:
        return None
    asked: dict[str, Any] = {"names": names}
    for option, value in options:
        name = SHORT.get(option, option)
        if name == SECONDS and not (value.isascii() and value.isdecimal()):
            return None
        asked[name[2:].replace("-", "_")] = name in SWITCHES or (float(value) if name == SECONDS else value)
    return asked
