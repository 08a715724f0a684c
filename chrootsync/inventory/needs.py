"""What one chroot needs, as it is collected: files with their sources, nodes without one, and problems."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from chrootsync.inventory.conditions import Holding
from chrootsync.inventory.jail import Jail
from chrootsync.model import (
    NO_EVIDENCE,
    Entry,
    Evidence,
    FileType,
    Kind,
    PathError,
    Problem,
    Rule,
    Severity,
    Source,
    State,
    UnsafeError,
)
from chrootsync.model.frozen import field, frozen


@frozen
class Place:
    """Where one chroot needs something, by which rule and why; ``path`` is canonical there."""

    jail: Jail
    rule: Rule
    path: str
    because: str
    severity: Severity | None = None
    evidence: Evidence = NO_EVIDENCE


class Origin(NamedTuple):
    """What copies are made of: a host file, without its password fields if ``filtered``.

    ``optional`` sources are those of copies that are only kept fresh: where there is none, there is no need.
    """

    source: str
    filtered: bool = False
    optional: bool = False


@frozen
class FileNeed:
    """One origin and all the places that need a copy of it."""

    origin: Origin
    places: Sequence[Place]


@frozen
class NodeNeed:
    """Something without a source: a directory, a device, a link or a socket; ``advice`` is for one that is missing."""

    place: Place
    want: State
    advice: str | None = None


@frozen
class ProblemNeed:
    """Something that is needed and whose state cannot be established."""

    place: Place
    problem: Problem


@frozen
class SurplusNeed:
    """Something that is there and should not be: the need is that nothing is."""

    place: Place


@frozen
class Mirror:
    """A directory that may hold nothing but what the host's does: ``there`` are the names that match there."""

    held: Holding
    directory: str
    there: frozenset[str]


Need = FileNeed | NodeNeed | ProblemNeed | SurplusNeed


@frozen
class Basket:
    """What was collected for one chroot so far; ``barred`` are the paths that were told to be no way on.

    ``above`` are directories that are needed with all above them. ``swallowed`` are sources that lie inside the chroot,
    or that it lies beneath: copies would be made among originals.
    """

    jail: Jail
    files: list[tuple[Origin, Place]] = field(default_factory=list)
    others: list[NodeNeed | ProblemNeed | SurplusNeed] = field(default_factory=list)
    mirrors: list[Mirror] = field(default_factory=list)
    swallowed: list[str] = field(default_factory=list)
    barred: set[str] = field(default_factory=set)
    above: set[str] = field(default_factory=set)

    def place(self, held: Holding, path: str, because: str) -> Place:
        """A place in this chroot; for an instance without a chrooted service nothing weighs more than a warning."""
        severity = None if self.jail.instance.chrooted else Severity.WARNING
        return Place(
            jail=self.jail, rule=held.rule, path=path, because=because, severity=severity, evidence=held.evidence
        )

    def claim(self, held: Holding, path: str, because: str) -> Place | None:
        """A place for a path that no rule has named before; where the way there is barred, that is told, once."""
        try:
            canonical = self.jail.canonical(path)
        except PathError as error:
            self.bar(held, error, f"leads to {path}")
            return None
        return self.place(held, canonical, because) if self.jail.claim(canonical) else None

    def claim_node(self, held: Holding, path: str, want: State, because: str) -> Place | None:
        """A place for what has no source. A socket's is as it is named: whose the way to it is does not matter."""
        if want.type is not FileType.SOCKET:
            return self.claim(held, path, because)
        return self.place(held, path, because) if self.jail.claim(path) else None

    def bar(self, held: Holding, error: PathError, because: str) -> None:
        """Tell once that a path of the chroot cannot be walked, even if it was needed, and could be walked, before."""
        if error.path not in self.barred:
            self.barred.add(error.path)
            self.jail.claim(error.path)
            place = self.place(held, error.path, because)
            self.others.append(ProblemNeed(place=place, problem=problem_of(error, place)))

    def holds(self, held: Holding, path: str) -> bool:
        """Whether the chroot holds something at a path; where that cannot be seen, it is told."""
        try:
            return self.jail.chroot.look(path).state is not None
        except PathError as error:
            self.bar(held, error, f"leads to {path}")
            return False

    def tell(self, held: Holding, path: str, kind: Kind, reason: str, because: str | None = None) -> None:
        """Tell what is wrong with a need, as often as it comes up."""
        place = self.place(held, path, held.because if because is None else because)
        self.others.append(ProblemNeed(place=place, problem=Problem(kind=kind, reason=reason)))

    def add_file(self, place: Place, origin: Origin) -> None:
        """A copy at a claimed place, and the directories above it."""
        if not origin.optional:
            self.add_parents(place)
        self.files.append((origin, place))

    def add_node(self, place: Place, want: State, advice: str | None = None) -> None:
        """A node at a claimed place, and the directories above it; a socket brings its own."""
        if want.type is not FileType.SOCKET:
            self.add_parents(place)
        self.others.append(NodeNeed(place=place, want=want, advice=advice))

    def drop_socket(self, path: str) -> bool:
        """Take back a socket that nothing hung on; False where there is none at the path, or something does."""
        for need in self.others:
            if isinstance(need, NodeNeed) and need.place.path == path and need.place.severity is Severity.INFO:
                self.others.remove(need)
                return True
        return False

    def add_parents(self, place: Place) -> None:
        """The directories above a place, outermost first, each an entry of its own."""
        directory = place.path.rpartition("/")[0]
        if directory in self.above:
            return
        self.above.add(directory)
        parts = directory.split("/")[1:]
        for depth in range(1, len(parts) + 1):
            path = "/" + "/".join(parts[:depth])
            if self.jail.claim(path):
                parent = Place(jail=self.jail, rule=place.rule, path=path, because=f"holds {place.path}")
                self.others.append(NodeNeed(place=parent, want=State(type=FileType.DIRECTORY)))


