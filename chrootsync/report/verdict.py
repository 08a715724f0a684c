"""What a report comes to: its status, its exit status, its counts, and the one line that sums it up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

from chrootsync.model import Code, Finding, InstanceReport, Kind, Remedy, Report, Severity, Status
from chrootsync.report.text import clean, needs_hand, plural

if TYPE_CHECKING:
    from chrootsync.model import Probe, Reload


class Verdict(StrEnum):
    """The status of a report, or of one instance in it."""

    IN_SYNC = "in-sync"
    DRIFT = "drift"
    REPAIRED = "repaired"
    FAILED = "failed"


class ReloadVerdict(StrEnum):
    """What became of a reload."""

    NONE = "none"
    DONE = "done"
    PENDING = "pending"
    FAILED = "failed"
    LEFT = "left"


def findings(report: Report) -> list[Finding]:
    """The findings of all instances, in the order of the report."""
    return [finding for instance in report.instances for finding in instance.findings]


def counts(finding: Finding, *, strict: bool = False) -> bool:
    """Whether the finding makes a drift of it: errors do, warnings where they are taken strictly, infos never."""
    severity = finding.drift.severity
    return severity is Severity.ERROR or (strict and severity is Severity.WARNING)


def repaired(finding: Finding) -> bool:
    """Whether the finding is no more."""
    return finding.outcome is not None and finding.outcome.status is Status.REPAIRED


def failed(finding: Finding) -> bool:
    """Whether its repair went wrong; an unknown outcome is no better than a failure."""
    return finding.outcome is not None and finding.outcome.status in {Status.FAILED, Status.UNKNOWN}


def waiting(finding: Finding) -> bool:
    """Whether its repair waits, as for a package manager to end."""
    return finding.outcome is not None and finding.outcome.status is Status.WAITING


def waits(report: Report) -> bool:
    """Whether something of a report waits, as for a package manager to end."""
    return any(map(waiting, findings(report)))


def verdict(found: Iterable[Finding], *, strict: bool = False) -> Verdict:
    """The status that findings amount to: those of a report, or those of one instance."""
    found = tuple(found)
    if any(failed(finding) for finding in found):
        return Verdict.FAILED
    if any(counts(finding, strict=strict) and not repaired(finding) for finding in found):
        return Verdict.DRIFT
    if any(repaired(finding) for finding in found):
        return Verdict.REPAIRED
    return Verdict.IN_SYNC


def reload_verdict(reload: Reload) -> ReloadVerdict:
    """What became of a reload; a pending one names its reason in ``error``, so that is looked at first."""
    if reload.pending:
        return ReloadVerdict.PENDING
    if reload.error is not None:
        return ReloadVerdict.FAILED
    if reload.done:
        return ReloadVerdict.DONE
    return ReloadVerdict.LEFT if reload.needed else ReloadVerdict.NONE


def probe_failed(probe: Probe | None) -> bool:
    """Whether a run fails for what was looked up: something was lost or, where somebody asked, does not work."""
    if probe is None:
        return False
    wrong = probe.error is not None or any(lookup.matters for lookup in probe.lookups)
    return bool(probe.lost) or (probe.asked and wrong)


def exit_code(report: Report, *, strict: bool = False) -> int:
    """The exit status that the report asks for: the first that applies."""
    status = verdict(findings(report), strict=strict)
    if waits(report):
        return Code.LOCKED
    if status is Verdict.FAILED or any(probe_failed(instance.probe) for instance in report.instances):
        return Code.FAILED
    trouble = {ReloadVerdict.PENDING, ReloadVerdict.FAILED}
    if any(reload_verdict(instance.reload) in trouble for instance in report.instances):
        return Code.RELOAD
    return Code.DRIFT if status is Verdict.DRIFT else Code.OK


def by_kind(found: Iterable[Finding]) -> dict[Kind, int]:
    """How many findings of each kind there are, in the order of the kinds; kinds without any are left out."""
    counted = Counter(finding.drift.kind for finding in found)
    return {kind: counted[kind] for kind in Kind if counted[kind]}


def summary(report: Report, *, strict: bool = False) -> str:
    """One line that sums the report up: how much was looked at, what was found, what became of it."""
    scope = f"in {clean(report.root)}" if report.root != "/" else ""
    if not report.instances:
        return " ".join(part for part in ("no instance", scope, "found: nothing to check") if part)
    entries = sum(instance.entries for instance in report.instances)
    seen = f"{plural(len(report.instances), 'instance')}, {plural(entries, 'entry')}"
    said = [*_fate(report, strict=strict), *_reloads(report), *_lookups(report)]
    return f"{seen} {scope}".rstrip() + ": " + ", ".join(said)


def hint(report: Report) -> str | None:
    """What to do next, for whoever was called out of bed; None where a repair was made, or would do nothing."""
    found = findings(report)
    mendable = sum(finding.drift.remedy is not Remedy.NONE for finding in found)
    if report.fixed or not mendable:
        return None
    others = sum(map(needs_hand, found))
    which = f"{mendable} of {mendable + others}; what the others need is said above" if others else "it"
    return f"check --fix repairs {which if others or mendable == 1 else 'all of it'}."


def _fate(report: Report, *, strict: bool) -> list[str]:
    found = findings(report)
    broken = [finding for finding in found if failed(finding)]
    late = [finding for finding in found if waiting(finding)]
    open_ = [one for one in found if not (repaired(one) or failed(one) or waiting(one))]
    drifted = [finding for finding in open_ if counts(finding, strict=strict)]
    warnings = [] if strict else [finding for finding in open_ if finding.drift.severity is Severity.WARNING]
    mended = sum(map(repaired, found))
    said = [f"{mended} repaired"] if mended else []
    if broken:
        said.append(f"{len(broken)} failed ({_kinds(broken)})")
    if late:
        said.append(f"{len(late)} {'waits' if len(late) == 1 else 'wait'} ({_kinds(late)})")
    if drifted:
        word = ("remains" if len(drifted) == 1 else "remain") if report.fixed else "drifted"
        said.append(f"{len(drifted)} {word} ({_kinds(drifted)}){_spread(report, drifted)}")
    said = said or ["in sync"]
    if warnings:
        said.append(f"{plural(len(warnings), 'warning')} ({_kinds(warnings)})")
    return said


def _kinds(found: Iterable[Finding]) -> str:
    """The kinds, the most frequent first."""
    ranked = sorted(by_kind(found).items(), key=lambda item: -item[1])
    return ", ".join(f"{count} {kind}" for kind, count in ranked)


def _spread(report: Report, found: list[Finding]) -> str:
    if len(report.instances) == 1:
        return ""
    hit = len({finding.drift.entry.instance.name for finding in found})
    return f" in {plural(hit, 'instance')}"


def _reloads(report: Report) -> list[str]:
    phrases = {
        ReloadVerdict.DONE: "{} reloaded",
        ReloadVerdict.PENDING: "reload of {} pending",
        ReloadVerdict.FAILED: "reload of {} failed",
    }
    groups: dict[ReloadVerdict, list[InstanceReport]] = {}
    for instance in report.instances:
        groups.setdefault(reload_verdict(instance.reload), []).append(instance)
    return [phrase.format(_names(groups[what])) for what, phrase in phrases.items() if what in groups]


def _lookups(report: Report) -> list[str]:
    """What is to be said of lookups: that those of some instances do not work inside."""
    broken = [instance for instance in report.instances if probe_failed(instance.probe)]
    return [f"lookups fail in {_names(broken)}"] if broken else []


def _names(instances: Sequence[InstanceReport]) -> str:
    if len(instances) > 3:  # more would not fit on the line
        return plural(len(instances), "instance")
    names = [clean(instance.instance.name) for instance in instances]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
