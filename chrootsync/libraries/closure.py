"""Works out which C library a root has, and what modules and libraries come to with all that they need."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import count

from chrootsync.libraries import nsswitch, sockets
from chrootsync.libraries.elf import BadElfError
from chrootsync.libraries.inputs import LIBRARY_LIMIT, Inputs
from chrootsync.libraries.loader import CACHE, Loaded, Loader, load
from chrootsync.model import ARROW, Libc, Library, LibrarySet, ModuleSocket, Unresolved
from chrootsync.model.frozen import replace

# Every daemon has mapped these two before it calls chroot, and the loader never maps a second copy of either.
ALWAYS_MAPPED = re.compile(r"libc\.so\.6(\.1)?|ld-linux.*\.so\.\d|ld64\.so\.\d|ld\.so\.1|linux-vdso\.so\.1")

# Modules that are part of libc.so.6 itself since the release (glibc's NEWS for 2.34).
BUILT_IN = frozenset({"files", "dns"})
BUILT_IN_SINCE = (2, 34)

GLIBC_BANNER = re.compile(rb"GNU C Library [^\0]{0,200}?version (\d+\.\d+(?:\.\d+)?)")
GLIBC_SYMBOLS = re.compile(rb"GLIBC_(2\.\d+)\0")
MUSL_VERSION = re.compile(rb"\0(\d+\.\d+\.\d+)(?:-git[^\0]*)?\0")
MUSL_LOADER = re.compile(r"ld-musl-.*\.so\.1")

# No chroot comes near these; files that are made to keep a check busy do.
MAX_LIBRARIES = 1000
MAX_UNRESOLVED = 100
MAX_LOOKUPS = 20_000
MAX_CHAIN = 40


def libc(inputs: Inputs) -> Libc:
    """The C library of a root, from the bytes of its file. Raises UnreadableError."""
    return _libc(load(inputs))


def _libc(loader: Loader) -> Libc:
    glibc = _glibc(loader)
    if glibc is not None:
        return Libc(name="glibc", version=_glibc_version(_bytes(loader.inputs, glibc.path)))
    interpreter = loader.layout.interpreter
    if not _is_of_musl(interpreter):
        names = [name for name in loader.inputs.names("/lib") if MUSL_LOADER.fullmatch(name)]
        interpreter = f"/lib/{min(names)}" if names else ""
    data = _bytes(loader.inputs, interpreter) if interpreter else b""
    version = MUSL_VERSION.search(data)
    return Libc(name="musl", version=version[1].decode() if version else None) if data else Libc()


def _glibc(loader: Loader) -> Loaded | None:
    """None where the root's programs ask for musl's loader: Debian can have both, Alpine a glibc look-alike."""
    return None if _is_of_musl(loader.layout.interpreter) else _found(loader, "libc.so.6")


def _is_of_musl(interpreter: str) -> bool:
    return MUSL_LOADER.fullmatch(interpreter.rpartition("/")[2]) is not None


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
    loader = load(inputs)
    here = _libc(loader)
    if here.name == "musl":
        return LibrarySet()  # it has no modules
    version = _numbers(here.version) if here.version else None
    built_in = BUILT_IN if version and version >= BUILT_IN_SINCE else frozenset[str]()
    lines = nsswitch.read(inputs, version)
    named = nsswitch.modules(lines, databases)
    wanted = {module: f"nsswitch.conf {', '.join(users)}" for module, users in named.items() if module not in built_in}
    # A module that is not installed needs nothing: the host itself does without and asks the next one.
    needed = _Closure(loader).follow([(_file(module), why) for module, why in wanted.items()], required=False)
    installed = {module: library for module in wanted if (library := _found(loader, _file(module))) is not None}
    talking = {module: path for module, library in installed.items() if (path := _socket(inputs, module, library))}
    working = (built_in | installed.keys()) - talking.keys()
    told = {module: sockets.silent(module, named[module], lines, working) for module in talking}
    return replace(
        needed,
        sockets=tuple(
            ModuleSocket(
                path=path,
                chain=(_file(module), wanted[module]),
                falls_through=told[module].falls_through,
                advice=told[module].advice,
            )
            for module, path in talking.items()
        ),
    )


def _file(module: str) -> str:
    return f"libnss_{module}.so.2"


def _socket(inputs: Inputs, module: str, library: Loaded) -> str | None:
    """The socket that an installed module talks to; only the files of those that may talk to one are read again."""
    return sockets.socket_of(module, _bytes(inputs, library.path)) if module in sockets.TALKERS else None


def libraries(inputs: Inputs, names: Sequence[str]) -> LibrarySet:
    """What libraries need that are given by name or absolute path."""
    loader = load(inputs)
    if _glibc(loader) is None and _libc(loader).name == "musl":
        return LibrarySet()
    return _Closure(loader).follow([(name, "") for name in names], required=True)


class _Closure:
    """Everything that is wanted with all that it needs, breadth first as the loader goes."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._found: dict[str, Library] = {}
        self._unresolved: dict[str, Unresolved] = {}
        self._queue: deque[tuple[str, Loaded | None, tuple[str, ...]]] = deque()
        self._by_cache: Library | None = None

    def follow(self, wanted: Iterable[tuple[str, str]], *, required: bool) -> LibrarySet:
        """What names come to, each with why it is wanted; one that the host lacks is told if it is ``required``."""
        self._queue.extend((name, None, (why,) if why else ()) for name, why in wanted)
        for lookups in count():
            if not self._queue:
                break
            name, by, why = self._queue.popleft()
            chain = (name.rpartition("/")[2] if why else name, *why)
            if lookups >= MAX_LOOKUPS or len(self._found) >= MAX_LIBRARIES or len(self._unresolved) >= MAX_UNRESOLVED:
                self._miss(name, chain, "no more is followed, since no chroot needs that much")
                break
            self._look(name, by, chain, required=required or by is not None)
        if self._by_cache:  # only by the cache does the loader inside the chroot find what is outside its directories
            self._found.setdefault(CACHE, self._by_cache)
        return LibrarySet(libraries=tuple(self._found.values()), unresolved=tuple(self._unresolved.values()))

    def _look(self, name: str, by: Loaded | None, chain: tuple[str, ...], *, required: bool) -> None:
        try:
            library = self._loader.find(name, by)
        except BadElfError as error:
            self._miss(name, chain, str(error))
            return
        if library is None:
            if required:
                self._miss(name, chain, "not in the loader's cache and directories on the host")
        elif library.place not in self._found and self._loader.layout.keeps(name):
            self._take(library, chain)

    def _take(self, library: Loaded, chain: tuple[str, ...]) -> None:
        self._found[library.place] = Library(path=library.place, source=library.path, chain=chain)
        if library.cached and self._by_cache is None:
            self._by_cache = Library(path=CACHE, source=CACHE, chain=("ld.so.cache", *chain))
        if len(chain) > MAX_CHAIN:
            self._miss(library.name, chain, "what it needs is not followed, since no library needs such a chain")
            return
        needed = (need for need in library.elf.needed if not ALWAYS_MAPPED.fullmatch(need))
        self._queue.extend((need, library, chain) for need in needed)

    def _miss(self, name: str, chain: tuple[str, ...], reason: str) -> None:
        self._unresolved.setdefault(name, Unresolved(name=name, because=f"{ARROW.join(chain)}: {reason}"))


def locations(inputs: Inputs, names: Sequence[str]) -> dict[str, str]:
    """The host's paths of libraries and all that they need, what is always mapped included."""
    loader = load(inputs)
    found: dict[str, str] = {}
    queue: deque[tuple[str, Loaded | None]] = deque((name, None) for name in names)
    for _ in range(MAX_LOOKUPS):
        if not queue or len(found) >= MAX_LIBRARIES:
            break
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


def mapped(inputs: Inputs, command: str) -> frozenset[str]:
    """The names under which the loader maps libraries when a program starts; none for what is no such program."""
    program = inputs.resolve(command)  # what $ORIGIN stands for
    return frozenset() if program is None else frozenset(locations(inputs, [program])) - {program}
