"""Starts children inside chroots and outside, and tells what their answers come to."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from chrootsync.model import Answer, Host, Instance, Lookup, PathError, Probe
from chrootsync.model.frozen import frozen, replace
from chrootsync.probe import answers, child
from chrootsync.probe.asking import SECONDS, Asker
from chrootsync.probe.needs import Need
from chrootsync.probe.plan import Item, Plan, host, plan

HOSTS_LIMIT = 1 << 20
AT_ONCE = 6  # sides that are asked at the same time, which all their lookups are
SHARED = 32  # lookups outside that one process does for all instances; each is a process for a moment
LATE = f"its process did not end within {SECONDS + child.PATIENCE:.0f} seconds"

Wanted = tuple[Instance, Need]
"""An instance, and what its chroot is needed for."""


@frozen
class Before:
    """The lookups of an instance that worked inside its chroot before something was changed there."""

    worked: frozenset[str] = frozenset()


@frozen
class _Side:
    """Lookups for a fresh process, and those of so many further ``names`` at most that its hosts file has."""

    wanted: Plan
    items: Sequence[Item]
    inside: bool
    names: int = 0

    def given(self) -> Mapping[str, object]:
        """What the process is told."""
        return {
            "chroot": self.wanted.chroot if self.inside else None,
            "users": self.wanted.users,
            "seconds": SECONDS,
            "names": self.names,
            "lookups": [item.inside if self.inside else item.outside for item in self.items],
        }


_Result = TypeVar("_Result")
_Talk = Generator[Sequence[_Side], Sequence[answers.Told], _Result]
"""What is asked for one instance, round by round; it comes to a result."""


class Begun(Generic[_Result]):
    """Lookups that are being done; what they come to is there once somebody has waited for it."""

    def __init__(self, steps: Generator[None, None, _Result]) -> None:
        """Begin; each step ends where there is something to wait for."""
        self._steps = steps
        self._results: list[_Result] = []
        self._step()

    def result(self) -> _Result:
        """Wait for the end."""
        while not self._results:
            self._step()
        return self._results[0]

    def _step(self) -> None:
        try:
            next(self._steps)
        except StopIteration as end:
            self._results.append(end.value)


def probe(machine: Host, asker: Asker, wanted: Sequence[Wanted], *, now: float, dns: bool) -> Begun[list[Probe]]:
    """Do lookups inside chroots and outside; what keeps those of one from being done is the error of its probe."""
    return Begun(_timed(_all(asker, [_probe(machine, _plan(machine, one, now=now, dns=dns)) for one in wanted])))


def _timed(steps: Generator[None, None, list[Probe]]) -> Generator[None, None, list[Probe]]:
    began = time.monotonic()
    found = yield from steps
    return [replace(one, duration=time.monotonic() - began) for one in found]


def working(machine: Host, asker: Asker, wanted: Sequence[Wanted], *, now: float, dns: bool) -> Begun[list[Before]]:
    """Which lookups work inside chroots, without asking whether they should."""
    return Begun(_all(asker, [_working(machine, _plan(machine, one, now=now, dns=dns)) for one in wanted]))


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


def _plan(machine: Host, wanted: Wanted, *, now: float, dns: bool) -> Plan:
    try:
        hosts = machine.root.read("/etc/hosts", limit=HOSTS_LIMIT).decode("ascii", "replace")
    except PathError:
        hosts = ""
    return plan(*wanted, hosts, now=now, dns=dns)


# --- What is asked for one instance -------------------------------------------------------------------------------


def _working(machine: Host, wanted: Plan) -> _Talk[Before]:
    if not wanted.items or _refusal(machine, wanted.chroot) is not None:
        return Before()
    (told,) = yield [_inside(wanted)]
    items = _with_names(wanted, told.names)
    return Before(worked=frozenset(item.what for item, said in zip(items, told.answers, strict=False) if said.worked))


def _probe(machine: Host, wanted: Plan) -> _Talk[Probe]:
    if not wanted.items:
        return Probe()
    refusal = _refusal(machine, wanted.chroot)
    if refusal is not None:
        return Probe(error=refusal)
    inside, outside = yield [_inside(wanted), _Side(wanted=wanted, items=wanted.items, inside=False)]
    if inside.error is not None:
        return Probe(error=inside.error)
    items = _with_names(wanted, inside.names)
    outside = yield from _completed(wanted, outside, items[len(wanted.items) :])
    if outside.error is not None:
        return Probe(error=f"outside the chroot {outside.error}")
    found = answers.compare(items, inside.answers, outside.answers)
    return Probe(lookups=(yield from _confirmed(wanted, items, found)))


def _completed(wanted: Plan, outside: answers.Told, more: Sequence[Item]) -> _Talk[answers.Told]:
    """What is known from outside, with the lookups that only the answers from inside told of."""
    if not more or outside.error is not None:
        return outside
    (told,) = yield [_Side(wanted=wanted, items=more, inside=False)]
    return replace(told, answers=(*outside.answers, *told.answers))


def _confirmed(wanted: Plan, items: Sequence[Item], found: Sequence[Lookup]) -> _Talk[tuple[Lookup, ...]]:
    """The lookups; those with trouble are done once more, for a datagram may be lost and a host may be busy."""
    doubtful = [item for item, lookup in zip(items, found, strict=True) if lookup.matters]
    if not doubtful:
        return tuple(found)
    inside, outside = yield [_Side(wanted=wanted, items=doubtful, inside=inside) for inside in (True, False)]
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


def _inside(wanted: Plan) -> _Side:
    return _Side(wanted=wanted, items=wanted.items, inside=True, names=wanted.names)


def _with_names(wanted: Plan, names: Sequence[str]) -> tuple[Item, ...]:
    """The lookups, and behind them those of names that only the chroot's hosts file told."""
    return (*wanted.items, *(host(name, wanted.name_advice) for name in names))


