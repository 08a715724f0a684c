"""The database of rpm, which rpm is asked about: only its own library can read it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from chrootsync.model import Host, PathError, Reader
from chrootsync.packages.reading import Names, names_in

RPM = "/usr/bin/rpm"
DIRECTORIES = ("/usr/lib/sysimage/rpm", "/var/lib/rpm")
FILES = frozenset({"rpmdb.sqlite", "Packages", "Packages.db"})  # SQLite, Berkeley DB, ndb

TIMEOUT = 10.0  # seconds; a Berkeley DB that a killed rpm left locked would keep the next one waiting for ever
BATCH = 1000  # paths that one call asks for, so that neither the command line nor what is printed grows too long

# rpm answers in the order of the paths, but with a line for each owner, and one in words where there is none. What
# belongs to nobody stands between two paths: the line about it tells where the answers to the next one begin.
MARK = "@"
BETWEEN = "/proc/self/status"
FORMAT = MARK + r"%{NAME} %|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}\n"


def find(host: Host, names: Names) -> Mapping[bytes, str]:
    """The packages of those paths that rpm knows of; of several that own one, the first that rpm tells."""
    if host.run is None or not _has_database(host.root):
        return {}
    # No package has a path with a line break, and what rpm says about it could not be read.
    asked = sorted(name for name in names if b"\n" not in name and not name.startswith(os.fsencode(BETWEEN)))
    found: dict[bytes, str] = {}
    for start in range(0, len(asked), BATCH):
        batch = asked[start : start + BATCH]
        paths = [path for name in batch for path in (os.fsdecode(name), BETWEEN)]
        try:
            done = host.run.run(
                [RPM, "-qf", "--nodigest", "--nosignature", "--queryformat", FORMAT, *paths], timeout=TIMEOUT
            )
        except PathError:
            return {}
        found.update(_answers(batch, done.output))
    return found


def _has_database(reader: Reader) -> bool:
    return any(FILES.intersection(names_in(reader, directory)) for directory in DIRECTORIES)


def _answers(names: Sequence[bytes], output: str) -> Iterator[tuple[bytes, str]]:
    """The first owner of each path that has one."""
    index, answered = 0, False
    for line in output.split("\n"):
        if line.startswith(MARK):
            if not answered and index < len(names):
                yield names[index], line.removeprefix(MARK).strip()
            answered = True
        elif BETWEEN in line:
            index, answered = index + 1, False
