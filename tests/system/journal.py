"""What chrootsync has said in the journal of a container, read from a place on."""

from __future__ import annotations

import json
import re

from .container import Container


def cursor(host: Container) -> str:
    """The place in the journal from which on a test looks at it."""
    host.run(["journalctl", "--sync"])
    return (
        host.run(["journalctl", "--lines=1", "--show-cursor", "-o", "cat"]).stdout.rpartition("-- cursor: ")[2].strip()
    )


def logged(host: Container, since: str) -> list[str]:
    """What chrootsync logged behind a cursor, as level and text: ``5 repaired instance=...``."""
    host.run(["journalctl", "--sync"])
    # --after-cursor would leave out an entry too many where the one of the cursor is not by chrootsync.
    command = ["journalctl", "--identifier=chrootsync", f"--cursor={since}", "-o", "json"]
    lines = [json.loads(line) for line in host.run(command).stdout.splitlines()]
    return [f"{line['PRIORITY']} {line['MESSAGE']}" for line in lines if line["__CURSOR"] != since]


def repairs(host: Container, since: str) -> list[str]:
    """The lines on repairs behind a cursor."""
    return [line for line in logged(host, since) if re.match(r"\d repaired ", line)]


def repaired(host: Container, since: str, trigger: str, reload: str = "done") -> list[str]:
    """The instances that were repaired behind a cursor, by the log, for a trigger and with that end of the reload."""
    pattern = rf"5 repaired instance=(\S+) .*trigger={trigger} reload={reload} "
    return [found[1] for line in repairs(host, since) if (found := re.match(pattern, line)) is not None]
