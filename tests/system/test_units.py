"""The shipped units under real systemd."""

from __future__ import annotations

import pytest

from chrootsync import shipped

from .container import Container
from .mail import INSTANCES, OUTPUT, Mail
from .test_main_job import check, reloads, spoil, synced

UNITS = ("chrootsync.service", "chrootsync.timer")


def install(container: Container) -> None:
    """Install the units as ``make install`` does it: with the command's own path."""
    for name in UNITS:
        with open(f"{shipped.directory('systemd')}/{name}", encoding="utf-8") as file:
            text = file.read()
        container.write(f"/etc/systemd/system/{name}", text.replace("/usr/bin/chrootsync", "/usr/local/bin/chrootsync"))
    # Automatic reloads keep a minute's distance, which tests have no time for.
    container.write("/etc/chrootsync/chrootsync.toml", "[reload]\ninterval = 0\n")
    container.run(["systemctl", "daemon-reload"])


@pytest.fixture(scope="module")
def units(container: Container) -> Container:
    """A host in sync on which the units are installed."""
    install(container)
    check(container, "--fix", code=0)
    return container


def test_systemd_finds_no_fault_with_them(units: Container) -> None:
    done = units.run(
        ["systemd-analyze", "verify", "--man=no", *(f"/etc/systemd/system/{name}" for name in UNITS)], check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_service_repairs_and_reloads_what_drifted(units: Container, mail: Mail) -> None:
    start = mail.mark()
    spoil(units, OUTPUT, "/etc/services", "# stale\n")
    units.run(["systemctl", "start", "chrootsync.service"])
    assert synced(units, OUTPUT, "/etc/services")
    assert reloads(mail, start) == [OUTPUT.log]
    journal = units.run(["journalctl", "-o", "cat", "-u", "chrootsync.service"]).stdout
    assert f"{OUTPUT.chroot}/etc/services" in journal
    assert "postfix-out: reloaded" in journal


def test_drift_that_remains_fails_the_service_and_a_start_limit_never_does(units: Container) -> None:
    resolver = units.read("/etc/resolv.conf")
    units.write("/etc/resolv.conf", "# no name server\n")
    try:
        for _ in range(6):
            done = units.run(["systemctl", "start", "chrootsync.service"], check=False)
            assert done.returncode == 1
        state = units.run(["systemctl", "show", "-P", "Result", "chrootsync.service"]).stdout.strip()
        assert state == "exit-code"
    finally:
        units.write("/etc/resolv.conf", resolver)
    units.run(["systemctl", "start", "chrootsync.service"])
    assert all(units.read(f"{instance.chroot}/etc/resolv.conf") == resolver for instance in INSTANCES)


def test_the_timer_waits_for_its_time(units: Container) -> None:
    units.run(["systemctl", "enable", "--now", "chrootsync.timer"])
    assert units.run(["systemctl", "is-active", "chrootsync.timer"]).stdout == "active\n"
    following = units.run(["systemctl", "show", "-P", "NextElapseUSecRealtime", "chrootsync.timer"]).stdout
    assert following.strip() not in ("", "0")
