"""Statuses, exit statuses and the line that sums a report up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chrootsync.model import Finding, InstanceReport, Outcome, Reload, Report, Severity, Status
from chrootsync.report.verdict import (
    ReloadVerdict,
    Verdict,
    exit_code,
    findings,
    reload_verdict,
    summary,
    verdict,
)
from tests.unit.report.report_samples import (
    IN,
    OUT,
    REPORTS,
    SUBMISSION,
    instance,
    lost_library,
    report,
    stale_resolver,
    wrong_mode,
)

DONE = Outcome(status=Status.REPAIRED)
RELOADED = Reload(needed=True, done=True)
PENDING = Reload(needed=True, pending=True, error="later")
BROKEN = Reload(needed=True, error="exit status 1")


def weigh(finding: Finding, severity: Severity) -> Finding:
    return replace(finding, drift=replace(finding.drift, severity=severity))


def one(*found: Finding, fixed: bool = False, reload: Reload | None = None) -> Report:
    reload = reload or Reload(needed=False)
    return report(InstanceReport(instance=OUT, entries=42, findings=found, reload=reload), fixed=fixed)


@pytest.mark.parametrize(
    ("outcome", "severity", "status", "strict", "code"),
    [
        (None, Severity.ERROR, Verdict.DRIFT, Verdict.DRIFT, 1),
        (None, Severity.WARNING, Verdict.IN_SYNC, Verdict.DRIFT, 0),
        (None, Severity.INFO, Verdict.IN_SYNC, Verdict.IN_SYNC, 0),
        (Status.REPAIRED, Severity.ERROR, Verdict.REPAIRED, Verdict.REPAIRED, 0),
        (Status.REPAIRED, Severity.WARNING, Verdict.REPAIRED, Verdict.REPAIRED, 0),
        (Status.FAILED, Severity.ERROR, Verdict.FAILED, Verdict.FAILED, 3),
        (Status.FAILED, Severity.WARNING, Verdict.FAILED, Verdict.FAILED, 3),
        (Status.UNKNOWN, Severity.ERROR, Verdict.FAILED, Verdict.FAILED, 3),
        (Status.SKIPPED, Severity.ERROR, Verdict.DRIFT, Verdict.DRIFT, 1),
        (Status.SKIPPED, Severity.WARNING, Verdict.IN_SYNC, Verdict.DRIFT, 0),
    ],
)
def test_verdict(outcome: Status | None, severity: Severity, status: Verdict, strict: Verdict, code: int) -> None:
    became = None if outcome is None else Outcome(status=outcome)
    made = one(weigh(stale_resolver(outcome=became), severity), fixed=outcome is not None)
    assert verdict(findings(made)) is status
    assert verdict(findings(made), strict=True) is strict
    assert exit_code(made) == code


def test_the_worst_decides() -> None:
    failed = stale_resolver(outcome=Outcome(status=Status.FAILED))
    assert verdict([stale_resolver(outcome=DONE), stale_resolver()]) is Verdict.DRIFT
    assert verdict([stale_resolver(outcome=DONE), stale_resolver(), failed]) is Verdict.FAILED
    assert verdict([]) is Verdict.IN_SYNC


@pytest.mark.parametrize(
    ("reload", "what", "code"),
    [
        (Reload(needed=False), ReloadVerdict.NONE, 0),
        (Reload(needed=True), ReloadVerdict.LEFT, 0),
        (RELOADED, ReloadVerdict.DONE, 0),
        (PENDING, ReloadVerdict.PENDING, 4),
        (BROKEN, ReloadVerdict.FAILED, 4),
    ],
)
def test_reloads(reload: Reload, what: ReloadVerdict, code: int) -> None:
    assert reload_verdict(reload) is what
    assert exit_code(one(stale_resolver(outcome=DONE), fixed=True, reload=reload)) == code


def test_a_failed_repair_outranks_a_failed_reload_and_that_outranks_drift() -> None:
    failed = stale_resolver(outcome=Outcome(status=Status.FAILED))
    assert exit_code(one(failed, fixed=True, reload=BROKEN)) == 3
    assert exit_code(one(stale_resolver(), fixed=True, reload=PENDING)) == 4


WARNING = weigh(wrong_mode(), Severity.WARNING)
SUMMARIES = [
    (REPORTS["in-sync"], "3 instances, 126 entries: in sync"),
    (REPORTS["nothing"], "no instance in /srv/image found: nothing to check"),
    (report(), "no instance found: nothing to check"),
    (one(), "1 instance, 42 entries: in sync"),
    (one(stale_resolver()), "1 instance, 42 entries: 1 drifted (1 differs)"),
    (one(WARNING), "1 instance, 42 entries: in sync, 1 warning (1 metadata)"),
    (one(stale_resolver(), WARNING, WARNING), "1 instance, 42 entries: 1 drifted (1 differs), 2 warnings (2 metadata)"),
    (one(weigh(stale_resolver(), Severity.INFO)), "1 instance, 42 entries: in sync"),
    (
        report(
            InstanceReport(instance=IN, entries=41, findings=(lost_library(), stale_resolver(IN))),
            InstanceReport(instance=OUT, entries=43, findings=(stale_resolver(), wrong_mode())),
            InstanceReport(instance=SUBMISSION, entries=42, findings=()),
        ),
        "3 instances, 126 entries: 4 drifted (2 differs, 1 missing, 1 metadata) in 2 instances",
    ),
    (one(stale_resolver(outcome=DONE), fixed=True), "1 instance, 42 entries: 1 repaired"),
    (
        one(stale_resolver(outcome=DONE), stale_resolver(), fixed=True, reload=RELOADED),
        "1 instance, 42 entries: 1 repaired, 1 remains (1 differs), postfix-out reloaded",
    ),
    (one(fixed=True, reload=RELOADED), "1 instance, 42 entries: in sync, postfix-out reloaded"),
    (
        one(stale_resolver(outcome=Outcome(status=Status.FAILED)), fixed=True, reload=BROKEN),
        "1 instance, 42 entries: 1 failed (1 differs), reload of postfix-out failed",
    ),
    (
        report(
            *(
                InstanceReport(instance=where, entries=1, findings=(stale_resolver(where, DONE),), reload=RELOADED)
                for where in (SUBMISSION, IN, OUT)
            ),
            fixed=True,
        ),
        "3 instances, 3 entries: 3 repaired, postfix-submission, postfix-in and postfix-out reloaded",
    ),
    (
        report(
            *(InstanceReport(instance=instance(f"p{n}"), entries=1, findings=(), reload=PENDING) for n in range(4)),
            fixed=True,
        ),
        "4 instances, 4 entries: in sync, reload of 4 instances pending",
    ),
]


@pytest.mark.parametrize(("made", "line"), SUMMARIES, ids=[line for _, line in SUMMARIES])
def test_summary(made: Report, line: str) -> None:
    assert summary(made) == line


def test_a_strict_summary_counts_warnings_as_drift() -> None:
    assert summary(one(WARNING, stale_resolver()), strict=True) == (
        "1 instance, 42 entries: 2 drifted (1 differs, 1 metadata)"
    )
