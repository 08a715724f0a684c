"""What chrootsync once put into a chroot, which is unchanged since, and which no rule needs any more.

In doubt nothing is an orphan: where any rule could not be decided or followed to its end, where the place cannot be
walked, where something that is needed leads there, or where what is there is not exactly what was written.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from chrootsync import compare, distribution, libraries
from chrootsync.model import (
    Chroot,
    Drift,
    Entry,
    FileType,
    Host,
    Instance,
    Kind,
    OnChange,
    PathError,
    Presence,
    Problem,
    Reader,
    Remedy,
    Rule,
    RuleSet,
    State,
)
from chrootsync.model.frozen import replace

if TYPE_CHECKING:
    from chrootsync.model.memory import Memories, Placed

UNCERTAIN = (Kind.BAD_INSTANCE, Kind.UNREADABLE, Kind.UNRESOLVED, Kind.UNSAFE)


class Needs:
    """What the chroots of some instances need, as it is seen entry by entry, and where that may not be all.

    What is only kept fresh where it is present is not needed. An instance without a chrooted service needs nothing: but
    one setting must not empty a chroot that the next one fills again.
    """

    def __init__(self, instances: Iterable[Instance], places: Mapping[str, Sequence[str]]) -> None:
        """Nothing is needed yet; ``places`` are, by chroot, the paths where repairs put something.

        Where they put nothing, nothing has to be remembered of what is needed: there may be a million paths.
        """
        self.places = places
        self._certain = {
            id(one): one for one in instances if one.chrooted and one.problem is None and places.get(one.chroot)
        }
        self._paths: dict[int, set[str]] = {number: set() for number in self._certain}

    def see(self, entry: Entry) -> None:
        """Notice one entry."""
        if entry.rule.presence is Presence.IF_PRESENT:
            return
        number = id(entry.instance)
        if entry.problem is not None and _is_uncertain(entry, entry.problem):
            self._certain.pop(number, None)
        elif number in self._certain:
            self._paths[number].add(entry.path)
            for state in (entry.want, entry.have):
                if state is not None and state.type is FileType.LINK and state.target is not None:
                    self._paths[number].add(_target(entry.path, state.target))

    def certain(self) -> Iterator[tuple[Instance, set[str]]]:
        """The instances of which everything is known that they need, and that."""
        for number, instance in self._certain.items():
            yield instance, self._paths[number]


def _is_uncertain(entry: Entry, problem: Problem) -> bool:
    """Whether a rule may need more than was found: it failed as such, and not for one file that it names."""
    return problem.kind in UNCERTAIN or (problem.kind is Kind.BAD_SOURCE and entry.source is None)


def _target(path: str, target: str) -> str:
    return os.path.normpath(os.path.join(os.path.dirname(path), target))


def orphans(host: Host, rule_sets: Sequence[RuleSet], memory: Memories, needs: Needs) -> list[Drift]:
    """What was put there and is not needed any more; memory is asked only where something may be."""
    found: list[Drift] = []
    rules = {rule.id: rule for rule_set in rule_sets for rule in rule_set.rules}
    undecided: dict[str, bool] = {}  # by rule: it reads the same files of the host for each of a thousand places
    for instance, needed in needs.certain():
        left = set(needs.places[instance.chroot]) - needed
        if left:
            placed = [one for one in memory.placed(instance.chroot) if one.path in left]
            mine = [one for one in placed if one.instance == instance.name]
            for name in {one.rule for one in mine if one.rule in rules} - undecided.keys():
                undecided[name] = _is_undecided(host, rules[name])
            mine = [one for one in mine if not undecided.get(one.rule)]
            found += _of_instance(host.root, rules, memory, instance, needed, mine)
    return found


def _is_undecided(host: Host, rule: Rule) -> bool:
    """Whether a rule may only seem not to need things, because a damaged root does not tell what it is or asks for."""
    conditions = rule.when
    try:
        if rule.nss and not _names_modules(host.root, rule.nss):
            return True
        if any(when.libc is not None for when in conditions) and libraries.libc(host.root, host.cache).name is None:
            return True
        return any(when.distribution for when in conditions) and not distribution.release(host.root.read)
    except PathError:
        return True


def _names_modules(root: Reader, databases: Sequence[str]) -> bool:
    """Whether nsswitch.conf has a line for one of some databases; it may just be written anew. Raises PathError."""
    from chrootsync.libraries import inputs, nsswitch

    return not nsswitch.read(inputs.Inputs(root)).keys().isdisjoint(databases)


def _of_instance(
    root: Reader,
    rules: Mapping[str, Rule],
    memory: Memories,
    instance: Instance,
    needed: set[str],
    placed: Sequence[Placed],
) -> Iterator[Drift]:
    """The orphans of one chroot; what somebody else has changed or removed is chrootsync's no more."""
    changed: list[str] = []
    try:
        with closing(root.chroot(instance.chroot)) as chroot:
            for one in placed:
                try:
                    have = _there(root, chroot, one, needed)
                except PathError:
                    continue  # what is wrong with the place is for those to tell who need something there
                if have is None:
                    changed.append(one.path)
                else:
                    yield _kept_back(root, rules.get(one.rule), _drift(instance, rules, one, have))
    except PathError:
        return
    memory.disown(instance.chroot, changed)


