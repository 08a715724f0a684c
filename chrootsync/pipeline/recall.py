"""Looks at drift in the light of what is remembered; checksums are made where memory could tell something by them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing

from chrootsync import accounts, compare
from chrootsync.model import Drift, Entry, FileType, Kind, PathError, Reader
from chrootsync.model.memory import Memories, Memory, Spot


def recalled(root: Reader, memories: Memories, drifts: Sequence[Drift], *, force: bool) -> list[Drift]:
    """The drifts, named as precisely as memory allows."""
    spots = [Spot(drift.entry.instance.chroot, drift.entry.path, drift.entry.source) for drift in drifts]
    return [
        _recalled(root, drift, memory, force=force)
        for drift, memory in zip(drifts, memories.recall(spots), strict=True)
    ]


def _recalled(root: Reader, drift: Drift, memory: Memory, *, force: bool) -> Drift:
    if memory == Memory():
        return drift
    want = have = None
    if memory.hold is not None or len(memory.repaired) >= compare.CONTESTED:
        want = _checksum_wanted(root, drift.entry)
    if memory.hold is not None or drift.kind is Kind.DIFFERS:
        have = _checksum_there(root, drift.entry)
    until = "" if memory.hold is None else time.strftime("%Y-%m-%d", time.localtime(memory.hold.until))
    return compare.recall(drift, memory, want=want, have=have, until=until, force=force)


def _checksum_wanted(root: Reader, entry: Entry) -> str | None:
    """The checksum of what would be copied; None where that is no file, or cannot be read."""
    if entry.want is None or entry.want.type is not FileType.FILE or entry.source is None:
        return None
    return entry.want.sha256 or checksum(root, entry.source, filtered=entry.filtered)


def checksum(root: Reader, path: str, *, filtered: bool, identity: tuple[int, ...] | None = None) -> str | None:
    """The checksum of a source as it is copied; None where it cannot be read, or is not the one of ``identity``."""
    try:
        with closing(root.source(path)) as source:
            if identity is not None and source.state.identity != identity:
                return None
            if filtered:
                accounts.hide_passwords(source)
            return root.sha256(source)
    except PathError:
        return None


def _checksum_there(root: Reader, entry: Entry) -> str | None:
    if entry.have is None or entry.have.type is not FileType.FILE:
        return None
    if entry.have.sha256 is not None:
        return entry.have.sha256
    try:
        with closing(root.chroot(entry.instance.chroot)) as chroot:
            return root.sha256(chroot.look(entry.path))
    except PathError:
        return None
