"""``chrootsync rollback``: takes a repair back, and reloads what that changed."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from chrootsync import __version__
from chrootsync.cli import output, streams
from chrootsync.cli.compare import Wishes, open_memory, root_lock
from chrootsync.cli.guard import guarded, stoppable
from chrootsync.cli.history import ALL, find, refuse_unreadable, told_of
from chrootsync.cli.options import ConfigOption, FormatOption, RootOption, RulesOption, StateOption
from chrootsync.cli.progress import Progress, progress
from chrootsync.cli.setup import Scene, keep_out, places, scene
from chrootsync.cli.streams import Ended
from chrootsync.model import (
    ChrootsyncError,
    Code,
    ConfigError,
    FileType,
    Finding,
    InstanceReport,
    OnChange,
    Outcome,
    Record,
    Status,
)
from chrootsync.model.frozen import frozen, replace
from chrootsync.pipeline import Task
from chrootsync.state import lock

if TYPE_CHECKING:
    from chrootsync.cli.fix import Run
    from chrootsync.model.memory import Change, Repair
    from chrootsync.report.history import History
    from chrootsync.state.database import Database

TRIGGER = "rollback"


@guarded
def rollback(
    number: Annotated[
        int | None,
        typer.Argument(
            metavar="[ID]",
            help="The repair to take back, as history lists it; without one the newest that is in effect.",
            show_default=False,
        ),
    ] = None,
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Take back also what was changed since, as far as that is safe.")
    ] = False,
    no_reload: Annotated[bool, typer.Option("--no-reload", help="Leave reloading to me.")] = False,
    root: RootOption = "/",
    config: ConfigOption = None,
    rules: RulesOption = None,
    state: StateOption = None,
    wait: Annotated[
        float, typer.Option("--wait", min=0, metavar="SECONDS", help="Wait for another repair to end.")
    ] = 0,
    format: FormatOption = None,  # noqa: A002 -- the name of the option
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Take a repair back: each path gets what was there before; reload what that changed.

    What was changed since is left alone, and so is the rest of its instance. Afterwards check --fix leaves alone what
    was taken back: for 7 days, or until its source or the copy itself changes.

    Exit status 0: all is taken back; 3: something could not be, and is unchanged; chrootsync --help has the others.

    \b
      chrootsync history             which repairs were there?
      chrootsync rollback            take back the newest one
      chrootsync rollback 12         take back repair 12
      chrootsync rollback 12 --force take back also what was changed since
    """
    shown_as = output.choose(format)
    where = places(root=root, config=config, rules=rules, state=state)
    if math.isnan(wait):
        raise ConfigError("--wait nan: must be a number of seconds")
    wishes = Wishes(reload=not no_reload, force=force, wait=wait)
    with progress(quiet=quiet) as shown, stoppable(), scene(where) as stage:
        told = _take_back(stage, number, wishes, shown)
        said = _said(told, shown_as)
    if not quiet:
        streams.write(said, told.status)
    raise Ended(told.status)


@frozen
class _Told:
    """What a rollback came to: ``made`` is the rollback as a repair, None where nothing was to be done.

    ``until`` is how long something is held at most; None where nothing is.
    """

    history: History
    made: Repair | None
    notes: tuple[str, ...]
    until: float | None = None

    @property
    def status(self) -> int:
        """The exit status: the first that applies."""
        from chrootsync.report.verdict import ReloadVerdict, reload_verdict

        if self.made is None:
            return Code.OK
        if not all(map(_is_fine, self.made.changes)):
            return Code.FAILED
        trouble = {ReloadVerdict.PENDING, ReloadVerdict.FAILED}
        if any(reload_verdict(reload) in trouble for reload in self.made.reloads.values()):
            return Code.RELOAD
        return Code.OK


def _is_fine(change: Change) -> bool:
    """Whether a change is as it was wished for; a directory stays for the sake of what others put into it."""
    if change.outcome.status is Status.REPAIRED:
        return True
    directory = change.before is not None and change.before.type is FileType.DIRECTORY and change.after is None
    return directory and change.outcome.status is Status.SKIPPED


