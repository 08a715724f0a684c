"""Which rules hold for an instance, and what their paths then are."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from chrootsync import libraries
from chrootsync.model import (
    AbsentError,
    Daemon,
    FileType,
    Host,
    Instance,
    Libc,
    ParameterCondition,
    PathError,
    Rule,
    UnreadableError,
    UnsafeError,
    When,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Holding:
    """A rule that holds for an instance: ``because`` says why, ``value`` is what ``$1`` stands for in its paths.

    ``gone`` is true where it would hold if the host still had the rule's own file: a copy of that is stale for ever.
    """

    rule: Rule
    because: str
    value: str | None = None
    gone: bool = False

    def path(self, text: str) -> str | None:
        """A path of the rule with its value put in; None where that is relative: inside the queue directory already.

        Raises UnsafeError for one with ``..``: on the host and in the chroot it may lead to different places.
        """
        path = text if self.value is None else text.replace("$1", self.value)
        parts = path.split("/")
        if not path.startswith("/"):
            return None
        if ".." in parts or "\0" in path:
            raise UnsafeError(path, "cannot be followed into the chroot; write it without ..")
        return "/" + "/".join(part for part in parts if part not in ("", "."))


@dataclass(frozen=True, kw_only=True, slots=True)
class Undecided:
    """A rule of which nobody can tell with these rights whether it holds."""

    rule: Rule
    error: UnreadableError


class Settings(NamedTuple):
    """All parameters that a daemon sees, and their values as one text of lines, to tell at once what matches none."""

    parameters: Mapping[str, str]
    values: Mapping[str, str]
    text: str


class Listing(NamedTuple):
    """A host directory: its path without links, and its names with what they are, links followed."""

    real: str
    names: list[tuple[str, FileType | None]]


class Facts:
    """What conditions ask of the host and of daemons, each looked up at most once and only when asked."""

    def __init__(self, host: Host) -> None:
        """Look things up on ``host``."""
        self.host = host
        self._settings: dict[int, Settings] = {}
        self._listings: dict[str, Listing] = {}

    def settings(self, parameters: Mapping[str, str]) -> Settings:
        """A daemon's parameters, expanded once; most daemons of an instance share theirs."""
        known = self._settings.get(id(parameters))
        if known is None:
            values = dict(parameters.items())
            # The parameters are kept along, so that their id cannot become another's.
            known = Settings(parameters, values, "\n".join(values.values()))
            self._settings[id(parameters)] = known
        return known

    def listing(self, directory: str) -> Listing:
        """What a host directory holds, looked at once however many chroots need it. Raises PathError."""
        known = self._listings.get(directory)
        if known is None:
            root = self.host.root
            names = [
                (name, self._followed(f"{directory.rstrip('/')}/{name}", kind)) for name, kind in root.names(directory)
            ]
            known = Listing(root.resolve(directory), names)
            self._listings[directory] = known
        return known

    def _followed(self, path: str, kind: FileType) -> FileType | None:
        """What a name is, or its link leads to; None for a link that leads nowhere.

        What cannot be seen counts as a file: then it is told that it cannot be.
        """
        if kind is not FileType.LINK:
            return kind
        try:
            source = self.host.root.source(path)
        except AbsentError:
            return None
        except PathError:
            return FileType.FILE
        source.close()
        return source.state.type

    @cached_property
    def distributions(self) -> frozenset[str]:
        """ID and ID_LIKE of os-release(5). Raises UnreadableError."""
        for path in ("/etc/os-release", "/usr/lib/os-release"):
            try:
                text = self.host.root.read(path).decode("utf-8", "replace")
            except AbsentError:
                continue
            values = [line.partition("=")[2] for line in text.splitlines() if re.match(r"ID(_LIKE)?=", line)]
            return frozenset(" ".join(value.strip("\"'") for value in values).split())
        return frozenset()

    @cached_property
    def libc(self) -> Libc:
        """The C library of the root. Raises UnreadableError."""
        return libraries.libc(self.host.root, self.host.cache)

    def exists(self, path: str) -> bool:
        """Whether something is at a host path, links followed. Raises UnreadableError."""
        try:
            self.host.root.resolve(path)
        except AbsentError:
            return False
        return True


