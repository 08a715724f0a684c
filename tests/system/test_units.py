"""Units as ``chrootsync install`` writes them, under real systemd."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from .container import Container
from .mail import INSTANCES, OUTPUT, RESOLVER, Mail
from .test_main_job import check, reloads, spoil, synced

UNITS = "/etc/systemd/system"
CONFIG = "/etc/chrootsync/chrootsync.toml"
RULES = "/etc/chrootsync/rules.d/jail.toml"
PATIENCE = 30.0
EXPOSURE = 3.0

# Automatic reloads keep a minute's distance, which tests have no time for.
SETTINGS = "[reload]\ninterval = 0\n"

# A chroot that is not below /var/spool, with all that a repair may have to make there.
JAIL = '[[instance]]\nname = "jail"\nchroot = "/srv/jail"\nrules = ["jail"]\n'
JAIL_RULES = """
[ruleset]
service = "jail"
description = "all that a repair may have to make"

[[rule]]
id = "jail.files"
why = "a test wants them"
files = ["/etc/resolv.conf"]

[[rule]]
id = "jail.owned"
why = "a test wants another owner and mode"
files = ["/etc/protocols"]
owner = "mail"
group = "mail"
mode = "0440"

[[rule]]
id = "jail.devices"
why = "a test wants a device"
devices = [{ path = "/dev/null", type = "character", major = 1, minor = 3 }]
mode = "0666"
"""


def wait_until(happened: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE:.0f} seconds"
        time.sleep(0.1)


def journal(container: Container, *options: str) -> str:
    return container.run(["journalctl", "-o", "cat", "--no-pager", *options]).stdout


def start(container: Container, *, code: int = 0) -> None:
    """Run the service; ``code`` is 1 where it has to fail."""
    done = container.run(["systemctl", "start", "chrootsync.service"], check=False)
    assert done.returncode == code, journal(container, "-u", "chrootsync.service")


def show(container: Container, name: str) -> str:
    """A property of the service."""
    return container.run(["systemctl", "show", "-P", name, "chrootsync.service"]).stdout.strip()


def mode_of(container: Container, path: str) -> str:
    return container.run(["stat", "-c", "%F %U:%G %a", path]).stdout.strip()


def install(container: Container) -> None:
    """Install the units, with nothing that notices changes."""
    container.write(CONFIG, SETTINGS)
    container.run(["chrootsync", "install", "systemd", "--mode", "timer"])


@pytest.fixture(scope="module")
def bare(container: Container) -> str:
    """All paths below /etc before anything is installed."""
    return container.shell("find /etc | sort")


@pytest.fixture(scope="module")
def units(container: Container, bare: str) -> Container:  # noqa: ARG001 -- what is there comes before what is installed
    """A host in sync on which the units are installed."""
    install(container)
    container.run(["chrootsync", "install", "postfix"])
    check(container, "--fix", code=0)
    return container


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("mode", ["watch", "path", "timer"])
def test_systemd_finds_no_fault_with_them_and_little_exposure(container: Container, mode: str) -> None:
    container.run(["chrootsync", "install", "systemd", "postfix", "--mode", mode, "--root", "/"])
    names = container.shell(f"cd {UNITS}; ls -d chrootsync*.service chrootsync*.timer chrootsync*.path").split()
    paths = [f"{UNITS}/{name}" for name in names]

    done = container.run(["systemd-analyze", "verify", "--man=no", *paths, "postfix@-.service"], check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    services = [path for path in paths if path.endswith(".service")]
    limit = f"--threshold={EXPOSURE * 10:.0f}"
    told = container.run(["systemd-analyze", "security", "--offline=true", limit, *services], check=False)
    exposures = re.findall(r"exposure level for (\S+): ([\d.]+)", told.stdout)
    print(exposures)  # noqa: T201 -- the figures are asked for
    assert told.returncode == 0
    assert len(exposures) == len(services)
    assert all(float(exposure) <= EXPOSURE for _, exposure in exposures)
    container.run(["chrootsync", "uninstall", "systemd", "postfix"])


def test_the_service_repairs_and_reloads_what_drifted(units: Container, mail: Mail) -> None:
    reloads(mail, 0)
    begin = mail.mark()
    spoil(units, OUTPUT, "/etc/services", "# stale\n")
    start(units)
    assert synced(units, OUTPUT, "/etc/services")
    assert reloads(mail, begin) == [OUTPUT.log]
    lines = journal(units, "-t", "chrootsync", "-u", "chrootsync.service")
    assert re.search(r"instance=postfix-out .*trigger=systemd .*reload=done .*/etc/services", lines)


def test_drift_that_remains_fails_the_service_and_a_start_limit_never_does(units: Container) -> None:
    units.write("/etc/resolv.conf", "# no name server\n")
    try:
        for _ in range(6):
            start(units, code=1)
        state = units.run(["systemctl", "show", "-P", "Result", "chrootsync.service"]).stdout.strip()
        assert state == "exit-code"
    finally:
        units.write("/etc/resolv.conf", RESOLVER)
    start(units)
    assert all(units.read(f"{instance.chroot}/etc/resolv.conf") == RESOLVER for instance in INSTANCES)


def test_the_timer_waits_for_its_time(units: Container) -> None:
    assert units.run(["systemctl", "is-enabled", "chrootsync.timer"]).stdout == "enabled\n"
    assert units.run(["systemctl", "is-active", "chrootsync.timer"]).stdout == "active\n"
    following = units.run(["systemctl", "show", "-P", "NextElapseUSecRealtime", "chrootsync.timer"]).stdout
    assert following.strip() not in ("", "0")


@pytest.fixture
def jail(units: Container) -> Iterator[Container]:
    """The host with one more chroot, which the units do not know yet."""
    units.shell("mkdir -p /srv/jail")
    units.write(CONFIG, SETTINGS + JAIL)
    units.write(RULES, JAIL_RULES)
    yield units
    units.shell("rm -rf /srv/jail")
    units.write(CONFIG, SETTINGS)
    units.run(["rm", "-r", "/etc/chrootsync/rules.d"])
    units.run(["chrootsync", "install", "systemd", "--mode", "timer"])


def test_a_chroot_elsewhere_is_served_once_install_has_named_it(jail: Container) -> None:
    start(jail, code=1)
    said = journal(jail, "-u", "chrootsync.service")
    assert "read-only file system (is it mounted so, or a chroot that the units do not know yet? then run " in said

    done = jail.run(["chrootsync", "install", "systemd", "--mode", "timer"])
    assert f"written    {UNITS}/chrootsync.service.d/chrootsync.conf" in done.stdout.splitlines()
    start(jail)

    assert jail.read("/srv/jail/etc/resolv.conf") == RESOLVER
    assert mode_of(jail, "/srv/jail/etc/protocols") == "regular file mail:mail 440"
    assert mode_of(jail, "/srv/jail/dev/null") == "character special file root:root 666"
    jail.shell("echo works > /srv/jail/dev/null")
    assert check(jail, code=0).report["status"] == "in-sync"


@contextmanager
def locked(container: Container) -> Iterator[None]:
    """Hold the lock of the root, so that a repair waits."""
    hold = 'flock "$1" sh -c "touch /run/held; while [ -e /run/held ]; do sleep 0.1; done" >/dev/null 2>&1 &'
    container.shell(hold, container.shell("stat -c /run/chrootsync/%d-%i.lock /").strip())
    wait_until(lambda: container.exists("/run/held"), "locking")
    try:
        yield
    finally:
        container.run(["rm", "/run/held"])


def test_what_is_asked_for_while_it_runs_is_done_afterwards(units: Container) -> None:
    """A start of a running service does nothing: what changed behind its back would be lost."""
    units.run(["chrootsync", "install", "apt"])
    state = ["systemctl", "show", "-P", "ActiveState", "chrootsync.service"]
    with locked(units):
        units.run(["systemctl", "--no-block", "start", "chrootsync.service"])
        # What is asked for before its main process starts is taken along by this very run.
        main = ["systemctl", "show", "-P", "MainPID", "chrootsync.service"]
        wait_until(lambda: units.run(main).stdout != "0\n", "starting")
        units.run(["/etc/chrootsync/hook", "apt"])
        assert units.exists("/run/chrootsync/requested")
    wait_until(lambda: "trigger=apt" in journal(units, "-t", "chrootsync"), "a second run")
    wait_until(lambda: units.run(state).stdout == "inactive\n", "the end of it")
    assert units.shell("ls -A /run/chrootsync | grep -E 'requested|taken' || true") == ""
    units.run(["chrootsync", "uninstall", "apt"])


def test_a_service_that_cannot_be_prepared_is_not_started_without_end(units: Container) -> None:
    """As where /var is read-only: what was asked for cannot be taken, and its path unit asks for a start at once."""
    units.run(["chrootsync", "install", "apt"])
    units.shell("mv /var/lib/chrootsync /var/lib/kept; touch /var/lib/chrootsync")
    try:
        units.run(["/etc/chrootsync/hook", "apt"])
        wait_until(lambda: show(units, "SubState") == "auto-restart", "waiting for the next try")
        assert units.run(["systemctl", "is-active", "chrootsync-requested.path"]).stdout == "active\n"
        assert units.exists("/run/chrootsync/requested")
    finally:
        units.shell("rm /var/lib/chrootsync; mv /var/lib/kept /var/lib/chrootsync")
    # The next try is a minute away; where the service has ended, what was asked for starts it anew.
    units.run(["systemctl", "stop", "chrootsync.service"])
    wait_until(lambda: not units.exists("/run/chrootsync/requested"), "doing what was asked for")
    wait_until(lambda: show(units, "ActiveState") == "inactive", "the end of it")
    units.run(["chrootsync", "uninstall", "apt"])


def test_a_reload_that_has_to_wait_is_tried_again(units: Container, mail: Mail) -> None:
    units.run(["postconf", "-c", OUTPUT.config, "-e", "delay_warning_time=1h"])
    spoil(units, OUTPUT, "/etc/services", "# stale\n")
    start(units)
    assert units.run(["systemctl", "is-active", "chrootsync-later.timer"], check=False).stdout == "active\n"
    begin = mail.mark()
    units.run(["postfix", "-c", OUTPUT.config, "reload"])
    assert reloads(mail, begin) == [OUTPUT.log]
    units.run(["systemctl", "stop", "chrootsync-later.timer"])
    start(units)
    assert units.run(["systemctl", "is-active", "chrootsync-later.timer"], check=False).stdout == "inactive\n"


# --- Before Postfix starts ----------------------------------------------------------------------------------------


@pytest.fixture
def own_copying_off(units: Container) -> Iterator[Container]:
    """Debian's own script, which copies much of the same at each start, does nothing."""
    units.write("/etc/default/postfix", "SYNC_CHROOT=\n")
    yield units
    units.run(["rm", "/etc/default/postfix"])


