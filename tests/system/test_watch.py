"""The watcher as a service: what it tells systemd, and what it survives."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .container import Container
from .mail import INPUT, INSTANCES, OUTPUT, Mail
from .test_main_job import check, moved_away, reloads, synced
from .watching import CONFIG, Automatic, begin, in_a_swap, is_idle, replace, resolver, slow_swaps

NUMBERS = itertools.count(1)
RULES = "/etc/chrootsync/rules.d/test.toml"

SMALL = """
[reload]
interval = 0

[[instance]]
name = "small"
chroot = "/srv/small"
rules = ["small"]
"""
SMALL_RULES = """
[ruleset]
service = "small"
description = "A file for a chroot with hardly any room"

[[rule]]
id = "small.file"
why = "a test reads it"
files = ["/etc/small.conf"]
"""


@pytest.fixture(scope="module")
def host(chrootsync: tuple[Path, ...], three_instances: tuple[Path, ...]) -> Iterator[Automatic]:
    """A freshly booted host with three instances and the watcher."""
    with Container([*chrootsync, *three_instances]) as container:
        host = Automatic("watch", Mail(container))
        host.install()
        yield host


@pytest.fixture
def start(host: Automatic) -> int:
    """Start from a host in sync; the place in the log of mail from which on a test looks at it."""
    return begin(host)


def fresh() -> str:
    """A resolv.conf that was never there."""
    return resolver(f"number {next(NUMBERS)}")


def change(host: Automatic) -> None:
    """Change a file that all three chroots have."""
    replace(host.container, "/etc/resolv.conf", fresh())


def still_works(host: Automatic) -> None:
    """A change is still followed by its repair."""
    change(host)
    host.wait_synced("/etc/resolv.conf")


def main_pid(host: Automatic) -> int:
    """The watcher's process number, as the container counts."""
    return int(host.show("MainPID"))


@contextmanager
def settings(host: Automatic, text: str) -> Iterator[None]:
    """Run the watcher with other settings meanwhile."""
    host.drop_in("test", text)
    host.container.run(["systemctl", "restart", host.unit])
    try:
        yield
    finally:
        host.remove_drop_in("test")
        host.container.run(["systemctl", "restart", host.unit])


def test_systemd_is_told_how_things_are(host: Automatic, start: int) -> None:
    del start
    assert host.show("Type") == "notify"
    host.wait_until(lambda: "3 instances in sync" in host.show("StatusText"), "the status says so")
    change(host)
    host.wait_synced("/etc/resolv.conf")
    host.wait_until(lambda: "last repair" in host.show("StatusText"), "the status tells of the repair")


def test_a_reload_is_a_full_check(host: Automatic, start: int) -> None:
    """It repairs what no watch could see: a copy that somebody changed."""
    container, pid = host.container, main_pid(host)
    container.write(f"{OUTPUT.chroot}/etc/services", "# stale\n")
    container.run(["systemctl", "reload", host.unit])
    host.wait_synced("/etc/services")
    host.wait_reloaded(start, OUTPUT)
    host.wait_until(lambda: host.show("SubState") == "running", "it is ready again")
    assert main_pid(host) == pid


def test_what_changed_while_it_did_not_run_is_repaired_on_start(host: Automatic, start: int) -> None:
    del start
    host.container.run(["systemctl", "stop", host.unit])
    change(host)
    host.container.run(["systemctl", "start", host.unit])
    host.wait_synced("/etc/resolv.conf")


def test_it_stops_when_it_is_told_to(host: Automatic, start: int) -> None:
    """systemd would say timeout or signal where it had to use force, and one second is all that it may have."""
    del start
    with settings(host, "[Service]\nTimeoutStopSec=10\n"):
        pid, since = main_pid(host), host.logged()
        host.container.run(["systemctl", "stop", host.unit])
        assert (host.show("Result"), host.show("ExecMainStatus")) == ("success", "0")
        assert "SIGKILL" not in host.journal(since)
        assert not host.container.exists(f"/proc/{pid}")
    still_works(host)


def test_it_stops_without_half_done_work_in_the_middle_of_a_repair(host: Automatic, start: int) -> None:
    del start
    container = host.container
    with slow_swaps(host, main_pid(host)):
        change(host)
        host.wait_until(lambda: in_a_swap(host), "a repair is under way")
        container.run(["systemctl", "stop", "--no-block", host.unit])
    host.wait_until(lambda: host.show("ActiveState") in {"inactive", "failed"}, "it has stopped")
    assert host.show("Result") == "success"
    # Whether it was taken back or left to the journal: every copy is whole, and the next pass ends it well.
    for instance in INSTANCES:
        assert container.read(f"{instance.chroot}/etc/resolv.conf").startswith("nameserver ")
    container.run(["systemctl", "start", host.unit])
    host.wait_synced("/etc/resolv.conf")
    host.wait_until(lambda: check(container).code == 0, "everything is in sync")
    assert leftovers(container) == ""


