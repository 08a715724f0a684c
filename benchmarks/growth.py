"""How the cost of a check grows: with instances, with files, with bytes, and with the share that has drifted.

Each series is one measurement whose commands are named by the number on the axis, and run in turn.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

from benchmarks.data import DataSet
from benchmarks.files import write
from benchmarks.jails import JAILS, STEPS, source
from benchmarks.measure import Command, interleaved, note
from benchmarks.measurement import Measurement
from benchmarks.setup import Setup, remember

SHARES = (0, 1, 10, 100)  # percent
REPAIRED = 1000  # files that repairs are measured with


def measure(setup: Setup) -> Iterator[Measurement]:
    """All series; the one that leaves a data set behind that is not in sync is the last one of its set."""
    with setup.data("100x40" if setup.small else "1000x40") as data:
        note(f"{data.name}: growth with instances")
        yield _instances(setup, data)
    with setup.data("bytes-small" if setup.small else "bytes") as data:
        note(f"{data.name}: growth with bytes")
        yield _bytes(setup, data)
    with setup.data("5k" if setup.small else "100k") as data:
        note(f"{data.name}: growth with files and with drift")
        yield _files(setup, data)
        yield _repairs(setup, data)
        yield from _drift(setup, data)


def _instances(setup: Setup, data: DataSet) -> Measurement:
    """Parts of one set, as other configuration files list them."""
    numbers = [number for number in JAILS if number <= len(data.chroots)]
    options = {number: data.options(config=f"chrootsync-{number}.toml") for number in numbers}
    return _series(setup, "growth with instances", options)


def _files(setup: Setup, data: DataSet) -> Measurement:
    """Parts of one jail, as other rules ask for them."""
    steps = [step for step in STEPS if os.path.isdir(f"{data.place}/rules-{step}")]
    options = {min(step, data.copies): data.options(rules=f"rules-{step}") for step in steps}
    return _series(setup, "growth with files", options)


def _bytes(setup: Setup, data: DataSet) -> Measurement:
    """As many files, of other sizes."""
    options = {int(name.removeprefix("mb")): (*data.options(), name) for name in data.chroots}
    return _series(setup, "growth with bytes", options)


def _series(setup: Setup, name: str, options: dict[int, tuple[str, ...]]) -> Measurement:
    for one in options.values():
        remember(setup, *one)
    commands = [Command(name=str(number), steps=(setup.check(*one),)) for number, one in options.items()]
    return Measurement(name=name, samples=interleaved(commands, setup.rounds(5, 3)))


def _drift(setup: Setup, data: DataSet) -> Iterator[Measurement]:
    """Checks of a jail of which more and more has drifted; not in turn, since drift does not go away."""
    step = 1000 if setup.small else 10_000
    options = data.options(rules=f"rules-{step}")
    samples = {}
    for share in SHARES:
        _change(data, step * share // 100)
        command = Command(name=str(share), steps=(setup.check(*options),), expected=1 if share else 0)
        samples.update(interleaved([command], setup.rounds(5, 3)))
    yield Measurement(name="growth of a check with drift", samples=samples, facts={"files": step})


def _repairs(setup: Setup, data: DataSet) -> Measurement:
    """Repairs of a jail of which a share has drifted, anew each time."""
    options = ("--fix", *data.options(rules=f"rules-{REPAIRED}"))
    remember(setup, *options[1:])
    commands = [
        Command(
            name=str(share),
            steps=(setup.check(*options),),
            before=partial(_change, data, REPAIRED * share // 100),
        )
        for share in SHARES
    ]
    samples = interleaved(commands, setup.rounds(3, 2))
    return Measurement(name="growth of a repair with drift", samples=samples, facts={"files": REPAIRED})


def _change(data: DataSet, count: int) -> None:
    """Change the first sources as an update of a package does: a new file of the same size, renamed into place."""
    for number in range(count):
        path = data.root + source(number)
        write(f"{path}.new", os.urandom(os.path.getsize(path)))
        os.rename(f"{path}.new", path)
    os.sync()
