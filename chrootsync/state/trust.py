"""Pairs of source and copy that were found in sync, by what tells that neither has changed since.

A pair is known by a checksum over device, inode, size, mtime and ctime of both files. So neither paths nor directories
matter: whatever leads to these two inodes, their contents are those that were compared. Nobody can set a ctime; what
changes a file sets it to the clock's time. Two changes within one tick of the clock could look like one, and a clock
may be stepped: therefore only what has been left alone for a while is noted.

Checksums of a hundred thousand pairs are 1.6 MB and are read in 20 ms; rows with paths would take 200 ms and more.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from hashlib import blake2b

from chrootsync.model import Copy, FileType, Identity, Source, State
from chrootsync.state.private import is_private

SETTLED = 60.0  # seconds that a file must have been left alone; coarse file systems tell times to two
MAGIC = b"chrootsync pairs 1\n"
SIZE = 16
IDENTITIES = struct.Struct("=QQqqqQQqqq")


class Pairs:
    """The pairs of one root that earlier runs found in sync, and those that this one does."""

    def __init__(self, directory: str, root: str, owners: frozenset[int], now: float, devices: frozenset[int]) -> None:
        """Read what ``directory`` knows of ``root``; ``now`` is when this run began, by the clock.

        Only files of ``owners`` are noted, which nobody else may write to, and only those on ``devices``; where these
        are none, on any.
        """
        self._directory = directory
        self._path = os.path.join(directory, f"pairs-{blake2b(os.fsencode(root), digest_size=8).hexdigest()}")
        self._owners = owners
        self._latest = int((now - SETTLED) * 1e9)
        self._devices = devices
        self._pairs = dict.fromkeys(self._read(), False)  # whether this run has seen them; there may be a million
        self._learnt = False
        self._noted: list[bytes] | None = None  # for another process, which asks for it

    def knows(self, source: Source, copy: Copy) -> bool:
        """Whether a source and a copy were found in sync as they are now."""
        digest = _digest(source.state.identity, copy.identity)
        if digest is None or digest not in self._pairs:
            return False
        self._pairs[digest] = True
        if self._noted is not None:
            self._noted.append(digest)
        return True

    def learn(self, source: Source, copy: Copy) -> None:
        """Take note of a source and a copy that are in sync, if only root can change them and nobody did just now."""
        there = copy.state
        digest = _digest(source.state.identity, copy.identity)
        if digest is None or there is None or not self._is_fit(source.state) or not self._is_fit(there):
            return
        if source.readers() == source.state.mode and not there.extended:
            self.believe([digest])
            if self._noted is not None:
                self._noted.append(digest)

    def news(self) -> list[bytes]:
        """What stands for the pairs that were recognized or noted since this was asked last, from the first time on."""
        noted, self._noted = self._noted, []
        return noted or []

    def believe(self, news: Sequence[bytes]) -> None:
        """Take over what another process, which began with the same knowledge, has recognized or noted."""
        for digest in news:
            self._learnt = self._learnt or digest not in self._pairs
            self._pairs[digest] = True

    def save(self, *, whole: bool) -> None:
        """Keep what this run has seen for the next one; unless it was the whole, beside what it has not looked at.

        Failing to do so is no error.
        """
        kept = sorted(digest for digest, is_seen in self._pairs.items() if is_seen or not whole)
        if self._learnt or len(kept) < len(self._pairs):
            with suppress(OSError):
                self._write(kept)

    def _is_fit(self, state: State) -> bool:
        if state.type is not FileType.FILE or state.identity is None:
            return False
        if state.uid not in self._owners or (state.mode or 0) & 0o022:
            return False
        if self._devices and state.identity[0] not in self._devices:
            return False
        return state.identity[4] <= self._latest

    def _read(self) -> Iterator[bytes]:
        """What was kept; nothing where that is not to be had, or somebody else could have written it."""
        if not is_private(self._directory):
            return
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(fd, "rb") as file:
                data = file.read()
        except OSError:
            return
        if data.startswith(MAGIC) and (len(data) - len(MAGIC)) % SIZE == 0:
            yield from (data[start : start + SIZE] for start in range(len(MAGIC), len(data), SIZE))

    def _write(self, kept: Sequence[bytes]) -> None:
        """Replace the file. It is not synced: what a power cut leaves of it is not believed, or is compared again."""
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        if not is_private(self._directory):
            return
        temporary = f"{self._path}.{os.getpid()}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb") as file:
                file.write(MAGIC + b"".join(kept))
            os.replace(temporary, self._path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise


def _digest(source: Identity | None, copy: Identity | None) -> bytes | None:
    if source is None or copy is None:
        return None
    return blake2b(IDENTITIES.pack(*source, *copy), digest_size=SIZE).digest()
