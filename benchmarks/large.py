"""Large sets: one jail of 100,000 files, and a thousand jails that share their sources; images both, on disk.

An image is checked without asking the host's package manager and services, which a live check of jails in sync does
not do either.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import peers
from benchmarks.data import DataSet
from benchmarks.measure import Command, interleaved, note
from benchmarks.measurement import Measurement
from benchmarks.setup import Setup, remember

QUIET, SHOWN = "check --quiet", "check on a terminal"


def measure(setup: Setup) -> Iterator[Measurement]:
    """The jail, what progress costs there, and the many jails."""
    with setup.data("5k" if setup.small else "100k") as data:
        note(f"{data.name}: one jail")
        yield _jail(setup, data)
        yield _progress(setup, data)
        with setup.data(
            "100x40" if setup.small else "1000x40"
        ) as many:  # meanwhile, nothing of the jail is new any more
            note(f"{many.name}: many jails")
            yield _jails(setup, many)
        yield _trusting(setup, data)


def _jail(setup: Setup, data: DataSet) -> Measurement:
    remember(setup, *data.options())
    share, copy = f"{data.root}/srv/share", f"{data.root}/srv/jail/srv/share"
    commands = [
        setup.reading(*data.options()),
        *(one for one in peers.floors(setup.floor, data.pairs) if one.name == "Fr"),
        *(one for one in peers.rsync(data) if "-anc" in one.name),
        *peers.jk_update_image(data, rounds=2),
        Command(name="diff -rq", steps=(("/usr/bin/diff", "-rq", share, copy),), rounds=2),
        *peers.generic(data.pairs, rounds=1),
        *peers.aide(data.place, [data.root + chroot for chroot in data.chroots.values()], rounds=1),
    ]
    samples = interleaved(commands, setup.rounds(7, 5))
    return Measurement(name=data.name, samples=samples, facts=_facts(data))


def _jails(setup: Setup, data: DataSet) -> Measurement:
    remember(setup, *data.options())
    rounds = setup.rounds(5, 5)
    commands = [
        setup.reading(*data.options()),
        *(one for one in peers.floors(setup.floor, data.pairs) if one.name == "Fr"),
        *(one for one in peers.rsync(data, rounds=setup.rounds(2, 3)) if "-anc" in one.name),
        *peers.jk_update_image(data, rounds=1),
        *peers.generic(data.pairs, rounds=1),
    ]
    return Measurement(name=data.name, samples=interleaved(commands, rounds), facts=_facts(data))


def _trusting(setup: Setup, data: DataSet) -> Measurement:
    """Without reading what was compared before: beside what looks at sizes and times alone."""
    commands = [
        setup.trusting(data.built, *data.options()),
        *(one for one in peers.floors(setup.floor, data.pairs) if one.name == "Fs"),
        *(one for one in peers.rsync(data) if "-anc" not in one.name),
    ]
    samples = interleaved(commands, setup.rounds(9, 5))
    return Measurement(name=f"trusted {data.name}", samples=samples, facts=_facts(data))


def _progress(setup: Setup, data: DataSet) -> Measurement:
    """The same check where somebody watches it and where nobody does, by processor time: it differs by a little."""
    talking = (*setup.chrootsync, "check", "--format", "plain", *data.options())
    commands = [
        Command(name=SHOWN, steps=(talking,), terminal=True),
        Command(name=QUIET, steps=(setup.check(*data.options()),), terminal=True),
    ]
    return Measurement(
        name=f"progress {data.name}", samples=interleaved(commands, setup.rounds(5, 5)), facts=_facts(data)
    )


def _facts(data: DataSet) -> dict[str, int]:
    return {"instances": len(data.chroots), "copies": data.copies, "bytes": data.size}
