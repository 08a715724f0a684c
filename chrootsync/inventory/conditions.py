"""Which rules hold for an instance, and what their paths then are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from chrootsync.inventory.facts import Facts
from chrootsync.inventory.findings import Finding, all_of, in_files, in_parameters, in_tables
from chrootsync.model import NO_EVIDENCE, Daemon, Evidence, Instance, PathError, Rule, UnsafeError, When
from chrootsync.model.frozen import field, frozen, record, replace

_ALWAYS = (When(),)


@frozen
class Holding:
    """A rule that holds for an instance.

    ``because`` says why in one clause and ``evidence`` in its parts; ``value`` is what ``$1`` stands for in its paths.
    """

    rule: Rule
    because: str
    value: str | None = None
    evidence: Evidence = NO_EVIDENCE

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


@frozen
class Failing:
    """A rule that does not hold; ``reason`` is a clause for each of its alternatives."""

    rule: Rule
    reason: str


@frozen
class Undecided:
    """A rule of which nobody can tell with these rights whether it holds, or whether it asks for more."""

    rule: Rule
    error: PathError


def holding(rules: Iterable[Rule], instance: Instance, facts: Facts) -> Iterator[Holding | Failing | Undecided]:
    """Each rule as it holds for an instance, once for each value that its conditions catch, or why it does not."""
    daemons = [daemon for daemon in instance.daemons if daemon.chrooted]
    for rule in rules:
        verdict = _Verdict(rule=rule)
        for when in rule.when or _ALWAYS:
            verdict.consider(when, daemons, instance.version, facts)
            if verdict.is_settled:
                break
        yield from verdict.told()


@record
class _Verdict:
    """What the alternatives of a rule's conditions come to, as far as they were considered."""

    rule: Rule
    held: dict[str | None, Holding] = field(default_factory=dict)
    errors: dict[str, PathError] = field(default_factory=dict)
    reasons: dict[str, None] = field(default_factory=dict)

    def consider(self, when: When, daemons: Sequence[Daemon], version: str | None, facts: Facts) -> None:
        """Take in one alternative: all of its conditions have to be met by the settings of one chrooted daemon."""
        if when.chrooted:
            daemons = [one for one in daemons if one.program in when.chrooted]
        settings = bool(when.parameters or when.table)
        if not daemons and (when.chrooted or settings):
            self.reasons[f"no {' or '.join(when.chrooted) or 'service'} runs chrooted"] = None
            return
        for group in _sharing(daemons) if settings else [daemons]:
            named = group if settings or when.chrooted else []
            self._add(when, named, all_of(_findings(when, group, version, facts)))

    @property
    def is_settled(self) -> bool:
        """Whether the rule holds as it stands, so that other alternatives could change nothing."""
        return None in self.held

    def _add(self, when: When, daemons: Sequence[Daemon], finding: Finding) -> None:
        if finding.reason is not None:
            self.reasons[finding.reason] = None
            return
        for error in finding.errors:
            self.errors.setdefault(error.path, error)
        names = tuple(daemon.name for daemon in daemons)
        for catch in finding.caught:
            value = catch.value if catch.value is not None and _takes_value(self.rule) else None
            because = f"{catch.clause} ({names[0]})" if names else catch.clause
            self._hold(value, because, Evidence(daemons=names, setting=catch.setting, value=catch.text))
        if not finding.caught and not finding.errors:
            programs = ", ".join(sorted({daemon.program for daemon in daemons}))
            self._hold(None, f"{programs} run chrooted" if when.chrooted else "always", Evidence(daemons=names))

    def _hold(self, value: str | None, because: str, evidence: Evidence) -> None:
        """Take in why the rule holds; where it does already, only that more daemons ask for the same."""
        known = self.held.get(value)
        if known is None:
            self.held[value] = Holding(rule=self.rule, because=because, value=value, evidence=evidence)
        elif not set(evidence.daemons) <= set(known.evidence.daemons):
            everybody = tuple(dict.fromkeys((*known.evidence.daemons, *evidence.daemons)))
            self.held[value] = replace(known, evidence=replace(known.evidence, daemons=everybody))

    def told(self) -> Iterator[Holding | Failing | Undecided]:
        """What is known now. Of a rule that holds as it stands, what could not be seen does not matter."""
        yield from self.held.values()
        if self.is_settled:
            return
        yield from (Undecided(rule=self.rule, error=error) for error in self.errors.values())
        if not self.held and not self.errors:
            yield Failing(rule=self.rule, reason="; ".join(self.reasons))


