"""Protocols of what touches the machine: readers, runners, caches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from chrootsync.model.entries import Identity, Problem, State
from chrootsync.model.frozen import frozen
from chrootsync.model.instances import Config, Instance
from chrootsync.model.rules import RuleSet
from chrootsync.model.words import FileType


@frozen
class Completed:
    """A finished command: ``code`` is its exit status, negative for a signal, None where it ran out of time."""

    code: int | None
    output: str


class Runner(Protocol):
    """Runs commands of the live host; there is none for an image."""

    def run(self, command: Sequence[str], *, timeout: float) -> Completed:
        """Run ``command`` (absolute program first) in a minimal environment and give its exit status and output.

        Raises UnreadableError where the program cannot be started.
        """
        ...

    def started(self, pid: int, child: str | None) -> float | None:
        """When the newest child of ``pid`` called ``child``, else it itself, began (seconds since the epoch).

        None where the process is gone.
        """
        ...


class Source(Protocol):
    """A host file; links were followed as a daemon outside the chroot would. Whoever got it closes it."""

    path: str
    state: State
    data: bytes | None
    """Contents at hand, which stand for what is in the file."""

    def contents(self, limit: int) -> bytes:
        """The file's contents. Raises UnreadableError, also where there is more than ``limit``."""
        ...

    def stand_in(self, data: bytes) -> None:
        """Let ``data`` stand for the file's contents from now on."""
        ...

    def fileno(self) -> int:
        """A descriptor for reading, the same each time. Raises UnreadableError."""
        ...

    def open(self) -> int:
        """A descriptor for reading that the caller closes. Raises UnreadableError."""
        ...

    def readers(self) -> int:
        """The permission bits that a copy may have at most, ACLs counted."""
        ...

    def vouch(self) -> None:
        """Take it that no ACL takes from the mode: somebody has looked at this very inode as it is."""
        ...

    def close(self) -> None: ...


class Copy(Protocol):
    """A place inside a chroot: its state (None: nothing there) as seen without following a link."""

    path: str

    @property
    def identity(self) -> Identity | None:
        """Of a regular file, what tells whether it is still the same; costs nothing more than to have found it."""
        ...

    @property
    def state(self) -> State | None:
        """What is there."""
        ...

    def vouch(self) -> None:
        """Take it that the file has nothing beyond its mode: somebody has looked at this very inode as it is."""
        ...

    def open(self) -> int:
        """A descriptor for reading that the caller closes. Raises PathError."""
        ...

    def contents(self, limit: int) -> bytes:
        """The file's contents. Raises PathError, also where there is more than ``limit``."""
        ...


class Chroot(Protocol):
    """One chroot, walked from the root; every path is absolute from the chroot. Whoever got it closes it."""

    path: str

    def holds(self, source: str) -> bool:
        """Whether a host path lies in the chroot, by its name or, where a directory is mounted twice, by inode."""
        ...

    def canonical(self, directory: str) -> str | None:
        """The spelling of a directory without links on the way; None where it is missing.

        Raises UnsafeError, UnreadableError.
        """
        ...

    def look(self, path: str) -> Copy:
        """What is at ``path``. Raises UnsafeError, UnreadableError."""
        ...

    def has_socket(self, path: str) -> bool:
        """Whether a socket is at ``path``, links followed, whoever owns the way there; true also beyond a mount.

        Raises UnreadableError.
        """
        ...

    def names(self, directory: str) -> list[tuple[str, FileType]]:
        """The names in a directory, sorted, with their types; empty where it is missing.

        Raises UnsafeError, UnreadableError.
        """
        ...

    def close(self) -> None: ...


class Reader(Protocol):
    """Sees a root and cannot change it. All methods raise AbsentError or UnreadableError for host paths."""

    path: str
    """The root as given: ``/``, or the directory of an image."""
    live: bool
    """Whether the root is the one that this process lives in."""
    owners: frozenset[int]
    """The users that count as root: 0, and whoever runs this."""

    def source(self, path: str) -> Source:
        """Look at a host path, every link followed inside the root. Whoever got it closes it."""
        ...

    def glance(self, path: str) -> Source:
        """Look at a host path as ``source`` does, as cheaply as can be: nothing may be open until it is read.

        What then is another file is a ReplacedError, and has to be looked at anew.
        """
        ...

    def state(self, path: str) -> State:
        """What is at a host path, every link followed inside the root."""
        ...

    def read(self, path: str, *, limit: int = 1 << 20) -> bytes:
        """The contents of a host file of at most ``limit`` bytes; a larger one is an UnreadableError."""
        ...

    def read_trusted(self, path: str) -> bytes:
        """The contents of a configuration file that only root could have written, its directories included.

        Raises UnsafeError where somebody else could have. In an image nothing is trusted, so that nothing is refused.
        """
        ...

    def names(self, directory: str) -> list[tuple[str, FileType]]:
        """The names in a host directory, sorted, with their types (of links: the link's)."""
        ...

    def resolve(self, path: str) -> str:
        """The host path without links."""
        ...

    def note(self, path: str) -> None:
        """Take it that a host path was looked at: another process has done so."""
        ...

    def chroot(self, path: str) -> Chroot:
        """Walk to a chroot. Raises AbsentError, UnsafeError, UnreadableError."""
        ...

    def same(self, source: Source, copies: Sequence[Copy]) -> Iterator[bool | Problem]:
        """For each copy, whether its bytes equal the source's; the source is read once."""
        ...

    def is_at_hand(self, source: Source) -> bool:
        """Whether the beginning of a file is in memory, or nobody can tell."""
        ...

    def will_read(self, thing: Source | Copy) -> None:
        """Have the beginning of a file brought into memory, without waiting for it."""
        ...

    def sha256(self, thing: Source | Copy) -> str | None:
        """The SHA-256 checksum (hex) of a file; None where it is too large, is not a file or cannot be read."""
        ...


class Trust(Protocol):
    """Pairs of files whose contents were equal, and stay so for as long as neither inode changes."""

    def knows(self, source: Source, copy: Copy) -> bool:
        """Whether a source and a copy were found in sync as they are now."""
        ...

    def learn(self, source: Source, copy: Copy) -> None:
        """Take note of a source and a copy that are in sync."""
        ...

    def news(self) -> list[bytes]:
        """What stands for the pairs that were recognized or noted since this was asked last, from the first time on."""
        ...

    def believe(self, news: Sequence[bytes]) -> None:
        """Take over what another process, which began with the same knowledge, has recognized or noted."""
        ...


class Cache(Protocol):
    """Small JSON values that can be lost at any time, kept beside the state."""

    def get(self, name: str, fingerprint: str) -> object | None:
        """The value last put under ``name``, if it was put with the same fingerprint."""
        ...

    def put(self, name: str, fingerprint: str, value: object) -> None:
        """Keep a value; failing to do so is no error."""
        ...


@frozen
class Host:
    """The machine as the stages see it: ``run`` is None offline, so that every caller faces it."""

    root: Reader
    run: Runner | None
    cache: Cache


class Provider(Protocol):
    """Discovers instances; a module with this function is one row of ``providers.PROVIDERS``."""

    def __call__(self, host: Host, config: Config, rule_sets: Iterable[RuleSet]) -> list[Instance]:
        """All instances of this kind, broken ones with their ``problem``."""
        ...
