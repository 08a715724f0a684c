"""The story in order: rules and instances to entries, entries to drift, drift to outcomes, all of it to a report.

``check`` stops after comparing; ``repair`` goes on. There is no dry run further down: a dry run is stopping. The later
stages are imported where they begin, since most checks never come to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from chrootsync import accounts, compare, inventory
from chrootsync.model import (
    Chroot,
    Copy,
    Drift,
    Entry,
    Finding,
    Host,
    Instance,
    InstanceReport,
    OnChange,
    Outcome,
    PathError,
    Reader,
    Record,
    Reload,
    Remedy,
    RuleSet,
    Source,
    Status,
)

if TYPE_CHECKING:
    from chrootsync.reload import Occasion
    from chrootsync.root.write import Writer

DIFF_LIMIT = 256 << 10  # bytes of a text whose differences somebody would want to read
ATTEMPTS = 3  # rounds of comparing and repairing while sources keep changing

Seen = Callable[[Entry], None]
"""Told of every entry that was compared, for whoever shows progress."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What a run works on; ``keep_out`` are host paths that no chroot may overlap with."""

    host: Host
    instances: Sequence[Instance]
    rule_sets: Sequence[RuleSet]
    keep_out: Sequence[str] = ()
    seen: Seen = lambda _entry: None


def check(task: Task) -> tuple[InstanceReport, ...]:
    """Compare every instance with what it must hold."""
    counts = {id(instance): 0 for instance in task.instances}
    drifts: dict[int, list[Drift]] = {id(instance): [] for instance in task.instances}
    for entry in inventory.entries(task.host, task.instances, task.rule_sets, keep_out=task.keep_out):
        task.seen(entry)
        key = id(entry.instance)
        counts[key] += entry.rule is not inventory.INSTANCE_RULE
        drift = compare.judge(entry)
        if drift is not None:
            drifts[key].append(drift)
    owners = _owners(task.host.root, [drift for found in drifts.values() for drift in found])
    return tuple(
        InstanceReport(
            instance=instance,
            entries=counts[id(instance)],
            findings=tuple(Finding(drift=_named(drift, owners)) for drift in sorted(drifts[id(instance)], key=_path)),
        )
        for instance in task.instances
    )


def repair(task: Task, writer: Writer, reports: Sequence[InstanceReport]) -> tuple[InstanceReport, ...]:
    """Repair what a check found, each instance's drift as a whole."""
    return tuple(_repair_instance(task, writer, report) for report in reports)


def _repair_instance(task: Task, writer: Writer, report: InstanceReport) -> InstanceReport:
    """Repair one instance; where a source changed since it was compared, compare this instance once more."""
    from chrootsync import repair as repairing

    changing = ""
    for _ in range(ATTEMPTS):
        drifts = [finding.drift for finding in report.findings]
        try:
            outcomes = repairing.repair(task.host.root, writer, report.instance, drifts)
        except repairing.SourceChangedError as error:
            changing = error.path
            (report,) = check(replace(task, instances=[report.instance]))
            continue
        findings = tuple(Finding(drift=drift, outcome=one) for drift, one in zip(drifts, outcomes, strict=True))
        return replace(report, findings=findings)
    failed = Outcome(status=Status.FAILED, reason=f"{changing} keeps changing; run check --fix once it is quiet")
    return replace(report, findings=tuple(replace(finding, outcome=failed) for finding in report.findings))


def reload(
    host: Host,
    reports: Sequence[InstanceReport],
    records: Mapping[str, Record],
    occasion: Occasion,
) -> tuple[tuple[InstanceReport, ...], dict[str, Record]]:
    """Reload the instances that were changed, or whose reload is pending; the reports, and what is to be remembered."""
    from chrootsync import reload as reloading

    remembered = dict(records)
    done: list[InstanceReport] = []
    for report in reports:
        instance, wanted = report.instance, wanted_reload(report)
        record = records.get(instance.name, Record())
        if instance.problem is not None or (wanted is OnChange.NOTHING and not record.pending):
            done.append(report)
            continue
        result, remembered[instance.name] = reloading.reload(host, instance, wanted, record, occasion)
        done.append(replace(report, reload=result))
    return tuple(done), remembered


def foresee(reports: Sequence[InstanceReport], records: Mapping[str, Record], now: float) -> dict[str, Record]:
    """What is to be remembered before a repair begins: whatever cuts it short, the next run reloads."""
    from chrootsync import reload as reloading

    remembered = dict(records)
    for report in reports:
        wanted = _strongest(
            finding.drift.entry.rule.on_change for finding in report.findings if finding.drift.remedy is not Remedy.NONE
        )
        if wanted is not OnChange.NOTHING:
            record = records.get(report.instance.name, Record())
            remembered[report.instance.name] = reloading.pending(record, wanted, now)
    return remembered


