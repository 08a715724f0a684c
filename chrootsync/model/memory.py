"""What is remembered between runs: what was written, what sources once were, and every repair.

A State here carries its checksum (``sha256``) whoever may read the file, and no ``identity``: what is remembered is for
root alone, and an inode means nothing after the file is gone. Most checks need nothing of this, so it is no part of
``chrootsync.model`` itself: import it where it is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from chrootsync.model.entries import Outcome, Reload, State
from chrootsync.model.frozen import field, frozen
from chrootsync.model.machine import Copy
from chrootsync.model.words import Kind


@frozen
class Baseline:
    """What chrootsync last wrote for an entry, and when (seconds since the epoch)."""

    state: State
    written: float


@frozen
class Placed:
    """What a repair put where nothing was, and what stands there now as far as chrootsync knows.

    ``rule`` put it there for ``instance``, at ``since`` (seconds since the epoch); ``state`` is what was last written.
    """

    path: str
    state: State
    instance: str
    rule: str
    since: float


@frozen
class Hold:
    """An entry that was rolled back by hand, from ``since`` to ``until`` (seconds since the epoch) at most.

    It holds while the source's checksum is ``source`` and what is there is what the rollback ``restored`` (None:
    nothing is there). ``repair`` is the number of the repair that was taken back.
    """

    since: float
    until: float
    repair: int
    source: str | None
    restored: State | None


@frozen
class Memory:
    """What is remembered of one place in a chroot.

    ``digests`` are all checksums that its source is known to have had. ``repaired`` are the checksums that its repairs
    of the last days put there, newest first (None: something else than a file), up to the last rollback.
    """

    baseline: Baseline | None = None
    digests: frozenset[str] = frozenset()
    hold: Hold | None = None
    repaired: tuple[str | None, ...] = ()


class Spot(NamedTuple):
    """A place in a chroot, and the source of what belongs there (None: it has none)."""

    chroot: str
    path: str
    source: str | None


@frozen
class Change:
    """One path as a repair changed it, or tried to: ``before`` and ``after`` are None where nothing was, or is, there.

    ``kept`` tells whether the contents of ``before`` were kept under their checksum.
    """

    instance: str
    chroot: str
    path: str
    source: str | None
    rule: str
    kind: Kind
    package: str | None
    before: State | None
    after: State | None
    outcome: Outcome
    kept: bool = False


@frozen
class Step:
    """A change that is about to be made, with the name that its new inode has beside its target until then.

    ``inode`` and ``old`` are (device, inode) of what is staged and of what it replaces, as far as they are known.
    """

    change: Change
    temporary: str
    inode: tuple[int, int] | None = None
    old: tuple[int, int] | None = None


@frozen
class Unfinished:
    """The steps of one instance's repair that was cut short: nobody knows how many of them were taken."""

    repair: int
    began: float
    instance: str
    chroot: str
    steps: tuple[Step, ...]


@frozen
class Repair:
    """One run that changed something, or tried to; ``undoes`` is the number of the repair that it takes back."""

    id: int
    began: float
    trigger: str
    version: str
    undoes: int | None
    changes: tuple[Change, ...]
    reloads: Mapping[str, Reload] = field(default_factory=dict)


class Memories(Protocol):
    """What earlier runs left behind; where that is lost, nothing is remembered and nothing fails."""

    def recall(self, spots: Sequence[Spot]) -> list[Memory]:
        """What is remembered of each spot, in their order."""
        ...

    def places(self) -> Mapping[str, Sequence[str]]:
        """By chroot, the paths where repairs put something; a hint that costs little and may be out of date."""
        ...

    def placed(self, chroot: str) -> list[Placed]:
        """What repairs put into a chroot where nothing was, and what was not taken away again."""
        ...

    def last_reloads(self) -> Mapping[str, float] | None:
        """By instance when it was last reloaded with success, in seconds since the epoch.

        None where a reload could not be remembered.
        """
        ...

    def disown(self, chroot: str, paths: Sequence[str]) -> None:
        """Forget, where anything can be remembered, that a repair put there what somebody else has changed since."""
        ...


class Journal(Protocol):
    """Remembers what a repair is about to do, and what came of it.

    Nothing here raises: what cannot be written down is told as a note of the run, and must not keep a repair back.
    """

    @property
    def remembers(self) -> bool:
        """Whether what was planned last is remembered."""
        ...

    def plan(self, steps: Sequence[Step]) -> None:
        """Remember which temporaries are about to be made in one chroot; on the disk when this returns."""
        ...

    def keep(self, copy: Copy) -> str | None:
        """Keep the contents of a copy that is about to be replaced; their checksum, None where they are not kept."""
        ...

    def intend(self, steps: Sequence[Step]) -> None:
        """Remember the inodes and states of planned steps before they take effect; on the disk when this returns."""
        ...

    def settle(self, changes: Sequence[Change]) -> None:
        """Remember what came of all planned steps: they are over, nothing of them is left."""
        ...
