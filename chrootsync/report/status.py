"""How instances are, at a glance: the words that all forms of it share, and plain text, one line for each instance.

``status_table`` lays the words out, ``status_json`` is for programs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from chrootsync.model import Kind, Severity
from chrootsync.model.frozen import frozen
from chrootsync.report.text import clean, plural
from chrootsync.report.verdict import ReloadVerdict, by_kind, counts, reload_verdict, summary

if TYPE_CHECKING:
    from chrootsync.model import Finding, InstanceReport, Report
    from chrootsync.model.queues import InstanceStatus, Master, Queues

UNKNOWN: Final = "?"
DOWN: Final = "down"
DISABLED: Final = "off"
IN_SYNC: Final = "in sync"
NONE: Final = "none"
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0


@frozen
class Overview:
    """How all instances are; ``report`` is that of the check, whose time is when this was seen.

    ``local`` says when something was (seconds since the epoch) as the clock on the wall did. ``remembered``: earlier
    repairs could be read, so that an instance without one had none.
    """

    report: Report
    instances: Sequence[InstanceStatus]
    local: Callable[[float], str]
    remembered: bool = True


# --- Words --------------------------------------------------------------------------------------------------------


def age(seconds: float) -> str:
    """How long something has lasted, in the largest unit that makes sense."""
    seconds = max(0.0, seconds)
    if seconds < MINUTE:
        return f"{seconds:.0f} s"
    if seconds < HOUR:
        return f"{seconds // MINUTE:.0f} min"
    return f"{seconds // HOUR:.0f} h" if seconds < 2 * DAY else f"{seconds // DAY:.0f} d"


def up(status: InstanceStatus, now: float) -> str:
    """For how long the instance has been running; empty where there is nothing to run, or nobody can tell."""
    master = status.master
    if master is None:
        return ""
    if master.running is None:
        return UNKNOWN
    if not master.running:
        return DOWN if status.report.instance.enabled else DISABLED
    return "yes" if master.began is None else age(now - master.began)


def state(report: InstanceReport) -> list[tuple[str, Severity | None]]:
    """What is wrong with an instance, in few words, each with its weight; None where all is well."""
    if report.instance.problem is not None:
        return [("cannot be served", Severity.ERROR)]
    said: list[tuple[str, Severity | None]] = []
    drifted = drift(report)
    if drifted:
        said.append((_kinds(drifted, "drifted"), Severity.ERROR))
    warned = warnings(report)
    if warned:
        said.append((_kinds(warned, "warnings"), Severity.WARNING))
    pending = reload_verdict(report.reload)
    if pending in (ReloadVerdict.PENDING, ReloadVerdict.FAILED):
        said.append((f"reload {pending}", Severity.WARNING))
    if report.stale:
        said.append((f"{len(report.stale)} stale process{'' if len(report.stale) == 1 else 'es'}", Severity.WARNING))
    return said or [(IN_SYNC, None)]


def drift(report: InstanceReport) -> list[Finding]:
    """What makes an instance drift."""
    return [finding for finding in report.findings if counts(finding)]


def warnings(report: InstanceReport) -> list[Finding]:
    """The warnings, but those of stale processes, which are counted apart."""
    return [
        finding
        for finding in report.findings
        if finding.drift.severity is Severity.WARNING and finding.drift.kind is not Kind.STALE_PROCESS
    ]


def _kinds(found: list[Finding], several: str) -> str:
    """``3 outdated``, or ``5 drifted`` where they are of more kinds than one."""
    kinds = list(by_kind(found))
    return f"{len(found)} {kinds[0] if len(kinds) == 1 else several}"


def count(queues: Queues | None, name: str) -> str:
    """How many messages are in a queue; empty where there are no queues."""
    if queues is None:
        return ""
    return UNKNOWN if name not in queues.counts else _least(queues, queues.counts[name])


def name_errors(queues: Queues | None) -> str:
    """How many deferred messages wait for names; empty where there are no queues."""
    if queues is None:
        return ""
    return UNKNOWN if not queues.counts else _least(queues, queues.name_errors)


def _least(queues: Queues, number: int) -> str:
    return f"{number}+" if queues.problem is not None else str(number)


def oldest(queues: Queues | None, now: float) -> str:
    """How long the oldest deferred message has been waiting; empty where there is none."""
    return "" if queues is None or queues.oldest_deferred is None else age(now - queues.oldest_deferred)


def repair(status: InstanceStatus, overview: Overview) -> str:
    """How long ago the last repair was, and by whose call."""
    last = status.repair
    if last is None:
        return NONE if overview.remembered else UNKNOWN
    return f"{age(overview.report.generated - last.began)}, {_trigger(status)}"


def _trigger(status: InstanceStatus) -> str:
    if status.repair is None:
        return ""
    return "rollback" if status.repair.rollback else clean(status.repair.trigger)


def notes(overview: Overview) -> Iterator[str]:
    """What does not fit into a cell, in sentences."""
    for status in overview.instances:
        name = clean(status.report.instance.name)
        if status.report.instance.problem is not None:
            yield f"{name}: {clean(status.report.instance.problem)}"
        if status.report.reload.error is not None:
            yield f"{name}: reload {reload_verdict(status.report.reload)}: {clean(status.report.reload.error)}"
        yield from _queue_notes(name, status.master, status.queues)
    yield from (f"note: {clean(note)}" for note in overview.report.notes)


def _queue_notes(name: str, master: Master | None, queues: Queues | None) -> Iterator[str]:
    if queues is None:
        return
    dropped = queues.counts.get("maildrop", 0)
    if master is not None and master.running is False and dropped:
        yield f"{name}: {plural(dropped, 'message')} in the maildrop queue until it is started"
    if queues.problem is not None:
        yield f"{name}: its queues could not be read{' to the end' if queues.counts else ''}: {clean(queues.problem)}"


def total(overview: Overview) -> str:
    """One line that sums it up."""
    return summary(overview.report)


# --- Plain --------------------------------------------------------------------------------------------------------


def plain(overview: Overview) -> str:
    """A line for each instance, with all that is known, and exact times."""
    lines = [*(_line(status, overview) for status in overview.instances), *notes(overview), total(overview)]
    return "".join(f"{line}\n" for line in lines)


def _line(status: InstanceStatus, overview: Overview) -> str:
    parts = [
        *([status.role] if status.role else []),
        *_running(status, overview),
        ", ".join(words for words, _ in state(status.report)),
        *_queues(status.queues, overview),
        _last_repair(status, overview),
    ]
    chroot = clean(status.report.instance.chroot)
    if chroot:
        parts.append(f"chroot {chroot}")
    return f"{clean(status.report.instance.name)}: {'; '.join(parts)}"


def _running(status: InstanceStatus, overview: Overview) -> Iterator[str]:
    master = status.master
    if master is None:
        return
    if master.running is None:
        yield "nobody but root can tell whether it runs"
    elif not master.running:
        yield "not running" if status.report.instance.enabled else "not running, disabled"
    elif master.began is None:
        yield "running"
    else:
        yield f"running since {overview.local(master.began)} (process {master.pid})"


def _queues(queues: Queues | None, overview: Overview) -> Iterator[str]:
    if queues is None:
        return
    if not queues.counts:
        yield "queues unknown"
        return
    yield ", ".join(f"{name} {count(queues, name)}" for name in queues.counts)
    if queues.oldest_deferred is not None:
        yield f"oldest deferred since {overview.local(queues.oldest_deferred)}"
    if queues.name_errors:
        yield f"deferred by name errors {name_errors(queues)}"


def _last_repair(status: InstanceStatus, overview: Overview) -> str:
    last = status.repair
    if last is None:
        return "no repair" if overview.remembered else "last repair unknown"
    return f"last repair {last.id} at {overview.local(last.began)} by {_trigger(status)}"
