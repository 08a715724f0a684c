"""``python -m benchmarks``: chrootsync beside its floors and peers, in one run; one table, JSON and charts.

As root on Debian all of it is measured in a throw-away container, which has the peers, and real Postfix. Without, what
needs neither root nor a host of its own is measured here. Nothing else on the machine is touched, and nothing stays.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import goals, host, machine, rows, table, watcher
from benchmarks.measure import note
from benchmarks.measurement import Measurement
from benchmarks.outcome import Outcome
from benchmarks.rows import Row

PARTS = ("instances", "large", "growth", "cold", "watcher")
PROJECT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Measure, print the table, and write it with numbers and charts."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was begun is cleaned up, as it is after ^C
    reason = "--here was asked for" if options.here else host.why_not()
    began = time.monotonic()
    with host.place(host.SMALL_GIGABYTES if options.small else host.GIGABYTES) as place:
        described = machine.describe(str(place))
        measure = _in_container if reason is None else here
        outcome = measure(place, options.parts, small=options.small)
    found = rows.of_all(outcome.measurements) + (list(watcher.rows(outcome.figures)) if outcome.figures else [])
    print(f"\n{machine.sentence(described)}\n")
    print("\n".join((*table.text(found), "", *_left_out(reason, outcome.measurements))))
    print(f"{_verdict(found)}; {time.monotonic() - began:.0f} s")
    numbers = {
        "machine": described,
        "small": options.small,
        "rows": [row.to_json() for row in found],
        "measurements": [one.to_json() for one in outcome.measurements],
        "watcher": outcome.figures.to_json() if outcome.figures else None,
        "failures": outcome.failures,
    }
    size = "Small sets: " if options.small else ""
    _write(options.results, numbers, [size + machine.sentence(described), "", *table.markdown(found)])
    _draw(options.results, outcome.measurements, found)
    if outcome.failures:
        raise SystemExit("\n".join(("failed:", *outcome.failures)))


def _in_container(place: Path, parts: Sequence[str], *, small: bool) -> Outcome:
    """Measure in the container, and the watcher from outside it."""
    outcome = Outcome()
    note("booting a container; the first time, it is built")
    with host.booted(place) as container:
        for part in parts:
            note(part)
            if part == "watcher":
                outcome.watch(lambda: watcher.measure(container, small=small))
            else:
                outcome.add(part, host.session(container, part, small=small))
    return outcome


def here(place: Path, parts: Sequence[str], *, small: bool) -> Outcome:
    """Measure what needs no container on this machine."""
    outcome = Outcome()
    for part in parts:
        if part != "watcher":
            command = [sys.executable, "-m", "benchmarks.session", part, str(place), *(["--small"] if small else [])]
            outcome.add(part, subprocess.run(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=False))
    return outcome


def _left_out(reason: str | None, measurements: Sequence[Measurement]) -> Iterator[str]:
    """What is not in the table, and why."""
    if reason is not None:
        yield f"left out, since no container was booted ({reason}): real Postfix, Debian's script, the watcher"
    for one in measurements:
        missing = sorted({name for each in goals.known(one.name) for name in each.names} - set(one.samples))
        if missing:
            yield f"left out of {goals.COMPARISONS[one.name][0]}: {', '.join(missing)}"


def _verdict(found: Sequence[Row]) -> str:
    with_goal = [row for row in found if row.met is not None]
    return f"{sum(row.met is True for row in with_goal)} of {len(with_goal)} goals met"


def _write(results: Path, numbers: dict[str, object], lines: Sequence[str]) -> None:
    results.mkdir(parents=True, exist_ok=True)
    (results / "results.json").write_text(json.dumps(numbers, separators=(",", ":")) + "\n")
    (results / "table.md").write_text("\n".join(lines) + "\n")
    print(f"numbers: {results}/results.json, table.md")


def _draw(results: Path, measurements: Sequence[Measurement], found: Sequence[Row]) -> None:
    try:
        from benchmarks import charts
    except ImportError as error:
        print(f"left out: charts, for want of {error.name} (the extra 'bench' brings it)")
        return
    names = charts.draw(results, measurements, found)
    print(f"charts: {', '.join(names)}")


def _options() -> argparse.Namespace:
    summary, _, more = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=summary, epilog=more)
    parser.add_argument("--small", action="store_true", help="smaller sets, fewer rounds: seven minutes")
    parser.add_argument("--here", action="store_true", help="no container, even where one could be booted")
    parser.add_argument("--results", type=Path, metavar="DIR", help="where results go")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"only these parts: {', '.join(PARTS)}")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no part is named {', '.join(sorted(unknown))}")
    options.parts = options.parts or list(PARTS)
    usual = PROJECT / ("build/benchmarks" if options.small else "benchmarks/results")
    options.results = options.results or usual
    return options


if __name__ == "__main__":
    main()
