"""Starts the child inside a chroot and outside, and tells what its answers come to."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from chrootsync import process
from chrootsync.model import Answer, Host, Instance, Lookup, PathError, Probe
from chrootsync.probe import answers, child
from chrootsync.probe.needs import Need
from chrootsync.probe.plan import Item, Plan, host, plan

SECONDS = 8.0  # for all lookups of one side, which are done at the same time
GRACE = 7.0  # seconds that the process may take beyond them
HOSTS_LIMIT = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Before:
    """The lookups of an instance that worked inside its chroot before something was changed there."""

    worked: frozenset[str] = frozenset()


def probe(machine: Host, instance: Instance, need: Need, *, now: float, dns: bool) -> Probe:
    """Do an instance's lookups inside its chroot and outside. What keeps them from being done is the probe's error."""
    began = time.monotonic()
    found = _probe(machine, _plan(machine, instance, need, now=now, dns=dns))
    return replace(found, duration=time.monotonic() - began)


def working(machine: Host, instance: Instance, need: Need, *, now: float, dns: bool) -> Before:
    """Which lookups work inside the chroot, without asking whether they should."""
    wanted = _plan(machine, instance, need, now=now, dns=dns)
    if not wanted.items or _refusal(machine, wanted.chroot) is not None:
        return Before()
    told = _ask(wanted, wanted.items, inside=True, names=wanted.names)
    items = _with_names(wanted, told.names)
    return Before(worked=frozenset(item.what for item, said in zip(items, told.answers, strict=False) if said.worked))


def lost(before: Before, found: Probe, advice: str) -> Probe:
    """The probe after a change, with the lookups that the change broke; ``advice`` is what to do about these."""
    gone = {one.what for one in found.lookups if _is_lost(before, one)}
    told = tuple(replace(one, advice=advice) if one.what in gone else one for one in found.lookups)
    return replace(found, lookups=told, lost=tuple(one.what for one in told if one.what in gone))


def joined(first: Probe, second: Probe) -> Probe:
    """What two probes of one run come to: the later one; what the first one lost stays lost while it fails."""
    still = {one.what for one in second.lookups if one.answer is Answer.FAILS_INSIDE}
    advice = {one.what: one.advice for one in first.lookups if one.what in first.lost and one.what in still}
    told = tuple(replace(one, advice=advice.get(one.what, one.advice)) for one in second.lookups)
    return replace(second, lookups=told, lost=tuple(dict.fromkeys((*advice, *second.lost))))


def _is_lost(before: Before, lookup: Lookup) -> bool:
    """Whether a change broke a lookup; what daemons get along without comes and goes, as the socket of a log does."""
    return lookup.matters and lookup.answer is Answer.FAILS_INSIDE and lookup.what in before.worked


def _plan(machine: Host, instance: Instance, need: Need, *, now: float, dns: bool) -> Plan:
    try:
        hosts = machine.root.read("/etc/hosts", limit=HOSTS_LIMIT).decode("ascii", "replace")
    except PathError:
        hosts = ""
    return plan(instance, need, hosts, now=now, dns=dns)


def _probe(machine: Host, wanted: Plan) -> Probe:
    if not wanted.items:
        return Probe()
    refusal = _refusal(machine, wanted.chroot)
    if refusal is not None:
        return Probe(error=refusal)
    inside = _ask(wanted, wanted.items, inside=True, names=wanted.names)
    if inside.error is not None:
        return Probe(error=inside.error)
    items = _with_names(wanted, inside.names)
    outside = _ask(wanted, items, inside=False)
    if outside.error is not None:
        return Probe(error=f"outside the chroot {outside.error}")
    return Probe(lookups=_confirmed(wanted, items, answers.compare(items, inside.answers, outside.answers)))


def _confirmed(wanted: Plan, items: Sequence[Item], found: Sequence[Lookup]) -> tuple[Lookup, ...]:
    """The lookups; those with trouble are done once more, for a datagram may be lost and a host may be busy."""
    doubtful = [item for item, lookup in zip(items, found, strict=True) if lookup.matters]
    if not doubtful:
        return tuple(found)
    inside, outside = _ask(wanted, doubtful, inside=True), _ask(wanted, doubtful, inside=False)
    if inside.error is not None or outside.error is not None:
        return tuple(found)
    again = {one.what: one for one in answers.compare(doubtful, inside.answers, outside.answers)}
    return tuple(again.get(lookup.what, lookup) for lookup in found)


def _refusal(machine: Host, chroot: str) -> str | None:
    """Why a chroot is not entered: whoever could lay the way to it, or put another in its place, could aim this."""
    try:
        machine.root.chroot(chroot).close()
    except PathError as error:
        return str(error)
    return None


def _with_names(wanted: Plan, names: Sequence[str]) -> tuple[Item, ...]:
    """The lookups, and behind them those of names that only the chroot's hosts file told."""
    return (*wanted.items, *(host(name, wanted.name_advice) for name in names))


def _ask(wanted: Plan, items: Sequence[Item], *, inside: bool, names: int = 0) -> answers.Told:
    """Let a fresh process do lookups, and those of at most so many further ``names`` that the hosts file there has."""
    given = {
        "chroot": wanted.chroot if inside else None,
        "users": wanted.users,
        "seconds": SECONDS,
        "names": names,
        "lookups": [item.inside if inside else item.outside for item in items],
    }
    command = (os.path.abspath(sys.executable), "-I", "-S", os.path.abspath(child.__file__))
    try:
        done = process.feed(command, json.dumps(given).encode(), timeout=SECONDS + GRACE)
    except PathError as error:
        return answers.Told(error=str(error))
    if done.code is None:
        return answers.Told(error=f"its process did not end within {SECONDS + GRACE:.0f} seconds")
    if done.code < 0:
        return answers.Told(error=f"its process was killed by signal {-done.code}")
    return answers.read(done.output, len(items), names)