def restart(container: Container) -> None:
    container.run(["systemctl", "restart", OUTPUT.unit], timeout=90)


def test_a_chroot_is_in_sync_before_its_instance_starts(own_copying_off: Container, mail: Mail) -> None:
    container = own_copying_off
    spoil(container, OUTPUT, "/etc/services", "# stale\n")
    spoil(container, INSTANCES[0], "/etc/services", "# stale\n")

    restart(container)

    assert mail.running(OUTPUT)
    assert synced(container, OUTPUT, "/etc/services")
    assert not synced(container, INSTANCES[0], "/etc/services"), "it is the business of that instance's start"
    assert "trigger=postfix" in journal(container, "-t", "chrootsync")
    check(container, "--fix", code=0)


STUBS = {
    "hangs": "#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 1; done\n",
    "crashes": "#!/bin/sh\nkill -SEGV $$\n",
    "fails": "#!/bin/sh\necho broken >&2\nexit 70\n",
    "is missing": None,
}


@pytest.mark.parametrize("how", STUBS)
def test_mail_starts_whatever_becomes_of_it(units: Container, mail: Mail, how: str) -> None:
    drop_in = f"{UNITS}/postfix@.service.d/chrootsync.conf"
    text = units.read(drop_in)
    stub = STUBS[how]
    if stub is not None:
        units.write("/var/tmp/stub", stub, mode=0o755)
    else:
        units.run(["rm", "-f", "/var/tmp/stub"])
    units.write(drop_in, re.sub(r"/\S+/python\S*", "/var/tmp/stub", text).replace("-k 5 30", "-k 1 1"))
    units.run(["systemctl", "daemon-reload"])
    try:
        restart(units)
        assert mail.running(OUTPUT)
    finally:
        units.write(drop_in, text)
        units.run(["systemctl", "daemon-reload"])