def tell_pending(
    host: Host, reports: Sequence[InstanceReport], records: Mapping[str, Record]
) -> tuple[InstanceReport, ...]:
    """The reports of a check, with the reloads that are still due from an earlier repair."""
    from chrootsync import reload as reloading

    told = []
    for report in reports:
        record = records.get(report.instance.name, Record())
        if report.instance.problem is None and reloading.still_due(host, report.instance, record):
            reason = "still due after an earlier repair; check --fix does it"
            command = report.instance.control.reload
            told.append(replace(report, reload=Reload(needed=True, pending=True, command=command, error=reason)))
        else:
            told.append(report)
    return tuple(told)


def postpone(
    reports: Sequence[InstanceReport], records: Mapping[str, Record], now: float
) -> tuple[tuple[InstanceReport, ...], dict[str, Record]]:
    """The reports with every reload that is needed left to whoever asked for that; what is to be remembered."""
    from chrootsync import reload as reloading

    remembered = dict(records)
    done: list[InstanceReport] = []
    for report in reports:
        wanted = wanted_reload(report)
        if wanted is not OnChange.NOTHING:
            record = remembered.get(report.instance.name, Record())
            remembered[report.instance.name] = reloading.pending(record, wanted, now)
            done.append(replace(report, reload=Reload(needed=True, command=report.instance.control.reload)))
        else:
            done.append(report)
    return tuple(done), remembered


def differences(host: Host, reports: Sequence[InstanceReport]) -> dict[tuple[str, str], str]:
    """Unified differences by (instance name, path), of small texts that everybody may read on both sides."""
    found: dict[tuple[str, str], str] = {}
    for report in reports:
        drifts = [finding.drift for finding in report.findings if _may_be_shown(finding.drift.entry)]
        if not drifts:
            continue
        with closing(host.root.chroot(report.instance.chroot)) as chroot:
            for drift in drifts:
                text = _difference(host.root, chroot, drift.entry)
                if text:
                    found[report.instance.name, drift.entry.path] = text
    return found


def _may_be_shown(entry: Entry) -> bool:
    """Whether both sides were found to be readable by everybody, and to differ."""
    want, have = entry.want, entry.have
    if want is None or have is None or entry.filtered:
        return False
    return want.sha256 is not None and have.sha256 is not None and want.sha256 != have.sha256


def _difference(root: Reader, chroot: Chroot, entry: Entry) -> str:
    import difflib

    source = root.source(entry.source or "")
    try:
        new = _text(source)
        old = _text(chroot.look(entry.path))
    except PathError:
        return ""
    finally:
        source.close()
    if new is None or old is None:
        return ""
    there, here = f"{entry.instance.chroot.rstrip('/')}{entry.path}", entry.source or ""
    return "\n".join(difflib.unified_diff(old, new, there, here, lineterm=""))


def _text(thing: Source | Copy) -> list[str] | None:
    """The lines of a small text; None for what is large or binary."""
    state = thing.state
    if state is None or (state.size or 0) > DIFF_LIMIT or not (state.mode or 0) & 0o004:
        return None
    data = thing.contents(DIFF_LIMIT)
    return None if b"\0" in data else data.decode("utf-8", "surrogateescape").splitlines()


def wanted_reload(report: InstanceReport) -> OnChange:
    """What an instance needs after its repair: the strongest of what the rules of the repaired entries ask for."""
    done = (Status.REPAIRED, Status.UNKNOWN)
    return _strongest(
        finding.drift.entry.rule.on_change
        for finding in report.findings
        if finding.outcome is not None and finding.outcome.status in done
    )


def _strongest(wanted: Iterable[OnChange]) -> OnChange:
    found = set(wanted)
    return next((one for one in (OnChange.RESTART, OnChange.RELOAD) if one in found), OnChange.NOTHING)


def names(root: Reader, path: str) -> dict[int, str]:
    """The names that /etc/passwd or /etc/group of a root gives to numbers; none where it cannot be read."""
    return accounts.names(accounts.known(root, path))


def _owners(root: Reader, drifts: Sequence[Drift]) -> dict[str, str]:
    from chrootsync import packages

    sources = {drift.entry.source for drift in drifts if drift.entry.source is not None}
    return packages.owners(root, sorted(sources)) if sources else {}


def _named(drift: Drift, owners: Mapping[str, str]) -> Drift:
    package = owners.get(drift.entry.source) if drift.entry.source is not None else None
    return drift if package is None else replace(drift, package=package)


def _path(drift: Drift) -> str:
    return drift.entry.path
