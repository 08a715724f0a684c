"""Data sets of jails that the configuration file lists: as many and as large as one likes.

The sources are files of the image, and one rule with ``directories`` asks for all of them. To look at a part of a set,
``rules-N`` beside ``rules`` asks for N files alone, and ``chrootsync-N.toml`` beside ``chrootsync.toml`` lists N jails.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence

from benchmarks.files import make_directory, write

SHARE = "/srv/share"
STEPS = (10, 100, 1000, 10_000, 100_000)  # parts of a jail by files
JAILS = (1, 3, 10, 100, 1000)  # parts of a set by jails
FOLDER = 1000  # files in one directory at most
WEIGHTS = (1, 1, 2, 2, 4, 8, 22)  # sizes as they occur: few large, many small
UNIT = 3500  # bytes of one weight: 20 KB a file on average

RULES = """\
[ruleset]
service = "jail"
description = "The files of a benchmark"

[[rule]]
id = "jail.files"
why = "so that there is something to compare"
directories = [{directories}]
on_change = "nothing"
"""

INSTANCE = """\
[[instance]]
name = "{name}"
chroot = "{chroot}"
rules = ["{rules}"]

"""


def one(place: str, files: int) -> Mapping[str, str]:
    """A single jail; its sources lie in a directory for each step, which has what the one before has not."""
    root, chroot = f"{place}/root", "/srv/jail"
    directories: list[str] = []
    for number in range(files):
        path = source(number)
        directory = "/".join(path.split("/")[:4])
        if directory not in directories:
            directories.append(directory)
        _pair(root, [chroot], path, UNIT * WEIGHTS[number % len(WEIGHTS)])
    for count, directory in enumerate(directories, start=1):
        _write_rules(f"{place}/rules-{directory.rpartition('/')[2]}", {"jail": directories[:count]})
    _write_rules(f"{place}/rules", {"jail": [SHARE]})
    _write_config(f"{place}/chrootsync.toml", [("jail", chroot, "jail")])
    return {"jail": chroot}


def source(number: int) -> str:
    """The path of one of the files of a single jail."""
    step = next(step for step in STEPS if number < step)
    return f"{SHARE}/{step}/{number // FOLDER}/{number}"


def many(place: str, count: int, files: int = 40) -> Mapping[str, str]:
    """Jails that share their sources; two megabytes each."""
    chroots = {f"jail{number:04}": f"/srv/jails/{number:04}" for number in range(count)}
    for number in range(files):
        size = 9000 * WEIGHTS[number % len(WEIGHTS)]
        _pair(f"{place}/root", list(chroots.values()), f"{SHARE}/{number}", size)
    _write_rules(f"{place}/rules", {"jail": [SHARE]})
    tables = [(name, chroot, "jail") for name, chroot in chroots.items()]
    _write_config(f"{place}/chrootsync.toml", tables)
    for part in JAILS:
        _write_config(f"{place}/chrootsync-{part}.toml", tables[:part])
    return chroots


def sizes(place: str, megabytes: Sequence[int], files: int = 50) -> Mapping[str, str]:
    """Jails of as many files each, but of other sizes; each has sources and a rule set of its own."""
    chroots = {f"mb{size}": f"/srv/jails/mb{size}" for size in megabytes}
    for size, (name, chroot) in zip(megabytes, chroots.items(), strict=True):
        for number in range(files):
            _pair(f"{place}/root", [chroot], f"{SHARE}/{name}/{number}", size * 1_000_000 // files)
    _write_rules(f"{place}/rules", {name: [f"{SHARE}/{name}"] for name in chroots})
    _write_config(f"{place}/chrootsync.toml", [(name, chroot, name) for name, chroot in chroots.items()])
    return chroots


def _pair(root: str, chroots: Sequence[str], path: str, size: int) -> None:
    """Write a source, and a copy into each chroot."""
    write(root + path, os.urandom(size))
    for chroot in chroots:
        make_directory(os.path.dirname(root + chroot + path))
        shutil.copyfile(root + path, root + chroot + path)
        os.chmod(root + chroot + path, 0o644)


def _write_rules(folder: str, rule_sets: Mapping[str, Sequence[str]]) -> None:
    for name, directories in rule_sets.items():
        text = RULES.format(directories=", ".join(f'"{directory}"' for directory in directories))
        write(f"{folder}/{name}.toml", text.replace("jail.files", f"{name}.files").encode())


def _write_config(path: str, tables: Sequence[tuple[str, str, str]]) -> None:
    def texts() -> Iterator[str]:
        for name, chroot, rules in tables:
            yield INSTANCE.format(name=name, chroot=chroot, rules=rules)

    write(path, "".join(texts()).encode())
