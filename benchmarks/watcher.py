"""The watcher beside systemd's path unit, in the container: how soon copies follow, and what waiting for that costs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

from benchmarks.rows import Row, duration

if TYPE_CHECKING:
    from tests.system.container import Container

PROBE = "/opt/bench/benchmarks/probe.py"
SETTLE = 0.5  # seconds that the watcher waits for more changes, as shipped
BLOCK = 10  # changes in one mode before it is the next one's turn
RESIDENT_GOAL = 1.6  # times a bare interpreter
BURST_GOAL = 1.0  # seconds of CPU for 20,000 files
DELAY_GOAL = 10.0  # ms beyond the settle time
THREADS_GOAL = 3
PINGS = 2.0  # wake-ups a minute that WatchdogSec= asks for, as shipped
IDLE = {"watcher": 60, "path unit": 10}  # seconds; watchdogs ring twice a minute
BURST = 20_000  # files

# Reloads are due a minute apart and would start passes of their own in the middle of what is measured.
RULES = '[[override]]\nid = "postfix.resolver"\non_change = "nothing"\n'

HAND, WATCH, PATH = "check --fix by hand", "watcher", "path unit"
UNITS = {WATCH: "chrootsync-watch.service", PATH: "chrootsync.path"}


@dataclass(kw_only=True, slots=True)
class Figures:
    """What was measured: milliseconds by who repaired, None for a change that was lost; the rest by name."""

    latency: dict[str, list[float | None]] = field(default_factory=dict)
    idle: dict[str, dict[str, float]] = field(default_factory=dict)
    burst: dict[str, dict[str, float]] = field(default_factory=dict)
    bare_mb: float
    files: int

    def to_json(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def measure(host: Container, *, small: bool) -> Figures:
    """Measure in a container with three instances; the modes take turns, so that a slow spell meets all of them."""
    changes, files = (BLOCK, BURST // 10) if small else (4 * BLOCK, BURST)
    host.write("/etc/chrootsync/rules.d/benchmark.toml", RULES)
    host.run(["chrootsync", "check", "--fix", "--quiet"])
    figures = Figures(bare_mb=probe(host, "bare")["resident_mb"], files=files)
    for first in range(0, changes, BLOCK):
        stop(host)
        _add(figures, HAND, probe(host, "by_hand", 1_000_000 + first, BLOCK))
        for number, mode in enumerate((WATCH, PATH), start=2):
            start(host, mode)
            _add(figures, mode, probe(host, "latency", number * 1_000_000 + first, BLOCK))
    for mode in (WATCH, PATH):
        start(host, mode)
        watching = int(host.run(["systemctl", "show", "-P", "MainPID", UNITS[WATCH]]).stdout) if mode == WATCH else 1
        figures.idle[mode] = probe(host, "idle", watching, IDLE[mode] // (2 if small else 1))
        figures.burst[mode] = probe(host, "burst", watching, files)
    stop(host)
    return figures


def _add(figures: Figures, name: str, numbers: Sequence[float | None]) -> None:
    figures.latency.setdefault(name, []).extend(numbers)


def start(host: Container, mode: str) -> None:
    """Install one mode, and wait until it is at work."""
    host.run(["chrootsync", "install", "systemd", "--mode", "watch" if mode == WATCH else "path"])
    host.shell('systemctl start "$1"; systemctl is-active --quiet "$1"', UNITS[mode])


def stop(host: Container) -> None:
    """Let nobody watch."""
    host.run(["systemctl", "stop", *UNITS.values()], check=False)


def probe(host: Container, *arguments: object) -> Any:
    """Let the probe measure something."""
    return json.loads(host.run(["/usr/bin/python3", PROBE, *map(str, arguments)], timeout=600).stdout)


# --- Rows ---------------------------------------------------------------------------------------------------------


def rows(figures: Figures) -> Iterator[Row]:
    """The rows of the table."""
    yield from _latency(figures.latency)
    yield from _idle(figures)
    yield from _burst(figures)


def _latency(samples: Mapping[str, Sequence[float | None]]) -> Iterator[Row]:
    work = "a source is renamed to three copies in sync"
    half, most, _ = percentiles(samples[WATCH])
    settle = SETTLE * 1000
    yield Row(
        work=work,
        ours=f"{WATCH}, beyond {SETTLE:g} s to settle",
        ours_took=duration(most),
        peer="p95",
        value=most - settle,
        low=half - settle,
        high=most - settle,
        unit="ms",
        goal=DELAY_GOAL,
        note=11,
    )
    for name in (HAND, PATH):
        its = percentiles(samples[name])[1]
        yield Row(
            work=work,
            ours=WATCH,
            ours_took=duration(most),
            peer=f"{name}, p95",
            peer_took=duration(its),
            value=most / its,
        )
    for name in (WATCH, PATH):
        lost = sum(one is None for one in samples[name])
        goal = 0.0 if name == WATCH else None
        yield Row(work=work, ours=name, peer="changes lost", value=lost, unit=f"of {len(samples[name])}", goal=goal)


def percentiles(samples: Sequence[float | None]) -> tuple[float, float, float]:
    """Median, 95th and 99th percentile; what was lost is left out."""
    known = [one for one in samples if one is not None]
    if len(known) < 2:
        return (known or [float("nan")])[0], float("nan"), float("nan")
    cuts = quantiles(known, n=100, method="inclusive")
    return median(known), cuts[94], cuts[98]


def _idle(figures: Figures) -> Iterator[Row]:
    work = "the watcher while nothing changes"
    ours = figures.idle[WATCH]
    yield Row(
        work=work,
        ours=WATCH,
        ours_took=f"{ours['resident_mb']:.1f} MB",
        peer="bare Python, resident",
        peer_took=f"{figures.bare_mb:.1f} MB",
        value=ours["resident_mb"] / figures.bare_mb,
        goal=RESIDENT_GOAL,
    )
    # Where a minute begins between two of them, it may have one more.
    allowed = PINGS * ours["seconds"] / 60 + 1
    unit = f"in {ours['seconds']:.0f} s"
    yield Row(work=work, ours=WATCH, peer="wake-ups", value=ours["wake_ups"], unit=unit, goal=allowed, note=12)
    yield Row(work=work, ours=WATCH, peer="threads", value=ours["threads"], goal=THREADS_GOAL)
    yield Row(work=work, ours=WATCH, peer="CPU", value=ours["cpu_ms"] * 60 / ours["seconds"], unit="ms a minute")


def _burst(figures: Figures) -> Iterator[Row]:
    work = f"{figures.files:,} files made and removed beside the sources"
    ours, systemd = figures.burst[WATCH], figures.burst[PATH]
    goal = BURST_GOAL if figures.files == BURST else None
    yield Row(work=work, ours=WATCH, peer="CPU", value=ours["own_s"], unit="s", goal=goal)
    yield Row(work=work, ours=f"{WATCH}, its repairs", peer="CPU", value=ours["children_s"], unit="s")
    yield Row(work=work, ours=PATH, peer="CPU of systemd", value=systemd["own_s"] + systemd["children_s"], unit="s")
    yield Row(work=work, ours=WATCH, peer="a change in the middle of it lost", value=ours["lost"], goal=0.0)
