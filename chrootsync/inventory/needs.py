"""What the chroots need, grouped by what it is copied from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from chrootsync import libraries
from chrootsync.inventory.conditions import Facts, Holding, holding
from chrootsync.inventory.jail import INSTANCE_RULE, Jail
from chrootsync.model import (
    FileType,
    Kind,
    LibrarySet,
    PathError,
    Presence,
    Problem,
    Rule,
    RuleSet,
    Severity,
    State,
    UnsafeError,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where one chroot needs something, by which rule and why; ``path`` is canonical there."""

    jail: Jail
    rule: Rule
    path: str
    because: str
    severity: Severity | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class FileNeed:
    """One host file and all the places that need a copy; ``optional`` where a missing source means no need."""

    source: str
    places: Sequence[Place]
    filtered: bool = False
    optional: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeNeed:
    """Something without a source: a directory, a device, a link or a socket."""

    place: Place
    want: State


@dataclass(frozen=True, kw_only=True, slots=True)
class ProblemNeed:
    """Something that is needed and whose state cannot be established."""

    place: Place
    problem: Problem


Need = FileNeed | NodeNeed | ProblemNeed


@dataclass(frozen=True, kw_only=True, slots=True)
class _Gathered:
    """What one chroot needs: files by source and filter, and the rest as it came.

    ``swallowed`` are sources that lie inside the chroot, or that it lies beneath: copies would be made among originals.
    """

    files: list[tuple[tuple[str, bool], Place]] = field(default_factory=list)
    others: list[NodeNeed | ProblemNeed] = field(default_factory=list)
    present: list[tuple[Jail, Holding]] = field(default_factory=list)
    swallowed: list[str] = field(default_factory=list)


def gather(jails: Iterable[Jail], rule_sets: Sequence[RuleSet], facts: Facts) -> Iterator[Need]:
    """All needs: nodes and problems, then files, each source once, then what is only kept fresh where it is present."""
    sets = {rule_set.name: rule_set for rule_set in rule_sets}
    library_sets: dict[tuple[str, ...], LibrarySet] = {}
    files: dict[tuple[str, bool], list[Place]] = {}
    present: list[tuple[Jail, Holding]] = []
    for jail in jails:
        rules = [rule for name in jail.instance.rule_sets for rule in sets[name].rules]
        gathered = _gather_jail(jail, rules, facts, library_sets)
        if gathered.swallowed:
            yield _refusal(jail, gathered.swallowed[0])
            continue
        yield from gathered.others
        present += gathered.present
        for key, place in gathered.files:
            files.setdefault(key, []).append(place)
    for (source, filtered), places in files.items():
        yield FileNeed(source=source, places=places, filtered=filtered)
    yield from _present(present)


def _gather_jail(
    jail: Jail, rules: Sequence[Rule], facts: Facts, library_sets: dict[tuple[str, ...], LibrarySet]
) -> _Gathered:
    gathered = _Gathered()
    for held in holding(rules, jail.instance, facts):
        if held.rule.presence is Presence.IF_PRESENT:
            gathered.present.append((jail, held))
        elif jail.instance.chrooted:
            _gather_rule(jail, held, facts, library_sets, gathered)
    return gathered


def _refusal(jail: Jail, source: str) -> ProblemNeed:
    where = "lies in it" if source.startswith(jail.chroot.path.rstrip("/") + "/") else "has it inside"
    reason = f"the chroot {jail.chroot.path} is refused: {source}, which is to be copied, {where}"
    place = Place(jail=jail, rule=INSTANCE_RULE, path="/", because="")
    return ProblemNeed(place=place, problem=Problem(kind=Kind.BAD_INSTANCE, reason=reason))


def _gather_rule(
    jail: Jail, held: Holding, facts: Facts, library_sets: dict[tuple[str, ...], LibrarySet], gathered: _Gathered
) -> None:
    rule = held.rule
    for text in rule.files:
        _add_file(jail, held, held.path(text), gathered)
    for text in rule.filtered:
        _add_file(jail, held, held.path(text), gathered, filtered=True)
    for text in rule.directories:
        directory = held.path(text)
        if directory is None:
            continue
        if jail.chroot.path.startswith(directory.rstrip("/") + "/"):
            gathered.swallowed.append(directory)
        else:
            _add_directory(jail, held, directory, facts, gathered)
    try:
        _add_libraries(jail, held, _library_set(rule, facts, library_sets), gathered)
    except PathError as error:
        place = Place(jail=jail, rule=rule, path=error.path, because=held.because)
        problem = Problem(kind=Kind.UNREADABLE, reason=f"what is needed cannot be told: {error} on the host")
        gathered.others.append(ProblemNeed(place=place, problem=problem))
    for path, want in _nodes(rule, held):
        _add_node(jail, held, path, want, gathered)


