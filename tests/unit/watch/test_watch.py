"""The watcher for real: its process, its passes, a chroot below a directory that root alone can change."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from unittest import mock

import pytest
from typer.testing import CliRunner

from chrootsync.cli.application import application

DEADLINE = 30.0

RULES = """
[ruleset]
service = "test"
description = "for a test"

[[rule]]
id = "test.files"
why = "a test wants them"
files = ["/srv/etc/resolv.conf", "/srv/etc/services"]
on_change = "reload"
presence = "required"
"""
CONFIG = """
[postfix]
config_directory = "/srv/postfix"

[watch]
settle = 0.1
maximum = 1

[reload]
interval = {interval}
"""
INSTANCE = """
[[instance]]
name = "{name}"
chroot = "/srv/{name}"
rules = ["test"]
reload = {reload}
"""
# A file system of its own in a namespace of its own, then the watcher once the tree is there.
SCRIPT = 'mount -t tmpfs -o mode=755 none /srv && read line && exec "$@"'


def wait_until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"not within {DEADLINE:.0f} s: {what}"
        time.sleep(0.05)


class Host:
    """A tree at /srv that the watcher alone sees, and the watcher."""

    def __init__(self, place: Path) -> None:
        self.notified: list[str] = []
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._line.bind(str(place / "notify"))
        self._line.setblocking(False)
        self.log_path = place / "log"
        arguments = ["--config", "/srv/chrootsync.toml", "--rules", "/srv/rules", "--state", "/srv/state"]
        command = [sys.executable, "-I", "-m", "chrootsync", "watch", *arguments]
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", SCRIPT, "sh", *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"], "NOTIFY_SOCKET": str(place / "notify"), "SECRET": "x"},
            )
        self.srv = Path(f"/proc/{self.process.pid}/root/srv")
        outside = os.stat("/srv").st_dev
        wait_until(lambda: self.srv.stat().st_dev != outside, f"a mount: {self.log}")
        for name in ("etc", "run", "rules", "one", "two"):
            (self.srv / name).mkdir(mode=0o755)
        self.write("etc/services", "first")
        self.write("run/stub", "first")
        (self.srv / "etc" / "resolv.conf").symlink_to("../run/stub")
        self.write("rules/test.toml", RULES)
        self.configure("one")

    def configure(self, *names: str, interval: int = 0, reload: tuple[str, ...] = ("/bin/true",)) -> None:
        instances = (INSTANCE.format(name=name, reload=json.dumps(list(reload))) for name in names)
        self.write("chrootsync.toml", CONFIG.format(interval=interval) + "".join(instances))

    def write(self, path: str, text: str) -> None:
        """Replace a file by a rename."""
        new = self.srv / f"{path}.new"
        new.write_text(text)
        new.chmod(0o644)
        new.rename(self.srv / path)

    def start(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.close()
        self.wait_synced("services", "first")
        self.wait_synced("resolv.conf", "first")
        self.wait_status("in sync")

    def copy(self, name: str, instance: str = "one") -> str | None:
        try:
            return (self.srv / instance / "srv" / "etc" / name).read_text()
        except FileNotFoundError:
            return None

    def wait_synced(self, name: str, text: str, instance: str = "one") -> None:
        wait_until(lambda: self.copy(name, instance) == text, f"{name} is {text!r} in {instance}\n{self.log}")

    def listen(self) -> list[str]:
        """What systemd was told so far."""
        with suppress(BlockingIOError):
            while True:
                self.notified.append(self._line.recv(1 << 16).decode())
        return self.notified

    def status(self) -> str:
        said = [line for text in self.listen() for line in text.split("\n") if line.startswith("STATUS=")]
        return said[-1] if said else ""

    def wait_status(self, text: str) -> None:
        wait_until(lambda: text in self.status(), f"the status has {text!r}; {self.status()}\n{self.log}")

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def look(self) -> None:
        """Ask for a pass, and wait until it has ended."""
        since = len(self.listen())
        self.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "READY=1" in self.listen()[since:], f"READY again\n{self.log}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()
        self._line.close()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    if os.geteuid() != 0:
        pytest.skip("needs root, for mounts and because the watcher does")
    made = Host(tmp_path)
    yield made
    made.close()


def test_changes_reach_the_chroot(host: Host) -> None:
    host.start()
    host.write("etc/services", "second")
    host.wait_synced("services", "second")
    (host.srv / "etc" / "services").write_text("in place")
    host.wait_synced("services", "in place")
    host.write("run/stub", "behind the link")
    host.wait_synced("resolv.conf", "behind the link")
    (host.srv / "run" / "stub").unlink()
    (host.srv / "run").rmdir()
    (host.srv / "run").mkdir(mode=0o755)
    host.write("run/stub", "in a new directory")
    host.wait_synced("resolv.conf", "in a new directory")
    (host.srv / "run" / "stub").write_text("and in place there")
    host.wait_synced("resolv.conf", "and in place there")


def test_systemd_is_told(host: Host) -> None:
    host.start()
    assert host.listen()[0].startswith("READY=1\n")
    host.wait_status("1 instance in sync, last repair ")
    assert " by watch" in host.status()
    host.look()
    assert any(text.startswith("RELOADING=1\nMONOTONIC_USEC=") for text in host.listen())
    assert host.stop() == 0
    assert host.listen()[-1] == "STOPPING=1"


def test_its_process_is_small_and_bare(host: Host) -> None:
    host.start()
    process = Path(f"/proc/{host.process.pid}")
    assert len(list((process / "task").iterdir())) <= 3
    assert b"SECRET" not in (process / "environ").read_bytes()
    assert b"chrootsync.watch" in (process / "cmdline").read_bytes()
    links = [os.readlink(fd) for fd in (process / "fd").iterdir()]
    assert links.count("anon_inode:inotify") == 1


def test_a_new_instance_is_picked_up(host: Host) -> None:
    host.start()
    host.configure("one", "two")
    host.wait_synced("services", "first", "two")
    host.wait_status("2 instances in sync")


def test_a_new_rule_is_applied_and_a_broken_one_leaves_the_last_good_ones(host: Host) -> None:
    host.start()
    host.write("rules/test.toml", RULES.replace('"/srv/etc/services"]', '"/srv/etc/services", "/srv/etc/hosts"]'))
    host.write("etc/hosts", "first")
    host.wait_synced("hosts", "first")
    host.write("rules/test.toml", "[[rule")
    host.wait_status("working with the last good rules and configuration")
    host.write("etc/hosts", "second")
    host.wait_synced("hosts", "second")
    host.write("chrootsync.toml", "[nonsense]")
    host.write("etc/services", "second")
    host.wait_synced("services", "second")
    host.write("rules/test.toml", RULES)
    host.configure("one")
    wait_until(lambda: "last good" not in host.status(), "all is well again")
    assert host.log.count("rules/test.toml: is not TOML") <= 2  # with and without the broken configuration beside it


def test_a_chroot_that_vanishes_and_comes_back(host: Host) -> None:
    host.configure("one", "two")
    host.start()
    host.wait_synced("services", "first", "two")
    (host.srv / "one").rename(host.srv / "away")
    host.wait_status("drift in 1 of 2 instances")
    host.write("etc/services", "second")
    host.wait_synced("services", "second", "two")
    (host.srv / "away").rename(host.srv / "one")
    host.wait_synced("services", "second")
    host.wait_status("2 instances in sync")


def test_what_stays_the_matter_is_logged_once_and_so_is_its_end(host: Host) -> None:
    host.configure("one", "two")
    host.start()
    (host.srv / "one").rename(host.srv / "away")
    host.wait_status("drift in 1 of 2 instances")
    for number in range(3):
        host.write("etc/services", f"number {number}")
        host.wait_synced("services", f"number {number}", "two")
    host.look()
    before = host.log
    for _ in range(3):  # passes that find no more than that
        host.look()
    assert "drift instance=one kinds=bad-instance:1" in before
    assert host.log == before
    (host.srv / "away").rename(host.srv / "one")
    host.wait_synced("services", "number 2")
    host.wait_status("2 instances in sync")


def test_while_all_is_well_nothing_is_logged(host: Host) -> None:
    host.start()
    host.look()
    before = host.log
    assert "repaired instance=one" in before
    for _ in range(3):
        host.look()
    assert host.log == before


def test_many_changes_are_few_repairs_and_the_last_one_wins(host: Host) -> None:
    host.start()
    before = host.log.count("trigger=watch")
    for number in range(200):
        host.write("etc/services", str(number))
    host.wait_synced("services", "199")
    host.wait_status("in sync")
    assert host.log.count("trigger=watch") - before < 50


def test_a_pending_reload_is_done_when_it_is_due(host: Host) -> None:
    counter = host.srv / "reloads"
    host.configure("one", interval=3, reload=("/bin/sh", "-c", "echo x >> /srv/reloads"))
    host.start()
    wait_until(counter.exists, "a first reload")
    before = len(counter.read_text().split())
    for text in ("second", "third"):
        host.write("etc/services", text)
        host.wait_synced("services", text)
    wait_until(lambda: len(counter.read_text().split()) > before, "another reload")
    host.wait_status("in sync, last repair")


def test_it_stops_in_the_middle_of_a_pass_and_nothing_is_left_of_that(host: Host) -> None:
    host.configure("one", reload=("/bin/sleep", "1000"))
    assert host.process.stdin is not None
    host.process.stdin.write(b"\n")
    host.process.stdin.close()
    host.wait_synced("services", "first")
    children = Path(f"/proc/{host.process.pid}/task/{host.process.pid}/children")
    wait_until(lambda: bool(children.read_text().split()), "a pass")
    passes = [int(number) for number in children.read_text().split()]
    assert host.stop() == 0
    wait_until(lambda: not any(Path(f"/proc/{number}").exists() for number in passes), "the pass has ended")


def test_a_pass_that_is_killed_is_followed_by_another(host: Host) -> None:
    host.configure("one", reload=("/bin/sleep", "1000"))
    assert host.process.stdin is not None
    host.process.stdin.write(b"\n")
    host.process.stdin.close()
    host.wait_synced("services", "first")
    children = Path(f"/proc/{host.process.pid}/task/{host.process.pid}/children")
    wait_until(lambda: bool(children.read_text().split()), "a pass")
    for number in children.read_text().split():
        os.kill(int(number), signal.SIGKILL)
    host.wait_status("a pass was ended by signal 9")
    host.configure("one")
    host.write("etc/services", "second")
    host.wait_synced("services", "second")
    host.wait_status("1 instance in sync")


def test_an_interrupt_ends_it_too(host: Host) -> None:
    host.start()
    assert host.stop(signal.SIGINT) == 0


def test_it_needs_root() -> None:
    with mock.patch("os.geteuid", return_value=1000):
        result = CliRunner().invoke(application(), ["watch"])
    assert result.exit_code == 2
    reason = "watch: needs root, for it repairs chroots and reloads their daemons; run it as root"
    assert f"chrootsync: {reason}\n" in result.output


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/nowhere/python", "watch: /nowhere/python cannot be started: no such file or directory"),
        ("", "watch: the Python that runs this does not know its own path; start it by an absolute one"),
    ],
)
def test_without_an_interpreter_it_says_so(path: str, reason: str) -> None:
    with (
        mock.patch("os.geteuid", return_value=0),
        mock.patch.object(sys, "executable", path),
    ):
        result = CliRunner().invoke(application(), ["watch"])
    assert result.exit_code == 3
    assert f"chrootsync: {reason}\n" in result.output


def test_a_pass_that_nobody_lets_begin_does_nothing() -> None:
    reading, writing = os.pipe()
    report = os.memfd_create("report")
    os.close(writing)
    try:
        command = [sys.executable, "-I", "-m", "chrootsync", "watch-pass", f"--word={reading}", f"--report={report}"]
        done = subprocess.run(command, pass_fds=(reading, report), capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
        assert os.fstat(report).st_size == 0
    finally:
        os.close(reading)
        os.close(report)


def test_the_waiting_process_loads_nothing_of_the_command_line() -> None:
    code = "import json, sys, chrootsync.watch.__main__; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    modules = json.loads(done.stdout)
    assert "chrootsync.watch.loop" in modules
    heavy = ("typer", "click", "rich", "sqlite3", "chrootsync.cli", "chrootsync.model", "chrootsync.root")
    assert [name for name in heavy if name in modules] == []
