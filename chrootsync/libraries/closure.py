"""Works out which C library a root has, and what modules and libraries come to with all that they need."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence

from chrootsync.libraries import nsswitch
from chrootsync.libraries.elf import BadElfError
from chrootsync.libraries.inputs import LIBRARY_LIMIT, Inputs
from chrootsync.libraries.loader import CACHE, Loaded, Loader, load
from chrootsync.model import Libc, Library, LibrarySet, Unresolved

# Every daemon has mapped these two before it calls chroot, and the loader never maps a second copy of either.
ALWAYS_MAPPED = re.compile(r"libc\.so\.6(\.1)?|ld-linux.*\.so\.\d|ld64\.so\.\d|ld\.so\.1|linux-vdso\.so\.1")

# Modules that are part of libc.so.6 itself since the release (glibc's NEWS for 2.34).
BUILT_IN = frozenset({"files", "dns"})
BUILT_IN_SINCE = (2, 34)

GLIBC_BANNER = re.compile(rb"GNU C Library [^\0]{0,200}?version (\d+\.\d+(?:\.\d+)?)")
GLIBC_SYMBOLS = re.compile(rb"GLIBC_(2\.\d+)\0")
MUSL_VERSION = re.compile(rb"\0(\d+\.\d+\.\d+)(?:-git[^\0]*)?\0")
MUSL_LOADER = re.compile(r"ld-musl-.*\.so\.1")

MAX_LIBRARIES = 1000


def libc(inputs: Inputs) -> Libc:
    """The C library of a root, from the bytes of its file. Raises UnreadableError."""
    return _libc(load(inputs))


def _libc(loader: Loader) -> Libc:
    """musl where the root's programs ask for its loader: Debian can have both, Alpine a glibc look-alike."""
    interpreter = loader.layout.interpreter
    if not interpreter or MUSL_LOADER.fullmatch(interpreter.rpartition("/")[2]) is None:
        glibc = _found(loader, "libc.so.6")
        if glibc is not None:
            return Libc(name="glibc", version=_glibc_version(_bytes(loader.inputs, glibc.path)))
        names = [name for name in loader.inputs.names("/lib") if MUSL_LOADER.fullmatch(name)]
        interpreter = f"/lib/{min(names)}" if names else ""
    data = _bytes(loader.inputs, interpreter) if interpreter else b""
    version = MUSL_VERSION.search(data)
    return Libc(name="musl", version=version[1].decode() if version else None) if data else Libc()


def _found(loader: Loader, name: str) -> Loaded | None:
    try:
        return loader.find(name)
    except BadElfError:
        return None


def _bytes(inputs: Inputs, path: str) -> bytes:
    return inputs.read(path, limit=LIBRARY_LIMIT) or b""


def _glibc_version(data: bytes) -> str | None:
    banner = GLIBC_BANNER.search(data)
    if banner:
        return banner[1].decode()
    versions = [match.decode() for match in GLIBC_SYMBOLS.findall(data)]
    return max(versions, key=_numbers, default=None)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def modules(inputs: Inputs, databases: Sequence[str]) -> LibrarySet:
    """What the modules need that nsswitch.conf names for some databases. Raises UnreadableError."""
    named = nsswitch.modules(inputs, databases)
    loader = load(inputs)
    here = _libc(loader)
    if here.name == "musl":
        return LibrarySet()  # it has no modules
    if here.version and _numbers(here.version) >= BUILT_IN_SINCE:
        named = {module: users for module, users in named.items() if module not in BUILT_IN}
    wanted = [(f"libnss_{module}.so.2", f"nsswitch.conf {', '.join(users)}") for module, users in named.items()]
    # A module that is not installed needs nothing: the host itself does without and asks the next one.
    return _closure(loader, wanted, required=False)


def libraries(inputs: Inputs, names: Sequence[str]) -> LibrarySet:
    """What libraries need that are given by name or absolute path."""
    loader = load(inputs)
    if _libc(loader).name == "musl":
        return LibrarySet()
    return _closure(loader, [(name, "") for name in names], required=True)


def _closure(loader: Loader, wanted: Iterable[tuple[str, str]], *, required: bool) -> LibrarySet:
    """Everything that is wanted with all that it needs, breadth first as the loader goes."""
    found: dict[str, Library] = {}
    unresolved: dict[str, Unresolved] = {}
    queue: deque[tuple[str, Loaded | None, str]] = deque((name, None, why) for name, why in wanted)
    by_cache: Library | None = None
    while queue and len(found) < MAX_LIBRARIES:
        name, by, why = queue.popleft()
        because = f"{name.rpartition('/')[2]} ← {why}" if why else name
        try:
            library = loader.find(name, by)
        except BadElfError as error:
            unresolved.setdefault(name, Unresolved(name=name, because=f"{because}: {error}"))
            continue
        if library is None:
            if by is not None or required:
                reason = "not in the loader's cache and directories on the host"
                unresolved.setdefault(name, Unresolved(name=name, because=f"{because}: {reason}"))
        elif library.place not in found and loader.layout.keeps(name):
            found[library.place] = Library(path=library.place, source=library.path, because=because)
            if library.cached:
                by_cache = by_cache or Library(path=CACHE, source=CACHE, because=f"ld.so.cache ← {because}")
            queue.extend((need, library, because) for need in library.elf.needed if not ALWAYS_MAPPED.fullmatch(need))
    if by_cache:  # only through the cache does the loader inside the chroot find a library outside its directories
        found.setdefault(CACHE, by_cache)
    return LibrarySet(libraries=tuple(found.values()), unresolved=tuple(unresolved.values()))


def providers(inputs: Inputs, names: Sequence[str]) -> dict[str, str]:
    """The host's paths of libraries and all that they need, what is always mapped included."""
    loader = load(inputs)
    found: dict[str, str] = {}
    queue: deque[tuple[str, Loaded | None]] = deque((name, None) for name in names)
    while queue and len(found) < MAX_LIBRARIES:
        name, by = queue.popleft()
        if name in found:
            continue
        try:
            library = loader.find(name, by)
        except BadElfError:
            continue
        if library is not None:
            found[name] = library.path
            queue.extend((need, library) for need in library.elf.needed)
    return found
