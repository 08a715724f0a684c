"""Whether older libraries would still fit those that stay, and the C library that every process has mapped."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from chrootsync import libraries
from chrootsync.libraries import elf, symbols
from chrootsync.libraries.closure import ALWAYS_MAPPED
from chrootsync.libraries.loader import CACHE
from chrootsync.libraries.symbols import Binary
from chrootsync.model import Entry, PathError, Reader

LIMIT = 256 << 20
HEAD = 18  # bytes that tell an ELF file's type


def is_library(path: str) -> bool:
    """Whether a file of this machine is an ELF file that a loader would take."""
    try:
        with open(path, "rb") as file:
            return symbols.is_elf(file.read(HEAD))
    except OSError:
        return False


def unfit(root: Reader, entries: Sequence[Entry], restored: Mapping[str, str]) -> list[str]:
    """Why ``restored`` (paths in the chroot, each with the file of its old contents) do not fit; a clause each.

    ``entries`` are those of the chroot, whose libraries stay. The processes in it have mapped the host's C library
    before they call chroot(2), so that its symbols are the ones that count. What stays is as good as the host's: other
    drift is for a repair.
    """
    returning = [Binary(name=os.path.basename(path), contents=_reading(kept)) for path, kept in restored.items()]
    sources = {entry.path: entry.source for entry in entries if entry.source is not None and _names_libraries(entry)}
    staying = [_host_binary(root, path, source) for path, source in sources.items() if path not in restored]
    replaced = [_host_binary(root, path, source) for path, source in sources.items() if path in restored]
    host = _host_libraries(root, [*returning, *staying])
    return symbols.unfit(
        returning,
        {**host, **_by_name([*returning, *staying])},
        staying=staying,
        before={**host, **_by_name([*replaced, *staying])},
    )


def _names_libraries(entry: Entry) -> bool:
    return bool(entry.rule.nss or entry.rule.libraries) and entry.source != CACHE


def _host_binary(root: Reader, path: str, source: str) -> Binary:
    return Binary(name=os.path.basename(path), contents=_reading_host(root, source))


def _host_libraries(root: Reader, binaries: Sequence[Binary]) -> dict[str, Sequence[Binary]]:
    """The host's own libraries of all names that some files need."""
    needed = {name for binary in binaries for name in _needed(binary)}
    found = libraries.locations(root, sorted(needed))
    return {name: [Binary(name=name, contents=_reading_host(root, path))] for name, path in found.items()}


def _needed(binary: Binary) -> tuple[str, ...]:
    try:
        return elf.parse(binary.contents if isinstance(binary.contents, bytes) else binary.contents()).needed
    except elf.BadElfError:
        return ()


def _by_name(binaries: Sequence[Binary]) -> dict[str, Sequence[Binary]]:
    """Files by the name that others need them by; the C library of a chroot is never the one that is mapped."""
    found: dict[str, list[Binary]] = {}
    for binary in binaries:
        if ALWAYS_MAPPED.fullmatch(binary.name) is None:
            found.setdefault(binary.name, []).append(binary)
    return dict(found)


def _reading(path: str) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            with open(path, "rb") as file:
                return file.read(LIMIT)
        except OSError:
            return b""

    return read


def _reading_host(root: Reader, path: str) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            return root.read(path, limit=LIMIT)
        except PathError:
            return b""

    return read
