"""The rules that name a path, or could name it, and do not ask for it; and why they do not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from posixpath import basename

from chrootsync import libraries
from chrootsync.inventory import Failing, Holding, Undecided
from chrootsync.inventory.naming import Naming, Wanted, naming, with_value
from chrootsync.model import FileType, Host, PathError, Presence, Rule, State
from chrootsync.model.explanation import Aside

MODULE = re.compile(r"libnss_(.+)\.so(\.\d+)?")
SHOWN = 3  # more values of one setting than these tell nothing


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A path on both sides: what is ``there`` in the chroot, and what the ``host`` has as its ``source``.

    ``barred`` tells why its place cannot be walked to; empty where it can.
    """

    host: Host
    there: State | None
    source: State | None
    barred: str = ""


def asides(
    place: Place, wanted: Wanted, verdicts: Sequence[Holding | Failing | Undecided], *, chrooted: bool
) -> Iterator[Aside]:
    """The rules of an instance that have to do with what is looked for, though no entry comes of them.

    Where nothing runs chrooted, only those count that keep fresh what is there.
    """
    by_rule: dict[str, list[Holding | Failing | Undecided]] = {}
    for verdict in verdicts:
        by_rule.setdefault(verdict.rule.id, []).append(verdict)
    for found in by_rule.values():
        rule = found[0].rule
        if not chrooted and rule.presence is Presence.REQUIRED:
            continue
        kind = naming(rule, wanted)
        if place.barred and any(isinstance(one, Holding) and _asks(one, wanted) for one in found):
            yield Aside(rule=rule, reason=f"it holds, but {place.barred}", holds=True)
        elif kind is not None:
            yield from _told(place, rule, kind, found)
        elif rule.nss and ".so" in wanted.name:
            yield from _about_modules(place, wanted, rule, found)


def _asks(held: Holding, wanted: Wanted) -> bool:
    """Whether a rule, as it holds, names what is looked for; modules are not looked into."""
    rule = held.rule if held.value is None else with_value(held.rule, held.value)
    return naming(rule, wanted) is Naming.EXACTLY


def _told(place: Place, rule: Rule, kind: Naming, found: Sequence[Holding | Failing | Undecided]) -> Iterator[Aside]:
    """Why a rule that names a path does not ask for it."""
    # Whatever cannot be seen of its settings may name this path.
    loose = kind is Naming.LOOSELY and not any(isinstance(one, Undecided) for one in found)
    reason = _not_holding(found)
    if reason is not None:
        yield Aside(rule=rule, reason=reason, loose=loose)
        return
    held = [one for one in found if isinstance(one, Holding)]
    values = [one.because for one in held if one.value is not None]
    if kind is Naming.MISFIT:
        reason = f"it takes only names that match {rule.match}"
    elif values:
        more = f" and {len(values) - SHOWN} more" if len(values) > SHOWN else ""
        reason = f"it asks for what another setting names: {'; '.join(values[:SHOWN])}{more}"
    elif rule.presence is Presence.IF_PRESENT:
        reason = _freshness(place)
    elif place.source is None and rule.optional:
        reason = "the host has no such file, and need not have it"
    else:
        reason = "it holds, and asks for nothing here"
    yield Aside(rule=rule, reason=reason, loose=loose)


def _not_holding(found: Sequence[Holding | Failing | Undecided]) -> str | None:
    """Why a rule does not hold, or that nobody can tell; None where it holds."""
    for verdict in found:
        if isinstance(verdict, Failing):
            return verdict.reason
        if isinstance(verdict, Undecided):
            return f"whether it holds cannot be told: {verdict.error}"
    return None


def _freshness(place: Place) -> str:
    """What a rule does that keeps fresh what is there, about something that it has no entry for."""
    source, there = place.source, place.there
    if source is None:
        return "it keeps fresh what the host has, and the host has no such file"
    if source.type is FileType.DIRECTORY:
        return "it would keep fresh what of it is there"
    if source.type is not FileType.FILE or not (source.mode or 0) & 0o004:
        what = "which not everybody may read" if source.type is FileType.FILE else f"which is a {source.type}"
        return f"it leaves alone what the host has there, {what}"
    if there is None:
        return "it would keep a copy fresh if there were one"
    if there.type is not FileType.FILE:
        return f"it keeps files fresh, and a {there.type} is there"
    if there.uid not in place.host.root.owners:
        return f"it leaves alone what belongs to user {there.uid}"
    return "it asks for nothing here"


def _about_modules(
    place: Place, wanted: Wanted, rule: Rule, found: Sequence[Holding | Failing | Undecided]
) -> Iterator[Aside]:
    """Why a rule for name service modules does not ask for a library."""
    try:
        reason = _not_holding(found)
        if reason is None:
            yield Aside(rule=rule, reason=_unused(place.host, wanted, rule))
        elif wanted.name in _names(place.host, rule):
            yield Aside(rule=rule, reason=reason)
    except PathError:
        return  # nsswitch.conf cannot be read: an entry tells that


def _unused(host: Host, wanted: Wanted, rule: Rule) -> str:
    databases = ", ".join(rule.nss)
    module = MODULE.fullmatch(wanted.name)
    if module is None:
        return f"no module that nsswitch.conf names for {databases} needs it"
    if module[1] in libraries.nss_modules(host.root, rule.nss):
        return f"nsswitch.conf names it for {databases}, but libc has it built in, or the host lacks it"
    return f"nsswitch.conf does not name it for {databases}"


def _names(host: Host, rule: Rule) -> set[str]:
    """The file names of all that a rule's modules would come to."""
    needed: Iterable[str] = (
        path
        for library in libraries.needs_nss(host.root, host.cache, rule.nss).libraries
        for path in (library.path, library.source)
    )
    return {basename(path) for path in needed}
