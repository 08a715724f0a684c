"""What a check and a repair ask of the system: counts tell sooner than a clock that something got dearer.

The image is that of the benchmarks: three instances of Postfix with 40 files each, 33 MB of copies. Calls on it depend
neither on the Python nor on the machine; those that start the interpreter and import modules do, and have a margin.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.data import DataSet, build

COMMAND = (sys.executable, "-I", "-m", "chrootsync", "check")
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
LIBRARY = "usr/lib/libfiller9.so.1"

# What it takes, and a margin. Python 3.11 and 3.13 make the same number of calls, but for a few.
MOST_ON_IMAGE = 2200  # 1990 to 2050: 120 copies, 40 sources and 44 directories at 5 to 9 calls each; configuration
MOST_IN_ALL = 4600  # 4150 to 4180: what is above, 110 modules at 15 calls each, the interpreter
MOST_OF_OUR_MODULES = 80  # 76
MOST_MODULES = 125  # 110, those that start the interpreter included; 190 with those that typer loads
MOST_MEMORY = 8 << 20  # 6.3 MB more than a bare interpreter, most of it modules
MOST_SYNCS = 28  # 6 for each of three instances, 3 for what is kept once, 7 for the database
MOST_SAMPLES = 8  # sources of which it is seen whether they are in memory

CALL = re.compile(r"\d+ +(?P<name>\w+)\((?P<rest>.*)\) += (?P<result>-?\d+)(?P<opened><[^>]*>)?.*")
PROCESSES = {"clone", "clone3", "fork", "vfork"}
OPENS = {"open", "openat", "openat2"}
READS = {"read", "pread64"}
SYNCS = {"fsync", "fdatasync", "sync", "syncfs"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """A system call, its arguments with the paths of descriptors, and what came of it."""

    name: str
    rest: str
    result: int
    opened: str

    @property
    def file(self) -> str:
        """The path of the descriptor that is its first argument."""
        found = re.match(r"\d+<(.*?)>", self.rest)
        return found[1] if found else ""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    """The image, in sync, with every cache warm."""
    place = tmp_path_factory.mktemp("calls")
    place.chmod(0o755)
    made = build("3x40", str(place / "3x40"), COMMAND[:-1])
    for _ in range(2):
        check(made)
    return made


def check(data: DataSet, *options: str, before: Sequence[str] = ()) -> None:
    command = [*before, *COMMAND, "--quiet", *data.options(), *options]
    subprocess.run(command, check=True, env=ENVIRONMENT, cwd="/", timeout=120)


def traced(data: DataSet, log: Path, *options: str) -> list[Call]:
    """All calls of a check, of whatever it starts, too."""
    check(data, *options, before=("strace", "-f", "-qq", "-y", "-s", "0", "-e", "signal=none", "-o", str(log)))
    lines = [CALL.fullmatch(line) for line in log.read_text().splitlines()]
    return [
        Call(name=one["name"], rest=one["rest"], result=int(one["result"]), opened=(one["opened"] or "")[1:-1])
        for one in lines
        if one is not None
    ]


@pytest.fixture(scope="module")
def clean(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> list[Call]:
    """The calls of a check where nothing is to be done."""
    return traced(data, tmp_path_factory.mktemp("trace") / "clean")


def pairs(data: DataSet) -> Iterator[str]:
    """All sources and all copies; a source of several copies once."""
    return iter(dict.fromkeys(Path(data.pairs).read_text().rstrip("\0").split("\0")))


def reading(calls: Sequence[Call]) -> Counter[str]:
    """How often each file was opened to be read."""
    return Counter(one.opened for one in calls if one.name in OPENS and one.opened and "O_PATH" not in one.rest)


def of(data: DataSet, calls: Sequence[Call]) -> list[Call]:
    """The calls on the image and on what is remembered of it."""
    return [one for one in calls if f"<{data.place}" in one.rest or f'"{data.place}' in one.rest]


def test_each_source_and_each_copy_is_read_once(data: DataSet, clean: list[Call]) -> None:
    """Reading is what a check is about; who reads a source for each of its copies pays for it a thousand times."""
    opened = reading(clean)
    read = Counter[str]()
    for one in clean:
        if one.name in READS:
            read[one.file] += one.result
    looked_up = {os.path.join(data.root, "etc", name) for name in ("passwd", "group")}  # by rules, for owners
    files = [path for path in map(os.path.realpath, pairs(data)) if path not in looked_up]
    assert len(files) > 4 * 39
    assert {path: read[path] for path in files if read[path] != os.path.getsize(path)} == {}
    chroots = tuple(f"{data.root}{chroot}/" for chroot in data.chroots.values())
    more = [path for path in files if opened[path] != 1]
    assert [path for path in more if path.startswith(chroots)] == []
    assert len(more) <= MOST_SAMPLES


def test_a_clean_check_makes_few_calls_on_what_it_checks(data: DataSet, clean: list[Call]) -> None:
    """They are its work: each file is found, looked at, opened, read and closed; so is the configuration."""
    assert len(of(data, clean)) <= MOST_ON_IMAGE


def test_a_clean_check_makes_few_calls_in_all(clean: list[Call]) -> None:
    """Half of them start Python and import modules."""
    assert len(clean) <= MOST_IN_ALL


def test_a_clean_check_starts_nothing_and_writes_nothing(clean: list[Call]) -> None:
    """Neither is needed: postconf is asked when Postfix changes, ldd never, and there is nothing to be remembered."""
    counts = Counter(one.name for one in clean)
    assert counts["execve"] == 1
    assert {name: counts[name] for name in (*PROCESSES, *SYNCS) if counts[name]} == {}
    assert [one for one in clean if one.name in OPENS and re.search(r"O_WRONLY|O_RDWR|O_CREAT", one.rest)] == []


def test_a_clean_check_imports_few_modules(clean: list[Call]) -> None:
    """A module costs a third of a millisecond; what only a repair, a table or another verb needs is not among them."""
    loaded = {path for path in reading(clean) if path.endswith((".pyc", ".py", ".so"))}
    ours = {path for path in loaded if "/chrootsync/" in path}
    assert 30 < len(ours) <= MOST_OF_OUR_MODULES
    assert len(loaded) <= MOST_MODULES


def test_a_clean_check_stays_small(data: DataSet) -> None:
    """However much it reads: it holds no more than a chunk of each of some files."""
    check = [*COMMAND, "--quiet", *data.options()]
    bare = [sys.executable, "-I", "-c", "pass"]
    assert peak(check) <= peak(bare) + MOST_MEMORY


def peak(command: Sequence[str]) -> int:
    """The most memory that a command had, in bytes; a small process starts it, since a child begins as its parent."""
    program = "import os, sys; print(os.wait4(os.posix_spawn(sys.argv[1], sys.argv[1:], {}), 0)[2].ru_maxrss)"
    asking = [sys.executable, "-I", "-S", "-c", program, *command]
    return int(subprocess.run(asking, check=True, capture_output=True, text=True, env=ENVIRONMENT).stdout) << 10


def test_a_repair_waits_for_the_disk_as_seldom_as_is_safe(data: DataSet, tmp_path: Path) -> None:
    """A millisecond each on an SSD. Each instance is repaired as a whole by a transaction of its own."""
    source = Path(data.root, LIBRARY)
    new = source.with_name("new")
    new.write_bytes(source.read_bytes() + b"another version")
    new.chmod(0o644)
    new.rename(source)

    counts = Counter(one.name for one in traced(data, tmp_path / "repair", "--fix"))

    assert counts["renameat2"] == 3, "each copy is swapped in once"
    assert sum(counts[name] for name in SYNCS) <= MOST_SYNCS
    assert counts["execve"] == 1
    check(data)
