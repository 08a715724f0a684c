"""Reads and compares the contents of files that are open already."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from chrootsync.model import Kind, PathError, Problem, UnsafeError, clause
from chrootsync.root.pool import ExhaustedError

# A chunk is so large that glibc gives its memory back when it is freed, and each would be paged in anew: a fifth of the
# time of a comparison. Not so once something larger was freed (mallopt(3), M_MMAP_THRESHOLD).
_larger = bytes(1 << 20)
del _larger

CHUNK = 128 << 10  # larger chunks of both sides fall out of the processor's second-level cache: twice as slow
TOGETHER = 256  # copies open at a time, well below the usual limit of 1024 descriptors
ATTEMPTS = 3  # readings of a source that changes meanwhile

Opener = Callable[[], int]
"""Opens a copy for reading and gives the descriptor. Raises PathError."""


def identity(status: os.stat_result) -> tuple[int, int, int, int, int]:
    """What tells that a file is still the same: device, inode, size, mtime and ctime."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def chunks(fd: int, limit: int | None = None) -> Iterator[bytes]:
    """The contents from the beginning, at most ``limit`` bytes."""
    position = 0
    while limit is None or position < limit:
        wanted = CHUNK if limit is None else min(CHUNK, limit - position)
        chunk = os.pread(fd, wanted, position)
        if not chunk:
            return
        position += len(chunk)
        yield chunk


def is_at_hand(fd: int) -> bool:
    """Whether the beginning of a file is in memory, or its file system does not tell."""
    try:
        os.preadv(fd, [bytearray(1)], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def will_read(fd: int) -> None:
    """Have the beginning of a file brought into memory; after that the kernel reads ahead by itself."""
    with suppress(OSError):
        os.posix_fadvise(fd, 0, 2 * CHUNK, os.POSIX_FADV_WILLNEED)


def read_fully(fd: int, size: int) -> bytes:
    """Up to ``size`` bytes from where the descriptor stands; fewer only at the end of the file."""
    data = os.read(fd, size)
    while len(data) < size:
        more = os.read(fd, size - len(data))
        if not more:
            break
        data += more
    return data


def sha256(fd: int, limit: int | None = None) -> str | None:
    """The SHA-256 checksum (hex) of a file; None where it turns out to have more than ``limit`` bytes."""
    import hashlib

    digest, size = hashlib.sha256(), 0
    for chunk in chunks(fd, None if limit is None else limit + 1):
        digest.update(chunk)
        size += len(chunk)
    return None if limit is not None and size > limit else digest.hexdigest()


def sha256_of(data: bytes) -> str:
    """The SHA-256 checksum (hex) of contents at hand."""
    import hashlib

    return hashlib.sha256(data).hexdigest()


def same(source: int | bytes, openers: Sequence[Opener]) -> Iterator[bool | Problem]:
    """Whether each copy holds the source's bytes, in order.

    The source (a descriptor, or contents at hand) is read once for each group of copies, which are as many as can be
    open beside each other, at most TOGETHER: a chunk is compared with every copy of the group while it is in the
    processor's cache.
    """
    start = 0
    while start < len(openers):
        results = _same_group(source, openers[start : start + TOGETHER])
        yield from results
        start += len(results)


def _same_group(source: int | bytes, openers: Sequence[Opener]) -> list[bool | Problem]:
    """The results of a group, which ends early where no more copies could be opened beside the others.

    What fits into a chunk, as most files do, is held while one copy after the other is opened and compared with it.
    """
    if isinstance(source, bytes):
        return [_is_same(opener, source) for opener in openers]
    for _ in range(ATTEMPTS):
        try:
            before = identity(os.fstat(source))
            size = before[2]
            data = os.pread(source, size + 1, 0) if size < CHUNK else b""
            if size < CHUNK and len(data) == size:
                results = [_is_same(opener, data) for opener in openers]
            else:
                results = _compare(_of_size(source, size), openers)
            after = identity(os.fstat(source))
        except OSError as error:
            reason = f"reading the source failed: {clause(error)}"
            return [Problem(kind=Kind.BAD_SOURCE, reason=reason)] * len(openers)
        if before == after:
            return results
    return [Problem(kind=Kind.BAD_SOURCE, reason="the source keeps changing while it is read")] * len(openers)


def _is_same(opener: Opener, expected: bytes) -> bool | Problem:
    """Whether a copy holds these bytes and no more; its errors are its own."""
    try:
        fd = _open(opener)
    except ExhaustedError as error:
        return Problem(kind=Kind.UNREADABLE, reason=error.reason)
    if isinstance(fd, Problem):
        return fd
    try:
        return _verdict(_read_copy(fd, len(expected), beyond=True), expected)
    finally:
        os.close(fd)


def _of_size(fd: int, size: int) -> Iterator[tuple[bytes, bool]]:
    """The contents of a file of that size, and whether a chunk is the last; of one that has grown, one byte more.

    A read that brings all of it and could have brought more has seen its end, so that nothing is read to see it again.
    """
    position = 0
    while True:
        wanted = min(CHUNK, size + 1 - position)
        chunk = os.pread(fd, wanted, position)
        position += len(chunk)
        if chunk or not position:
            yield chunk, position >= size
        if not chunk or position > size or (position == size and len(chunk) < wanted):
            return


def _compare(source: Iterator[tuple[bytes, bool]], openers: Sequence[Opener]) -> list[bool | Problem]:
    results: list[bool | Problem] = []
    alive: dict[int, int] = {}
    try:
        for index, opener in enumerate(openers):
            try:
                opened = _open(opener)
            except ExhaustedError as error:
                if alive:
                    break
                opened = Problem(kind=Kind.UNREADABLE, reason=error.reason)
            if isinstance(opened, Problem):
                results.append(opened)
            else:
                results.append(True)
                alive[index] = opened
        for chunk, is_last in source:
            for index, fd in tuple(alive.items()):
                # The sizes were equal when they were looked at; a copy that has grown since is not the same.
                data = _read_copy(fd, len(chunk), beyond=is_last)
                if data != chunk:
                    results[index] = _verdict(data, chunk)
                    os.close(alive.pop(index))
            if not alive:
                break
        return results
    finally:
        for fd in alive.values():
            os.close(fd)


def _verdict(data: bytes | None, expected: bytes) -> bool | Problem:
    if data is None:
        return Problem(kind=Kind.UNREADABLE, reason="reading the copy failed")
    return data == expected


def _read_copy(fd: int, size: int, *, beyond: int) -> bytes | None:
    """Bytes of a copy, None where it cannot be read: its errors must not be taken for the source's.

    Asked for are also the bytes ``beyond`` the last chunk: where they do not come, it was read to its end.
    """
    try:
        data = os.read(fd, size + beyond)
        return data if len(data) >= size else data + read_fully(fd, size + beyond - len(data))
    except OSError:
        return None


def _open(opener: Opener) -> int | Problem:
    """Open a copy. Raises ExhaustedError where that has to wait for descriptors."""
    try:
        return opener()
    except ExhaustedError:
        raise
    except UnsafeError as error:
        return Problem(kind=Kind.UNSAFE, reason=error.reason)
    except PathError as error:
        return Problem(kind=Kind.UNREADABLE, reason=error.reason)