def test_a_watcher_that_hangs_is_started_anew(host: Automatic, start: int) -> None:
    del start
    with settings(host, "[Service]\nWatchdogSec=4\nTimeoutAbortSec=1\nTimeoutStopSec=1\n"):
        pid = main_pid(host)
        host.container.run(["kill", "-STOP", f"{pid}"])
        change(host)
        host.wait_until(lambda: main_pid(host) not in {0, pid}, "there is a new one")
        host.wait_synced("/etc/resolv.conf")
        host.wait_until(lambda: host.show("ActiveState") == "active", "it is active")
        assert int(host.show("NRestarts")) >= 1


def test_what_is_killed_in_the_middle_of_a_repair_is_healed_by_its_successor(host: Automatic, start: int) -> None:
    container, pid = host.container, main_pid(host)
    with slow_swaps(host, pid):
        change(host)
        host.wait_until(lambda: in_a_swap(host), "a repair is under way")
        assert leftovers(container) != ""
        container.run(["systemctl", "kill", "--signal=KILL", host.unit])
        host.wait_until(lambda: main_pid(host) not in {0, pid}, "there is a new one")
    host.wait_synced("/etc/resolv.conf")
    host.wait_reloaded(start, *INSTANCES)
    host.wait_until(lambda: check(container).code == 0, "everything is in sync")
    assert leftovers(container) == ""


def test_a_pass_that_is_killed_does_not_end_the_watcher(host: Automatic, start: int) -> None:
    """It would try again by itself, but sooner where something changes; only that is waited for here."""
    container, pid, since = host.container, main_pid(host), host.logged()
    with slow_swaps(host, pid):
        change(host)
        host.wait_until(lambda: in_a_swap(host), "a repair is under way")
        container.shell("pkill -KILL -P $1", f"{pid}")
    host.wait_said("signal 9", since)
    change(host)
    host.wait_synced("/etc/resolv.conf")
    host.wait_reloaded(start, *INSTANCES)
    assert main_pid(host) == pid
    host.wait_until(lambda: leftovers(container) == "", "what it left was cleared up")


def leftovers(container: Container) -> str:
    """The temporaries that are in the chroots."""
    return container.run(["find", *(instance.chroot for instance in INSTANCES), "-name", ".chrootsync-*"]).stdout


@pytest.mark.parametrize(
    ("path", "text"),
    [
        pytest.param(RULES, "[ruleset]\nservice = 3\n", id="wrong"),
        pytest.param(RULES, "[[rule]\n", id="half written"),
        pytest.param(CONFIG, "[reload]\ninterval = 'soon'\n", id="configuration"),
    ],
)
def test_a_broken_edit_is_told_and_the_last_good_one_is_kept(host: Automatic, start: int, path: str, text: str) -> None:
    container, pid, since = host.container, main_pid(host), host.logged()
    try:
        container.write(path, text)
        host.wait_said(path, since)
        still_works(host)
        host.wait_reloaded(start, *INSTANCES)
        host.wait_until(lambda: path in host.show("StatusText"), "the status says so, too")
    finally:
        container.run(["rm", path])
    host.wait_until(lambda: path not in host.show("StatusText"), "the status says that it is mended")
    still_works(host)
    assert main_pid(host) == pid


def test_a_rule_that_is_added_is_applied(host: Automatic, start: int) -> None:
    del start
    container = host.container
    container.write("/etc/automatic.conf", "1\n")
    rule = 'id = "postfix.automatic"\nwhy = "a test reads it"\nfiles = ["/etc/automatic.conf"]\n'
    container.write(RULES, f'[ruleset]\nservice = "postfix"\ndescription = "One more file"\n\n[[rule]]\n{rule}')
    try:
        host.wait_synced("/etc/automatic.conf")
        container.write("/etc/automatic.conf", "2\n")
        host.wait_synced("/etc/automatic.conf")
    finally:
        container.run(["rm", RULES])


