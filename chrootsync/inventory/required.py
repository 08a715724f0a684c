"""What a rule requires a chroot to hold."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from chrootsync.inventory.conditions import Holding
from chrootsync.inventory.facts import Facts
from chrootsync.inventory.needs import Basket, Mirror, Origin
from chrootsync.model import (
    ARROW,
    FileType,
    Kind,
    LibrarySet,
    ModuleSocket,
    PathError,
    Rule,
    Severity,
    State,
    UnsafeError,
)
from chrootsync.model.frozen import replace


def gather_required(basket: Basket, held: Holding, facts: Facts, needed: LibrarySet) -> None:
    """Put everything that a rule requires into the basket; ``needed`` are its libraries."""
    rule = held.rule
    for path in paths(basket, held, rule.files):
        if not _does_without(held, path, facts) or basket.holds(held, path):
            add_file(basket, held, path, Origin(source=path))
    for path in paths(basket, held, rule.filtered):
        if not _does_without(held, path, facts) or basket.holds(held, path):
            add_file(basket, held, path, Origin(source=path, filtered=True))
    for path in paths(basket, held, rule.directories):
        _add_directory(basket, held, path, facts)
    _add_libraries(basket, held, needed)
    for path, want in nodes(basket, held, rule):
        place = basket.claim_node(held, path, want, held.because)
        if place is not None:
            basket.add_node(place, want, rule.advice)


def _does_without(held: Holding, path: str, facts: Facts) -> bool:
    """Whether the host lacks what a rule says it may lack; a copy that is left of it is stale for ever, and told."""
    try:
        return held.rule.optional and not facts.exists(path)
    except PathError:
        return False  # why it cannot be seen is told where it is looked at


def paths(basket: Basket, held: Holding, texts: tuple[str, ...]) -> Iterator[str]:
    """The paths of a rule with its value put in; one that cannot be used is told."""
    for text in texts:
        try:
            path = held.path(text)
        except UnsafeError as error:
            basket.tell(held, error.path, Kind.BAD_SOURCE, error.reason)
            continue
        if path is not None:
            yield path


def nodes(basket: Basket, held: Holding, rule: Rule) -> Iterator[tuple[str, State]]:
    """What a rule wants that has no source."""
    mode = 0o666 if rule.mode is None else rule.mode
    wanted = [
        *((one.path, State(type=one.kind, mode=mode, device=(one.major, one.minor))) for one in rule.devices),
        *((one.path, State(type=FileType.LINK, target=one.target)) for one in rule.links),
        *((text, State(type=FileType.SOCKET)) for text in rule.sockets),
    ]
    for text, want in wanted:
        for path in paths(basket, held, (text,)):
            yield path, want


def add_file(basket: Basket, held: Holding, path: str, origin: Origin, because: str | None = None) -> None:
    """A copy at ``path``, unless its source lies in the chroot itself."""
    if basket.jail.chroot.holds(origin.source):
        # What a parameter names by its full path inside the chroot is no copy of anything; what a rule names is.
        if held.value is None:
            basket.swallowed.append(origin.source)
        return
    place = basket.claim(held, path, because or held.because)
    if place is not None:
        basket.add_file(place, origin)


def _add_all(basket: Basket, held: Holding, beginning: str, names: Sequence[str]) -> None:
    """As ``add_file`` for each name of a directory: what is the same for all of them is asked once."""
    first = beginning + names[0]
    if basket.jail.chroot.holds(first):
        add_file(basket, held, first, Origin(source=first))
        return
    try:
        inside = basket.jail.canonical(first).removesuffix(names[0])
    except PathError as error:
        basket.bar(held, error, f"leads to {first}")
        return
    for name in names:
        source = beginning + name
        path = source if inside == beginning else inside + name
        if basket.jail.claim(path):
            basket.add_file(basket.place(held, path, held.because), Origin(source))


def _add_libraries(basket: Basket, held: Holding, needed: LibrarySet) -> None:
    for library in needed.libraries:
        because = replace(held, evidence=replace(held.evidence, chain=library.chain))
        add_file(basket, because, library.path, Origin(source=library.source), library.because)
    for socket in needed.sockets:
        _add_socket(basket, held, socket)
    for missing in needed.unresolved:
        reason = f"the loader finds no {missing.name} on the host, which is needed by {missing.because}"
        basket.tell(held, f"/{missing.name.lstrip('/')}", Kind.UNRESOLVED, reason, missing.because)


def _add_socket(basket: Basket, held: Holding, socket: ModuleSocket) -> None:
    """A socket that a module talks to: of two lookups that end there, the one counts that cannot do without it."""
    because = replace(held, evidence=replace(held.evidence, chain=socket.chain))
    place = basket.place(because, socket.path, ARROW.join(socket.chain))
    severity = Severity.INFO if socket.falls_through else place.severity
    if basket.jail.claim(socket.path) or (not socket.falls_through and basket.drop_socket(socket.path)):
        basket.add_node(replace(place, severity=severity), State(type=FileType.SOCKET), socket.advice)


def _add_directory(basket: Basket, held: Holding, directory: str, facts: Facts) -> None:
    """The files of a host directory, unless the chroot lies beneath it; of one that the host may lack, what is left."""
    if basket.jail.chroot.path.startswith(directory.rstrip("/") + "/"):
        basket.swallowed.append(directory)
    elif not _does_without(held, directory, facts):
        _add_files(basket, held, directory, facts)
    elif held.rule.mirror:
        basket.mirrors.append(Mirror(held=held, directory=directory, there=frozenset()))


def _add_files(basket: Basket, held: Holding, directory: str, facts: Facts) -> None:
    """The files of a host directory that a rule names: those that match, or all of them with those below.

    Links are followed, as a daemon outside would; a directory that was listed already is not listed again, so that a
    link to a directory above ends nowhere.
    """
    pattern = re.compile(held.rule.match) if held.rule.match is not None else None
    pending, listed = [directory], set[str]()
    while pending:
        path = pending.pop()
        try:
            listing = facts.listing(path)
        except PathError as error:
            basket.tell(held, path, Kind.BAD_SOURCE, f"the directory {error.reason} on the host")
            continue
        if listing.real in listed:
            continue
        listed.add(listing.real)
        beginning = f"{path.rstrip('/')}/"
        names = [name for name in listing.files if pattern is None or pattern.fullmatch(name)]
        if names:
            _add_all(basket, held, beginning, names)
        if pattern is None:
            pending += [beginning + name for name in listing.directories]
        if held.rule.mirror:
            basket.mirrors.append(Mirror(held=held, directory=path, there=frozenset(names)))
