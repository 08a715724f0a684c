"""The rows of the one table: work, ours, peer, how they compare, the goal, and whether it is met."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from benchmarks import goals
from benchmarks.measure import Samples, ratio
from benchmarks.measurement import Measurement

LINEAR = 1.1  # an exponent that is still called linear: what is measured scatters
STANDS_OUT = 1.25  # times the smallest point of a series, from which on its growth is not its start


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row. ``value`` is what the goal is about, with its quartiles where it was measured round by round."""

    work: str
    ours: str
    peer: str = ""
    ours_took: str = ""
    peer_took: str = ""
    value: float
    low: float | None = None
    high: float | None = None
    unit: str = ""
    goal: float | None = None
    note: int | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where there is none."""
        return None if self.goal is None else self.value <= self.goal

    @property
    def key(self) -> str:
        """What names this row among all."""
        return " / ".join(filter(None, (self.work, self.ours, self.peer, self.unit)))

    def to_json(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "met": self.met}


def of_all(measurements: Sequence[Measurement]) -> list[Row]:
    """All rows, in the order of the table; growth last."""
    order = list(goals.COMPARISONS)
    rows = [
        row for name in order for measurement in measurements if measurement.name == name for row in _of(measurement)
    ]
    growing = [
        row for measurement in measurements if measurement.name.startswith("growth") for row in growth(measurement)
    ]
    return rows + growing


def _of(measurement: Measurement) -> Iterator[Row]:
    work, _ = goals.COMPARISONS[measurement.name]
    for one in goals.compared(measurement):
        ours = measurement.samples[one.ours]
        if one.peer is None:
            yield Row(work=work, ours=one.ours, peer="most memory held", value=ours.mb, unit="MB", goal=one.goal)
        else:
            yield _ratio(work, one, ours, measurement.samples[one.peer])


def _ratio(work: str, one: goals.Comparison, ours: Samples, theirs: Samples) -> Row:
    mine, its = (ours.cpu_ms, theirs.cpu_ms) if one.time == "cpu_ms" else (ours.ms, theirs.ms)
    compared = ratio(mine, its)
    return Row(
        work=work,
        ours=one.ours,
        peer=one.peer or "",
        ours_took=duration(median(mine)),
        peer_took=duration(median(its)),
        value=compared.median,
        low=compared.low,
        high=compared.high,
        goal=one.goal,
        note=one.note,
    )


def growth(measurement: Measurement) -> Iterator[Row]:
    """One row for a series: the exponent of its growth, the start taken off. A step may not be worse than linear."""
    points = series(measurement.samples)
    fitted = exponent(points)
    (first_number, first), (last_number, last) = points[0], points[-1]
    yield Row(
        work=measurement.name,
        ours=f"{first_number:,} to {last_number:,}",
        peer="exponent",
        ours_took=duration(last),
        peer_took=duration(first),
        value=fitted,
        goal=LINEAR,
        note=13,
    )
    steps = [(b / a) / (n / m) for (m, a), (n, b) in pairwise(points) if m > 0]
    yield Row(work=measurement.name, ours="worst step", peer="linear", value=max(steps), goal=LINEAR, note=14)


def series(samples: Mapping[str, Samples]) -> list[tuple[int, float]]:
    """The points of a series, by the number on its axis: medians in milliseconds."""
    return sorted((int(name), median(one.ms)) for name, one in samples.items())


def exponent(points: Sequence[tuple[int, float]]) -> float:
    """The exponent that fits how the cost grows beyond that of the smallest point; 0 where it hardly grows at all."""
    start = points[0][1]
    zero = points[0][0]
    grown = [(math.log(n - zero), math.log(ms - start)) for n, ms in points[1:] if ms > STANDS_OUT * start]
    if len(grown) < 2:
        return 0.0
    mean_x = sum(x for x, _ in grown) / len(grown)
    mean_y = sum(y for _, y in grown) / len(grown)
    over = sum((x - mean_x) * (y - mean_y) for x, y in grown)
    return over / sum((x - mean_x) ** 2 for x, _ in grown)


def duration(ms: float) -> str:
    """A time as people write it."""
    if ms < 100:
        return f"{ms:.1f} ms"
    return f"{ms:.0f} ms" if ms < 10_000 else f"{ms / 1000:.1f} s"