def _nodes(rule: Rule, held: Holding) -> Iterator[tuple[str, State]]:
    """What a rule wants that has no source."""
    mode = 0o666 if rule.mode is None else rule.mode
    wanted = [
        *((one.path, State(type=one.kind, mode=mode, device=(one.major, one.minor))) for one in rule.devices),
        *((one.path, State(type=FileType.LINK, target=one.target)) for one in rule.links),
        *((text, State(type=FileType.SOCKET)) for text in rule.sockets),
    ]
    for text, want in wanted:
        path = held.path(text)
        if path is not None:
            yield path, want


def _library_set(rule: Rule, facts: Facts, known: dict[tuple[str, ...], LibrarySet]) -> LibrarySet:
    if not rule.nss and not rule.libraries:
        return LibrarySet()
    key = ("nss", *rule.nss, "libraries", *rule.libraries)
    if key not in known:
        root, cache = facts.host.root, facts.host.cache
        modules = libraries.needs_nss(root, cache, rule.nss) if rule.nss else LibrarySet()
        others = libraries.needs_libraries(root, cache, rule.libraries) if rule.libraries else LibrarySet()
        known[key] = LibrarySet(
            libraries=modules.libraries + others.libraries, unresolved=modules.unresolved + others.unresolved
        )
    return known[key]


def _add_libraries(jail: Jail, held: Holding, needed: LibrarySet, gathered: _Gathered) -> None:
    for library in needed.libraries:
        _add_file(jail, held, library.source, gathered, path=library.path, because=library.because)
    for missing in needed.unresolved:
        place = Place(jail=jail, rule=held.rule, path=f"/{missing.name.lstrip('/')}", because=missing.because)
        reason = f"the loader finds no {missing.name} on the host, which is needed by {missing.because}"
        gathered.others.append(ProblemNeed(place=place, problem=Problem(kind=Kind.UNRESOLVED, reason=reason)))


def _add_file(
    jail: Jail,
    held: Holding,
    source: str | None,
    gathered: _Gathered,
    *,
    path: str | None = None,
    because: str | None = None,
    filtered: bool = False,
) -> None:
    if source is None:
        return
    if source.startswith(jail.chroot.path.rstrip("/") + "/"):
        # What a parameter names by its full path inside the chroot is no copy of anything; what a rule names is.
        if held.value is None:
            gathered.swallowed.append(source)
        return
    place = _claim(jail, held, path or source, because or held.because, gathered)
    if place is not None:
        _add_parents(place, gathered)
        gathered.files.append(((source, filtered), place))


def _add_node(jail: Jail, held: Holding, path: str, want: State, gathered: _Gathered) -> None:
    place = _claim(jail, held, path, held.because, gathered)
    if place is not None:
        if want.type is not FileType.SOCKET:
            _add_parents(place, gathered)
        gathered.others.append(NodeNeed(place=place, want=want))


def _claim(jail: Jail, held: Holding, path: str, because: str, gathered: _Gathered) -> Place | None:
    """A place for a path that no rule has named before; where the way there is barred, that is gathered, once."""
    try:
        canonical = jail.canonical(path)
    except PathError as error:
        if jail.claim(error.path):
            place = Place(jail=jail, rule=held.rule, path=error.path, because=f"leads to {path}")
            gathered.others.append(ProblemNeed(place=place, problem=problem_of(error, place)))
        return None
    if not jail.claim(canonical):
        return None
    return Place(jail=jail, rule=held.rule, path=canonical, because=because)


def _add_parents(place: Place, gathered: _Gathered) -> None:
    """The directories above a place, outermost first, each an entry of its own."""
    parts = place.path.split("/")[1:-1]
    for depth in range(1, len(parts) + 1):
        path = "/" + "/".join(parts[:depth])
        if place.jail.claim(path):
            parent = Place(jail=place.jail, rule=place.rule, path=path, because=f"holds {place.path}")
            gathered.others.append(NodeNeed(place=parent, want=State(type=FileType.DIRECTORY)))


