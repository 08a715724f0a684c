"""One instance's repair: every step, or none.

Everything is staged and synced beside its target first; then the sources are looked at once more, what is about to
happen is written down, and the new inodes are swapped in, libraries before the configuration that may need them. Any
error on the way takes every step back, in reverse.

Signals are held back meanwhile, and looked at only where everything can still be taken back: between two steps of
staging. Once the first copy is about to be put, a repair of an instance goes on to its end, and so does taking it back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing

from chrootsync import accounts
from chrootsync.model import (
    AbsentError,
    Drift,
    Entry,
    FileType,
    Instance,
    Outcome,
    PathError,
    Remedy,
    RepairError,
    Source,
    State,
    Status,
    UnsafeError,
)
from chrootsync.model.frozen import field, frozen, replace
from chrootsync.model.memory import Journal
from chrootsync.repair.errors import LeftBehindError, SourceChangedError
from chrootsync.repair.signals import Undisturbed
from chrootsync.repair.staying import LIBRARY_DIRECTORIES, Origin, staying
from chrootsync.repair.story import Story
from chrootsync.root.pool import Directory
from chrootsync.root.steps import LeftoverError, Staged
from chrootsync.root.write import ChrootWriter, Writer

NOT_OURS = (Remedy.NONE, Remedy.RELOAD)
NOT_KEPT = Outcome(
    status=Status.SKIPPED,
    reason="left there, since it could not be kept for a rollback: give chrootsync a state directory and room in it "
    "(--state, history_size), or remove it by hand",
)


@frozen
class _Work:
    """The steps of one instance's repair that were taken, each with its way back, newest last.

    ``early`` are directories that took the place of something else, ``plain`` the paths that were swapped by plain
    renames, ``left`` the drifts that were left as they are. ``pause`` lets an interrupt through.
    """

    pause: Callable[[], None]
    chroot: ChrootWriter
    path: str
    origin: Origin
    story: Story
    early: list[tuple[Drift, Staged]] = field(default_factory=list)
    staged: list[tuple[Drift, Staged]] = field(default_factory=list)
    undo: list[Callable[[], None]] = field(default_factory=list)
    parents: list[Directory] = field(default_factory=list)
    plain: list[str] = field(default_factory=list)
    left: dict[int, Outcome] = field(default_factory=dict)

    def directories(self) -> list[Directory]:
        """Every directory that a name was made or changed in."""
        return [*self.parents, *(staged.directory for _, staged in [*self.early, *self.staged])]


def repair(
    origin: Origin, writer: Writer, instance: Instance, drifts: Sequence[Drift], journal: Journal
) -> list[Outcome | None]:
    """Repair one instance's drifts; the outcomes in their order, None for what has no remedy but, at most, a reload.

    What is to be taken away may be WAITING or SKIPPED, in doubt.
    Where one step fails, that drift is FAILED with its reason, the others are SKIPPED,
    and the chroot is as it was; where taking a step back or a sync fails, what is there is UNKNOWN. Raises
    SourceChangedError, after taking everything back, where a source is not what was compared. A signal that raises
    takes everything back, or does so once everything is done; LeftBehindError tells what could not be taken back.
    """
    stay = staying(origin, drifts)
    wanted = sorted((one for one in drifts if one.remedy not in NOT_OURS and id(one) not in stay), key=_order)
    results: dict[int, Outcome] = {}
    if wanted:
        try:
            with closing(writer.chroot(instance.chroot)) as chroot, Undisturbed() as signals:
                work = _Work(
                    pause=signals.pause,
                    chroot=chroot,
                    path=instance.chroot.rstrip("/"),
                    origin=origin,
                    story=Story(journal, instance, wanted),
                )
                results = _transaction(work, wanted)
        except (SourceChangedError, LeftBehindError):
            raise
        except PathError as error:
            results = _failed("", wanted, error)  # of the chroot itself, whose path is the whole one
    results |= stay
    return [results.get(id(drift)) for drift in drifts]


def _order(drift: Drift) -> tuple[int, int, str]:
    """Directories, outermost first; then libraries; then the rest; what goes comes last: something may still use it."""
    path, want = drift.entry.path, drift.entry.want
    if drift.remedy is Remedy.REMOVE:
        return (3, 0, path)
    if want is not None and want.type is FileType.DIRECTORY:
        return (0, path.count("/"), path)
    return (1 if path.startswith(LIBRARY_DIRECTORIES) else 2, 0, path)


def _transaction(work: _Work, drifts: Sequence[Drift]) -> dict[int, Outcome]:
    """Take every step, or none. Raises PathError after everything was taken back."""
    current = drifts[0]
    try:
        work.story.plan()
        for current in drifts:
            work.pause()
            _stage(work, current)
        for current in drifts:
            work.pause()
            _check_source(work, current)
        work.story.intend(work.staged)
        results = dict.fromkeys(map(id, drifts), Outcome(status=Status.REPAIRED)) | work.left
        taken = [drift for drift in drifts if id(drift) not in work.left]
        results |= _sync(work, [*work.parents, *(staged.directory for _, staged in work.early)], taken)
        for group in _groups(work.staged):
            for drift, staged in group:
                current = drift
                _put(work, staged)
            results |= _sync(work, [staged.directory for _, staged in group], [drift for drift, _ in group])
    except BaseException as error:  # noqa: BLE001 -- an interrupt too; what is no failure of a path is raised again
        lost = _take_back(work)
        if isinstance(error, LeftoverError):
            lost.append(_whole(work.path, error))
        return _give_up(work, drifts, error, current, lost)
    results |= _finish(work, results)
    work.story.settle(results)
    return results


def _give_up(
    work: _Work, drifts: Sequence[Drift], error: BaseException, current: Drift, lost: list[str]
) -> dict[int, Outcome]:
    """The outcomes of a transaction that was taken back; what is no failure of a path is raised again.

    What was lost stays in the journal, so that the next run looks after it.
    """
    if isinstance(error, PathError) and (lost or not isinstance(error, SourceChangedError)):
        results = _failed(work.path, drifts, error, current, lost)
        if not lost:
            work.story.settle(results)
        return results
    if not lost:
        work.story.settle({})
    elif isinstance(error, KeyboardInterrupt):
        reason = f"the repair was interrupted, and taking it back failed: {'; '.join(lost)}"
        raise LeftBehindError(work.path or "/", reason) from None
    for one in lost:
        error.add_note(f"taking the repair back failed: {one}")
    raise error


def _groups(staged: Sequence[tuple[Drift, Staged]]) -> list[list[tuple[Drift, Staged]]]:
    """Libraries before configuration: what comes first is on the disk before what may need it is put.

    What is taken away goes when nothing may need it any more.
    """
    put = [pair for pair in staged if pair[1].inode is not None]
    libraries = [pair for pair in put if pair[1].path.startswith(LIBRARY_DIRECTORIES)]
    others = [pair for pair in put if not pair[1].path.startswith(LIBRARY_DIRECTORIES)]
    return [libraries, others, [pair for pair in staged if pair[1].inode is None]]


# --- Staging ------------------------------------------------------------------------------------------------------


def _stage(work: _Work, drift: Drift) -> None:
    """Make a directory, or put a new inode beside its target."""
    entry, chroot = drift.entry, work.chroot
    want, have = entry.want, entry.have
    if have is not None and have.type is FileType.FILE:
        work.story.keep(drift, chroot.look(entry.path))
    if entry.surplus and not work.story.can_bring_back(drift):
        work.left[id(drift)] = NOT_KEPT
        return
    if want is not None and want.type is FileType.DIRECTORY and (have is None or have.type is FileType.DIRECTORY):
        if have is None:
            made = chroot.make_directory(entry.path, want)
        else:
            made = chroot.change_directory(entry.path, want, have)
        work.parents.append(made.parent)
        work.undo.append(lambda: chroot.undo_directory(made))
        return
    staged = _stage_inode(work, drift, work.story.temporary(drift))
    if want is not None and want.type is FileType.DIRECTORY:
        # What stands in its place goes now, because what belongs inside has to be staged there.
        work.story.intend([(drift, staged)])
        _put(work, staged)
        work.early.append((drift, staged))
    else:
        work.staged.append((drift, staged))


def _stage_inode(work: _Work, drift: Drift, temporary: str) -> Staged:
    """Stage what a drift wants, whatever that is; taking it back is a step of its own already."""
    chroot, path, want, have = work.chroot, drift.entry.path, drift.entry.want, drift.entry.have
    if want is None:
        if have is None:
            raise RepairError(path, "nothing is there to be removed")
        return chroot.stage_removal(path, have, temporary=temporary)
    if want.type is FileType.FILE:
        return _stage_file(work, drift, want, temporary)
    if want.type is FileType.LINK:
        staged = chroot.stage_link(path, want.target or "", have, temporary=temporary)
    elif want.type is FileType.DIRECTORY:
        staged = chroot.stage_directory(path, want, have, temporary=temporary)
    else:
        staged = chroot.stage_device(path, want, have, temporary=temporary)
    work.undo.append(lambda: chroot.discard(staged))
    return staged


def _stage_file(work: _Work, drift: Drift, want: State, temporary: str) -> Staged:
    entry, chroot = drift.entry, work.chroot

    def began(staged: Staged) -> None:
        work.undo.append(lambda: chroot.discard(staged))

    with closing(_open(work, entry)) as source:
        if entry.filtered:
            accounts.hide_passwords(source)
        staged = chroot.stage_file(
            entry.path, source, want, entry.have, temporary=temporary, began=began, pause=work.pause
        )
    if staged.source != want.identity:
        raise _changed(entry.source)
    return staged


def _check_source(work: _Work, drift: Drift) -> None:
    """Raise SourceChangedError unless the source is still what was staged."""
    want = drift.entry.want
    if want is not None and want.type is FileType.FILE:
        _open(work, drift.entry).close()


def _open(work: _Work, entry: Entry) -> Source:
    """What an entry's copy is made of. Raises SourceChangedError unless it is the very one that was compared."""
    try:
        source = work.origin(entry)
    except AbsentError:
        raise _changed(entry.source) from None
    if entry.want is None or source.state.identity != entry.want.identity:
        source.close()
        raise _changed(entry.source)
    return source


