"""Takes a repair back: each path gets what the repair replaced, under the same guarantees, and is held afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from chrootsync import inventory
from chrootsync import repair as repairing
from chrootsync.inventory.files import copy_mode
from chrootsync.model import (
    Chroot,
    ChrootsyncError,
    Drift,
    Entry,
    FileType,
    Finding,
    Instance,
    InstanceReport,
    Kind,
    Outcome,
    PathError,
    Reader,
    Remedy,
    Rule,
    Severity,
    Source,
    State,
    Status,
)
from chrootsync.model.memory import Change, Hold, Repair
from chrootsync.pipeline import Task, fitting
from chrootsync.pipeline.recall import checksum
from chrootsync.root import Root
from chrootsync.root.write import Writer
from chrootsync.state.database import Database
from chrootsync.state.journal import RepairJournal

HOLD = 7 * 86400  # seconds that an entry stays as it was rolled back
DONE = (Status.REPAIRED, Status.UNKNOWN)
FORCE = "take it back all the same with --force"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Return:
    """One change on its way back: ``kept`` is the path of the contents, ``refusal`` why it is not taken back.

    ``firm`` refusals hold against --force too.
    """

    drift: Drift
    change: Change
    kept: str | None = None
    refusal: str | None = None
    firm: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ground:
    """What taking back is built on: this machine's own files (``live``), the rules by their ids, and what it writes."""

    task: Task
    repair: Repair
    memory: Database
    live: Reader
    rules: Mapping[str, Rule]
    writer: Writer
    journal: RepairJournal
    now: float


def rollback(
    task: Task, writer: Writer, memory: Database, journal: RepairJournal, repair: Repair, *, now: float
) -> tuple[InstanceReport, ...]:
    """Take back what a repair did to the instances of ``task``; findings are its changes, outcomes what came of each.

    Of an instance all is taken back or, where something is refused, nothing; ``task.force`` takes back what is
    refused for caution alone, and leaves the rest.
    """
    rules = {rule.id: rule for rule_set in task.rule_sets for rule in rule_set.rules}
    reports = []
    with closing(Root("/")) as live:
        ground = _Ground(
            task=task,
            repair=repair,
            memory=memory,
            live=live,
            rules=rules,
            writer=writer,
            journal=journal,
            now=now,
        )
        for instance in task.instances:
            changes = [one for one in repair.changes if _belongs(one, instance) and one.outcome.status in DONE]
            if changes:
                findings = _take_back(ground, instance, changes)
                reports.append(InstanceReport(instance=instance, entries=len(changes), findings=tuple(findings)))
    return tuple(reports)


def _belongs(change: Change, instance: Instance) -> bool:
    return (change.instance, change.chroot) == (instance.name, instance.chroot)


def _take_back(ground: _Ground, instance: Instance, changes: Sequence[Change]) -> list[Finding]:
    returns, broken = _prepare(ground, instance, changes)
    if broken is not None:
        failed = Outcome(status=Status.FAILED, reason=broken)
        return [Finding(drift=one.drift, outcome=failed) for one in returns]
    refused = [one for one in returns if one.refusal is not None and (one.firm or not ground.task.force)]
    wanted = [one for one in returns if one not in refused] if ground.task.force or not refused else []
    try:
        _hold(ground, instance, wanted)
    except ChrootsyncError as error:
        failed = Outcome(status=Status.FAILED, reason=str(error))
        return [Finding(drift=one.drift, outcome=failed) for one in returns]
    outcomes = _carry_out(ground, instance, [one for one in wanted if not _is_directory_to_remove(one)])
    if all(outcome.status in DONE for outcome in outcomes.values()):
        for one in sorted(wanted, key=lambda one: one.change.path, reverse=True):  # the innermost first
            if _is_directory_to_remove(one):
                outcomes |= _remove_directory(ground, instance, one)
    return [
        Finding(drift=one.drift, outcome=outcomes.get(id(one)) or _refused(instance, one, refused)) for one in returns
    ]


def _refused(instance: Instance, one: _Return, refused: Sequence[_Return]) -> Outcome:
    if one in refused:
        return Outcome(status=Status.FAILED, reason=one.refusal or "")
    path = f"{instance.chroot.rstrip('/')}{refused[0].change.path}" if refused else "another path"
    return Outcome(status=Status.SKIPPED, reason=f"left as it is, because {path} cannot be taken back")


