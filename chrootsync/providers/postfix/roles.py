"""What an instance of Postfix is for, as far as its name or its ports tell.

Ports: RFC 6409 (submission, 587), RFC 8314 (submissions, 465), RFC 5321 (smtp, 25).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from chrootsync.model import Daemon, Instance

SUBMISSION: Final = "submission"
INPUT: Final = "input"
OUTPUT: Final = "output"

_WORDS: Final = {
    **dict.fromkeys(("submission", "submissions", "submit", "msa"), SUBMISSION),
    **dict.fromkeys(("in", "input", "inbound", "incoming", "mx"), INPUT),
    **dict.fromkeys(("out", "output", "outbound", "outgoing"), OUTPUT),
}
_SUBMISSION_PORTS: Final = frozenset({"587", "submission", "465", "submissions", "smtps", "urd"})
_SMTP_PORTS: Final = frozenset({"25", "smtp"})
_LISTENERS: Final = frozenset({"smtpd", "postscreen"})
_LOCAL: Final = re.compile(r"loopback-only|localhost|\[?::1\]?|127(?:\.[0-9]+){3}")


def guess(instance: Instance) -> str:
    """Submission, input or output; empty where the name does not tell and the ports tell several things or none."""
    named = {_WORDS[word] for word in re.split(r"[^a-z]+", instance.name.lower()) if word in _WORDS}
    if len(named) == 1:
        return named.pop()
    listening = set(_listening(instance))
    if len(listening) == 1:
        return listening.pop()
    return OUTPUT if not listening and _delivers(instance) and not named else ""


def _listening(instance: Instance) -> Iterator[str]:
    """What the ports are for on which mail is taken."""
    for daemon in instance.daemons:
        name, _, kind = daemon.name.rpartition("/")
        if kind != "inet" or daemon.program not in _LISTENERS:
            continue
        host, _, port = name.rpartition(":")
        if port in _SUBMISSION_PORTS:
            yield SUBMISSION
        elif port in _SMTP_PORTS:
            # Who takes mail from this machine alone takes it from its users and programs.
            yield SUBMISSION if _is_local(host, daemon) else INPUT


def _is_local(host: str, daemon: Daemon) -> bool:
    """Whether a service listens for this machine alone."""
    places = [host] if host else daemon.parameters.get("inet_interfaces", "all").replace(",", " ").split()
    return bool(places) and all(_LOCAL.fullmatch(place.lower()) for place in places)


def _delivers(instance: Instance) -> bool:
    return any(daemon.name == "smtp/unix" and daemon.program == "smtp" for daemon in instance.daemons)