def _changed(source: str | None) -> SourceChangedError:
    return SourceChangedError(source or "", "it changed after it was compared; run check --fix once more")


# --- Swapping, and the way back -----------------------------------------------------------------------------------


def _put(work: _Work, staged: Staged) -> None:
    work.undo.append(lambda: work.chroot.take_back(staged))
    if not work.chroot.put(staged):
        work.plain.append(staged.path)


def _take_back(work: _Work) -> list[str]:
    """Take every step back, newest first; gives what could not be."""
    lost: list[str] = []
    steps: list[Callable[[], None]] = [*reversed(work.undo), lambda: _sync_all(work)]
    for step in steps:
        try:
            step()
        except PathError as error:
            lost.append(_whole(work.path, error))
        except Exception as error:  # noqa: BLE001 -- whatever it is, the other steps are still to be taken back
            lost.append(str(error))
    return lost


def _sync_all(work: _Work) -> None:
    """Make it durable that nothing is left: afterwards the journal forgets the temporaries."""
    for directory in {directory.path: directory for directory in work.directories()}.values():
        work.chroot.sync(directory)


def _failed(
    chroot: str, drifts: Sequence[Drift], error: PathError, current: Drift | None = None, lost: Sequence[str] = ()
) -> dict[int, Outcome]:
    """One drift failed, or all of them where the chroot could not even be entered; the others were left alone."""
    own = current is not None and error.path == current.entry.path
    reason = error.reason if own else _whole(chroot, error)
    if lost:
        outcome = Outcome(status=Status.UNKNOWN, reason=f"{reason}; and taking it back failed: {'; '.join(lost)}")
        return dict.fromkeys(map(id, drifts), outcome)
    failed = Outcome(status=Status.FAILED, reason=reason)
    if current is None:
        return dict.fromkeys(map(id, drifts), failed)
    others = Outcome(status=Status.SKIPPED, reason=f"left as it was, because {chroot}{current.entry.path} failed")
    return {id(drift): failed if drift is current else others for drift in drifts}


