"""``python -m benchmarks``: a clean check beside its floors and peers, whole processes, in one run.

Needs no root rights and touches nothing but a temporary directory. What is not installed is left out, and said.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from benchmarks.data import DataSet, build, chrootsync
from benchmarks.measure import Command, interleaved, ratio

OURS = "chrootsync check"
START = "chrootsync --version"
BARE = "python -I -S -c pass"
GOALS: Mapping[str, float] = {BARE: 8.0}
"""How many times as long as this a clean check may take; peers that need a real host have goals of their own."""


def main() -> None:
    """Measure, print a table for each data set, and write the numbers where asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--runs", type=int, default=21, metavar="N", help="rounds of measuring (default: 21)")
    parser.add_argument("--json", metavar="FILE", help="write all numbers there")
    options = parser.parse_args()
    if options.runs < 1:
        parser.error("--runs must be at least 1")
    check = chrootsync()
    results = []
    with tempfile.TemporaryDirectory(prefix="chrootsync-bench-") as place:
        os.chmod(place, 0o755)  # noqa: S103 -- as every directory on the way to a root
        floor = _compile_floor(place)
        for name in ("3x40", "3x180"):
            data = build(name, os.path.join(place, name), check)
            commands = list(_commands(check, data, floor))
            samples = interleaved(commands, options.runs)
            print(_table(data, samples, options.runs))
            results.append(_numbers(data, samples))
    for missing in _missing(floor):
        print(f"left out: {missing}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"machine": _machine(), "data_sets": results}, file, indent=2)
            file.write("\n")


def _compile_floor(place: str) -> str | None:
    """The compiled floor; None where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    program = os.path.join(place, "floor")
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "floor.c")
    subprocess.run([compiler, "-O2", "-o", program, source], check=True)
    return program


def _commands(check: tuple[str, ...], data: DataSet, floor: str | None) -> Iterator[Command]:
    """What is measured: ours first."""
    quiet = ("check", "--format", "plain", "--quiet", *data.options())
    yield Command(name=OURS, steps=((*check, *quiet),))
    yield Command(name=START, steps=((*check, "--version"),))
    yield Command(name=BARE, steps=((sys.executable, "-I", "-S", "-c", "pass"),))
    if floor is not None:
        yield Command(name="floor: stat both sides (Fs)", steps=((floor, "stat"),), stdin=data.pairs)
        yield Command(name="floor: read both sides (Fr)", steps=((floor, "read"),), stdin=data.pairs)
    rsync = shutil.which("rsync")
    if rsync is not None:
        steps = tuple(_rsync(rsync, data, instance) for instance in data.chroots)
        yield Command(name="rsync -anc, three times", steps=steps)


def _rsync(rsync: str, data: DataSet, instance: str) -> tuple[str, ...]:
    to = data.root + data.chroots[instance]
    return (rsync, "-anc", "--copy-links", "--from0", f"--files-from={data.names(instance)}", f"{data.root}/", to)


def _missing(floor: str | None) -> Iterator[str]:
    if floor is None:
        yield "the floors, for want of a C compiler (cc)"
    if shutil.which("rsync") is None:
        yield "rsync, which is not installed"
    yield "Debian's configure-instance.sh, jk_update and postfix check, which need a host of their own"
    yield "the watcher and the path unit, which need one as well: see benchmarks.host and benchmarks.watcher"


def _table(data: DataSet, samples: Mapping[str, Sequence[float]], rounds: int) -> str:
    """One line for each command: its median, its spread, and how a clean check compares with it."""
    head = f"{data.name}: 3 instances, {data.copies} copies, {data.size / 1e6:.1f} MB a side; {rounds} rounds"
    lines = [head, f"  {'':28} {'median ms':>9} {'min-max ms':>13} {'check / it':>10}  goal"]
    for name, runs in samples.items():
        spread = f"{min(runs):.1f}-{max(runs):.1f}"
        compared = ratio(samples[OURS], runs)
        shown = "" if name == OURS else f"{compared:.2f}"
        lines.append(f"  {name:28} {median(runs):9.1f} {spread:>13} {shown:>10}  {_goal(name, compared)}")
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _goal(name: str, compared: float) -> str:
    goal = GOALS.get(name)
    if goal is None:
        return ""
    return f"<= {goal:g}: {'met' if compared <= goal else 'not met'}"


def _numbers(data: DataSet, samples: Mapping[str, Sequence[float]]) -> dict[str, object]:
    rows = [
        {
            "name": name,
            "ms": [round(ms, 3) for ms in runs],
            "median_ms": round(median(runs), 3),
            "check_ratio": round(ratio(samples[OURS], runs), 4),
            "goal": GOALS.get(name),
        }
        for name, runs in samples.items()
    ]
    return {"name": data.name, "copies": data.copies, "bytes": data.size, "rows": rows}


def _machine() -> dict[str, object]:
    return {"python": platform.python_version(), "kernel": platform.release(), "processors": os.cpu_count()}


if __name__ == "__main__":
    main()