def test_mail_starts_where_not_even_timeout_is_there(units: Container, mail: Mail) -> None:
    drop_in = f"{UNITS}/postfix@.service.d/chrootsync.conf"
    text = units.read(drop_in)
    units.write(drop_in, text.replace("/usr/bin/timeout", "/usr/bin/no-such-program"))
    units.run(["systemctl", "daemon-reload"])
    try:
        restart(units)
        assert mail.running(OUTPUT)
    finally:
        units.write(drop_in, text)
        units.run(["systemctl", "daemon-reload"])


# --- The whole of it ----------------------------------------------------------------------------------------------


def test_install_auto_twice_and_uninstall_leave_the_host_as_it_was(units: Container, bare: str) -> None:
    units.write("/etc/resolv.conf", "# no name server\n")
    start(units, code=1)
    units.write("/etc/resolv.conf", RESOLVER)
    units.run(["chrootsync", "uninstall", "auto"])
    assert units.run(["systemctl", "--failed", "--plain", "--no-legend"]).stdout == ""
    units.run(["rm", "-r", "/etc/chrootsync"])
    assert units.shell("find /etc | sort") == bare

    first = units.run(["chrootsync", "install", "auto"]).stdout
    watching = ["systemctl", "is-active", "chrootsync-watch.service"]
    assert units.run(watching).stdout == "active\n"
    pid = units.run(["systemctl", "show", "-P", "MainPID", "chrootsync-watch.service"]).stdout
    second = units.run(["chrootsync", "install", "auto"]).stdout

    assert {line.split()[0] for line in first.splitlines()} == {"written"}
    assert {line.split()[0] for line in second.splitlines()} == {"unchanged"}
    assert units.run(["systemctl", "show", "-P", "MainPID", "chrootsync-watch.service"]).stdout == pid
    units.run(["chrootsync", "uninstall", "auto"])
    assert units.run(watching, check=False).stdout == "inactive\n"
    assert units.shell("find /etc | sort") == bare
    loaded = units.run(["systemctl", "list-units", "--all", "--plain", "--no-legend", "chrootsync*"]).stdout
    assert loaded == ""


