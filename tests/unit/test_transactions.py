"""Package managers at work are seen from their locks, which other processes hold here for real."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chrootsync import procfs, transactions
from chrootsync.model import Drift, Entry, FileType, Kind, Remedy, Severity, State
from chrootsync.transactions import LOCKS, Transaction, must_wait, name, under_way
from tests.unit.machine import descriptors, mount, needs_root, with_private_mounts
from tests.unit.scenery import instance, rule
from tests.unit.tree_reader import TreeReader, plant

FRONTEND, DPKG = "/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock"
RPM = "/var/lib/rpm/.rpm.lock"
PACMAN = "/var/lib/pacman/db.lck"
APK = "/lib/apk/db/lock"

# Takes the lock of a kind on a file, says so, and holds it until its standard input ends.
HOLD = """
import fcntl, os, sys
how, path = sys.argv[1:]
flags = os.O_RDONLY if how in ("shared", "reader") else os.O_WRONLY
fd = os.open(path, flags | os.O_CREAT, 0o600)
if how == "record":
    fcntl.lockf(fd, fcntl.LOCK_EX)
elif how == "shared":
    fcntl.lockf(fd, fcntl.LOCK_SH)
elif how == "description":
    import struct
    fcntl.fcntl(fd, 37, struct.pack("@hhqqi0q", fcntl.F_WRLCK, 0, 0, 0, 0))  # F_OFD_SETLK
elif how == "flock":
    fcntl.flock(fd, fcntl.LOCK_EX)
print("ready", flush=True)
sys.stdin.read()
"""

# Looks, as another process, at the root that the first argument names.
LOOK = """
import json, sys
from dataclasses import asdict
from chrootsync.root import Root
from chrootsync.transactions import under_way
root = Root(sys.argv[1])
root.live = True
print(json.dumps([asdict(one) for one in under_way(root)]))
"""

# Holds dpkg's lock while a child of a child looks.
ANCESTOR = f"""
import fcntl, os, subprocess, sys
fd = os.open(sys.argv[1] + {FRONTEND!r}, os.O_WRONLY)
fcntl.lockf(fd, fcntl.LOCK_EX)
sys.exit(subprocess.call(["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-c", {LOOK!r}, sys.argv[1]]))
"""


class LiveTree(TreeReader):
    """A tree that passes for the root that this process lives in."""

    def __init__(self, path: Path, **fields: set[str]) -> None:
        super().__init__(path, **fields)
        self.live = True


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with the lock files of every package manager but pacman, all of them free."""
    plant(tmp_path, dict.fromkeys((FRONTEND, DPKG, RPM, APK), b""))
    return tmp_path