def _said(told: _Told, shown_as: str) -> str:
    """What is printed."""
    from chrootsync.report import history as histories
    from chrootsync.report import history_json
    from chrootsync.report.json import utc
    from chrootsync.report.text import clean

    if shown_as == "json":
        made = [] if told.made is None else [told.made]
        held = None if told.until is None else utc(told.until)
        return history_json.render(told.history, made, notes=told.notes, held_until=held)
    notes = "".join(f"note: {clean(note)}\n" for note in told.notes)
    if told.made is None:
        return notes
    said = histories.single(told.history, told.made)
    return f"{said}\n{notes}{histories.rollback_summary(told.history, told.made, until=told.until)}"


# --- Taking back --------------------------------------------------------------------------------------------------


def _take_back(stage: Scene, number: int | None, wishes: Wishes, shown: Progress) -> _Told:
    """Choose a repair and take it back, alone on this root. Raises LockedError, ConfigError, ChrootsyncError."""

    now = time.time()
    with lock(*root_lock(stage), wishes.wait):
        with closing(open_memory(stage, now, write=False)) as memory:  # what is damaged is not set aside by this
            _refuse_damaged(stage, memory)
        return _take_back_alone(stage, number, wishes, shown, now)


def _refuse_damaged(stage: Scene, memory: Database) -> None:
    """Raise ChrootsyncError unless the whole history can be read."""
    memory.repairs(ALL)
    try:
        refuse_unreadable(stage, memory)
    except ChrootsyncError as error:
        raise ChrootsyncError(f"nothing can be taken back: {error}") from None


def _take_back_alone(stage: Scene, number: int | None, wishes: Wishes, shown: Progress, now: float) -> _Told:
    from chrootsync.cli.fix import recover

    with closing(open_memory(stage, now, write=True)) as memory:
        _refuse_unusable(stage, memory)
        notes = recover(memory, stage.root)
        chosen = _chosen(stage, memory, number)
        if isinstance(chosen, str):
            return _Told(history=told_of(stage, memory, []), made=None, notes=(*notes, chosen))
        run = _run(stage, memory, chosen, wishes, now, shown)
        reports, more = _carry_out(run, chosen)
        made = _made(run, chosen, reports)
        told = told_of(stage, memory, [made])
        return _Told(history=told, made=made, notes=(*notes, *more, *memory.notes), until=_held_until(memory, made))


def _held_until(memory: Database, made: Repair) -> float | None:
    """How long what was taken back is held at most; what is in sync again is not."""
    from chrootsync.model.memory import Spot

    done = [one for one in made.changes if one.outcome.status is Status.REPAIRED]
    memories = memory.recall([Spot(one.chroot, one.path, one.source) for one in done])
    return max((one.hold.until for one in memories if one.hold is not None), default=None)


def _refuse_unusable(stage: Scene, memory: Database) -> None:
    """Raise ChrootsyncError unless a rollback can be remembered, too: else the next repair would take it back."""
    try:
        refuse_unreadable(stage, memory)
    except ChrootsyncError as error:
        raise ChrootsyncError(f"nothing can be taken back: {error}") from None
    if not memory.try_to_write():
        reason = "; ".join(memory.notes) or "nothing can be written to the state"
        raise ChrootsyncError(f"nothing can be taken back, since it could not be remembered: {reason}")


def _chosen(stage: Scene, memory: Database, number: int | None) -> Repair | str:
    """The repair to take back, with those of its changes that are still in effect; a sentence where there are none."""
    from chrootsync.report.history import remaining, taken_back

    if number is None:
        return _newest(memory)
    repair, since = find(stage, memory, number)
    undone = taken_back(since)[repair.id]
    if left := remaining(repair, undone):
        return replace(repair, changes=left)
    if undone:
        takers = " and ".join(str(taker) for taker in sorted(set(undone.values())))
        return f"repair {number} was taken back by {takers} already; nothing was done"
    return f"repair {number} changed nothing; nothing was done"


def _newest(memory: Database) -> Repair:
    """The newest repair that is in effect and no rollback, with its changes that are. Raises ChrootsyncError."""
    from chrootsync.report.history import remaining, taken_back

    repairs = memory.repairs(ALL)
    undone = taken_back(repairs)
    for repair in repairs:
        if repair.undoes is None and (left := remaining(repair, undone[repair.id])):
            return replace(repair, changes=left)
    none = (
        "no repair is remembered yet" if not repairs else "every repair that changed something was taken back already"
    )
    raise ChrootsyncError(f"nothing can be taken back: {none}")