def test_code_that_others_can_write_is_refused_file_by_file(units: Container) -> None:
    library = units.run(["/opt/chrootsync/bin/python", "-c", "import typer; print(typer.__file__)"]).stdout.strip()
    units.run(["chmod", "o+w", library])
    try:
        done = units.run(["chrootsync", "install", "apt"], check=False)
    finally:
        units.run(["chmod", "o-w", library])
    assert done.returncode == 3
    assert f"could be changed by others: {library}: others can write to it" in done.stderr
    assert not units.exists("/etc/chrootsync/hook")


# --- Debian 13, whose Postfix has units of another kind ---------------------------------------------------------------


def test_units_do_on_debian_13_what_they_do_on_12(trixie_container: Container, trixie_mail: Mail) -> None:
    container = trixie_container
    before = container.shell("find /etc | sort")
    container.write(CONFIG, SETTINGS)
    container.run(["chrootsync", "install", "auto"])
    units = container.shell(f"ls -d {UNITS}/chrootsync*.service {UNITS}/chrootsync*.timer {UNITS}/chrootsync*.path")
    verify = ["systemd-analyze", "verify", "--man=no", *units.split(), "postfix@-.service", "postfix.service"]
    done = container.run(verify, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    limit = f"--threshold={EXPOSURE * 10:.0f}"
    services = [path for path in units.split() if path.endswith(".service")]
    container.run(["systemd-analyze", "security", "--offline=true", limit, *services])

    container.run(["chrootsync", "install", "systemd", "--mode", "timer"])
    check(container, "--fix", "--wait", "30", code=0)
    reloads(trixie_mail, 0)
    begin = trixie_mail.mark()
    spoil(container, OUTPUT, "/etc/services", "# stale\n")
    start(container)
    assert synced(container, OUTPUT, "/etc/services")
    assert reloads(trixie_mail, begin) == [OUTPUT.log]

    # Debian's own copying at a start leaves this one out.
    spoil(container, OUTPUT, "/etc/gai.conf", "# stale\n")
    container.run(["systemctl", "restart", OUTPUT.unit_on("trixie")], timeout=90)
    assert trixie_mail.running(OUTPUT)
    assert synced(container, OUTPUT, "/etc/gai.conf")
    assert re.search(r"repaired instance=postfix-out .*trigger=postfix", journal(container, "-t", "chrootsync"))

    container.run(["chrootsync", "uninstall", "auto"])
    container.run(["rm", "-r", "/etc/chrootsync"])
    assert container.shell("find /etc | sort") == before