def holding(rules: Iterable[Rule], instance: Instance, facts: Facts) -> Iterator[Holding | Undecided]:
    """The rules that hold for an instance, one for each value that a parameter condition catches."""
    for rule in rules:
        try:
            yield from _holdings(rule, instance, facts)
        except UnreadableError as error:
            yield Undecided(rule=rule, error=error)


def _holdings(rule: Rule, instance: Instance, facts: Facts) -> Iterator[Holding]:
    when = rule.when
    daemons = _chrooted(instance, when)
    if when.chrooted and not daemons:
        return
    if not _host_fits(when, instance, facts):
        return
    gone = when.exists is not None and not facts.exists(when.exists)
    if gone and when.exists not in rule.files:
        return
    if when.parameter is None:
        names = ", ".join(sorted({daemon.program for daemon in daemons}))
        yield Holding(rule=rule, because=f"{names} run chrooted" if when.chrooted else "always", gone=gone)
    else:
        yield from (replace(held, gone=gone) for held in _catches(rule, when.parameter, daemons, facts))


def _chrooted(instance: Instance, when: When) -> list[Daemon]:
    return [one for one in instance.daemons if one.chrooted and (not when.chrooted or one.program in when.chrooted)]


def _host_fits(when: When, instance: Instance, facts: Facts) -> bool:
    """The conditions on the host; those that cost least come first."""
    if when.distribution and not facts.distributions.intersection(when.distribution):
        return False
    if when.libc is not None and not _libc_fits(when.libc, facts.libc):
        return False
    return when.version is None or (instance.version is not None and fits(instance.version, when.version))


def _libc_fits(condition: str, libc: Libc) -> bool:
    match = re.fullmatch(r"\s*([a-z]+)\s*(.*)", condition)
    if match is None or match[1] != libc.name:
        return False
    return not match[2] or (libc.version is not None and fits(libc.version, match[2]))


def fits(version: str, specifier: str) -> bool:
    """Whether a version is within a specifier; of ``3.12-20260101`` the part before the dash counts."""
    from packaging.specifiers import SpecifierSet
    from packaging.version import InvalidVersion, Version

    try:
        return SpecifierSet(specifier).contains(Version(version.partition("-")[0]), prereleases=True)
    except InvalidVersion:
        return False


def _catches(rule: Rule, condition: ParameterCondition, daemons: Sequence[Daemon], facts: Facts) -> Iterator[Holding]:
    pattern = re.compile(condition.matches)
    seen: set[str | None] = set()
    # Most daemons have no settings of their own and share the instance's.
    distinct = {id(daemon.parameters): daemon for daemon in reversed(daemons)}
    for daemon in reversed(distinct.values()):
        for name, text in _values(condition, daemon.parameters, facts):
            for match in pattern.finditer(text):
                value = match[1] if pattern.groups else None
                if value not in seen:
                    seen.add(value)
                    yield Holding(rule=rule, because=f"{name} = {_short(text)} ({daemon.name})", value=value)


def _values(condition: ParameterCondition, parameters: Mapping[str, str], facts: Facts) -> Iterator[tuple[str, str]]:
    """The parameters that a condition names, with their values; without those that cannot match."""
    for name in condition.names:
        if not any(character in name for character in "*?["):
            value = parameters.get(name)
            if value is not None:
                yield name, value
            continue
        settings = facts.settings(parameters)
        # Among the lines of one text ^ and $ match in more places than in the values themselves, never in fewer.
        if re.search(condition.matches, settings.text, re.MULTILINE):
            for found in fnmatch.filter(settings.values, name):
                yield found, settings.values[found]


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
