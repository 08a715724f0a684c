"""Repairs on real trees: what is made right, and what an error leaves behind (nothing)."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chrootsync.model import Device, FileType, InstanceReport, Link, OnConflict, Rule, Status
from chrootsync.pipeline import check
from chrootsync.repair import SourceChangedError
from chrootsync.repair import transaction as repairing
from chrootsync.root import kernel, swap, write
from tests.unit.scenery import Tree, checked, drifts, fixed, grow, instance, kinds, repair, rule, snapshot, task

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away and make devices")

FILES = rule(files=("/etc/services", "/etc/hosts", "/lib/libx.so"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    host: Tree = {
        "/etc/services": b"smtp 25/tcp\n",
        "/etc/hosts": b"127.0.0.1 localhost\n",
        "/lib/libx.so": b"\x7fELF new",
    }
    grow(tmp_path, {**host, "/jail/one": None})
    return tmp_path


@pytest.fixture
def stale(tree: Path) -> Path:
    """A chroot with a stale file, a stale library and a missing file."""
    grow(tree, {"/jail/one/etc/services": b"stale\n", "/jail/one/lib/libx.so": b"\x7fELF old"})
    return tree


def statuses(reports: tuple[InstanceReport, ...]) -> set[str]:
    return {str(one.outcome.status) for report in reports for one in report.findings if one.outcome is not None}


def reasons(reports: tuple[InstanceReport, ...]) -> dict[str, str]:
    return {
        one.drift.entry.path: one.outcome.reason
        for report in reports
        for one in report.findings
        if one.outcome is not None
    }


def temporaries(root: Path) -> list[str]:
    return [
        name for _, folders, files in os.walk(root) for name in [*folders, *files] if name.startswith(".chrootsync")
    ]


# --- What is made right -------------------------------------------------------------------------------------------


def test_an_empty_chroot_is_filled_and_then_in_sync(tree: Path) -> None:
    found = fixed(tree, [FILES])
    assert statuses(found) == {"repaired"}
    assert kinds(checked(tree, [FILES])) == {}
    assert (tree / "jail/one/etc/hosts").read_bytes() == b"127.0.0.1 localhost\n"
    assert stat.S_IMODE((tree / "jail/one/etc").stat().st_mode) == 0o755
    assert temporaries(tree) == []


def test_a_second_repair_writes_nothing(stale: Path) -> None:
    fixed(stale, [FILES])
    before = snapshot(stale)
    assert statuses(fixed(stale, [FILES])) == set()
    assert snapshot(stale) == before


def test_a_stale_copy_gets_a_new_inode_and_who_has_it_open_keeps_the_old_contents(stale: Path) -> None:
    with (stale / "jail/one/lib/libx.so").open("rb") as held:
        before = os.fstat(held.fileno()).st_ino
        fixed(stale, [FILES])
        assert held.read() == b"\x7fELF old"
    assert (stale / "jail/one/lib/libx.so").stat().st_ino != before
    assert (stale / "jail/one/lib/libx.so").read_bytes() == b"\x7fELF new"


def test_the_copy_has_the_sources_mode_and_time(tree: Path) -> None:
    os.utime(tree / "etc/hosts", ns=(1_600_000_000_123_456_789, 1_600_000_000_123_456_789))
    (tree / "etc/hosts").chmod(0o6664)
    (tree / "etc/services").chmod(0o600)
    fixed(tree, [FILES])
    copy = (tree / "jail/one/etc/hosts").stat()
    assert copy.st_mtime_ns == 1_600_000_000_123_456_789
    assert stat.S_IMODE(copy.st_mode) == 0o644
    assert stat.S_IMODE((tree / "jail/one/etc/services").stat().st_mode) == 0o600


def test_a_wrong_mode_is_mended_by_a_new_inode(tree: Path) -> None:
    fixed(tree, [FILES])
    copy = tree / "jail/one/etc/hosts"
    copy.chmod(0o600)
    before = copy.stat().st_ino
    assert kinds(fixed(tree, [FILES])) == {"/etc/hosts": "metadata"}
    assert copy.stat().st_ino != before
    assert stat.S_IMODE(copy.stat().st_mode) == 0o644


def test_a_directory_that_daemons_cannot_enter_is_opened(tree: Path) -> None:
    fixed(tree, [FILES])
    (tree / "jail/one/etc").chmod(0o700)
    assert kinds(fixed(tree, [FILES])) == {"/etc": "metadata"}
    assert kinds(checked(tree, [FILES])) == {}


@pytest.mark.parametrize("what", ["/etc/passwd", 0o644, None])
def test_whatever_stands_where_a_file_should_is_replaced(tree: Path, what: str | int | None) -> None:
    grow(tree, {"/jail/one/etc/hosts": what})
    assert statuses(fixed(tree, [FILES])) == {"repaired"}
    assert kinds(checked(tree, [FILES])) == {}
    assert temporaries(tree) == []


def test_a_file_that_stands_where_a_directory_should_is_replaced(tree: Path) -> None:
    grow(tree, {"/jail/one/etc": b"not a directory"})
    assert kinds(fixed(tree, [rule(files=("/etc/hosts",))])) == {"/etc": "type", "/etc/hosts": "missing"}
    assert kinds(checked(tree, [rule(files=("/etc/hosts",))])) == {}
    assert temporaries(tree) == []


def test_a_directory_that_is_not_empty_stays(tree: Path) -> None:
    grow(tree, {"/jail/one/etc/hosts/precious": b"x"})
    before = snapshot(tree)
    assert kinds(fixed(tree, [rule(files=("/etc/hosts",))])) == {"/etc/hosts": "type"}
    assert snapshot(tree) == before


def test_links_are_made(tree: Path) -> None:
    links = rule(links=(Link(path="/lib64", target="lib"),))
    assert statuses(fixed(tree, [links])) == {"repaired"}
    assert (tree / "jail/one/lib64").readlink() == Path("lib")
    (tree / "jail/one/lib64").unlink()
    (tree / "jail/one/lib64").symlink_to("elsewhere")
    fixed(tree, [links])
    assert (tree / "jail/one/lib64").readlink() == Path("lib")


@needs_root
def test_devices_are_made(tree: Path) -> None:
    null = rule(devices=(Device(path="/dev/null", kind=FileType.CHARACTER_DEVICE, major=1, minor=3),))
    found = fixed(tree, [null])
    if "operation not permitted" in str(reasons(found)):
        pytest.skip("this container may not make device nodes")
    made = (tree / "jail/one/dev/null").stat()
    assert stat.S_ISCHR(made.st_mode)
    assert (os.major(made.st_rdev), os.minor(made.st_rdev), stat.S_IMODE(made.st_mode)) == (1, 3, 0o666)
    assert kinds(checked(tree, [null])) == {}


@needs_root
def test_a_copy_is_roots_whoever_owns_the_source(tree: Path) -> None:
    os.chown(tree / "etc/hosts", 1234, 1234)
    grow(tree, {"/jail/one/etc/hosts": b"127.0.0.1 localhost\n"})
    os.chown(tree / "jail/one/etc/hosts", 1234, 1234)
    assert kinds(fixed(tree, [rule(files=("/etc/hosts",))])) == {"/etc/hosts": "metadata"}
    assert ((tree / "jail/one/etc/hosts").stat().st_uid, (tree / "jail/one/etc/hosts").stat().st_gid) == (0, 0)


@needs_root
def test_owner_and_group_of_the_rule_never_see_more_than_they_could_on_the_host(tree: Path) -> None:
    grow(tree, {"/etc/group": b"bind:x:77:\n", "/etc/key": b"secret", "/etc/other": b"secret"})
    for name, group in (("key", 77), ("other", 5)):
        os.chown(tree / f"etc/{name}", 0, group)
        (tree / f"etc/{name}").chmod(0o640)
    fixed(tree, [rule(files=("/etc/key", "/etc/other"), group="bind")])
    modes = {name: (tree / f"jail/one/etc/{name}").stat() for name in ("key", "other")}
    assert {name: (one.st_gid, stat.S_IMODE(one.st_mode)) for name, one in modes.items()} == {
        "key": (77, 0o640),
        "other": (77, 0o600),
    }


def test_a_filtered_copy_has_no_password_fields(tree: Path) -> None:
    grow(tree, {"/etc/passwd": b"root:HASH:0:0::/root:/bin/sh\n"})
    accounts = rule(filtered=("/etc/passwd",))
    fixed(tree, [accounts])
    assert (tree / "jail/one/etc/passwd").read_bytes() == b"root:x:0:0::/root:/bin/sh\n"
    assert kinds(checked(tree, [accounts])) == {}


def test_a_filtered_copy_of_many_accounts_is_made_too(tree: Path) -> None:
    lines = b"".join(b"user%d:HASH:%d:100::/home/user%d:/bin/sh\n" % (n, n, n) for n in range(1000, 31000))
    assert len(lines) > 1 << 20
    grow(tree, {"/etc/passwd": lines})
    accounts = rule(filtered=("/etc/passwd",))
    assert statuses(fixed(tree, [accounts])) == {"repaired"}
    assert b"HASH" not in (tree / "jail/one/etc/passwd").read_bytes()
    assert kinds(checked(tree, [accounts])) == {}


def test_a_rule_that_keeps_conflicts_changes_nothing(stale: Path) -> None:
    before = snapshot(stale)
    found = fixed(stale, [rule(files=("/etc/services",), on_conflict=OnConflict.KEEP)])
    assert kinds(found) == {"/etc/services": "differs"}
    assert snapshot(stale) == before


def test_a_bad_source_keeps_the_copy_and_the_rest_is_repaired(stale: Path) -> None:
    (stale / "etc/services").write_bytes(b"")
    found = fixed(stale, [FILES])
    assert (stale / "jail/one/etc/services").read_bytes() == b"stale\n"
    assert (stale / "jail/one/lib/libx.so").read_bytes() == b"\x7fELF new"
    assert kinds(checked(stale, [FILES])) == {"/etc/services": "bad-source"}
    assert statuses(found) == {"repaired"}


def test_one_instance_that_fails_does_not_stop_the_others(stale: Path) -> None:
    grow(stale, {"/jail/two/etc/services": b"stale\n"})
    (stale / "jail/one/etc").chmod(0o777)
    found = fixed(stale, [rule(files=("/etc/services",))], [instance("one"), instance("two")])
    assert kinds(found[:1]) == {"/etc": "unsafe"}
    assert (stale / "jail/two/etc/services").read_bytes() == b"smtp 25/tcp\n"


# --- Errors change nothing ------------------------------------------------------------------------------------------

Failing = Callable[[str, int], None]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Failing]:
    """Let the nth call of a function that changes the file system fail with EIO."""

    def fail(name: str, nth: int) -> None:
        module: Any = kernel if name == "rename" else os
        real, count = getattr(module, name), 0

        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count == nth:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(*arguments, **named)

        monkeypatch.setattr(module, name, call)

    yield fail
    monkeypatch.undo()


CALLS = ["rename", "mkdir", "fchmod", "fchown", "fsync", "write", "utime"]


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("nth", range(1, 9))
def test_an_error_at_any_step_leaves_everything_as_it_was(
    stale: Path, failing: Failing, name: str, nth: int, odd: bool
) -> None:
    if odd:
        (stale / "jail/one/etc/services").unlink()
        (stale / "jail/one/etc").rmdir()
        grow(stale, {"/jail/one/etc": b"not a directory"})
    before = snapshot(stale)
    with task(stale, [FILES]) as (work, writer):
        found = check(work)
        failing(name, nth)
        done = repair(work, writer, found)
    if statuses(done) == {"repaired"}:
        assert kinds(checked(stale, [FILES])) == {}
    elif "unknown" in statuses(done):
        # A directory that cannot be synced: the names are right, whether they are on the disk nobody knows.
        assert name == "fsync"
        reason = "syncing the directory failed: input/output error"
        perhaps = "in place, but perhaps not on the disk: /jail/one/"
        assert any(one.startswith(perhaps) and one.endswith(reason) for one in reasons(done).values())
        assert kinds(checked(stale, [FILES])) == {}
    else:
        assert statuses(done) == {"failed", "skipped"}
        assert snapshot(stale) == before
        assert "input/output error" in str(reasons(done))
    assert temporaries(stale) == []


def test_the_outcomes_say_what_failed_and_what_was_left_alone(stale: Path, failing: Failing) -> None:
    with task(stale, [FILES]) as (work, writer):
        found = check(work)
        failing("rename", 2)
        done = repair(work, writer, found)
    failed = "putting the new copy into place failed: input/output error"
    left = "left as it was, because /jail/one/etc/hosts failed"
    assert reasons(done) == {"/etc/hosts": failed, "/etc/services": left, "/lib/libx.so": left}


def test_a_copy_that_changed_after_it_was_compared_is_not_overwritten(stale: Path) -> None:
    with task(stale, [FILES]) as (work, writer):
        found = check(work)
        (stale / "jail/one/etc/services").write_bytes(b"an administrator's own, just now\n")
        before = snapshot(stale)
        done = repair(work, writer, found)
    assert snapshot(stale) == before
    assert reasons(done)["/etc/services"] == ("it was changed after it was compared; run check --fix once more")


def test_what_appeared_after_it_was_compared_is_not_overwritten(stale: Path) -> None:
    with task(stale, [FILES]) as (work, writer):
        found = check(work)
        (stale / "jail/one/etc/hosts").write_bytes(b"an administrator's own, just now\n")
        before = snapshot(stale)
        done = repair(work, writer, found)
    assert snapshot(stale) == before
    assert reasons(done)["/etc/hosts"] == "putting the new copy into place failed: file exists"


def test_a_source_that_changed_after_it_was_compared_is_compared_again(stale: Path) -> None:
    with task(stale, [FILES]) as (work, writer):
        found = check(work)
        (stale / "etc/services").write_bytes(b"smtp 25/tcp\nnew 26/tcp\n")
        done = repair(work, writer, found)
    assert statuses(done) == {"repaired"}
    assert (stale / "jail/one/etc/services").read_bytes() == b"smtp 25/tcp\nnew 26/tcp\n"


def test_a_source_that_vanished_after_it_was_compared_keeps_the_copy(stale: Path) -> None:
    with task(stale, [FILES]) as (work, writer):
        found = check(work)
        (stale / "etc/services").unlink()
        done = repair(work, writer, found)
    assert (stale / "jail/one/etc/services").read_bytes() == b"stale\n"
    assert kinds(done)["/etc/services"] == "bad-source"


def test_a_source_that_never_rests_is_given_up(stale: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = repairing._open

    def restless(*arguments: Any) -> Any:
        os.utime(stale / "etc/services")
        return real(*arguments)

    monkeypatch.setattr(repairing, "_open", restless)
    before = (stale / "jail/one/etc/services").read_bytes()
    done = fixed(stale, [FILES])
    assert statuses(done) == {"failed"}
    assert (stale / "jail/one/etc/services").read_bytes() == before
    assert set(reasons(done).values()) == {"/etc/services keeps changing; run check --fix once it is quiet"}
    assert temporaries(stale) == []


def test_an_interrupt_takes_everything_back(stale: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = snapshot(stale)
    real, calls = kernel.rename, 0

    def interrupted(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(kernel, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fixed(stale, [FILES])
    assert snapshot(stale) == before


def test_where_taking_back_fails_too_the_outcome_is_unknown(stale: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = kernel.rename, 0

    def broken(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls >= 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(*arguments)

    monkeypatch.setattr(kernel, "rename", broken)
    done = fixed(stale, [FILES])
    assert statuses(done) == {"unknown"}
    assert "and taking it back failed: /jail/one/lib/libx.so: putting the old copy back failed" in str(reasons(done))


# --- Interrupts -------------------------------------------------------------------------------------------------------

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
STEPS = [
    *("open", "stat", "fstat", "mkdir", "link", "rename", "unlink", "rmdir", "fsync", "write", "ftruncate", "pread"),
    *("utime", "fchmod", "fchown", "removexattr"),
]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Every signal raises KeyboardInterrupt, as on the command line, whatever the test runner was started with."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def unknown(*_arguments: Any) -> None:
    """Renaming with flags, as a file system has it that knows none."""
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


class Sweep:
    """Repairs one chroot again and again, each time with a signal at another point of the way."""

    def __init__(self, root: Path, *, odd: bool) -> None:
        """Learn what the chroot is like without an interrupt."""
        self.root, self.odd = root, odd
        self.done: tuple[InstanceReport, ...] = ()
        self.reached = self.interrupted = self.taken_back = 0
        self.renew()
        self.arrange(lambda _point: None)  # what is imported late, is now
        self.before = self.renew()
        self.arrange(lambda _point: None)
        assert statuses(self.done) == {"repaired"}
        self.after, self.points = snapshot(root), self.reached
        assert self.after != self.before
        self.renew()

    def renew(self) -> dict[str, object]:
        """Plant the stale chroot."""
        shutil.rmtree(self.root / "jail")
        grow(self.root, {"/jail/one": None})
        if self.odd:
            grow(self.root, {"/jail/one/etc": b"not a directory"})
        else:
            grow(self.root, {"/jail/one/etc/services": b"stale", "/jail/one/lib/libx.so": b"\x7fELF old"})
            (self.root / "jail/one/lib").chmod(0o700)
        for path, folders, files in os.walk(self.root / "jail"):
            for name in [*folders, *files]:
                os.utime(os.path.join(path, name), (1, 1))
        return snapshot(self.root)

    def arrange(self, at: Callable[[int], None]) -> None:
        """Repair, and tell ``at`` of each point that is passed."""
        self.reached, self.at = 0, at
        with task(self.root, [FILES]) as (work, writer):
            found = check(work)
            with self.watching():
                self.done = repair(work, writer, found)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """A point lies before and after each system call."""
        modules: list[tuple[Any, str]] = [(kernel, "rename"), *((os, name) for name in STEPS)]
        with pytest.MonkeyPatch.context() as patch:
            for module, name in modules:
                patch.setattr(module, name, self.around(getattr(module, name)))
            yield

    def around(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self.point()
            try:
                return real(*arguments, **named)
            finally:
                self.point()

        return call

    def point(self) -> None:
        self.reached += 1
        self.at(self.reached)

    def interrupt(self, *points: int, number: signal.Signals = signal.SIGINT) -> None:
        """Repair with a signal at each of these points; then all is as before, or all is repaired."""

        def at(reached: int) -> None:
            if reached in points:
                os.kill(os.getpid(), number)

        interrupted = False
        try:
            self.arrange(at)
        except KeyboardInterrupt:
            interrupted = True
        now = snapshot(self.root)
        assert temporaries(self.root) == [], points
        assert now in (self.before, self.after), points
        assert interrupted == (self.reached >= points[0]), points
        self.interrupted += interrupted
        if now == self.before:
            self.taken_back += 1
        else:
            assert self.renew() == self.before


class LineSweep(Sweep):
    """The same, with a point at each line of the modules that a repair is made of."""

    @contextmanager
    def watching(self) -> Iterator[None]:
        """A point lies before each line, and where a function returns."""
        files = {module.__file__ for module in (repairing, write, swap)}

        def trace(frame: FrameType, event: str, _argument: object) -> Any:
            if frame.f_code.co_filename not in files:
                return None
            if event in ("line", "return"):
                self.point()
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            yield
        finally:
            sys.settrace(before)


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("renameat2", [True, False])
@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_at_any_step_leaves_all_as_before_or_all_repaired(
    tree: Path, monkeypatch: pytest.MonkeyPatch, odd: bool, renameat2: bool
) -> None:
    if not renameat2:
        monkeypatch.setattr(kernel, "rename", unknown)
    sweep = Sweep(tree, odd=odd)
    for point in range(1, sweep.points + 2):
        sweep.interrupt(point, number=SIGNALS[point % 3])
    assert sweep.points > 100
    assert sweep.interrupted == sweep.points
    assert 50 < sweep.taken_back < sweep.points
    print(f"{sweep.points} points, taken back at {sweep.taken_back}")  # noqa: T201 -- for whoever asks with -s


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("later", [1, 2, 3, 5, 9, 20])
@pytest.mark.usefixtures("interruptible")
def test_a_second_interrupt_does_not_disturb_the_taking_back(tree: Path, odd: bool, later: int) -> None:
    sweep = Sweep(tree, odd=odd)
    for point in range(1, sweep.points + 1):
        sweep.interrupt(point, point + later, point + 2 * later)
    assert sweep.interrupted == sweep.points
    assert sweep.taken_back > 50


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_at_any_line_leaves_all_as_before_or_all_repaired(tree: Path) -> None:
    sweep = LineSweep(tree, odd=False)
    for point in range(1, sweep.points + 1):
        sweep.interrupt(point, point + 7)
    assert sweep.points > 500
    assert sweep.interrupted == sweep.points
    assert 50 < sweep.taken_back < sweep.points
    print(f"{sweep.points} points, taken back at {sweep.taken_back}")  # noqa: T201 -- for whoever asks with -s


def program(action: str) -> str:
    """A chrootsync that sends itself signals on its way."""
    return (
        "import os, signal, sys\n"
        "from chrootsync.root import kernel\n"
        "def after(module, name, numbers):\n"
        "    real = getattr(module, name)\n"
        "    def call(*arguments, **named):\n"
        "        result = real(*arguments, **named)\n"
        "        for number in numbers:\n"
        "            os.kill(os.getpid(), number)\n"
        "        return result\n"
        "    setattr(module, name, call)\n"
        "def broken(*arguments, **named):\n"
        "    raise OSError(5, os.strerror(5))\n"
        f"{action}\n"
        "sys.argv = ['chrootsync', *sys.argv[1:]]\n"
        "from chrootsync.cli import main\n"
        "main()\n"
    )


def commanded(root: Path, action: str) -> tuple[int, str]:
    """Exit status and standard error of ``check --fix`` on a root with one instance of the configuration."""
    config = root.parent / f"{root.name}.toml"
    config.write_text('[[instance]]\nname = "one"\nchroot = "/jail/one"\nrules = ["test"]\n', encoding="utf-8")
    rules = root.parent / f"{root.name}-rules"
    rules.mkdir(exist_ok=True)
    (rules / "test.toml").write_text(
        '[ruleset]\nservice = "test"\ndescription = "for tests"\n'
        '[[rule]]\nid = "test.files"\nwhy = "a test wants it"\n'
        'files = ["/etc/services", "/etc/hosts", "/lib/libx.so"]\n',
        encoding="utf-8",
    )
    places = ["--root", str(root), "--config", str(config), "--rules", str(rules)]
    done = subprocess.run(
        [sys.executable, "-c", program(action), "check", "--fix", "-q", *places],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "XDG_RUNTIME_DIR": str(root.parent)},
    )
    return done.returncode, done.stderr


INTERRUPTED = "chrootsync: interrupted; nothing is left half-done\n"


@pytest.mark.parametrize("numbers", [[2], [15], [1], [15, 2], [2, 2, 2]])
def test_a_signal_to_the_command_while_staging_takes_everything_back(stale: Path, numbers: list[int]) -> None:
    before = snapshot(stale)
    assert commanded(stale, f"after(os, 'ftruncate', {numbers})") == (130, INTERRUPTED)
    assert snapshot(stale) == before


@pytest.mark.parametrize("numbers", [[2], [15], [1], [15, 2], [2, 2, 2]])
@pytest.mark.parametrize("step", ["kernel, 'rename'", "os, 'unlink'"])
def test_a_signal_to_the_command_while_putting_comes_after_everything_is_repaired(
    stale: Path, numbers: list[int], step: str
) -> None:
    assert commanded(stale, f"after({step}, {numbers})") == (130, INTERRUPTED)
    assert kinds(checked(stale, [FILES])) == {}
    assert temporaries(stale) == []


def test_a_signal_that_is_ignored_stays_so(stale: Path) -> None:
    action = "signal.signal(signal.SIGHUP, signal.SIG_IGN); after(os, 'ftruncate', [1])"
    assert commanded(stale, action) == (0, "")
    assert kinds(checked(stale, [FILES])) == {}


def test_what_an_interrupt_leaves_behind_is_told(stale: Path) -> None:
    status, told = commanded(stale, "after(os, 'ftruncate', [2, 2]); os.unlink = broken")
    (left,) = temporaries(stale)
    assert status == 3
    reason = f"/jail/one/lib/libx.so: removing {left} failed: input/output error"
    assert told == f"chrootsync: /jail/one: the repair was interrupted, and taking it back failed: {reason}\n"


def test_a_changed_source_that_could_not_be_taken_back_is_unknown(
    stale: Path, failing: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(*_arguments: Any) -> None:
        failing("unlink", 1)
        raise SourceChangedError("/etc/services", "it changed")

    monkeypatch.setattr(repairing, "_check_source", changed)
    done = fixed(stale, [FILES])
    assert statuses(done) == {"unknown"}
    (left,) = temporaries(stale)
    lost = f"removing {left} failed: input/output error"
    told = set(reasons(done).values())
    assert told == {f"/etc/services: it changed; and taking it back failed: /jail/one/etc/services: {lost}"}


@pytest.mark.usefixtures("interruptible")
def test_another_thread_receives_no_signal_and_repairs_all_the_same(stale: Path) -> None:
    thread = threading.Thread(target=fixed, args=(stale, [FILES]))
    thread.start()
    thread.join()
    assert kinds(checked(stale, [FILES])) == {}


@pytest.mark.usefixtures("interruptible")
def test_a_signal_that_another_thread_receives_disturbs_nothing(tree: Path) -> None:
    """As the thread does that draws the progress: Python runs the handler in the main thread all the same."""
    sweep = Sweep(tree, odd=False)

    def at(reached: int) -> None:
        if reached == sweep.points // 2:
            number = signal.SIGINT
            thread = threading.Thread(target=lambda: signal.pthread_kill(threading.get_ident(), number))
            thread.start()
            thread.join()

    with pytest.raises(KeyboardInterrupt):
        sweep.arrange(at)
    assert snapshot(tree) in (sweep.before, sweep.after)


def test_handlers_are_as_before_after_a_repair(stale: Path) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    fixed(stale, [FILES])
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_libraries_come_before_configuration_and_are_on_the_disk_by_then(
    stale: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    story: list[str] = []
    rename, fsync = kernel.rename, os.fsync

    def renamed(directory: int, old: str, new: str, flags: int) -> None:
        story.append(f"put {new}")
        rename(directory, old, new, flags)

    def synced(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            story.append(f"sync {Path(os.readlink(f'/proc/self/fd/{fd}')).name}")
        fsync(fd)

    monkeypatch.setattr(kernel, "rename", renamed)
    monkeypatch.setattr(os, "fsync", synced)
    fixed(stale, [FILES])
    # At the end the removal of what was swapped out is made durable as well, before the journal forgets it.
    assert story == ["put libx.so", "sync lib", "put hosts", "put services", "sync etc", "sync lib", "sync etc"]


def test_without_exchange_plain_renames_do_and_the_report_says_so(stale: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "rename", unknown)
    done = fixed(stale, [FILES])
    assert statuses(done) == {"repaired"}
    assert set(reasons(done).values()) == {"swapped by plain renames, since this file system knows no better"}
    assert kinds(checked(stale, [FILES])) == {}
    assert temporaries(stale) == []


def test_a_directory_swapped_for_a_link_while_repairing_leads_nowhere(stale: Path) -> None:
    """An attacker who owns the chroot's parent would need root's own rights; even then nothing outside is touched."""
    grow(stale, {"/outside/services": b"precious", "/outside/hosts": b"precious"})
    stop = threading.Event()

    def race() -> None:
        jail, spare = stale / "jail/one/etc", stale / "jail/one/spare"
        while not stop.is_set():
            try:
                jail.rename(spare)
                jail.symlink_to(stale / "outside")
                jail.unlink()
                spare.rename(jail)
            except OSError:
                continue

    before = snapshot(stale / "outside")
    racer = threading.Thread(target=race)
    racer.start()
    try:
        for _ in range(30):
            (stale / "etc/services").write_bytes(os.urandom(64))
            fixed(stale, [FILES])
    finally:
        stop.set()
        racer.join()
    assert snapshot(stale / "outside") == before


# --- Properties -----------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["/etc/a", "/etc/b", "/etc/sub/c", "/lib/x.so", "/lib/sub/y.so"])
HOST = st.dictionaries(NAMES, st.binary(min_size=1, max_size=40), min_size=1)
JAIL = st.dictionaries(
    NAMES,
    st.one_of(st.binary(max_size=40), st.sampled_from(["/etc/shadow", "../../../outside", "."]), st.just(0o600)),
)


def plant(root: Path, prefix: str, tree: Tree) -> None:
    for path, what in tree.items():
        if not os.path.lexists(root / f"{prefix}{path}"[1:]):
            grow(root, {f"{prefix}{path}": what})


@given(host=HOST, jail=JAIL)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_repair_then_compare_is_clean_and_nothing_outside_is_touched(
    tmp_path_factory: pytest.TempPathFactory, host: dict[str, bytes], jail: Tree
) -> None:
    root = tmp_path_factory.mktemp("root")
    plant(root, "", host)
    grow(root, {"/outside": b"precious", "/jail/one": None})
    plant(root, "/jail/one", jail)
    rules: list[Rule] = [rule(files=tuple(sorted(host)))]
    outside = {path: what for path, what in snapshot(root).items() if f"{root}/jail/one" not in path}
    assert Status.FAILED not in statuses(fixed(root, rules))
    assert drifts(checked(root, rules)) == []
    assert statuses(fixed(root, rules)) == set()
    assert {path: what for path, what in snapshot(root).items() if f"{root}/jail/one" not in path} == outside