class _NoOrphanError(PathError):
    """Something that is needed leads there, or nobody can tell what it is."""


def _there(root: Reader, chroot: Chroot, placed: Placed, needed: set[str]) -> State | None:
    """What is there, if it is exactly what was put; None where it is something else. Raises PathError."""
    folder = os.path.dirname(placed.path)
    if chroot.canonical(folder) not in (None, folder):
        raise _NoOrphanError(placed.path, "is another place by now")
    copy = chroot.look(placed.path)
    have = copy.state
    if have is None:
        return None
    digest = None
    if have.type is FileType.FILE:
        digest = root.sha256(copy)
        if digest is None:
            raise _NoOrphanError(placed.path, "cannot be read")
    if not compare.is_as_written(placed.state, have, digest):
        return None
    for name, kind in chroot.names(folder):
        path = f"{folder.rstrip('/')}/{name}"
        if kind is FileType.LINK and path in needed:
            link = chroot.look(path).state
            if link is not None and _target(path, link.target or "") == placed.path:
                raise _NoOrphanError(placed.path, f"{path} leads here")
    public = have.type is FileType.FILE and (have.mode or 0) & 0o004
    return replace(have, sha256=digest) if public else have


def _kept_back(root: Reader, rule: Rule | None, orphan: Drift) -> Drift:
    """An orphan, without its remedy where the host's directory that it came from has no file at all.

    That may be a mount that is missing for now.
    """
    above = () if rule is None else rule.directories
    texts = [text for text in above if "$" in text or orphan.entry.path.startswith(f"{text.rstrip('/')}/")]
    if rule is None or not texts:
        return orphan
    folders = [os.path.dirname(orphan.entry.path) if "$" in text else text for text in texts]
    if any(_has_files(root, folder, rule.match) for folder in folders):
        return orphan
    empty = f"the host's {folders[0]} is missing or has nothing that the rule names"
    reason = f"{orphan.reason}; kept, since {empty}: remove it by hand where that is meant"
    return replace(orphan, remedy=Remedy.NONE, reason=reason)


def _has_files(root: Reader, folder: str, match: str | None) -> bool:
    try:
        return any(match is None or re.fullmatch(match, name) for name, _ in root.names(folder))
    except PathError:
        return False


def _drift(instance: Instance, rules: Mapping[str, Rule], placed: Placed, have: State) -> Drift:
    rule = rules.get(placed.rule) or Rule(id=placed.rule, why="it was in force then", origin="")
    put = f"{placed.rule} put it here on {time.strftime('%Y-%m-%d', time.localtime(placed.since))}"
    entry = Entry(
        instance=instance,
        rule=Rule(id=rule.id, why=rule.why, origin=rule.origin, on_change=OnChange.NOTHING),
        path=placed.path,
        source=None,
        because=put,
        have=have,
        surplus=True,
    )
    return compare.orphan(entry, f"{put}, and no rule needs it any more")