def _add_directory(jail: Jail, held: Holding, directory: str, facts: Facts, gathered: _Gathered) -> None:
    """The files of a host directory that a rule names: those that match, or all of them with those below."""
    try:
        names = facts.host.root.names(directory)
    except PathError as error:
        place = Place(jail=jail, rule=held.rule, path=directory, because=held.because)
        problem = Problem(kind=Kind.BAD_SOURCE, reason=f"the directory {error.reason} on the host")
        gathered.others.append(ProblemNeed(place=place, problem=problem))
        return
    pattern = re.compile(held.rule.match) if held.rule.match is not None else None
    for name, kind in names:
        path = f"{directory.rstrip('/')}/{name}"
        if pattern is None and kind is FileType.DIRECTORY:
            _add_directory(jail, held, path, facts, gathered)
        elif (pattern is None or pattern.fullmatch(name)) and _is_file(path, kind, facts):
            _add_file(jail, held, path, gathered)
    if held.rule.mirror:
        _add_orphans(jail, held, directory, {name for name, _ in names}, gathered)


def _is_file(path: str, kind: FileType, facts: Facts) -> bool:
    """Whether a name of a host directory is a file, or a link that leads to one."""
    if kind is not FileType.LINK:
        return kind is FileType.FILE
    try:
        source = facts.host.root.source(path)
    except PathError:
        return False
    source.close()
    return source.state.type is FileType.FILE


def _add_orphans(jail: Jail, held: Holding, directory: str, there: set[str], gathered: _Gathered) -> None:
    """What a mirrored directory of the chroot holds beyond the host's: a certificate that is trusted no more."""
    try:
        names = jail.chroot.names(directory)
    except PathError:
        return  # told already: the directory's own files could not be walked to either
    pattern = re.compile(held.rule.match or ".*", re.DOTALL)
    for name, kind in names:
        if name not in there and kind is not FileType.DIRECTORY and pattern.fullmatch(name):
            place = _claim(jail, held, f"{directory.rstrip('/')}/{name}", held.because, gathered)
            if place is not None:
                reason = "the host has no such file any more; remove it if it is not your own"
                gathered.others.append(ProblemNeed(place=place, problem=Problem(kind=Kind.ORPHAN, reason=reason)))


# --- What is only kept fresh --------------------------------------------------------------------------------------


def _present(wanted: Sequence[tuple[Jail, Holding]]) -> Iterator[Need]:
    """What the chroots hold beyond what is required, where the rules say to keep it fresh; source by source."""
    found: dict[str, list[Place]] = {}
    for jail, held in wanted:
        severity = None if jail.instance.chrooted else Severity.WARNING
        for path in held.rule.files:
            if (whole := held.path(path)) is not None and (place := _present_place(jail, held, whole, severity)):
                found.setdefault(whole, []).append(place)
        for text in held.rule.directories:
            if (directory := held.path(text)) is not None:
                yield from _present_below(jail, held, directory, severity, found)
    for source, places in found.items():
        yield FileNeed(source=source, places=places, optional=True)


def _present_below(
    jail: Jail, held: Holding, directory: str, severity: Severity | None, found: dict[str, list[Place]]
) -> Iterator[Need]:
    """Collect the regular files below a directory of the chroot; a directory that cannot be seen is told."""
    try:
        # By its own spelling: a merged /usr would otherwise be listed twice.
        if jail.chroot.canonical(directory) != directory:
            return
        names = jail.chroot.names(directory)
    except PathError as error:
        if jail.claim(error.path):
            place = Place(jail=jail, rule=held.rule, path=error.path, because=held.because, severity=severity)
            yield ProblemNeed(place=place, problem=problem_of(error, place))
        return
    pattern = re.compile(held.rule.match) if held.rule.match is not None else None
    for name, kind in names:
        path = f"{directory}/{name}"
        if kind is FileType.DIRECTORY and pattern is None:
            yield from _present_below(jail, held, path, severity, found)
        elif kind is FileType.FILE and (pattern is None or pattern.fullmatch(name)):
            present = _present_place(jail, held, path, severity)
            if present is not None:
                found.setdefault(path, []).append(present)


def _present_place(jail: Jail, held: Holding, path: str, severity: Severity | None) -> Place | None:
    """A place for a file that is there already; what cannot be walked to is told where its directory is listed."""
    try:
        canonical = jail.canonical(path)
        if os.path.dirname(canonical) == "" or jail.chroot.canonical(os.path.dirname(canonical)) is None:
            return None
    except PathError:
        return None
    if not jail.claim(canonical):
        return None
    return Place(jail=jail, rule=held.rule, path=canonical, because=held.because, severity=severity)


def problem_of(error: PathError, place: Place) -> Problem:
    """What a path of a chroot that cannot be walked means for an entry; another path is named as from the root."""
    kind = Kind.UNSAFE if isinstance(error, UnsafeError) else Kind.UNREADABLE
    own = error.path == place.path
    whole = f"{place.jail.chroot.path.rstrip('/')}{error.path}"
    return Problem(kind=kind, reason=error.reason if own else f"{whole}: {error.reason}")