# --- What each path gets ------------------------------------------------------------------------------------------


def _prepare(ground: _Ground, instance: Instance, changes: Sequence[Change]) -> tuple[list[_Return], str | None]:
    """Every change with its way back, and why the instance as a whole cannot be served (None: it can)."""
    task = ground.task
    entries = list(inventory.entries(task.host, [instance], task.rule_sets, keep_out=task.keep_out))
    broken = next(
        (one.problem.reason for one in entries if one.problem and one.problem.kind is Kind.BAD_INSTANCE), None
    )
    try:
        with closing(task.host.root.chroot(instance.chroot)) as chroot:
            returns = [_return(ground, chroot, instance, change) for change in changes]
    except PathError as error:
        return [_plain_return(ground, instance, change) for change in changes], str(error)
    return _with_libraries(ground, entries, returns), broken


def _return(ground: _Ground, chroot: Chroot, instance: Instance, change: Change) -> _Return:
    """The way back of one change, or why there is none."""
    plain = _plain_return(ground, instance, change)
    try:
        have = chroot.look(change.path).state
        digest = ground.task.host.root.sha256(chroot.look(change.path)) if change.after is not None else None
    except PathError as error:
        return replace(plain, refusal=error.reason, firm=True)
    entry = replace(plain.drift.entry, have=have)
    found = replace(plain, drift=replace(plain.drift, entry=entry))
    if change.before is None:
        found = replace(found, drift=replace(found.drift, remedy=Remedy.REMOVE))
    else:
        found = _restoring(ground, found, change.before)
    if found.refusal is None and not _is_as_left(change.after, have, digest):
        reason = "it is not what this repair left there any more; look at the repairs since"
        return replace(found, refusal=f"{reason}, or {FORCE}", firm=have is None and change.before is None)
    if found.refusal is None and change.package is not None and _is_library(found) and not _is_current(ground, found):
        return replace(found, refusal=f"this library belongs to {change.package}; {FORCE} if it has to be")
    return found


def _is_current(ground: _Ground, one: _Return) -> bool:
    """Whether what goes back is what the source is today."""
    source, before = one.change.source, one.change.before
    if source is None or before is None:
        return False
    return checksum(ground.task.host.root, source, filtered=_is_filtered(one)) == before.sha256


def _plain_return(ground: _Ground, instance: Instance, change: Change) -> _Return:
    rule = ground.rules.get(change.rule) or Rule(id=change.rule, why="it was in force then", origin="")
    entry = Entry(instance=instance, rule=rule, path=change.path, source=change.source, because="taken back")
    drift = Drift(
        kind=change.kind,
        severity=Severity.ERROR,
        remedy=Remedy.REPLACE,
        reason="put back as it was before",
        entry=entry,
        package=change.package,
    )
    return _Return(drift=drift, change=change)


def _restoring(ground: _Ground, found: _Return, before: State) -> _Return:
    """The wanted state of something that stood there, with its contents."""
    kept = None
    want = before
    if before.type is FileType.FILE:
        kept = ground.memory.kept(before.sha256) if before.sha256 is not None else None
        if kept is None:
            return replace(found, refusal="its old contents are not kept (any more)", firm=True)
        want = _file_state(ground, found.change, before, kept)
    elif before.type is FileType.DIRECTORY:
        want = replace(before, mode=(before.mode or 0) & 0o755)
    elif before.type is not FileType.LINK or before.uid not in ground.task.host.root.owners:
        return replace(found, refusal=f"a {before.type} of user {before.uid} is not put back", firm=True)
    entry = replace(found.drift.entry, want=replace(want, extended=()))
    return replace(found, kept=kept, drift=replace(found.drift, entry=entry))


def _file_state(ground: _Ground, change: Change, before: State, kept: str) -> State:
    """A kept file as it was, but never more readable than its source is today."""
    uid, gid = before.uid or 0, before.gid or 0
    mode = (before.mode or 0) & 0o755
    try:
        with closing(ground.task.host.root.source(change.source or "")) as source:
            mode = copy_mode(source, mode, uid, gid)
    except PathError:
        pass  # the source is gone: nothing says more than the old mode
    with closing(ground.live.source(kept)) as contents:
        mtime = None if before.identity is None else before.identity[3]
        return replace(before, mode=mode, identity=contents.state.identity, size=contents.state.size, mtime=mtime)


