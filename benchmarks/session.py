"""``python -m benchmarks.session PART PLACE``: measures one part and prints JSON; it runs in the container, or without.

Nothing but the standard library is at hand here.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping

from benchmarks import cold, growth, instances, large
from benchmarks.data import chrootsync
from benchmarks.measurement import Measurement
from benchmarks.peers import compile_floor
from benchmarks.setup import Setup

PARTS: Mapping[str, Callable[[Setup], Iterable[Measurement]]] = {
    "instances": instances.measure,
    "large": large.measure,
    "growth": growth.measure,
    "cold": cold.measure,
}


def main() -> None:
    """Measure what the first argument names, in the directory that the second names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.session")
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("place")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--live", action="store_true")
    options = parser.parse_args()
    setup = Setup(
        place=options.place,
        chrootsync=chrootsync(),
        floor=compile_floor(options.place),
        small=options.small,
        live=options.live,
    )
    json.dump([one.to_json() for one in PARTS[options.part](setup)], sys.stdout)


if __name__ == "__main__":
    main()
