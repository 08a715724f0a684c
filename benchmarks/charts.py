"""Charts of what was measured, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.measurement import Measurement
from benchmarks.rows import Row, series
from benchmarks.setup import BARE

OURS, PEERS, FLOORS, MET = "#c0392b", "#7f8c8d", "#bdc3c7", "#27ae60"
SHOWN = ("3x40", "100k", "1000x40", "image 3x40", "5k", "100x40")
SETTINGS = {"svg.fonttype": "none", "svg.hashsalt": "chrootsync", "font.size": 9, "font.family": "sans-serif"}
LABELS = {
    "Fs": "floor: stat both sides",
    "Fr": "floor: read both sides",
    BARE: "an interpreter that does nothing",
    "check": "chrootsync check",
    "check --trust-stat": "chrootsync check --trust-stat",
}
FAR = 2.5  # times a goal, where bars end
AXES = {
    "growth with instances": "instances of 40 files",
    "growth with files": "files in one instance",
    "growth with bytes": "MB in 50 files",
    "growth of a check with drift": "% of the files drifted (check)",
    "growth of a repair with drift": "% of 1000 files drifted (repair)",
}


def draw(folder: Path, measurements: Sequence[Measurement], rows: Sequence[Row]) -> list[str]:
    """Draw what there is to draw; gives the names of the files."""
    with mpl.rc_context(SETTINGS):
        drawn = {
            "peers.svg": _peers([one for one in measurements if one.name in SHOWN]),
            "growth.svg": _growth([one for one in measurements if one.name in AXES]),
            "goals.svg": _goals([row for row in rows if row.goal]),
        }
        for name, figure in drawn.items():
            if figure is not None:
                figure.savefig(folder / name, metadata={"Date": None}, bbox_inches="tight")
    return [name for name, figure in drawn.items() if figure is not None]


def _peers(measurements: Sequence[Measurement]) -> Figure | None:
    """One panel for each set: what everything takes, the quickest on top."""
    if not measurements:
        return None
    heights = [len(one.samples) for one in measurements]
    figure = Figure(figsize=(7.5, 0.24 * sum(heights) + 0.9 * len(measurements)), layout="constrained")
    panels = figure.subplots(len(measurements), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for panel, one in zip(panels, measurements, strict=True):
        _bars(panel, one)
    return figure


def _bars(panel: Axes, one: Measurement) -> None:
    times = sorted(((median(samples.ms), name) for name, samples in one.samples.items()), reverse=True)
    names = [name for _, name in times]
    colours = [OURS if name.startswith("check") else FLOORS if name in {"Fs", "Fr"} else PEERS for name in names]
    bars = panel.barh([LABELS.get(name, name) for name in names], [ms for ms, _ in times], color=colours)
    panel.bar_label(bars, labels=[f"{ms:.0f} ms" if ms >= 10 else f"{ms:.1f} ms" for ms, _ in times], padding=3)
    panel.set_xscale("log")
    panel.set_title(f"{one.name}: {one.facts.get('copies', 0):,} copies, {one.facts.get('bytes', 0) / 1e6:,.0f} MB")
    panel.margins(x=0.15)
    panel.spines[["top", "right"]].set_visible(False)


def _growth(measurements: Sequence[Measurement]) -> Figure | None:
    """One panel for each series: time and memory, with a line that is linear."""
    if not measurements:
        return None
    lines = (len(measurements) + 1) // 2
    figure = Figure(figsize=(8.5, 2.8 * lines), layout="constrained")
    panels = figure.subplots(lines, 2, squeeze=False).ravel()
    for panel, one in zip(panels, measurements, strict=False):
        _curve(panel, one)
    for panel in panels[len(measurements) :]:
        panel.set_visible(False)
    return figure


def _curve(panel: Axes, one: Measurement) -> None:
    points = series(one.samples)
    numbers, times = [n for n, _ in points], [ms / 1000 for _, ms in points]
    last = numbers[-1]
    panel.plot(numbers, times, color=OURS, marker="o", label="time")
    panel.plot(
        numbers,
        [times[-1] * n / last for n in numbers],
        color=FLOORS,
        linestyle="--",
        label="linear, from the last point back",
    )
    panel.set_xscale("symlog", linthresh=1)
    panel.set_yscale("log")
    panel.set_ylim(10 ** math.floor(math.log10(min(times))), 10 ** math.ceil(math.log10(max(times))))
    panel.set_xticks(numbers, [f"{number:,}" for number in numbers])
    panel.set_xlabel(AXES[one.name])
    panel.set_ylabel("s")
    memory = panel.twinx()
    memory.plot(numbers, [one.samples[str(n)].mb for n in numbers], color=PEERS, marker=".", linestyle=":")
    memory.set_ylim(bottom=0, top=100)
    memory.set_ylabel("MB resident (dotted)")
    panel.legend(frameon=False, loc="upper left")


def _goals(rows: Sequence[Row]) -> Figure | None:
    """Every row with a goal as a share of it: what is left of the line is met."""
    if not rows:
        return None
    figure = Figure(figsize=(8.5, 0.24 * len(rows) + 0.8), layout="constrained")
    panel = figure.subplots()
    names = [f"{row.work}: {row.ours} / {row.peer}" for row in reversed(rows)]
    shares = [row.value / row.goal if row.goal else 0.0 for row in reversed(rows)]
    colours = [OURS if share > 1 else MET for share in shares]
    bars = panel.barh(range(len(rows)), [min(share, FAR) for share in shares], color=colours)
    panel.bar_label(bars, labels=[f"{share:.2f}" for share in shares], padding=3)
    panel.set_xlim(right=FAR + 0.3)
    panel.set_yticks(range(len(rows)), names)
    panel.axvline(1, color="black", linewidth=0.8)
    panel.set_xlabel("share of the goal that was used; left of the line it is met")
    panel.spines[["top", "right"]].set_visible(False)
    return figure