def _is_as_left(after: State | None, have: State | None, digest: str | None) -> bool:
    """Whether what is there is what the repair left; a directory may hold other things by now."""
    if after is None or have is None:
        return after is have
    if after.type is not have.type:
        return False
    if after.type is FileType.FILE:
        return after.sha256 == digest
    return (after.target, after.device) == (have.target, have.device)


def _is_directory_to_remove(one: _Return) -> bool:
    have = one.drift.entry.have
    return one.change.before is None and have is not None and have.type is FileType.DIRECTORY


# --- Libraries ----------------------------------------------------------------------------------------------------


def _is_library(one: _Return) -> bool:
    return one.kept is not None and fitting.is_library(one.kept)


def _with_libraries(ground: _Ground, entries: Sequence[Entry], returns: Sequence[_Return]) -> list[_Return]:
    """The returns; libraries that would not fit the others any more are refused, and all of them together."""
    restored = {one.change.path: one.kept for one in returns if one.kept is not None and _is_library(one)}
    if not restored:
        return list(returns)
    clauses = fitting.unfit(ground.task.host.root, entries, restored)
    if not clauses:
        return list(returns)
    reason = f"the old libraries do not fit the others: {'; '.join(clauses)}"
    return [replace(one, refusal=reason, firm=True) if one.change.path in restored else one for one in returns]


# --- Doing it -----------------------------------------------------------------------------------------------------


def _hold(ground: _Ground, instance: Instance, wanted: Sequence[_Return]) -> None:
    """Hold every entry that will differ from its source; a hold means nothing while something else is there."""
    root = ground.task.host.root
    for one in wanted:
        entry = one.drift.entry
        source = None
        if entry.source is not None:
            source = checksum(root, entry.source, filtered=_is_filtered(one))
        before, until = one.change.before, ground.now + HOLD
        if (
            before is not None
            and source is not None
            and before.sha256 == source
            and one.change.kind is not Kind.METADATA
        ):
            continue  # it will be in sync
        hold = Hold(since=ground.now, until=until, repair=ground.repair.id, source=source, restored=entry.want)
        if not ground.memory.hold(instance.chroot, entry.path, hold):
            reason = "; ".join(ground.memory.notes)
            raise ChrootsyncError(f"left as it is, since it could not be remembered that it is held: {reason}")


def _is_filtered(one: _Return) -> bool:
    return one.change.source in one.drift.entry.rule.filtered


def _carry_out(ground: _Ground, instance: Instance, returns: Sequence[_Return]) -> dict[int, Outcome]:
    kept = {one.change.path: one.kept for one in returns}

    def origin(entry: Entry) -> Source:
        return ground.live.source(kept[entry.path] or "")

    try:
        drifts = [one.drift for one in returns]
        outcomes = repairing.repair(origin, ground.writer, instance, drifts, ground.journal)
    except repairing.SourceChangedError as error:
        failed = Outcome(status=Status.FAILED, reason=f"kept contents changed: {error}")
        return {id(one): failed for one in returns}
    return {id(one): outcome for one, outcome in zip(returns, outcomes, strict=True) if outcome is not None}


def _remove_directory(ground: _Ground, instance: Instance, one: _Return) -> dict[int, Outcome]:
    """Remove a directory that the repair had made, if nothing is in it any more."""
    try:
        with closing(ground.task.host.root.chroot(instance.chroot)) as chroot:
            if chroot.names(one.change.path):
                return {id(one): Outcome(status=Status.SKIPPED, reason="the directory stays, because it is not empty")}
            # Its times have changed since it was looked at, because what was in it went.
            entry = replace(one.drift.entry, have=chroot.look(one.change.path).state)
    except PathError as error:
        return {id(one): Outcome(status=Status.FAILED, reason=error.reason)}
    fresh = replace(one, drift=replace(one.drift, entry=entry))
    return {id(one): outcome for outcome in _carry_out(ground, instance, [fresh]).values()}
