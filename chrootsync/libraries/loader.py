"""Finds libraries the way the dynamic loader does: ld.so(8), without anything being run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from posixpath import dirname, normpath

from chrootsync.libraries import elf, layout, ldcache
from chrootsync.libraries.elf import BadElfError, Elf
from chrootsync.libraries.inputs import LIBRARY_LIMIT, Inputs
from chrootsync.model import NotAFileError, UnreadableError
from chrootsync.model.frozen import field, frozen

CACHE = "/etc/ld.so.cache"
CACHE_LIMIT = 16 << 20
TOKEN = re.compile(r"\$(?:\{(ORIGIN|LIB|PLATFORM)\}|(ORIGIN|LIB|PLATFORM)(?![A-Za-z0-9_]))")


@frozen
class Loaded:
    """A library that was found: the host's path, its place inside the chroot, and the library that needs it.

    ``cached`` tells that only ld.so.cache leads the loader to it.
    """

    name: str
    path: str
    place: str
    elf: Elf
    by: Loaded | None = None
    cached: bool = False


@frozen
class Candidate:
    """A path that the loader would try, and what it would be inside the chroot."""

    path: str
    place: str
    cached: bool = False


@frozen
class Loader:
    """The dynamic loader of one root; ``parsed`` keeps what was read, an error as its clause."""

    inputs: Inputs
    layout: layout.Layout
    cache: Mapping[str, list[str]]
    parsed: dict[str, Elf | str | None] = field(default_factory=dict)

    def find(self, name: str, by: Loaded | None = None) -> Loaded | None:
        """The library that ``by`` (None: the C library, for modules) gets when it asks for ``name``; None: none.

        Files for other machines are passed over, as the loader does. Raises BadElfError for a file at which it fails,
        and UnreadableError for one that cannot be seen with these rights.
        """
        machine = by.elf.machine if by else self.layout.machine
        for candidate in self._candidates(name, by):
            found = self._parse(candidate.path)
            if found is None or (machine is not None and found.machine != machine):
                continue
            return Loaded(
                name=name, path=candidate.path, place=candidate.place, elf=found, by=by, cached=candidate.cached
            )
        return None

    def _candidates(self, name: str, by: Loaded | None) -> Iterator[Candidate]:
        if "/" in name:
            yield from self._expanded(name, by)
            return
        for search in _search_paths(by):
            for entry in search.paths.split(":"):
                for directory in self._expanded(entry, search.owner):
                    yield self._candidate(f"{directory.path}/{name}", f"{directory.place}/{name}")
        default = by is None or by.elf.default_directories
        for path in self.cache.get(name, ()):
            if default or dirname(path) not in self.layout.directories:
                yield self._candidate(path, path, cached=True)
        if default:
            for path in self.layout.directories:
                yield self._candidate(f"{path}/{name}", f"{path}/{name}")

    def _candidate(self, path: str, place: str, *, cached: bool = False) -> Candidate:
        """Libraries of the default directories share one place, all others keep their own path."""
        head, _, name = place.rpartition("/")
        if head in self.layout.directories:
            return Candidate(path=path, place=f"{self.layout.target}/{name}")
        return Candidate(path=path, place=place, cached=cached)

    def _expanded(self, text: str, owner: Loaded | None) -> Iterator[Candidate]:
        """A search path entry, or a name with a slash, with its tokens replaced; nothing where it stays relative.

        What is relative would depend on the daemon's working directory. ``..`` is taken out by name alone, since the
        links on the way are the host's and not the chroot's.
        """

        def replace(origin: str) -> str:
            known = {"ORIGIN": origin, "LIB": self.layout.lib, "PLATFORM": self.layout.platform}
            return normpath(TOKEN.sub(lambda match: known[match[1] or match[2]], text))

        path = replace(dirname(owner.path) if owner else "")
        place = replace(dirname(owner.place) if owner else "")
        if path.startswith("/") and place.startswith("/") and "\0" not in path:
            yield Candidate(path="/" + path.lstrip("/"), place="/" + place.lstrip("/"))

    def _parse(self, path: str) -> Elf | None:
        if path not in self.parsed:
            self.parsed[path] = self._read(path)
        found = self.parsed[path]
        if isinstance(found, str):
            raise BadElfError(f"{path} {found}")
        return found

    def _read(self, path: str) -> Elf | str | None:
        head, _, name = path.rpartition("/")
        try:
            if not self.inputs.holds(head or "/", name):
                return None
            data = self.inputs.read(path, limit=LIBRARY_LIMIT)
            if data is None or self._is_foreign(data):
                return None
            return elf.parse(data)
        except NotAFileError as error:
            return error.reason
        except BadElfError as error:
            return str(error)

    def _is_foreign(self, data: bytes) -> bool:
        """Whether a file is made for another machine than the root's: these are not even parsed."""
        return self.layout.machine is not None and elf.machine(data) != self.layout.machine


@frozen
class _SearchPath:
    paths: str
    owner: Loaded


def _search_paths(by: Loaded | None) -> Iterator[_SearchPath]:
    """The RPATHs of the chain that led here, or the RUNPATH of the library itself, which disables them."""
    if by is None:
        return
    if by.elf.runpath is not None:
        yield _SearchPath(paths=by.elf.runpath, owner=by)
        return
    owner: Loaded | None = by
    while owner is not None:
        if owner.elf.runpath is None and owner.elf.rpath:
            yield _SearchPath(paths=owner.elf.rpath, owner=owner)
        owner = owner.by


def load(inputs: Inputs) -> Loader:
    """The loader of a root."""
    try:
        cache = ldcache.parse(inputs.read(CACHE, limit=CACHE_LIMIT) or b"")
    except UnreadableError:
        cache = {}  # the default directories remain, as for the loader
    return Loader(inputs=inputs, layout=layout.find(inputs), cache=cache)
