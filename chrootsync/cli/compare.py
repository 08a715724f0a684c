"""``check`` without --fix: one pass of comparing, which changes nothing anywhere."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from chrootsync import pipeline
from chrootsync.cli.progress import Progress
from chrootsync.cli.setup import Scene
from chrootsync.model import Entry, InstanceReport
from chrootsync.model.frozen import field, frozen, replace
from chrootsync.pipeline import Seen, Task
from chrootsync.state import pending, places

if TYPE_CHECKING:
    from chrootsync.model.memory import Memory, Placed, Spot
    from chrootsync.state.database import Database

MANUAL = "manual"
MIB = 1 << 20


@frozen
class Wishes:
    """How somebody wants his check: ``wait`` are seconds for another repair to end, ``trigger`` is who calls.

    ``flush`` has deferred mail retried after a repair. ``probe`` asks for lookups inside all chroots, ``dns`` lets them
    ask name servers. ``trust_stat`` leaves unread what an earlier run with it found in sync. ``seen`` is told of every
    entry that is compared, where that is of use to somebody.
    """

    trigger: str = MANUAL
    reload: bool = True
    flush: bool = False
    force: bool = False
    diff: bool = False
    wait: float = 0
    probe: bool = False
    dns: bool = True
    trust_stat: bool = False
    seen: Seen | None = None


@frozen
class Pass:
    """What one pass found and did, what differed before it did, and sentences on the pass as a whole."""

    instances: tuple[InstanceReport, ...]
    differences: Mapping[tuple[str, str], str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Compared:
    """The paths of all entries that were compared, by instance, for formats that list them."""

    def __init__(self) -> None:
        """Begin with none."""
        self.paths: dict[str, dict[str, None]] = {}

    def see(self, entry: Entry) -> None:
        """Take note of an entry; one that is compared again is the same."""
        self.paths.setdefault(entry.instance.name, {})[entry.path] = None


def both(one: Seen, other: Seen) -> Seen:
    """Whoever is told of entries, as one."""

    def see(entry: Entry) -> None:
        one(entry)
        other(entry)

    return see


class Recollection:
    """The memory of a check: the state database is opened, for reading alone, when something is asked of it."""

    def __init__(self, stage: Scene, now: float) -> None:
        """Remember what ``stage`` names as its state."""
        self._stage = stage
        self._now = now
        self._opened: Database | None = None

    def recall(self, spots: Sequence[Spot]) -> list[Memory]:
        """What is remembered of each spot."""
        return self.database.recall(spots)

    def places(self) -> Mapping[str, Sequence[str]]:
        """By chroot, the paths where repairs put something, as far as that is known without the database."""
        return places.read(self._stage.store, os.path.realpath(self._stage.root.path))

    def placed(self, chroot: str) -> list[Placed]:
        """What repairs put into a chroot where nothing was."""
        return self.database.placed(chroot)

    def last_reloads(self) -> Mapping[str, float] | None:
        """By instance when it was last reloaded; a check reloads nothing, so that it need not remember it."""
        return {name: record.last for name, record in self.database.reloads().items() if not record.failures}

    def disown(self, chroot: str, paths: Sequence[str]) -> None:
        """A check remembers nothing."""

    @property
    def database(self) -> Database:
        """The state database."""
        if self._opened is None:
            self._opened = open_memory(self._stage, self._now, write=False)
        return self._opened

    def notes(self) -> tuple[str, ...]:
        """Sentences on what could not be remembered."""
        return () if self._opened is None else tuple(self._opened.notes)

    def close(self) -> None:
        """Close the database, if it was opened."""
        if self._opened is not None:
            self._opened.close()


def compare(stage: Scene, task: Task, wishes: Wishes, now: float, shown: Progress) -> Pass:
    """Compare, and tell what earlier runs left to be done."""
    shown.say("comparing")
    with closing(Recollection(stage, now)) as memory:
        found = _checked(stage, replace(task, memory=memory), wishes, now, shown)
        notes: list[str] = []
        if pending(stage.store.directory):
            found, notes = _tell_pending(stage, found, memory.database)
        return Pass(instances=found, differences=differences(stage, found, wishes), notes=(*notes, *memory.notes()))


def _checked(stage: Scene, task: Task, wishes: Wishes, now: float, shown: Progress) -> tuple[InstanceReport, ...]:
    """What a check finds, with lookups inside the chroots where these are wished for."""
    if not wishes.probe:
        return pipeline.check(task)
    from chrootsync.cli.probing import prober

    looker = prober(stage, wishes, now, shown)
    if looker is None:
        return pipeline.check(task)
    with closing(looker):
        return looker.all(pipeline.check(replace(task, seen=both(task.seen, looker.needs.see))))


def differences(stage: Scene, found: Sequence[InstanceReport], wishes: Wishes) -> Mapping[tuple[str, str], str]:
    """The differences of what drifted, where they are wished for."""
    if not wishes.diff:
        return {}
    from chrootsync.pipeline.differences import differences as differences_of

    return differences_of(stage.host, found)


def open_memory(stage: Scene, now: float, *, write: bool) -> Database:
    """The state database of a run; what cannot be used is told by its notes."""
    from chrootsync.state.database import open_database

    root = os.path.realpath(stage.root.path)
    quota = int(stage.config.history_size * MIB)
    return open_database(stage.store.directory, root, write=write, now=now, quota=quota)


def root_lock(stage: Scene) -> tuple[str, str]:
    """The directory and the name of the lock of a root, by its device and inode.

    It is /run/chrootsync for root; whoever else repairs an image of his own has his own place.
    """
    device, inode = stage.root.inode
    name = f"{device}-{inode}.lock"
    if os.geteuid() == 0:
        return "/run/chrootsync", name
    import tempfile

    base = os.environ.get("XDG_RUNTIME_DIR")
    if base:
        return os.path.join(base, "chrootsync"), name
    return os.path.join(tempfile.gettempdir(), f"chrootsync-{os.geteuid()}"), name


def _tell_pending(
    stage: Scene, found: tuple[InstanceReport, ...], database: Database
) -> tuple[tuple[InstanceReport, ...], list[str]]:
    """What earlier runs left to be done; nothing of that is said while a repair is doing it."""
    from chrootsync.pipeline import reloads
    from chrootsync.state import is_held

    if is_held(*root_lock(stage)):
        return found, ["a repair is under way meanwhile"]
    if stage.host.run is not None:
        found = reloads.tell_pending(stage.host, found, database.reloads())
    names = sorted({unfinished.instance for unfinished in database.unfinished()})
    notes = [f"a repair of {name} was cut short; check --fix clears up what it left" for name in names]
    return found, notes