# --- Asking for all of them at the same time ----------------------------------------------------------------------


def _all(asker: Asker, talks: Sequence[_Talk[_Result]]) -> Generator[None, None, list[_Result]]:
    """What all come to; what they ask in the same round is asked at the same time."""
    results: dict[int, _Result] = {}
    asked = dict[int, Sequence[_Side]]()
    told: dict[int, list[answers.Told] | None] = dict.fromkeys(range(len(talks)))
    while told:
        asked.clear()
        for number, said in told.items():
            try:
                asked[number] = talks[number].send(said)  # type: ignore[arg-type]  # None begins a generator
            except StopIteration as end:
                results[number] = end.value
        rest = iter((yield from _ask(asker, [side for sides in asked.values() for side in sides])))
        told = {number: [next(rest) for _ in sides] for number, sides in asked.items()}
    return [results[number] for number in range(len(talks))]


def _ask(asker: Asker, sides: Sequence[_Side]) -> Generator[None, None, list[answers.Told]]:
    """Have lookups done; outside, several instances may ask for the same, which is done once."""
    inside = [side for side in sides if side.inside]
    shared = list(_shared([side for side in sides if not side.inside]))
    wanted = [*inside, *shared]
    told: list[answers.Told] = []
    for first in range(0, len(wanted), AT_ONCE):
        told += yield from _ask_some(asker, wanted[first : first + AT_ONCE])
    answered = {id(side): one for side, one in zip(inside, told, strict=False)}
    outside = list(zip(shared, told[len(inside) :], strict=True))
    return [answered[id(side)] if side.inside else _share(side, outside) for side in sides]


def _shared(sides: Sequence[_Side]) -> Iterator[_Side]:
    """Sides that have each lookup of some sides outside once, for each user that does them."""
    for users in dict.fromkeys(side.wanted.users for side in sides):
        same = [side for side in sides if side.wanted.users == users]
        items = list({item.outside: item for side in same for item in side.items}.values())
        for first in range(0, len(items), SHARED):
            yield replace(same[0], items=items[first : first + SHARED])


def _share(side: _Side, outside: Iterable[tuple[_Side, answers.Told]]) -> answers.Told:
    """What one side is told by those that have its lookups."""
    wanted = {item.outside for item in side.items}
    found: dict[tuple[str | int, ...], answers.Said] = {}
    for shared, told in outside:
        if shared.wanted.users == side.wanted.users and not wanted.isdisjoint(item.outside for item in shared.items):
            if told.error is not None:
                return told
            found.update(zip((item.outside for item in shared.items), told.answers, strict=True))
    return answers.Told(answers=tuple(found[item.outside] for item in side.items))


def _ask_some(asker: Asker, sides: Sequence[_Side]) -> Generator[None, None, list[answers.Told]]:
    """What a few sides say; no more are asked at the same time."""
    try:
        asker.ask(json.dumps([side.given() for side in sides]).encode())
    except PathError as error:
        return [answers.Told(error=str(error))] * len(sides)
    yield
    done = asker.answer()
    if done.code is None:
        return [answers.Told(error=LATE)] * len(sides)
    if done.code < 0:
        return [answers.Told(error=f"its process was killed by signal {-done.code}")] * len(sides)
    return [
        _told(number, text, side)
        for (number, text), side in zip(answers.ends(done.output, len(sides)), sides, strict=True)
    ]


def _told(number: int, text: str, side: _Side) -> answers.Told:
    """What one side said, or how its process ended."""
    if number == child.NEVER:
        return answers.Told(error="its process could not be started")
    if number == child.LATE:
        return answers.Told(error=LATE)
    if number:
        return answers.Told(error=f"its process was killed by signal {number}")
    return answers.read(text, len(side.items), side.names)
