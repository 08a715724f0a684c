"""``python -m benchmarks.session PART PLACE``: measures one part and prints JSON.

It runs in the container, or without, and has nothing but the standard library. Each measurement is a line, printed once
it is made, so that what fails later takes none away.
"""

from __future__ import annotations

import argparse
import json
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
    for one in PARTS[options.part](setup):
        print(json.dumps(one.to_json()), flush=True)


if __name__ == "__main__":
    main()
