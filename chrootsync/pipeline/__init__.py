"""The story in order: rules and instances to entries, entries to drift, drift to outcomes, all of it to a report.

``check`` stops after comparing; ``repair`` goes on. There is no dry run further down: a dry run is stopping. The later
stages are imported where they begin, since most checks never come to them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from chrootsync import accounts, compare, inventory, stale
from chrootsync.model import (
    Drift,
    Entry,
    Finding,
    Host,
    Instance,
    InstanceReport,
    Kind,
    Outcome,
    Reader,
    Remedy,
    RuleSet,
    Source,
    Status,
    Trust,
)
from chrootsync.model.frozen import frozen, replace
from chrootsync.pipeline.orphans import Needs, orphans

if TYPE_CHECKING:
    from chrootsync.model.memory import Journal, Memories
    from chrootsync.root.write import Writer
    from chrootsync.transactions import Transaction

ATTEMPTS = 3  # rounds of comparing and repairing while sources keep changing

Seen = Callable[[Entry], None]
"""Told of every entry that was compared, for whoever shows progress or remembers sources."""


@frozen
class Task:
    """What a run works on; ``keep_out`` are host paths that no chroot may overlap with.

    ``memory`` is what earlier runs left behind, ``force`` repairs also what they tell to leave alone, and
    ``transactions`` are the package managers at work, for whom the repair of a package's files waits. What ``trust``
    knows to be in sync is not read. ``drifted`` is told of what differs as soon as that is found.
    """

    host: Host
    instances: Sequence[Instance]
    rule_sets: Sequence[RuleSet]
    keep_out: Sequence[str] = ()
    seen: Seen = lambda _entry: None
    memory: Memories | None = None
    force: bool = False
    transactions: Sequence[Transaction] = ()
    trust: Trust = inventory.NO_TRUST
    drifted: Callable[[Drift], None] = lambda _drift: None


def check(task: Task) -> tuple[InstanceReport, ...]:
    """Compare every instance with what it must hold, and tell whose files drifted."""
    return named(task.host, compared(task))


def compared(task: Task) -> tuple[InstanceReport, ...]:
    """Compare every instance with what it must hold."""
    counts = {id(instance): 0 for instance in task.instances}
    drifts: list[Drift] = []
    needs = Needs(task.instances, {} if task.memory is None else task.memory.places())
    suspects = stale.suspects(task.host, task.instances)
    entries = inventory.entries(task.host, task.instances, task.rule_sets, keep_out=task.keep_out, trust=task.trust)
    with closing(entries):
        for entry in entries:
            task.seen(entry)
            needs.see(entry)
            suspects.see(entry)
            counts[id(entry.instance)] += entry.rule is not inventory.INSTANCE_RULE
            drift = compare.judge(entry)
            if drift is not None:
                task.drifted(drift)
                drifts.append(drift)
    recalled = _recalled(task, _with_orphans(task, drifts, needs))
    processes = stale.stale(suspects, lambda: _last_reloads(task)) if suspects.copies else {}
    recalled += [drift for told in processes.values() for _, drift in told]
    found: dict[int, list[Finding]] = {id(instance): [] for instance in task.instances}
    for drift in sorted(recalled, key=_path):
        found[id(drift.entry.instance)].append(Finding(drift=drift))
    return tuple(
        InstanceReport(
            instance=instance,
            entries=counts[id(instance)],
            findings=tuple(found[id(instance)]),
            stale=tuple(process for process, _ in processes.get(instance.name, ())),
        )
        for instance in task.instances
    )


def named(host: Host, reports: Sequence[InstanceReport]) -> tuple[InstanceReport, ...]:
    """The reports with the packages that sources of drifts belong to."""
    owners = _owners(host, [finding.drift for report in reports for finding in report.findings])
    if not owners:
        return tuple(reports)
    return tuple(
        replace(report, findings=tuple(replace(one, drift=_named(one.drift, owners)) for one in report.findings))
        for report in reports
    )


def _with_orphans(task: Task, drifts: Sequence[Drift], needs: Needs) -> list[Drift]:
    """The drifts with the orphans; what an if-present rule says of one is of no account any more."""
    found = [] if task.memory is None else orphans(task.host, task.rule_sets, task.memory, needs)
    places = {(id(orphan.entry.instance), orphan.entry.path) for orphan in found}
    return [*(one for one in drifts if (id(one.entry.instance), one.entry.path) not in places), *found]


def repair(
    task: Task, writer: Writer, reports: Sequence[InstanceReport], journal: Journal
) -> tuple[InstanceReport, ...]:
    """Repair what a check found, each instance's drift as a whole."""
    return tuple(_repair_instance(task, writer, report, journal) for report in reports)


