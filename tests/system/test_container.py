"""The throw-away host is what the other system tests take it for."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .container import GROUP_PREFIX, Container, control_groups, remove_stale_groups
from .image import PROJECT
from .mail import INSTANCES, OUTPUT, STALE_RESOLVER, Mail, Postfix


@pytest.fixture(scope="module")
def container(three_instances: tuple[Path, ...]) -> Iterator[Container]:
    """A host without chrootsync: what is proven here does not depend on it."""
    with Container(three_instances) as host:
        yield host


def test_boots_into_a_running_systemd(container: Container) -> None:
    assert container.run(["systemctl", "is-system-running", "--wait"]).stdout == "running\n"


def test_touches_nothing_of_this_machine(container: Container) -> None:
    container.write("/etc/only-in-the-container", "text\n", mode=0o600)

    assert container.read("/etc/only-in-the-container") == "text\n"
    assert (container.root / "etc/only-in-the-container").stat().st_mode & 0o777 == 0o600
    assert not Path("/etc/only-in-the-container").exists()
    assert not any((layer / "etc/only-in-the-container").exists() for layer in container.layers)
    assert str(container.layers[-1]) not in Path("/proc/self/mounts").read_text()


def test_files_and_directories_are_on_one_device(container: Container) -> None:
    container.write("/etc/new", "")

    devices = container.run(["stat", "-c", "%d", "/", "/etc", "/etc/new", "/etc/services"]).stdout.split()

    assert len(set(devices)) == 1


def test_two_run_side_by_side_and_leave_nothing(base: Path, container: Container) -> None:
    with Container([base]) as other:
        other.write("/etc/hostname", "other\n")
        assert other.run(["systemctl", "is-system-running", "--wait"]).stdout == "running\n"
        assert container.read("/etc/hostname") != "other\n"
        leader, name = other.leader, other.name

    assert not Path(f"/proc/{leader}").exists()
    assert not any((place / name).exists() for place in control_groups())


def test_ends_with_the_process_that_started_it(base: Path) -> None:
    script = """
import sys, time
from pathlib import Path
from tests.system.container import Container
host = Container([Path(sys.argv[1])])
host.__enter__()
print(host.leader, flush=True)
time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(base)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    ) as starter:
        assert starter.stdout is not None
        leader = os.pidfd_open(int(starter.stdout.readline()))
        starter.kill()

    try:
        ended, _, _ = select.select([leader], [], [], 20)
    finally:
        os.close(leader)
    remove_stale_groups()
    assert ended, "the container outlived the process that started it"
    assert not any(list(place.glob(f"{GROUP_PREFIX}{starter.pid}-*")) for place in control_groups())


@pytest.mark.parametrize("instance", INSTANCES, ids=lambda instance: str(instance.log))
def test_three_masters_run(mail: Mail, instance: Postfix) -> None:
    assert mail.running(instance)
    assert mail.container.run(["systemctl", "is-active", instance.unit]).stdout == "active\n"
    assert len({mail.master(each) for each in INSTANCES}) == len(INSTANCES)


@pytest.mark.parametrize("instance", INSTANCES, ids=lambda instance: str(instance.log))
def test_daemons_that_talk_to_the_network_are_chrooted(mail: Mail, instance: Postfix) -> None:
    table = mail.container.run(["postconf", "-c", instance.config, "-F", "*/*/chroot"]).stdout

    assert f"{instance.port}/inet/chroot = y" in table
    assert "smtp/unix/chroot = y" in table


def test_mail_reaches_the_sink_until_the_resolver_copy_is_stale(mail: Mail) -> None:
    start = mail.mark()
    mail.send("first@example.test")
    mail.wait(r"postfix-out/smtp\[.*first@example\.test.*status=sent", start)
    assert mail.delivered("first@example.test") == 1

    mail.container.write(f"{OUTPUT.chroot}/etc/resolv.conf", STALE_RESOLVER)
    # Not by systemctl: its unit would run Debian's own script, which copies the file again.
    mail.container.run(["postfix", "-c", OUTPUT.config, "stop"])
    mail.container.run(["postfix", "-c", OUTPUT.config, "start"])
    mail.send("second@example.test")
    mail.wait(r"second@example\.test.*status=deferred .*Name service error for name=sink\.test", start)
    assert mail.delivered("second@example.test") == 0
