"""What a repair means for reloads: which are due, before it begins and after it has ended, and doing them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from chrootsync import stale
from chrootsync.model import Finding, Host, InstanceReport, OnChange, Outcome, Record, Reload, Remedy, Status
from chrootsync.model.frozen import replace

if TYPE_CHECKING:
    from chrootsync.reload import Occasion


def due(reports: Sequence[InstanceReport], records: Mapping[str, Record]) -> bool:
    """Whether any reload is wanted, or pending: most repairs find nothing to do."""
    return any(_is_due(report, records) for report in reports)


def reload(
    host: Host,
    reports: Sequence[InstanceReport],
    records: Mapping[str, Record],
    occasion: Occasion,
) -> tuple[tuple[InstanceReport, ...], dict[str, Record]]:
    """Reload the instances that were changed, whose processes are stale, or whose reload is pending.

    Gives the reports, and what is to be remembered.
    """
    from chrootsync import reload as reloading

    remembered = dict(records)
    wanted = {
        number: reloading.reload(
            host, report.instance, wanted_reload(report), records.get(report.instance.name, Record()), occasion
        )
        for number, report in enumerate(reports)
        if report.instance.problem is None and _is_due(report, records)
    }
    done = list(reports)
    for number, (result, record) in zip(wanted, reloading.together(list(wanted.values())), strict=True):
        remembered[reports[number].instance.name] = record
        done[number] = _settled(replace(reports[number], reload=result))
    return tuple(done), remembered


def _is_due(report: InstanceReport, records: Mapping[str, Record]) -> bool:
    return wanted_reload(report) is not OnChange.NOTHING or records.get(report.instance.name, Record()).pending


def foresee(reports: Sequence[InstanceReport], records: Mapping[str, Record], now: float) -> dict[str, Record]:
    """What is to be remembered before a repair begins: whatever cuts it short, the next run reloads."""
    remembered = dict(records)
    for report in reports:
        wanted = _strongest(
            finding.drift.entry.rule.on_change for finding in report.findings if finding.drift.remedy is not Remedy.NONE
        )
        if wanted is not OnChange.NOTHING:
            from chrootsync import reload as reloading

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
            command = report.instance.control.reload
            reason = reloading.why_due(host, report.instance)
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
            done.append(_settled(replace(report, reload=Reload(needed=True, command=report.instance.control.reload))))
        else:
            done.append(report)
    return tuple(done), remembered


def wanted_reload(report: InstanceReport) -> OnChange:
    """What an instance needs after its repair: the strongest of what the rules of the entries ask for.

    Those count that were repaired, and those that a stale process uses.
    """
    done = (Status.REPAIRED, Status.UNKNOWN)
    return _strongest(
        finding.drift.entry.rule.on_change
        for finding in report.findings
        if _is_left_to_reload(finding) or (finding.outcome is not None and finding.outcome.status in done)
    )


def _is_left_to_reload(finding: Finding) -> bool:
    return finding.drift.remedy is Remedy.RELOAD and finding.outcome is None


def _settled(report: InstanceReport) -> InstanceReport:
    """The report, with what became of its stale processes: those that are left are finishing their jobs, or not."""
    if not report.stale:
        return report
    reload = report.reload
    if reload.done:
        outcome = Outcome(status=Status.REPAIRED)
    else:
        why = reload.error or ("not reloaded" if reload.needed else f"{report.instance.name} does not run")
        outcome = Outcome(status=Status.SKIPPED, reason=why)
    findings = tuple(replace(one, outcome=outcome) if _is_left_to_reload(one) else one for one in report.findings)
    return replace(report, findings=findings, stale=tuple(stale.living(report.stale)))


def _strongest(wanted: Iterable[OnChange]) -> OnChange:
    found = set(wanted)
    return next((one for one in (OnChange.RESTART, OnChange.RELOAD) if one in found), OnChange.NOTHING)
