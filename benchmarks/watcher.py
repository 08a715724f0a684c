"""``python -m benchmarks.watcher``: the watcher beside systemd's path unit, in one run.

Needs root and Debian: it boots the throw-away container of the system tests and touches nothing else. Measured are the
time from the rename of a source to the copies of three instances in sync, and what it costs to wait for that.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from tests.system import conftest, image
from tests.system.container import Container, remove_stale_groups

PROBE = "/var/tmp/probe.py"  # noqa: S108 -- in the container
SETTLE = 0.5  # seconds that the watcher waits for more changes, as shipped
BLOCK = 10  # changes in one mode before it is the next one's turn
RESIDENT_GOAL = 1.6  # times a bare interpreter
BURST_GOAL = 1.0  # seconds of CPU for 20,000 files
DELAY_GOAL = 10.0  # ms beyond the settle time
THREADS_GOAL = 3
PINGS = 2.0  # wake-ups a minute that WatchdogSec= asks for, as shipped
IDLE = 60  # seconds

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
    bare_mb: float = 0.0


def main() -> None:
    """Boot the container, measure there, print tables, and write the numbers where asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.watcher", description=__doc__)
    parser.add_argument("--small", action="store_true", help="20 changes instead of 200, 2000 files instead of 20,000")
    parser.add_argument("--json", metavar="FILE", help="write all numbers there")
    options = parser.parse_args()
    reason = conftest.why_not()
    if reason is not None:
        raise SystemExit(f"benchmarks.watcher {reason}")
    remove_stale_groups()
    with tempfile.TemporaryDirectory(prefix="chrootsync-bench-") as place:
        base = image.base()
        dependencies = image.dependencies(base)
        project = image.project([dependencies, base], Path(place) / "layer")
        with Container([project, dependencies, image.instances(base), base]) as host:
            figures = measure(host, changes=20 if options.small else 200, files=2000 if options.small else 20_000)
    print("\n".join(tables(figures)))
    if options.json:
        numbers = {"latency_ms": figures.latency, "idle": figures.idle, "burst": figures.burst}
        Path(options.json).write_text(json.dumps({**numbers, "bare_mb": figures.bare_mb}, indent=2) + "\n")


def measure(host: Container, *, changes: int, files: int) -> Figures:
    """Measure in a container with three instances; the modes take turns, so that a slow spell meets all of them."""
    host.write(PROBE, Path(__file__).with_name("probe.py").read_text())
    host.write("/etc/chrootsync/rules.d/benchmark.toml", RULES)
    host.run(["chrootsync", "check", "--fix", "--quiet"])
    figures = Figures(bare_mb=probe(host, "bare")["resident_mb"])
    for first in range(0, changes, BLOCK):
        stop(host)
        _add(figures, HAND, probe(host, "by_hand", 1_000_000 + first, BLOCK))
        for number, mode in enumerate((WATCH, PATH), start=2):
            start(host, mode)
            _add(figures, mode, probe(host, "latency", number * 1_000_000 + first, BLOCK))
    for mode in (WATCH, PATH):
        start(host, mode)
        watching = int(host.run(["systemctl", "show", "-P", "MainPID", UNITS[WATCH]]).stdout) if mode == WATCH else 1
        figures.idle[mode] = probe(host, "idle", watching, IDLE)
        figures.burst[mode] = probe(host, "burst", watching, files)
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


# --- Tables -------------------------------------------------------------------------------------------------------


def tables(figures: Figures) -> Iterator[str]:
    """The lines that are printed."""
    yield from _latency(figures.latency)
    yield ""
    yield from _idle(figures)
    yield ""
    yield from _burst(figures.burst)


def _latency(samples: Mapping[str, Sequence[float | None]]) -> Iterator[str]:
    yield "a source is renamed to three copies in sync"
    yield f"  {'ms':22} {'median':>8} {'p95':>8} {'p99':>8} {'lost':>5} {'p95 / by hand':>14}"
    hand = percentiles(samples[HAND])
    for name, runs in samples.items():
        half, most, nearly = percentiles(runs)
        lost = sum(one is None for one in runs)
        yield f"  {name:22} {half:8.1f} {most:8.1f} {nearly:8.1f} {lost:5} {most / hand[1]:14.2f}"
    beyond = percentiles(samples[WATCH])[1] - SETTLE * 1000
    yield f"  the watcher takes {beyond:.1f} ms beyond the settle time ({SETTLE:g} s) at p95, the repair among them;"
    yield f"  goal: {DELAY_GOAL:g} ms at most: {_verdict(beyond, DELAY_GOAL)}"


def percentiles(samples: Sequence[float | None]) -> tuple[float, float, float]:
    """Median, 95th and 99th percentile; what was lost is left out."""
    known = [one for one in samples if one is not None]
    if len(known) < 2:
        return (known or [float("nan")])[0], float("nan"), float("nan")
    cuts = quantiles(known, n=100, method="inclusive")
    return median(known), cuts[94], cuts[98]


def _idle(figures: Figures) -> Iterator[str]:
    yield "while nothing changes"
    yield f"  {'':22} {'resident MB':>12} {'x bare':>7} {'CPU ms/min':>11} {'wake-ups/min':>13} {'threads':>8}"
    yield f"  {'python -I -S':22} {figures.bare_mb:12.1f} {1:7.2f}"
    for name, numbers in figures.idle.items():
        label = "systemd, path unit" if name == PATH else name
        times = numbers["resident_mb"] / figures.bare_mb
        minute = 60 / numbers["seconds"]
        cpu, wakes = numbers["cpu_ms"] * minute, numbers["wake_ups"] * minute
        resident, threads = numbers["resident_mb"], numbers["threads"]
        yield f"  {label:22} {resident:12.1f} {times:7.2f} {cpu:11.2f} {wakes:13.1f} {threads:8.0f}"
    ours = figures.idle[WATCH]
    times = ours["resident_mb"] / figures.bare_mb
    yield f"  goal: {RESIDENT_GOAL:g} times a bare interpreter at most: {_verdict(times, RESIDENT_GOAL)}"
    # Where one falls into the minute, another may fall to its very end.
    wakes = ours["wake_ups"] * 60 / ours["seconds"] - 1
    yield f"  goal: no wake-ups but the {PINGS:g} a minute that systemd's watchdog wants: {_verdict(wakes, PINGS)}"
    yield f"  goal: {THREADS_GOAL} threads at most: {_verdict(ours['threads'], THREADS_GOAL)}"


def _burst(burst: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    yield "a burst of files that are made and removed beside the sources"
    yield f"  {'CPU s':22} {'itself':>8} {'repairs':>8} {'lost':>5}"
    for name, numbers in burst.items():
        label = "systemd, path unit" if name == PATH else name
        yield f"  {label:22} {numbers['own_s']:8.2f} {numbers['children_s']:8.2f} {numbers['lost']:5.0f}"
    own = burst[WATCH]["own_s"]
    yield f"  goal: the watcher itself takes {BURST_GOAL:g} s at most: {_verdict(own, BURST_GOAL)}"
    yield f"  goal: a change in the middle of it is not lost: {_verdict(burst[WATCH]['lost'], 0)}"


def _verdict(measured: float, goal: float) -> str:
    return "met" if measured <= goal else "not met"


if __name__ == "__main__":
    main()
