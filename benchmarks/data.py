"""``python -m benchmarks.data NAME DIRECTORY``: builds a throw-away data set that is in sync.

Each is an image, ``DIRECTORY/root``, with what a check of it takes beside it. Names:

- ``3x40``: three Postfix instances of 40 files, 33 MB of copies; ``3x180`` with a CApath of 140 more in each
- ``100k``: one jail of 100,000 files, 2 GB; ``5k`` has 5000, 100 MB
- ``1000x40``: 1000 jails of the same 40 files, 2 GB; ``100x40`` has a tenth
- ``bytes``: four jails of 50 files, from 1 MB to 1 GB; ``bytes-small`` has three
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from benchmarks import jails, mail
from benchmarks.files import copies, write_list

Builder = Callable[[str, tuple[str, ...]], Mapping[str, str]]

SETS: Mapping[str, Builder] = {
    "3x40": mail.build,
    "3x180": mail.build_with_certificates,
    "100k": lambda place, _: jails.one(place, 100_000),
    "5k": lambda place, _: jails.one(place, 5000),
    "1000x40": lambda place, _: jails.many(place, 1000),
    "100x40": lambda place, _: jails.many(place, 100),
    "bytes": lambda place, _: jails.sizes(place, (1, 10, 100, 1000)),
    "bytes-small": lambda place, _: jails.sizes(place, (1, 10, 100)),
}
"""What builds each set in an empty directory, given the command that is measured; it tells chroots by instance."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSet:
    """A data set on disk. No list of its files is kept here: whoever starts a process counts as part of its memory."""

    name: str
    place: str
    chroots: dict[str, str]
    copies: int
    size: int

    @property
    def root(self) -> str:
        """The image."""
        return f"{self.place}/root"

    @property
    def pairs(self) -> str:
        """A file with the paths of each source and its copy in turn, a NUL behind each."""
        return f"{self.place}/pairs"

    @property
    def built(self) -> float:
        """When its last file was written, by the clock."""
        return os.path.getmtime(f"{self.place}/data.json")

    def names(self, instance: str) -> str:
        """A file with the paths of an instance's copies, relative to the chroot and to the image alike."""
        return f"{self.place}/names/{instance}"

    def options(self, rules: str = "rules", config: str = "chrootsync.toml") -> tuple[str, ...]:
        """The options of a check of this data set."""
        own = ("--config", f"{self.place}/{config}", "--rules", f"{self.place}/{rules}")
        jails = os.path.exists(own[1])
        return ("--root", self.root, "--state", f"{self.place}/state", *(own if jails else ()))


def build(name: str, place: str, command: tuple[str, ...]) -> DataSet:
    """Build a data set in the directory ``place``, which must be empty or missing; ``command`` is chrootsync."""
    os.makedirs(place, mode=0o755, exist_ok=True)
    chroots = dict(SETS[name](place, command))
    number, size = _list(place, chroots)
    made = DataSet(name=name, place=place, chroots=chroots, copies=number, size=size)
    with open(f"{place}/data.json", "w", encoding="utf-8") as file:
        json.dump(asdict(made), file)
    os.sync()  # what is still to be written would be, while something is measured
    return made


def load(place: str) -> DataSet:
    """The data set that was built there."""
    with open(f"{place}/data.json", encoding="utf-8") as file:
        return DataSet(**json.load(file))


def chrootsync() -> tuple[str, ...]:
    """The installed command, as people run it; else the module."""
    script = os.path.join(os.path.dirname(sys.executable), "chrootsync")
    return (script,) if os.path.exists(script) else (sys.executable, "-m", "chrootsync")


def _list(place: str, chroots: Mapping[str, str]) -> tuple[int, int]:
    """Write the lists of files that peers are given; tell how many copies there are, and their bytes."""
    root = f"{place}/root"
    os.mkdir(f"{place}/names")
    number = size = 0
    with open(f"{place}/pairs", "wb") as pairs:
        for instance, chroot in chroots.items():
            found = copies(root + chroot)
            write_list(f"{place}/names/{instance}", [path.lstrip("/") for path in found])
            for path in found:
                copy = f"{root}{chroot}{path}"
                pairs.write(os.fsencode(f"{root}{path}") + b"\0" + os.fsencode(copy) + b"\0")
                number, size = number + 1, size + os.path.getsize(copy)
    return number, size


def main() -> None:
    """Build one data set."""
    summary, _, names = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data",
        description=summary,
        epilog=names,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=sorted(SETS), metavar="NAME")
    parser.add_argument("directory", metavar="DIRECTORY", help="where; it is made, and must not hold anything")
    options = parser.parse_args()
    place = os.path.abspath(options.directory)
    if os.path.isdir(place) and os.listdir(place):
        parser.error(f"{place} is not empty")
    try:
        made = build(options.name, place, chrootsync())
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    print(f"{made.name}: {len(made.chroots)} instances, {made.copies} copies, {made.size / 1e6:.1f} MB a side")
    print(" ".join(("chrootsync", "check", "--quiet", *made.options())))


if __name__ == "__main__":
    main()