def _repair_instance(task: Task, writer: Writer, report: InstanceReport, journal: Journal) -> InstanceReport:
    """Repair one instance; where a source changed since it was compared, compare this instance once more."""
    from chrootsync import repair as repairing

    def origin(entry: Entry) -> Source:
        return task.host.root.source(entry.source or "")

    changing = ""
    for _ in range(ATTEMPTS):
        findings = _held_back(task, report.findings)
        drifts = [finding.drift for finding in findings if finding.outcome is None]
        try:
            outcomes = iter(repairing.repair(origin, writer, report.instance, drifts, journal))
        except repairing.SourceChangedError as error:
            changing = error.path
            (report,) = check(replace(task, instances=[report.instance]))
            continue
        done = (one if one.outcome is not None else replace(one, outcome=next(outcomes)) for one in findings)
        return replace(report, findings=tuple(done))
    failed = Outcome(status=Status.FAILED, reason=f"{changing} keeps changing; run check --fix once it is quiet")
    return replace(
        report,
        findings=tuple(
            one if one.drift.remedy in (Remedy.NONE, Remedy.RELOAD) else replace(one, outcome=failed)
            for one in report.findings
        ),
    )


def _held_back(task: Task, findings: Sequence[Finding]) -> list[Finding]:
    """The findings; those on files of a package have to wait while a package manager is at work.

    What seems to be needed no more may only be gone for a moment, until its package is there again: it waits, too.
    """
    if not task.transactions:
        return list(findings)
    from chrootsync.transactions import must_wait, name

    waiting = Outcome(status=Status.WAITING, reason=f"until {name(task.transactions)} has ended")
    return [
        replace(one, outcome=waiting)
        if one.outcome is None
        and one.drift.remedy is not Remedy.NONE
        and (one.drift.entry.surplus or must_wait(task.host.root, one.drift, task.transactions))
        else one
        for one in findings
    ]


def _recalled(task: Task, drifts: Sequence[Drift]) -> list[Drift]:
    """The drifts in the light of what is remembered, which is asked for only where it may matter."""
    if task.memory is None or not any(_may_be_remembered(drift) for drift in drifts):
        return list(drifts)
    from chrootsync.pipeline import recall

    return recall.recalled(task.host.root, task.memory, drifts, force=task.force)


def _last_reloads(task: Task) -> Mapping[str, float] | None:
    return None if task.memory is None else task.memory.last_reloads()


def _may_be_remembered(drift: Drift) -> bool:
    return drift.remedy is not Remedy.NONE or drift.kind is Kind.DIFFERS


def names(root: Reader, path: str) -> dict[int, str]:
    """The names that /etc/passwd or /etc/group of a root gives to numbers; none where it cannot be read."""
    return accounts.names(accounts.known(root, path))


def _owners(host: Host, drifts: Sequence[Drift]) -> dict[str, str]:
    sources = {drift.entry.source for drift in drifts if drift.entry.source is not None}
    if not sources:
        return {}
    from chrootsync import packages

    return packages.owners(host, sorted(sources))


def _named(drift: Drift, owners: Mapping[str, str]) -> Drift:
    package = owners.get(drift.entry.source) if drift.entry.source is not None else None
    return drift if package is None else replace(drift, package=package)


def _path(drift: Drift) -> str:
    return drift.entry.path
