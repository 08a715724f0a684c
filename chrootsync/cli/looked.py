"""What a repair finds before it begins, under the lock or ahead of it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from chrootsync import pipeline, transactions
from chrootsync.cli.compare import Recollection, Wishes, both
from chrootsync.cli.probing import Prober, prober
from chrootsync.cli.progress import Progress
from chrootsync.cli.setup import Scene
from chrootsync.model import Finding, InstanceReport, PathError, Remedy, State
from chrootsync.model.frozen import frozen, replace
from chrootsync.pipeline import Task, observe

if TYPE_CHECKING:
    from chrootsync.probe.looking import Before
    from chrootsync.state.database import Database


@frozen
class Looked:
    """What was found, what works in the chroots that are to be repaired, and who noticed more by the way.

    ``newest`` is the number of the last repair that was remembered when it was looked ahead.
    """

    task: Task
    reports: tuple[InstanceReport, ...]
    observed: observe.Observed
    looker: Prober | None
    working: Mapping[str, Before]
    newest: int | None = None

    def close(self) -> None:
        """End what lookups were begun for."""
        if self.looker is not None:
            self.looker.close()


def look(stage: Scene, task: Task, wishes: Wishes, now: float, shown: Progress) -> Looked:
    """Compare, and see what works where something is to be repaired; whoever calls this closes the looker."""
    observed = observe.Observed()
    looker = prober(stage, wishes, now, shown)
    seen = observed.see if looker is None else both(observed.see, looker.needs.see)
    task = replace(task, seen=both(task.seen, seen))
    if looker is not None:
        task = replace(task, drifted=looker.expect)
    shown.say("comparing")
    with ExitStack() as undo:
        if looker is not None:
            undo.callback(looker.close)
        reports = pipeline.compared(task)
        works = dict if looker is None else looker.before(reports)
        reports = pipeline.named(task.host, reports)  # while others look things up
        working = works()
        undo.pop_all()
    return Looked(task=task, reports=reports, observed=observed, looker=looker, working=working)


def look_ahead(stage: Scene, task: Task, wishes: Wishes, now: float, shown: Progress) -> Looked | None:
    """The same without the lock, and without remembering anything: see ``is_still_so``.

    While a package manager is at work nothing is looked at: it may have ended before its last change is heard of.
    """
    if transactions.under_way(stage.root):
        return None
    with closing(Recollection(stage, now)) as memory:
        newest = _newest(memory.database)
        return replace(look(stage, replace(task, memory=memory), wishes, now, shown), newest=newest)


def is_still_so(looked: Looked, memory: Database) -> bool:
    """Whether no other repair was made meanwhile, and every copy that is to be repaired is as it was.

    That nothing has changed on the host's side is for the caller to know.
    """
    return _newest(memory) == looked.newest and all(_is_as_it_was(looked.task, one) for one in looked.reports)


def _newest(memory: Database) -> int | None:
    return next((repair.id for repair in memory.repairs(1)), None)


def _is_as_it_was(task: Task, report: InstanceReport) -> bool:
    wanted = [one for one in report.findings if one.drift.remedy not in (Remedy.NONE, Remedy.RELOAD)]
    if not wanted:
        return True
    try:
        with closing(task.host.root.chroot(report.instance.chroot)) as chroot:
            return all(_mark(chroot.look(one.drift.entry.path).state) == _mark(_have(one)) for one in wanted)
    except PathError:
        return False


def _have(finding: Finding) -> State | None:
    return finding.drift.entry.have


def _mark(state: State | None) -> object:
    return None if state is None else (state.type, state.identity, state.target)
