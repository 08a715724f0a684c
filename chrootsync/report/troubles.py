"""What is wrong with an instance beside its drift: its reload, and lookups inside its chroot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from chrootsync.model import Answer, Severity
from chrootsync.model.frozen import frozen
from chrootsync.report.text import clean, command_line
from chrootsync.report.verdict import ReloadVerdict, reload_verdict

if TYPE_CHECKING:
    from chrootsync.model import InstanceReport, Lookup, Probe, Reload


@frozen
class Trouble:
    """One such thing, in clean words: ``topic`` is reload or probe, ``what`` tells it from others of that topic."""

    topic: str
    what: str
    severity: Severity
    reason: str


def troubles(instance: InstanceReport) -> list[Trouble]:
    """What is wrong with an instance beside its drift: errors change the exit status, and so does a pending reload."""
    return [*_reload(instance.reload), *_probe(instance.probe)]


def _reload(reload: Reload) -> Iterator[Trouble]:
    became = reload_verdict(reload)
    if became not in {ReloadVerdict.PENDING, ReloadVerdict.FAILED}:
        return
    why = f": {clean(reload.error)}" if reload.error else ""
    command = f" ({command_line(reload.command)})" if reload.command else ""
    severity = Severity.WARNING if became is ReloadVerdict.PENDING else Severity.ERROR
    yield Trouble(topic="reload", what=str(became), severity=severity, reason=f"reload {became}{why}{command}")


def _probe(probe: Probe | None) -> Iterator[Trouble]:
    if probe is None:
        return
    if probe.error is not None:
        reason = f"lookups inside did not come to their end: {clean(probe.error)}"
        severity = Severity.ERROR if probe.asked else Severity.WARNING
        yield Trouble(topic="probe", what="error", severity=severity, reason=reason)
    for lookup in probe.lookups:
        if lookup.answer is not Answer.SAME:
            yield _lookup(lookup, probe)


def _lookup(lookup: Lookup, probe: Probe) -> Trouble:
    lost = lookup.what in probe.lost
    inside = "fails inside" if lookup.answer is Answer.FAILS_INSIDE else "differs inside"
    parts = [f"{clean(lookup.what)} {inside}: {clean(lookup.inside)}, outside: {clean(lookup.outside)}"]
    if lost:
        parts.append("it worked before the repair")
    if lookup.advice:
        parts.append(clean(lookup.advice))
    severity = Severity.WARNING if lookup.matters else Severity.INFO
    if lost or (probe.asked and lookup.matters):
        severity = Severity.ERROR
    return Trouble(topic="probe", what=clean(lookup.what), severity=severity, reason="; ".join(parts))
