"""Reads the command line of a check without typer, where it holds nothing but the usual.

Loading typer and declaring the options takes as long as all that a clean check does besides, and hooks, timers and
monitoring call it all day. What is not read here, mistakes and --help among it, typer reads from the beginning: it
alone says what is wrong with a command line. tests/unit/test_direct.py holds the two equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SWITCHES = {
    "--fix": "fix",
    "--diff": "diff",
    "--no-reload": "no_reload",
    "--flush": "flush",
    "--force": "force",
    "--strict": "strict",
    "--probe": "probe",
    "--no-dns": "no_dns",
    "--trust-stat": "trust_stat",
    "--quiet": "quiet",
    "-q": "quiet",
}
VALUES = {
    "--root": "root",
    "--config": "config",
    "--rules": "rules",
    "--state": "state",
    "--trigger": "trigger",
    "--format": "format",
    "--wait": "wait",
}
"""Options by the parameters of chrootsync.cli.check.check()."""


def parse(arguments: Sequence[str]) -> dict[str, Any] | None:
    """What a command line asks of chrootsync.cli.check.check(); None where typer has to read it."""
    if arguments[:1] != ["check"]:
        return None
    names: list[str] = []
    asked: dict[str, Any] = {"names": names}
    pending = iter(arguments[1:])
    for one in pending:
        option, equals, value = one.partition("=")
        if one in SWITCHES:
            asked[SWITCHES[one]] = True
        elif option in VALUES:
            asked[VALUES[option]] = value if equals else next(pending, None)
        elif one == "--":
            names += pending
        elif one.startswith("-"):
            return None
        else:
            names.append(one)
    return _with_seconds(asked) if None not in asked.values() else None


def _with_seconds(asked: dict[str, Any]) -> dict[str, Any] | None:
    """With ``wait`` as the number that it is; None where it is anything but plain seconds."""
    wait = asked.get("wait", "0")
    return {**asked, "wait": float(wait)} if wait.isascii() and wait.isdecimal() else None
