"""``python -m benchmarks.check``: small sets here, and no ratio worse than the one that is committed.

The bounds in ratios.json are generous, since machines differ: they tell a regression, not a goal that was missed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks import host, rows, table
from benchmarks.__main__ import here
from benchmarks.rows import Row
from benchmarks.setup import BARE

BOUNDS = Path(__file__).with_name("ratios.json")
ROOM = 1.5  # times what was measured, which a bound allows
PARTS = ("instances", "large")
KEPT = (BARE, "Fs", "Fr", "rsync -anc", "rsync -anc in a loop", "most memory held")  # peers whose times are steady


def main() -> None:
    """Measure and compare; with --update, write new bounds instead."""
    summary, _, more = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.check", description=summary, epilog=more)
    parser.add_argument("--update", action="store_true", help=f"write bounds of {ROOM:g} times what is measured")
    options = parser.parse_args()
    with host.place(host.SMALL_GIGABYTES) as place:
        outcome = here(place, PARTS, small=True)
    if outcome.failures:
        raise SystemExit("\n".join(("failed:", *outcome.failures)))
    measured = [row for row in rows.of_all(outcome.measurements) if row.peer in KEPT]
    print("\n".join(table.text(measured)))
    if options.update:
        bounds = {row.key: float(table.number(row.value * ROOM)) for row in measured}
        BOUNDS.write_text(json.dumps(bounds, indent=2) + "\n")
        return
    complaints = list(worse(measured, json.loads(BOUNDS.read_text())))
    if complaints:
        raise SystemExit("\n".join(("worse than committed:", *complaints)))
    print("no ratio is worse than committed")


def worse(measured: Sequence[Row], bounds: Mapping[str, float]) -> Iterator[str]:
    """One line for each row beyond its bound. A peer that is not installed here has no row, and nothing to say."""
    for row in measured:
        bound = bounds.get(row.key)
        if bound is not None and row.value > bound:
            yield f"  {row.key}: {table.number(row.value)}, where {table.number(bound)} is the bound"
    if not any(row.key in bounds for row in measured):
        yield "  nothing that has a bound could be measured"


if __name__ == "__main__":
    main()
