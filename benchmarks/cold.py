"""A cold cache: the pages of a data set are dropped before each run, and nobody else's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

from benchmarks import peers
from benchmarks.data import DataSet
from benchmarks.measure import Command, interleaved, note, scratch
from benchmarks.measurement import Measurement
from benchmarks.setup import Setup, remember


def measure(setup: Setup) -> Iterator[Measurement]:
    """A small set, and one of many files."""
    if setup.floor is None:  # it drops the pages
        return
    for name in ("3x40", "5k"):
        with setup.data(name) as data:
            note(f"{data.name}: cold and warm")
            remember(setup, *data.options())
            yield _measure(setup, data, setup.floor)


def _measure(setup: Setup, data: DataSet, floor: str) -> Measurement:
    warm = [
        setup.reading(*data.options()),
        *(one for one in peers.floors(floor, data.pairs) if one.name == "Fr"),
        *(one for one in peers.rsync(data) if "-anc" in one.name),
    ]
    drop = scratch((floor, "drop"), data.pairs)
    os.sync()  # a page that is still to be written cannot be dropped
    commands: list[Command] = []
    for one in warm:
        commands += [one, replace(one, name=f"{one.name}, cold", before=drop)]
    samples = interleaved(commands, setup.rounds(9, 3))
    return Measurement(name=f"cold {data.name}", samples=samples, facts={"copies": data.copies, "bytes": data.size})