def problem_of(error: PathError, place: Place) -> Problem:
    """What a path of a chroot that cannot be walked means for an entry; another path is named as from the root."""
    kind = Kind.UNSAFE if isinstance(error, UnsafeError) else Kind.UNREADABLE
    own = error.path == place.path
    whole = f"{place.jail.chroot.path.rstrip('/')}{error.path}"
    return Problem(kind=kind, reason=error.reason if own else f"{whole}: {error.reason}")


def entry_at(place: Place, source: str | None, problem: Problem | None = None) -> Entry:
    """The entry of a place, before anything was looked at."""
    return Entry(
        instance=place.jail.instance,
        rule=place.rule,
        path=place.path,
        source=source,
        because=place.because,
        severity=place.severity,
        problem=problem,
        evidence=place.evidence,
    )


def entry_of(
    place: Place, origin: Origin, *, want: State | None, have: State | None, same: bool | None, problem: Problem | None
) -> Entry:
    """The entry of a file, with what was found there."""
    return Entry(
        instance=place.jail.instance,
        rule=place.rule,
        path=place.path,
        source=origin.source,
        because=place.because,
        filtered=origin.filtered,
        want=want,
        have=have,
        same=same,
        problem=problem,
        severity=place.severity,
        evidence=place.evidence,
    )


def inside(source: Source, place: Place) -> Problem | None:
    """What is wrong with a source that lies in the chroot itself."""
    if not place.jail.chroot.holds(source.path):
        return None
    reason = f"the source {source.path} lies inside the chroot itself, so that a copy would overwrite it"
    return Problem(kind=Kind.UNSAFE, reason=f"{reason}; put the original outside")


def occupied(want: FileType) -> Problem:
    """What is wrong with a place where a directory stands that cannot be replaced."""
    reason = f"a directory that is not empty stands where a {want} should; move it away"
    return Problem(kind=Kind.TYPE, reason=reason)
