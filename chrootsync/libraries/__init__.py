"""Which NSS modules and shared libraries a chroot needs, for a live host and an image alike: nothing is run.

Results are kept in the cache together with the identity of every file and directory that had a part in them. A host in
sync is told by a dozen stats; no ELF file is read and none of the modules beside :mod:`inputs` is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from chrootsync.libraries.inputs import Inputs, unchanged
from chrootsync.model import Cache, Libc, Library, LibrarySet, ModuleSocket, Reader, Unresolved

FORMAT = "2"
"""Changes whenever the cached values, or the way they are worked out, do."""

Result = TypeVar("Result")


def nss_modules(reader: Reader, databases: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    """The modules that the host's nsswitch.conf names, in its order, each with the databases that name it.

    Where the file or a line is missing, libc's own default counts: nsswitch.conf(5). Raises UnreadableError.
    """
    from chrootsync.libraries import nsswitch

    return nsswitch.modules(nsswitch.read(Inputs(reader)), databases)


def libc(reader: Reader, cache: Cache) -> Libc:
    """The C library of the root and its version, told from its file."""

    def work_out(inputs: Inputs) -> Libc:
        from chrootsync.libraries import closure

        return closure.libc(inputs)

    return _remembered(reader, cache, ("libc",), work_out, _encode_libc, _decode_libc)


def needs_nss(reader: Reader, cache: Cache, databases: Sequence[str]) -> LibrarySet:
    """The modules that nsswitch.conf names for ``databases`` and libc has not built in, with all that they need.

    A module that the host has not installed needs nothing. musl has no modules. Raises UnreadableError where
    nsswitch.conf cannot be read.
    """

    def work_out(inputs: Inputs) -> LibrarySet:
        from chrootsync.libraries import closure

        return closure.modules(inputs, databases)

    return _remembered(reader, cache, ("nss", *databases), work_out, _encode_set, _decode_set)


def needs_libraries(reader: Reader, cache: Cache, names: Sequence[str]) -> LibrarySet:
    """The libraries ``names`` (as the loader knows them, or absolute paths), with all that they need.

    With musl it is empty: its one file is mapped before chroot.
    """

    def work_out(inputs: Inputs) -> LibrarySet:
        from chrootsync.libraries import closure

        return closure.libraries(inputs, names)

    return _remembered(reader, cache, ("libraries", *names), work_out, _encode_set, _decode_set)


def locations(reader: Reader, names: Sequence[str]) -> dict[str, str]:
    """Where the host has the libraries ``names`` and all that they need, the C library included; by name.

    What the loader would not find is left out. Raises UnreadableError.
    """
    from chrootsync.libraries import closure

    return closure.locations(Inputs(reader), names)


def mapped(reader: Reader, cache: Cache, command: str) -> frozenset[str]:
    """The libraries that a program has mapped once it runs, by the names under which others need them.

    That is what the loader maps at the start, the C library and the loader itself included: a copy of one of these in
    a chroot that the program enters later is never opened. What it opens by itself before that, as Postfix its tables'
    and OpenSSL its engines' libraries, is not told. Empty for what is missing, linked statically, or no program.
    Raises UnreadableError.
    """

    def work_out(inputs: Inputs) -> frozenset[str]:
        from chrootsync.libraries import closure

        return closure.mapped(inputs, command)

    return _remembered(reader, cache, ("mapped", command), work_out, sorted, _decode_names)


def _remembered(
    reader: Reader,
    cache: Cache,
    request: tuple[str, ...],
    work_out: Callable[[Inputs], Result],
    encode: Callable[[Result], object],
    decode: Callable[[object], Result],
) -> Result:
    """The cached result of a request while all its inputs are as they were, else a new one."""
    # The name has to do as a file name; the fingerprint tells apart what becomes equal that way.
    name = "".join(char if char.isalnum() or char in "._-" else "_" for char in "-".join(request))[:100]
    fingerprint = "\n".join((FORMAT, *request))
    kept = cache.get(name, fingerprint)
    if isinstance(kept, dict) and unchanged(reader, kept.get("inputs")):
        try:
            return decode(kept.get("result"))
        except (TypeError, ValueError):
            pass  # damaged, so as good as absent
    inputs = Inputs(reader)
    result = work_out(inputs)
    if inputs.complete:
        cache.put(name, fingerprint, {"inputs": inputs.recorded(), "result": encode(result)})
    return result


def _encode_libc(value: Libc) -> object:
    return [value.name, value.version]


def _decode_libc(value: object) -> Libc:
    name, version = _list(value)
    return Libc(name=None if name is None else _text(name), version=None if version is None else _text(version))


def _encode_set(value: LibrarySet) -> object:
    libraries = [[library.path, library.source, *library.chain] for library in value.libraries]
    sockets = [[one.path, one.advice, "y" if one.falls_through else "", *one.chain] for one in value.sockets]
    return [libraries, [[missing.name, missing.because] for missing in value.unresolved], sockets]


def _decode_set(value: object) -> LibrarySet:
    libraries, unresolved, sockets = (tuple(map(_texts, _list(part))) for part in _list(value))
    return LibrarySet(
        libraries=tuple(Library(path=path, source=source, chain=tuple(chain)) for path, source, *chain in libraries),
        unresolved=tuple(Unresolved(name=name, because=why) for name, why in unresolved),
        sockets=tuple(
            ModuleSocket(path=path, advice=advice, falls_through=through == "y", chain=tuple(chain))
            for path, advice, through, *chain in sockets
        ),
    )


def _decode_names(value: object) -> frozenset[str]:
    return frozenset(_texts(value))


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError("expected a list")
    return value


def _texts(value: object) -> list[str]:
    return [_text(item) for item in _list(value)]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("expected a text")
    return value