def test_a_full_disk_is_told_and_survived(host: Automatic, start: int) -> None:
    del start
    container = host.container
    container.shell("mkdir -p /srv/small; mount -t tmpfs -o size=16k,mode=755 tmpfs /srv/small")
    container.write("/etc/small.conf", "1\n")
    container.write("/etc/chrootsync/rules.d/small.toml", SMALL_RULES)
    container.write(CONFIG, SMALL)
    container.run(["chrootsync", "install", "systemd"])  # whose units have to write there
    container.run(["systemctl", "restart", host.unit])
    pid = main_pid(host)

    def copied() -> bool:
        return container.run(["cmp", "-s", "/etc/small.conf", "/srv/small/etc/small.conf"], check=False).returncode == 0

    try:
        host.wait_until(copied, "the small chroot is in sync")
        container.shell("cat /dev/zero > /srv/small/full || true")
        since = host.logged()
        container.write("/etc/small.conf", "2\n")
        host.wait_said("instance=small .*no space left on device", since)
        still_works(host)
        assert container.read("/srv/small/etc/small.conf") == "1\n"

        container.run(["rm", "/srv/small/full"])
        change(host)  # sooner than it would try again by itself
        host.wait_until(copied, "it was tried again")
        assert main_pid(host) == pid
    finally:
        container.run(["rm", "/etc/chrootsync/rules.d/small.toml"])
        host.configure(interval=0)
        container.run(["umount", "--lazy", "/srv/small"])


def test_a_chroot_that_the_unit_may_not_write_to_is_told(host: Automatic, start: int) -> None:
    """The units name the chroots that there were when they were installed."""
    del start
    container, since = host.container, host.logged()
    container.run(["mkdir", "-p", "/srv/shut"])
    container.write("/etc/small.conf", "1\n")
    container.write("/etc/chrootsync/rules.d/small.toml", SMALL_RULES)
    container.write(CONFIG, SMALL.replace("/srv/small", "/srv/shut"))
    try:
        host.wait_said("/srv/shut is read-only for this service; .* run chrootsync install systemd", since)
        still_works(host)
        assert not container.exists("/srv/shut/etc/small.conf")
        container.run(["chrootsync", "install", "systemd"])
        host.wait_until(lambda: container.exists("/srv/shut/etc/small.conf"), "it was repaired then")
    finally:
        container.run(["rm", "/etc/chrootsync/rules.d/small.toml"])
        host.configure(interval=0)


def test_a_vanished_chroot_is_told_and_hides_no_other(host: Automatic, start: int) -> None:
    del start
    container, pid, since = host.container, main_pid(host), host.logged()
    with moved_away(container, INPUT.chroot):
        change(host)
        host.wait_synced("/etc/resolv.conf", without=INPUT)
        host.wait_said(INPUT.chroot, since)
    still_works(host)
    assert main_pid(host) == pid


def test_what_is_installed_meanwhile_takes_its_place(host: Automatic, start: int) -> None:
    del start
    container, pid, since = host.container, main_pid(host), host.logged()
    path = container.run(["/opt/chrootsync/bin/python", "-I", "-c", "import chrootsync; print(chrootsync.__file__)"])
    module = path.stdout.strip()
    text = container.read(module)
    try:
        container.write(module, f'{text}\n__version__ = "1234.5"\n')
        change(host)
        host.wait_said(r"chrootsync 1234\.5 was installed meanwhile", since)
        still_works(host)
        assert main_pid(host) == pid
        assert host.show("ActiveState") == "active"
    finally:
        since = host.logged()
        container.write(module, text)
    change(host)
    host.wait_said("was installed meanwhile", since)
    still_works(host)


def test_one_change_is_one_pass(host: Automatic, start: int) -> None:
    """A repair is no change, and what it asks of package managers is nothing new to be watched."""
    del start
    pid = main_pid(host)
    host.wait_until(lambda: all(is_idle(host, pid) for _ in range(3)), "the watcher is idle")
    with host.passes() as passes:
        before = passes.wait_quiet()
        change(host)
        host.wait_synced("/etc/resolv.conf")
        assert passes.wait_quiet() == before + 1


def test_nothing_happens_while_nothing_changes(host: Automatic, start: int) -> None:
    """Mail that comes and goes, reads of the sources, and what chrootsync itself looks at, are no changes."""
    container = host.container
    with host.passes() as passes:
        before = passes.wait_quiet()
        host.mail.send("idle@example.test")
        host.mail.wait(r"postfix-out/smtp\[.*idle@example\.test.*status=sent", start)
        container.run(["cat", "/etc/resolv.conf", "/etc/services"])
        check(container, code=0)
        assert passes.wait_quiet() == before
    assert reloads(host.mail, start) == []
    assert all(synced(container, instance, "/etc/resolv.conf") for instance in INSTANCES)
