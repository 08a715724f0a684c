"""``check --fix``: a pass of checking, repairing and reloading under the lock, and the waiting between two of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from chrootsync import __version__, pipeline, transactions
from chrootsync.cli.compare import MANUAL, Pass, Wishes, differences, open_memory, root_lock
from chrootsync.cli.looked import Looked, is_still_so, look
from chrootsync.cli.progress import Progress
from chrootsync.cli.setup import Scene
from chrootsync.model import ChrootsyncError, InstanceReport, Record, Remedy, Report, Status
from chrootsync.model.frozen import frozen, replace
from chrootsync.pipeline import Task, observe, reloads
from chrootsync.root import Root
from chrootsync.state import lock
from chrootsync.state.database import Database

if TYPE_CHECKING:
    from chrootsync.state.journal import RepairJournal

POLL = 0.5  # seconds between two looks whether a package manager has ended


@frozen
class Run:
    """What the steps of one pass share."""

    stage: Scene
    task: Task
    wishes: Wishes
    now: float
    shown: Progress
    memory: Database
    journal: RepairJournal


def fix(stage: Scene, task: Task, wishes: Wishes, now: float, shown: Progress, ahead: Looked | None = None) -> Pass:
    """Check, repair and reload, alone on this root; ``ahead`` is what was found already. Raises LockedError."""
    with lock(*root_lock(stage), wishes.wait), closing(open_memory(stage, now, write=True)) as memory:
        notes = recover(memory, stage.root)
        before = transactions.under_way(stage.root)
        task = replace(task, memory=memory, force=wishes.force)
        if ahead is not None and not notes and is_still_so(ahead, memory):
            looked = replace(ahead, task=replace(task, seen=ahead.task.seen))
        else:
            looked = look(stage, task, wishes, now, shown)
        run = Run(
            stage=stage,
            task=looked.task,
            wishes=wishes,
            now=now,
            shown=shown,
            memory=memory,
            journal=memory.begin(began=now, trigger=wishes.trigger, version=__version__),
        )
        with closing(looked):
            return _go_on(run, looked, before, notes)


def _go_on(run: Run, looked: Looked, before: Sequence[transactions.Transaction], notes: list[str]) -> Pass:
    """Repair and reload what was found, and see what works then."""
    differing = differences(run.stage, looked.reports, run.wishes)
    found, records = _repair(run, looked.reports, before)
    if run.stage.host.run is not None:
        found, more = reload(run, found, records)
        notes += more
    elif run.stage.instances:
        notes.append("this is an image: nothing runs in it, so nothing was reloaded")
    probed = _probed(run, looked, found)
    # While others look things up:
    run.memory.record_sources(observe.new_checksums(run.stage.root, looked.observed, run.memory.sources()))
    tidy(run, found)
    found = probed()
    found = _retried(run, found) if run.wishes.flush else found
    return Pass(instances=found, differences=differing, notes=(*notes, *run.memory.notes))


def recover(memory: Database, root: Root) -> list[str]:
    """Roll forward from every repair that was cut short; sentences on what that came to."""
    notes: list[str] = []
    for unfinished in memory.unfinished():
        from chrootsync import repair as repairing
        from chrootsync.root.write import Writer

        result = repairing.recover(Writer(root), unfinished, memory.keep)
        if result.problems:
            notes += result.problems
            continue
        memory.recovered(unfinished, result.changes)
        notes.append(f"a repair of {unfinished.instance} had been cut short; what it left was cleared up")
    return notes


# --- The steps of a pass ------------------------------------------------------------------------------------------


def _repair(
    run: Run, found: Sequence[InstanceReport], before: Sequence[transactions.Transaction]
) -> tuple[tuple[InstanceReport, ...], dict[str, Record]]:
    """Repair one instance after the other; what came of it, and which reloads were due before."""
    stage, task = run.stage, run.task
    records: dict[str, Record] = {}
    if stage.host.run is not None:
        records = run.memory.reloads()
        remember(run, reloads.foresee(found, records, run.now))
    if all(finding.drift.remedy is Remedy.NONE for report in found for finding in report.findings):
        return tuple(found), records
    from chrootsync.root.write import Writer

    task = replace(task, transactions=transactions.under_way(stage.root) or before)
    writer = Writer(stage.root)
    done: list[InstanceReport] = []
    for one in found:
        run.shown.say(f"repairing {one.instance.name}")
        done += pipeline.repair(task, writer, [one], run.journal)
    return tuple(done), records


def _probed(run: Run, looked: Looked, found: tuple[InstanceReport, ...]) -> Callable[[], tuple[InstanceReport, ...]]:
    """Look things up where something was repaired, and wherever else somebody asked for it."""
    looker = looked.looker
    if looker is None:
        return lambda: found
    told = looker.after(found, looked.working, run.journal.id)
    return (lambda: looker.all(told())) if run.wishes.probe else told


def _retried(run: Run, found: tuple[InstanceReport, ...]) -> tuple[InstanceReport, ...]:
    """Have deferred mail tried again where that makes sense now."""
    from chrootsync.pipeline.retries import retry
    from chrootsync.process import stream

    run.shown.say("retrying deferred mail")
    return retry(run.stage.host, found, stream)


def reload(
    run: Run, found: tuple[InstanceReport, ...], records: Mapping[str, Record]
) -> tuple[tuple[InstanceReport, ...], list[str]]:
    """Reload what was repaired, or leave that to who asked for it; sentences on what could not be remembered."""
    if not reloads.due(found, records):
        return found, remember(run, records)
    if run.wishes.reload:
        from chrootsync.reload import Occasion

        automatic = run.wishes.trigger != MANUAL
        run.shown.say("reloading")
        # What was repaired has changed by now, so that it is older than the reload.
        occasion = Occasion(now=time.time(), automatic=automatic, config=run.stage.config)
        found, remembered = reloads.reload(run.stage.host, found, records, occasion)
    else:
        found, remembered = reloads.postpone(found, records, run.now)
    for report in found:
        if report.reload.needed:
            run.journal.reloaded(report.instance.name, report.reload)
    return found, remember(run, remembered)


def remember(run: Run, records: Mapping[str, Record]) -> list[str]:
    """Keep in mind which reloads are due; where that fails, a sentence says so: it must not keep a repair back."""
    if records == run.memory.reloads():
        return []
    try:
        run.memory.remember(records)
    except ChrootsyncError as error:
        return [str(error)]
    return []


def tidy(run: Run, found: Sequence[InstanceReport]) -> None:
    """Forget what is too old to be taken back, after something was done."""
    if any(finding.outcome is not None for report in found for finding in report.findings):
        config = run.stage.config
        run.memory.prune(days=config.history_days, repairs=config.history_repairs, now=run.now)


# --- Between two passes -------------------------------------------------------------------------------------------


def wait_for_packages(deadline: float, shown: Progress) -> bool:
    """Wait until no package manager is at work on this machine; false past ``deadline`` (of the monotonic clock).

    The lock of this root is free meanwhile: the repair of what belongs to no package goes on.
    """
    while True:
        with closing(Root("/")) as root:
            working = transactions.under_way(root)
        if not working:
            return True
        if time.monotonic() >= deadline:
            return False
        shown.say(f"waiting for {transactions.name(working)}")
        time.sleep(min(POLL, max(0.0, deadline - time.monotonic())))


def merged(first: Report, second: Report) -> Report:
    """One report of two passes: what waited in the first is told by the second."""
    before = {report.instance.name: report for report in first.instances}
    instances = tuple(
        _merged(before[report.instance.name], report) if report.instance.name in before else report
        for report in second.instances
    )
    notes = (*first.notes, *(note for note in second.notes if note not in first.notes))
    return replace(second, generated=first.generated, instances=instances, notes=notes)


def _merged(first: InstanceReport, second: InstanceReport) -> InstanceReport:
    done = [one for one in first.findings if one.outcome is not None and one.outcome.status is Status.REPAIRED]
    again = {finding.drift.entry.path for finding in second.findings}
    findings = [*(one for one in done if one.drift.entry.path not in again), *second.findings]
    reload = second.reload if second.reload.needed else first.reload
    probe = second.probe or first.probe
    if probe is not None and first.probe is not None:
        from chrootsync.probe.looking import joined

        probe = joined(first.probe, probe)
    findings.sort(key=lambda one: one.drift.entry.path)
    retry = second.retry or first.retry
    return replace(second, findings=tuple(findings), reload=reload, probe=probe, retry=retry)
