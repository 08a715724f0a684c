"""Which commands are compared, and how they are meant to compare: the rows of the table, in its order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks import instances, large
from benchmarks.measurement import Measurement
from benchmarks.setup import BARE, CHECK, TRUSTING

RESIDENT = 96.0  # MB


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """One command beside another that does the same work; ``peer`` None asks for the memory of ours, in MB.

    ``time`` is what a stop-watch shows, or for what differs by less than a stop-watch tells, processor time.
    """

    ours: str
    peer: str | None
    goal: float | None = None
    time: str = "ms"
    note: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The commands that it needs."""
        return (self.ours,) if self.peer is None else (self.ours, self.peer)


def _peers(ours: str, *peers: tuple[str, float | None, int | None] | str) -> Iterator[Comparison]:
    for peer in peers:
        name, goal, note = (peer, None, None) if isinstance(peer, str) else peer
        yield Comparison(ours=ours, peer=name, goal=goal, note=note)


NOTES: Mapping[int, str] = {
    1: "copies whether it is needed or not, compares nothing, and syncs nothing",
    2: "skips what is a symbolic link on the host, so all of a CApath, and looks at no mode",
    3: "a shell script that warns of copies that differ, and of nothing that is missing",
    4: "compares with a database that was made before, and reads the copies alone",
    5: "compares sizes and times, and reads nothing",
    6: "reads both sides and compares neither modes nor owners",
    7: "processor time, since it differs by less than a stop-watch tells; the goal is about runs of many seconds",
    8: "the page cache was emptied of the data set before each run; directories and inodes were still cached",
    9: "removes and copies without syncing; it has no notion of a file that must always be there",
    10: "the floor in C: stats (Fs) or reads and compares (Fr) every pair of a list it is given, and does nothing else",
    11: "the median and the 95th percentile stand where other rows have quartiles; the repair is part of it",
    12: "systemd's watchdog wants two a minute; the goal allows for one more, which a span may begin with",
    13: "fitted to what the cost grows beyond the first point; the times are those of the last point and of the first",
    14: "how much more the cost grows between two neighbours than the number does; 1 is linear",
    15: "what was compared before and has not been changed since is not read again",
}

_INSTANCES = (
    *_peers(
        CHECK,
        (instances.SCRIPT, 0.10, 1),
        (instances.JK_DRY, 0.6, 2),
        (BARE, 8.0, None),
    ),
    *_peers(CHECK, ("Fr", None, 10), ("Fs", None, 10), ("postfix check", None, 3), ("aide --check", None, 4)),
    *_peers(CHECK, ("cmp in a loop", None, 6), ("sha256sum", None, 6)),
)
_IMAGE = (
    Comparison(ours=CHECK, peer=BARE, goal=8.0),
    *_peers(CHECK, ("Fr", None, 10), ("rsync -anc in a loop", None, 6), ("rsync -an in a loop", None, 5)),
)
_JAIL = (
    *_peers(CHECK, ("Fr", 1.4, 10), ("rsync -anc", 1.0, 6)),
    Comparison(ours=CHECK, peer=None, goal=RESIDENT),
    *_peers(CHECK, ("diff -rq", None, 6), ("jk_update -d", None, 2), ("sha256sum", None, 6)),
    *_peers(CHECK, ("cmp in a loop", None, 6), ("aide --check", None, 4)),
)
_TRUSTING_INSTANCES = tuple(_peers(CHECK, (TRUSTING, 1.15, 15)))
_TRUSTING_JAIL = tuple(_peers(TRUSTING, ("Fs", 2.0, 10), ("rsync -an", 1.2, 5)))
_JAILS = (
    *_peers(CHECK, ("Fr", 0.7, 10), ("rsync -anc in a loop", 0.07, 6)),
    Comparison(ours=CHECK, peer=None, goal=RESIDENT),
    *_peers(CHECK, ("jk_update -d in a loop", None, 2), ("cmp in a loop", None, 6), ("sha256sum", None, 6)),
)
_PROGRESS = (Comparison(ours=large.SHOWN, peer=large.QUIET, goal=1.02, time="cpu_ms", note=7),)
_COLD = (*_peers(f"{CHECK}, cold", ("Fr, cold", None, 8), (CHECK, None, 8)),)


def _without_goals(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """For smaller sets than the goals are about: there, starting the program weighs more."""
    return tuple(replace(one, goal=None) for one in comparisons)


COMPARISONS: Mapping[str, tuple[str, Sequence[Comparison]]] = {
    "3x40": ("clean check, 3x40", _INSTANCES),
    "3x180": ("clean check, 3x180 (CApath)", _INSTANCES),
    "trusted 3x40": ("all bytes against stat alone, 3x40", _TRUSTING_INSTANCES),
    "trusted 3x180": ("all bytes against stat alone, 3x180", _TRUSTING_INSTANCES),
    "3x40 repair": (
        "repair of one library, 3x40",
        tuple(_peers(instances.FIX, (instances.SCRIPT, 0.12, 1), (instances.JK, 0.5, 9))),
    ),
    "image 3x40": ("clean check, image of 3x40", _IMAGE),
    "image 3x180": ("clean check, image of 3x180", _IMAGE),
    "100k": ("one jail of 100,000 files, 2 GB", _JAIL),
    "5k": ("one jail of 5000 files, 100 MB", _without_goals(_JAIL)),
    "trusted 100k": ("one jail of 100,000 files, stat alone", _TRUSTING_JAIL),
    "trusted 5k": ("one jail of 5000 files, stat alone", _without_goals(_TRUSTING_JAIL)),
    "1000x40": ("1000 jails of 40 files, 2 GB", _JAILS),
    "100x40": ("100 jails of 40 files, 200 MB", _without_goals(_JAILS)),
    "progress 100k": ("progress on a terminal, 100,000 files", _PROGRESS),
    "progress 5k": ("progress on a terminal, 5000 files", _without_goals(_PROGRESS)),
    "cold 3x40": (
        "cold cache, image of 3x40",
        (*_COLD, *_peers(f"{CHECK}, cold", ("rsync -anc in a loop, cold", None, 8))),
    ),
    "cold 5k": ("cold cache, 5000 files", (*_COLD, *_peers(f"{CHECK}, cold", ("rsync -anc, cold", None, 8)))),
}
"""By measurement: what the table calls the work, and the comparisons of it."""


def known(name: str) -> Sequence[Comparison]:
    """The comparisons of a measurement."""
    return COMPARISONS[name][1] if name in COMPARISONS else ()


def compared(measurement: Measurement) -> Iterator[Comparison]:
    """Those whose commands were both measured."""
    for one in known(measurement.name):
        if all(name in measurement.samples for name in one.names):
            yield one