def _takes_value(rule: Rule) -> bool:
    """Whether ``$1`` stands in a rule's paths; without it the rule holds once, whatever is caught."""
    paths = (*rule.files, *rule.directories, *rule.sockets, *rule.filtered, *(link.path for link in rule.links))
    return any("$1" in path for path in paths)


def _sharing(daemons: Iterable[Daemon]) -> Iterable[Sequence[Daemon]]:
    """Daemons by their settings: most have none of their own and share the instance's."""
    groups: dict[tuple[int, int], list[Daemon]] = {}
    for daemon in daemons:
        groups.setdefault((id(daemon.parameters), id(daemon.tables)), []).append(daemon)
    return groups.values()


def _findings(when: When, daemons: Sequence[Daemon], version: str | None, facts: Facts) -> Iterator[Finding]:
    """What becomes of each condition for daemons that share their settings; those that cost least come first."""
    for condition in when.parameters:
        yield in_parameters(condition, daemons[0].parameters, facts)
    yield from _on_host(when, version, facts)
    if when.table is not None:
        yield in_tables(when.table, daemons[0], facts)
    if when.file is not None:
        yield in_files(when.file, facts)


def _on_host(when: When, version: str | None, facts: Facts) -> Iterator[Finding]:
    """What becomes of the conditions on the host and on versions, as far as there are any."""
    if when.distribution:
        yield _asked(lambda: _other_distribution(when.distribution, facts))
    if when.version is not None and not fits(version, when.version):
        yield Finding(reason=f"the version is {version}, not {when.version}")
    if (path := when.exists) is not None:
        yield _asked(lambda: None if facts.exists(path) else f"{path} does not exist on the host")
    if (libc := when.libc) is not None:
        yield _asked(lambda: _other_libc(libc, facts))


def _asked(ask: Callable[[], str | None]) -> Finding:
    """What becomes of a condition of which ``ask`` gives the reason why it does not hold."""
    try:
        return Finding(reason=ask())
    except PathError as error:
        return Finding(errors=(error,))


def _other_distribution(wanted: Sequence[str], facts: Facts) -> str | None:
    if facts.distributions.intersection(wanted):
        return None
    here = ", ".join(sorted(facts.distributions)) or "unknown"
    return f"the distribution is {here}, not {' or '.join(wanted)}"


def _other_libc(wanted: str, facts: Facts) -> str | None:
    libc = facts.libc
    specifier = wanted.removeprefix("glibc").removeprefix("musl")
    if wanted.removesuffix(specifier) == libc.name and (not specifier or fits(libc.version, specifier)):
        return None
    here = " ".join(part for part in (libc.name or "unknown", libc.version) if part)
    return f"the C library is {here}, not {wanted}"


def fits(version: str | None, specifier: str) -> bool:
    """Whether a version is within a specifier; of ``3.12-20260101`` the part before the dash counts.

    One that is not known, or is none, is within all of them: rather a copy too many than one too few.
    """
    if version is None:
        return True
    from packaging.specifiers import SpecifierSet  # 18 ms that only those pay who ask for versions
    from packaging.version import InvalidVersion, Version

    try:
        return SpecifierSet(specifier).contains(Version(version.partition("-")[0]), prereleases=True)
    except InvalidVersion:
        return True