def _run(stage: Scene, memory: Database, repair: Repair, wishes: Wishes, now: float, shown: Progress) -> Run:
    """What the steps of a rollback share with those of a repair."""
    from chrootsync.cli.fix import Run

    task = Task(
        host=stage.host,
        instances=stage.instances,
        rule_sets=stage.rule_sets,
        keep_out=keep_out(stage),
        memory=memory,
        force=wishes.force,
    )
    return Run(
        stage=stage,
        task=task,
        wishes=wishes,
        now=now,
        shown=shown,
        memory=memory,
        journal=memory.begin(began=now, trigger=TRIGGER, version=__version__, undoes=repair.id),
    )


def _carry_out(run: Run, repair: Repair) -> tuple[tuple[InstanceReport, ...], list[str]]:
    """Take the repair back and reload what that changed; sentences on what went wrong by the way."""
    from chrootsync.cli.fix import reload, remember, tidy
    from chrootsync.pipeline.reloads import wanted_reload
    from chrootsync.pipeline.rollback import rollback as take_back
    from chrootsync.root.write import Writer

    records: dict[str, Record] = {}
    notes: list[str] = []
    live = run.stage.host.run is not None
    if live:
        records = run.memory.reloads()
        remember(run, _foreseen(run, repair, records))
    run.shown.say(f"taking back repair {repair.id}")
    reports = take_back(run.task, Writer(run.stage.root), run.memory, run.journal, repair, now=run.now)
    if live:
        changed = tuple(report for report in reports if wanted_reload(report) is not OnChange.NOTHING)
        reloaded, more = reload(run, changed, records)
        notes += more
        by_name = {report.instance.name: report for report in reloaded}
        reports = tuple(by_name.get(report.instance.name, report) for report in reports)
    else:
        notes.append("this is an image: nothing runs in it, so nothing was reloaded")
    tidy(run, reports)
    return reports, notes


def _foreseen(run: Run, repair: Repair, records: Mapping[str, Record]) -> dict[str, Record]:
    """What is to be remembered before anything is taken back: whatever cuts it short, the next run reloads."""
    from chrootsync import reload as reloading

    rules = {rule.id: rule.on_change for rule_set in run.stage.rule_sets for rule in rule_set.rules}
    remembered = dict(records)
    for name in {change.instance for change in repair.changes}:
        wanted = {rules.get(change.rule, OnChange.RELOAD) for change in repair.changes if change.instance == name}
        for due in (OnChange.RELOAD, OnChange.RESTART):
            if due in wanted:
                remembered[name] = reloading.pending(remembered.get(name, Record()), due, run.now)
    return remembered


# --- What came of it ----------------------------------------------------------------------------------------------


def _made(run: Run, repair: Repair, reports: Sequence[InstanceReport]) -> Repair:
    """The rollback as a repair: what is remembered of it, and what was refused, of which nothing is."""
    from chrootsync.model.memory import Repair

    number = run.journal.id
    recorded = None if number is None else run.memory.repair(number)
    remembered = {} if recorded is None else {_key(change): change for change in recorded.changes}
    findings = [_change(finding) for report in reports for finding in report.findings]
    changes = [replace(remembered.get(_key(one), one), outcome=one.outcome) for one in findings]
    return Repair(
        id=number or 0,
        began=run.now,
        trigger=TRIGGER,
        version=__version__,
        undoes=repair.id,
        changes=(*changes, *_left_out(repair, changes)),
        reloads={report.instance.name: report.reload for report in reports if report.reload.needed},
    )


def _key(change: Change) -> tuple[str, str, str]:
    return change.instance, change.chroot, change.path


def _change(finding: Finding) -> Change:
    from chrootsync.model.memory import Change

    drift, entry = finding.drift, finding.drift.entry
    return Change(
        instance=entry.instance.name,
        chroot=entry.instance.chroot,
        path=entry.path,
        source=entry.source,
        rule=entry.rule.id,
        kind=drift.kind,
        package=drift.package,
        before=entry.have,
        after=entry.want,
        outcome=finding.outcome or Outcome(status=Status.SKIPPED, reason="nothing was tried"),
    )


def _left_out(repair: Repair, changes: Sequence[Change]) -> Iterator[Change]:
    """What nobody looked at, because its instance is gone or has another chroot by now."""
    seen = {_key(change) for change in changes}
    for change in repair.changes:
        if _key(change) not in seen:
            reason = f"there is no instance {change.instance} with this chroot any more"
            gone = Outcome(status=Status.FAILED, reason=reason)
            yield replace(change, before=None, after=None, outcome=gone, kept=False)