def _whole(chroot: str, error: PathError) -> str:
    """What went wrong, with the path as from the root: /etc of a chroot must not be taken for the host's."""
    inside = isinstance(error, (UnsafeError, RepairError)) and not isinstance(error, SourceChangedError)
    return f"{chroot}{error}" if inside else str(error)


def _sync(work: _Work, directories: Sequence[Directory], drifts: Sequence[Drift]) -> dict[int, Outcome]:
    """Make the names in directories durable; where that fails nobody can tell what a power cut would leave."""
    try:
        for directory in {directory.path: directory for directory in directories}.values():
            work.chroot.sync(directory)
    except PathError as error:
        unknown = Outcome(
            status=Status.UNKNOWN, reason=f"in place, but perhaps not on the disk: {_whole(work.path, error)}"
        )
        return dict.fromkeys(map(id, drifts), unknown)
    return {}


def _finish(work: _Work, results: Mapping[int, Outcome]) -> dict[int, Outcome]:
    """Remove what was swapped out; from here on nothing is taken back. Gives the outcomes that have a remark."""
    remarks: dict[int, Outcome] = {}
    for drift, staged in [*work.early, *work.staged]:
        try:
            work.chroot.finish(staged)
        except PathError as error:
            work.story.leave_open()
            remarks[id(drift)] = replace(results[id(drift)], reason=f"the old one is left over: {error.reason}")
        if staged.path in work.plain:
            reason = "swapped by plain renames, since this file system knows no better"
            remarks[id(drift)] = replace(results[id(drift)], reason=reason)
    try:
        _sync_all(work)
    except PathError:
        work.story.leave_open()
    return remarks
