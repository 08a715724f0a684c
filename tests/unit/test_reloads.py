"""What a repair, or a stale process, means for reloads, and what becomes of both."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

import pytest

from chrootsync.model import (
    Completed,
    Config,
    Control,
    Drift,
    Entry,
    Finding,
    Host,
    InstanceReport,
    Kind,
    OnChange,
    Outcome,
    Record,
    Remedy,
    Severity,
    StaleProcess,
    Status,
)
from chrootsync.pipeline import reloads
from chrootsync.reload import Occasion
from chrootsync.root import Root
from chrootsync.state import Store
from tests.unit.scenery import instance, rule

NOW = 1_700_000_000.0
RELOAD = ("/usr/sbin/postfix", "reload")
STATUS = ("/usr/sbin/postfix", "status")
ONE = instance(control=Control(reload=RELOAD, running=STATUS))
FOREVER = 1 << 22  # no process has this number


class Machine:
    """A Runner whose commands end with these statuses."""

    def __init__(self, *, running: int = 0, reload: int = 0) -> None:
        self.codes: dict[tuple[str, ...], int] = {RELOAD: reload, STATUS: running}
        self.reloads = 0

    def run(self, command: Sequence[str], *, timeout: float) -> Completed:
        assert timeout
        self.reloads += tuple(command) == RELOAD
        return Completed(code=self.codes[tuple(command)], output="")

    def started(self, pid: int, child: str | None) -> float | None:
        raise AssertionError(f"not asked: {pid} {child}")


def process(pid: int) -> StaleProcess:
    return StaleProcess(pid=pid, daemon="smtp", began=1.0, uses=("/etc/resolv.conf",), why="began before")


def finding(
    outcome: Outcome | None = None, remedy: Remedy = Remedy.RELOAD, on_change: OnChange = OnChange.RELOAD
) -> Finding:
    entry = Entry(
        instance=ONE, rule=rule(on_change=on_change), path="/etc/resolv.conf", source="/etc/resolv.conf", because=""
    )
    drift = Drift(
        kind=Kind.STALE_PROCESS, severity=Severity.WARNING, remedy=remedy, reason="smtp[1] began before", entry=entry
    )
    return Finding(drift=drift, outcome=outcome)


def report(*findings: Finding) -> InstanceReport:
    return InstanceReport(instance=ONE, entries=1, findings=findings, stale=(process(FOREVER), process(os.getpid())))


def reloaded(
    machine: Machine, of: InstanceReport, record: Record | None = None, *, automatic: bool = False
) -> tuple[InstanceReport, Record | None]:
    with closing(Root("/")) as root:
        host = Host(root=root, run=machine, cache=Store(None))
        records = {} if record is None else {ONE.name: record}
        [done], after = reloads.reload(host, [of], records, Occasion(now=NOW, automatic=automatic, config=Config()))
    return done, after.get(ONE.name)


def outcomes(done: InstanceReport) -> list[Outcome | None]:
    return [one.outcome for one in done.findings]


def test_a_stale_process_is_reloaded_though_no_file_drifts() -> None:
    machine = Machine()
    done, record = reloaded(machine, report(finding()))
    assert (done.reload.done, machine.reloads) == (True, 1)
    assert outcomes(done) == [Outcome(status=Status.REPAIRED)]
    assert done.stale == ()
    assert record == Record(last=NOW)


@pytest.mark.parametrize("outcome", [None, Outcome(status=Status.WAITING, reason="until dpkg has ended")])
def test_one_that_is_finishing_its_job_or_waits_is_not(outcome: Outcome | None) -> None:
    machine = Machine()
    done, record = reloaded(machine, report(finding(outcome, Remedy.NONE if outcome is None else Remedy.RELOAD)))
    assert (done.reload.needed, machine.reloads, record) == (False, 0, None)
    assert outcomes(done) == [outcome]


@pytest.mark.parametrize(
    ("machine", "record", "why"),
    [
        (Machine(reload=1), None, "/usr/sbin/postfix reload ended with status 1"),
        (Machine(running=1), None, "one does not run"),
        (Machine(), Record(last=NOW - 1), "one was reloaded less than 60 seconds ago; the next run does it"),
    ],
)
def test_a_reload_that_was_not_done_leaves_it(machine: Machine, record: Record | None, why: str) -> None:
    done, _ = reloaded(machine, report(finding()), record, automatic=True)
    assert outcomes(done) == [Outcome(status=Status.SKIPPED, reason=why)]
    assert not done.reload.done


def test_a_reload_that_is_left_to_others_stays_due() -> None:
    [done], records = reloads.postpone([report(finding())], {}, NOW)
    assert outcomes(done) == [Outcome(status=Status.SKIPPED, reason="not reloaded")]
    assert done.reload.command == RELOAD
    assert records == {ONE.name: Record(pending=True, since=NOW)}


def test_what_a_rule_asks_for_is_what_its_processes_get() -> None:
    assert reloads.wanted_reload(report(finding(on_change=OnChange.RESTART))) is OnChange.RESTART
    assert reloads.wanted_reload(report(finding(), finding(on_change=OnChange.RESTART))) is OnChange.RESTART
    assert reloads.wanted_reload(replace(report(finding()), findings=())) is OnChange.NOTHING
    assert reloads.foresee([report(finding())], {}, NOW) == {ONE.name: Record(pending=True, since=NOW)}