@contextmanager
def holding(root: Path, path: str, how: str) -> Iterator[int]:
    """Let another process hold a lock meanwhile, and give its number."""
    command = [sys.executable, "-c", HOLD, how, f"{root}{path}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process.pid
        finally:
            process.stdin.close()


def program(pid: int) -> str:
    """What the kernel calls a process."""
    return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").rstrip("\n")


def seen(root: Path) -> list[tuple[str, str, int | None]]:
    """The managers at work with their locks and processes."""
    return [(one.manager, one.lock, one.pid) for one in under_way(LiveTree(root))]


def looked(*command: str) -> list[dict[str, object]]:
    """What another process saw."""
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    found = json.loads(done.stdout)
    assert isinstance(found, list)
    return found


def look(root: Path) -> tuple[str, ...]:
    """The command by which another process looks."""
    return (sys.executable, "-c", LOOK, str(root))


@pytest.mark.parametrize(
    ("manager", "path", "how"),
    [
        ("dpkg", FRONTEND, "record"),
        ("dpkg", DPKG, "record"),
        ("rpm", RPM, "record"),
        ("rpm", "/usr/lib/sysimage/rpm/.rpm.lock", "record"),
        ("pacman", PACMAN, "open"),
        ("apk", APK, "flock"),
        ("apk", "/usr/lib/apk/db/lock", "flock"),
        ("apk", "/run/apk/db.lock", "flock"),
    ],
)
def test_a_lock_that_another_process_holds(tmp_path: Path, manager: str, path: str, how: str) -> None:
    (tmp_path / path[1:]).parent.mkdir(parents=True)
    with holding(tmp_path, path, how) as pid:
        [found] = under_way(LiveTree(tmp_path))
        assert (found.manager, found.lock, found.pid, found.program) == (manager, path, pid, program(pid))
    (tmp_path / PACMAN[1:]).unlink(missing_ok=True)
    assert under_way(LiveTree(tmp_path)) == ()


def test_nothing_is_at_work(root: Path, tmp_path: Path) -> None:
    assert seen(root) == []
    assert seen(tmp_path / "var") == [], "no lock file at all"


def test_all_at_once(root: Path) -> None:
    with (
        holding(root, FRONTEND, "record") as apt,
        holding(root, DPKG, "record") as dpkg,
        holding(root, RPM, "record") as rpm,
        holding(root, APK, "flock") as apk,
    ):
        expected = [("dpkg", FRONTEND, apt), ("dpkg", DPKG, dpkg), ("rpm", RPM, rpm), ("apk", APK, apk)]
        assert seen(root) == expected


def test_looking_takes_no_lock_and_leaves_no_descriptor(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = fcntl.fcntl

    def ask(fd: int, command: int, argument: bytes) -> bytes:
        asked.append(command)
        return real(fd, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", ask)
    monkeypatch.delattr(fcntl, "flock")
    monkeypatch.delattr(fcntl, "lockf")
    plant(root, {PACMAN: b""})
    with holding(root, FRONTEND, "record"), holding(root, APK, "flock"):
        before = descriptors()
        seen(root)
        assert descriptors() == before
    assert set(asked) == {fcntl.F_GETLK}


def test_in_an_image_nothing_runs(root: Path) -> None:
    with holding(root, FRONTEND, "record"):
        assert under_way(TreeReader(root)) == ()


def test_what_cannot_be_looked_at_counts_as_free(root: Path) -> None:
    with holding(root, FRONTEND, "record"), holding(root, DPKG, "record") as pid:
        assert [one.pid for one in under_way(LiveTree(root, unseen={FRONTEND}))] == [pid]


def test_who_only_reads_is_no_transaction(root: Path) -> None:
    with holding(root, RPM, "shared"):
        assert seen(root) == []


def test_who_asks_for_the_lock_has_it_not_yet(root: Path) -> None:
    with holding(root, APK, "flock") as holder:
        command = [sys.executable, "-c", HOLD, "flock", f"{root}{APK}"]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as waiting:
            wait_for(lambda: f"-> FLOCK  ADVISORY  WRITE {waiting.pid} " in Path("/proc/locks").read_text())
            assert seen(root) == [("apk", APK, holder)]
            waiting.kill()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_lock_that_has_two_paths_is_told_once(root: Path) -> None:
    plant(root, {"/usr/lib/sysimage/rpm": "../../../var/lib/rpm", "/usr/lib/apk": "../../lib/apk"})
    with holding(root, RPM, "record") as rpm, holding(root, APK, "flock") as apk:
        expected = [("rpm", "/usr/lib/sysimage/rpm/.rpm.lock", rpm), ("apk", APK, apk)]
        assert seen(root) == expected


@needs_root  # who else has a file open, only root can see
@pytest.mark.parametrize("what", [None, b"", b"4711\n"])
def test_a_file_that_pacman_left_behind_is_no_lock(root: Path, what: bytes | None) -> None:
    if what is None:
        (root / PACMAN[1:]).mkdir(parents=True)
    else:
        plant(root, {PACMAN: what})
    assert seen(root) == []
    with holding(root, PACMAN, "reader") if what is not None else holding(root, DPKG, "open"):
        assert seen(root) == [], "a backup that reads it"


@needs_root  # who else has a file open, only root can see
def test_a_file_of_the_same_name_elsewhere_is_another_lock(root: Path) -> None:
    plant(root, {PACMAN: b"", "/srv/db.lck": b"", "/srv/lock": b""})
    with holding(root, "/srv/db.lck", "open"), holding(root, "/srv/lock", "flock"):
        assert seen(root) == []


@pytest.mark.parametrize("hidden", ["descriptors", "processes"])
def test_a_pacman_that_cannot_be_seen_counts_as_at_work(
    root: Path, monkeypatch: pytest.MonkeyPatch, hidden: str
) -> None:
    plant(root, {PACMAN: b""})
    real = os.listdir

    def listdir(path: str) -> list[str]:
        if path == "/proc/1/fd" and hidden == "descriptors":
            raise PermissionError(13, "Permission denied", path)
        return [str(os.getpid())] if path == "/proc" and hidden == "processes" else real(path)

    monkeypatch.setattr(os, "listdir", listdir)
    [found] = under_way(LiveTree(root))
    assert (found.manager, found.pid, found.program) == ("pacman", None, None)


@needs_root  # who else has a file open, only root can see
def test_a_process_that_ends_meanwhile(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(root, {PACMAN: b""})
    with subprocess.Popen(["true"]) as ended:
        pass
    monkeypatch.setattr(procfs, "numbers", lambda: [1, ended.pid])
    assert seen(root) == []
    monkeypatch.setattr(transactions, "_flocks", lambda: iter([(ended.pid, (0, 0, 0))]))
    assert seen(root) == []
    inode = (root / APK[1:]).stat()
    place = (os.major(inode.st_dev), os.minor(inode.st_dev), inode.st_ino)
    monkeypatch.setattr(transactions, "_flocks", lambda: iter([(ended.pid, place)]))
    assert under_way(LiveTree(root)) == (Transaction(manager="apk", lock=APK, pid=ended.pid),)


def test_the_lock_of_an_ancestor_is_none(root: Path) -> None:
    assert looked(sys.executable, "-c", ANCESTOR, str(root)) == []


@pytest.mark.parametrize("path", [FRONTEND, PACMAN, APK])
def test_an_own_lock_is_none(root: Path, path: str) -> None:
    (root / path[1:]).parent.mkdir(exist_ok=True)
    with (root / path[1:]).open("w", encoding="utf-8") as file:
        (fcntl.flock if path == APK else fcntl.lockf)(file.fileno(), fcntl.LOCK_EX)
        assert seen(root) == []
        assert looked(*look(root)) == [], "nor is it one for a child"


def test_the_lock_of_somebody_else_is_one_for_a_hook_too(root: Path) -> None:
    """An ancestor holds the one lock, a stranger the other."""
    with holding(root, DPKG, "record") as pid:
        [found] = looked(sys.executable, "-c", ANCESTOR, str(root))
        assert (found["lock"], found["pid"]) == (DPKG, pid)


def test_a_lock_of_an_open_file_description_belongs_to_no_process(root: Path) -> None:
    with holding(root, DPKG, "description"):
        assert under_way(LiveTree(root)) == (Transaction(manager="dpkg", lock=DPKG),)


@needs_root
def test_a_process_of_another_namespace_is_somebody_else(root: Path) -> None:
    with holding(root, FRONTEND, "record"):
        inside = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *look(root))
        [found] = looked(*inside)
        assert (found["lock"], found["pid"], found["program"]) == (FRONTEND, None, None)


@needs_root
def test_locks_on_an_overlay(tmp_path: Path) -> None:
    """Where stat(2) and the kernel call the device differently."""
    lower, upper, merged = (tmp_path / part for part in ("lower", "upper", "merged"))
    plant(lower, dict.fromkeys((FRONTEND, PACMAN, APK), b""))

    def inside() -> None:
        mount("-t", "tmpfs", "tmpfs", upper)
        for part in (upper / "files", upper / "work"):
            part.mkdir()
        layers = f"lowerdir={lower},upperdir={upper}/files,workdir={upper}/work,xino=off"
        mount("-t", "overlay", "overlay", "-o", layers, merged)
        with (
            holding(merged, FRONTEND, "record") as apt,
            holding(merged, PACMAN, "open") as pacman,
            holding(merged, APK, "flock") as apk,
        ):
            assert seen(merged) == [("dpkg", FRONTEND, apt), ("pacman", PACMAN, pacman), ("apk", APK, apk)]

    upper.mkdir()
    merged.mkdir()
    with_private_mounts(inside)


def test_looking_at_every_process_does_not_take_long(root: Path) -> None:
    plant(root, {PACMAN: b""})
    with holding(root, APK, "flock"):
        reader = LiveTree(root)
        under_way(reader)
        before = time.perf_counter()
        under_way(reader)
        assert time.perf_counter() - before < 1


# --- What has to wait ---------------------------------------------------------------------------------------------


def drift(source: str | None, package: str | None = None, changed: float | None = None) -> Drift:
    """A drift of a source that belongs to a package, and was changed at a time."""
    identity = None if changed is None else (1, 2, 3, 0, int(changed * 1e9))
    return Drift(
        kind=Kind.DIFFERS,
        severity=Severity.ERROR,
        remedy=Remedy.COPY,
        reason="differs",
        entry=Entry(
            instance=instance(),
            rule=rule(),
            path=source or "/dev/null",
            source=source,
            because="always",
            want=State(type=FileType.FILE, identity=identity),
        ),
        package=package,
    )


def test_what_belongs_to_a_package_waits(root: Path) -> None:
    plant(root, {"/etc/services": b"", "/etc/mine": b""})
    reader = TreeReader(root)
    assert must_wait(reader, drift("/etc/services", "netbase 6.4"))
    assert must_wait(reader, drift("/etc/gone", "netbase 6.4"))
    assert not must_wait(reader, drift("/etc/mine"))
    assert not must_wait(reader, drift(None))


@pytest.mark.parametrize("source", ["/etc/resolv.conf", "/etc/hosts", "/run/resolve/stub", "/var/run/resolve/stub"])
def test_the_resolver_never_waits(root: Path, source: str) -> None:
    plant(
        root,
        {
            "/etc/resolv.conf": "../run/resolve/stub",
            "/run/resolve/stub": b"nameserver ::1\n",
            "/var/run": "../run",
            "/etc/hosts": b"",
        },
    )
    reader = TreeReader(root)
    assert not must_wait(reader, drift(source, "setup 2.14", changed=time.time()), [working(since=0.0)])
    assert must_wait(reader, drift("/etc/host.conf", "setup 2.14"))


def working(manager: str = "rpm", **fields: object) -> Transaction:
    return Transaction(**{"manager": manager, "lock": RPM, **fields})  # type: ignore[arg-type]  # fields of any type


def test_what_no_database_lists_waits_if_it_was_changed_meanwhile(root: Path) -> None:
    now = time.time()
    reader = TreeReader(root)
    before, after = drift("/etc/x", changed=now - 60), drift("/etc/x", changed=now + 0.1)
    assert not must_wait(reader, before, [working(since=now)])
    assert must_wait(reader, after, [working(since=None), working(since=now)])
    assert not must_wait(reader, after, [working(since=None)])
    assert not must_wait(reader, drift("/etc/x"), [working(since=now)])


@pytest.mark.parametrize(("path", "how"), [(RPM, "record"), (APK, "flock")])
def test_rpm_and_apk_list_files_later_than_they_are_in_place(root: Path, path: str, how: str) -> None:
    before = time.time()
    with holding(root, path, how):
        [found] = under_way(LiveTree(root))
        assert found.since is not None
        assert before - 2 < found.since < time.time() + 1
        (root / "new").touch()
        reader = TreeReader(root)
        new = drift("/new", changed=(root / "new").stat().st_ctime)
        assert must_wait(reader, new, [found])


@pytest.mark.parametrize(("called", "unlisted"), [("dpkg", True), ("apt-get", False)])
def test_apt_may_just_be_asking_a_question(
    root: Path, monkeypatch: pytest.MonkeyPatch, called: str, unlisted: bool
) -> None:
    real = procfs.process

    def stat(pid: int) -> procfs.Process | None:
        process = real(pid)
        return None if process is None else process._replace(name=called)

    monkeypatch.setattr(procfs, "process", stat)
    with holding(root, FRONTEND, "record"):
        [found] = under_way(LiveTree(root))
        assert (found.since is not None) is unlisted


def test_pacman_may_put_files_into_place_that_it_does_not_list_yet(root: Path) -> None:
    (root / PACMAN[1:]).parent.mkdir()
    with holding(root, PACMAN, "open"):
        (one,) = under_way(LiveTree(root))
        assert one.since is not None


def test_names_for_people() -> None:
    apt = working("dpkg", pid=12, program="apt-get")
    dpkg = working("dpkg", pid=34, program="dpkg")
    assert name([apt, dpkg]) == "apt-get (process 12)"
    assert name([dpkg, working("pacman")]) == "dpkg (process 34) and pacman"
    assert name([working(pid=5)]) == "rpm (process 5)"


def test_every_lock_has_a_path_of_its_own() -> None:
    paths = [lock.path for lock in LOCKS]
    assert len(paths) == len(set(paths))
