"""Watcher, timer and hooks on one host, as README has it: none of them loses or doubles what another one does."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import image
from .conftest import installed
from .container import Container
from .journal import cursor, repairs
from .mail import INSTANCES, RESOLVER, Mail
from .test_main_job import REPACK, check, complaints, reloads
from .watching import Automatic, begin, resolver

NAMES = [instance.log for instance in INSTANCES]
NUMBERS = itertools.count(1)

# The same libraries as ever, but for bytes behind their end that nobody reads; Debian 13 has them below /usr.
MODULES = "for file in $(find . -name 'libnss_*.so.2' -o -name 'libresolv.so.2'); do echo changed >> $file; done"

# The packages with a new version of what the chroots hold. Debian 13's glibc reads none of its modules there.
CONCERNED = {"bookworm": ("libc6", "netbase"), "trixie": ("netbase",)}

# So that a start of the timer is soon followed by what the timer starts.
AT_ONCE = """[Timer]
OnBootSec=
OnCalendar=
OnActiveSec=50ms
RandomizedDelaySec=0
AccuracySec=1ms
"""

# One change, and $1 seconds later all that could bring it into the chroots, besides the watcher, at the same time.
ALL_AT_ONCE = """
mv /etc/resolv.conf.new /etc/resolv.conf
sleep "$1"
systemctl --no-block restart chrootsync.timer
for name in networkmanager dhclient resolvconf; do /etc/chrootsync/hook $name & done
wait
"""

# $1 changes, one after the other, while those before are being brought into the chroots.
ON_AND_ON = """
for number in $(seq "$1"); do
    printf 'nameserver 127.0.0.5\\n# on and on, %s\\n' "$number" > /etc/resolv.conf.new
    mv /etc/resolv.conf.new /etc/resolv.conf
    /etc/chrootsync/hook dhclient
    systemctl --no-block restart chrootsync.timer
    sleep 0.2
done
"""


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def host(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> Iterator[Automatic]:
    """A host with three instances on which ``chrootsync install systemd apt`` is all that was done."""
    below = image.base(request.param)
    layers = [*installed(below, tmp_path_factory, worker_id), image.instances(below), below]
    with Container(layers) as container:
        container.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", mode=0o755)
        host = Automatic("watch", Mail(container))
        # What booting left to do is no business of the tests; a reload by chrootsync itself would be one from which
        # the next has to keep its distance.
        check(container, "--fix", "--no-reload")
        for instance in INSTANCES:
            container.run(["postfix", "-c", instance.config, "reload"])
        container.run(["chrootsync", "install", "systemd", "apt"])
        host.wait_until(lambda: "3 instances in sync" in host.show("StatusText"), "everything is in sync")
        yield host


def keep(container: Container, file: Path, since: str) -> str:
    """Keep the journal behind a cursor as a file of this run, with apt's own log below it; gives its text."""
    journal = container.run(["journalctl", "--no-pager", f"--after-cursor={since}", "-o", "short-precise"]).stdout
    text = f"{journal}\n{container.read('/var/log/apt/history.log').strip()}\n"
    file.write_text(text)
    return text


def deliver(mail: Mail, name: str, start: int) -> None:
    """Send a mail by way of two instances and a name server, and wait until it is there."""
    mail.send(f"{name}@sink.test")
    mail.wait(rf"postfix-out/smtp\[.*to=<{name}@sink\.test>.*status=sent", start)


def by_instance(said: list[str]) -> Counter[str]:
    """How many lines there are for each instance."""
    return Counter(name for line in said for name in re.findall(r" instance=(\S+)", line))


def test_the_journal_of_an_upgrade(host: Automatic, request: pytest.FixtureRequest, artifacts: Path) -> None:
    """With settings as shipped: one transaction; one line and one reload for each instance; mail before and after."""
    container, mail = host.container, host.mail
    container.shell(REPACK, "netbase", "echo 'upgrade-test 54321/tcp' >> etc/services", "/var/tmp/netbase.deb")
    container.shell(REPACK, "libc6", MODULES, "/var/tmp/libc6.deb")
    reloads(mail, 0)
    since, start = cursor(container), mail.mark()
    deliver(mail, "before", start)
    upgrade = ["apt-get", "--yes", "install", "--reinstall", "/var/tmp/netbase.deb", "/var/tmp/libc6.deb"]
    container.run(upgrade, env={"DEBIAN_FRONTEND": "noninteractive"}, timeout=180)
    host.wait_until(lambda: len(repairs(container, since)) >= len(INSTANCES), "a repair of each instance")
    host.wait_at_rest()
    deliver(mail, "after", start)
    reloaded = reloads(mail, start)
    suite = request.node.callspec.params["host"]
    kept = keep(container, artifacts / f"upgrade-{suite}.txt", since)

    check(container, code=0)
    said = repairs(container, since)
    assert by_instance(said) == dict.fromkeys(NAMES, 1), kept
    packages = ",".join(rf"{name} \S+\+changed" for name in CONCERNED[suite])
    whole = re.compile(rf' package="{packages}" trigger=(apt|watch) reload=done ')
    assert [line for line in said if not whole.search(line)] == []
    assert reloaded == sorted(NAMES)
    assert complaints(mail) == ""


def test_all_at_once_repair_and_reload_once(host: Automatic) -> None:
    """Those that are not the first find everything in sync; the watcher alone would begin after half a second."""
    container, mail = host.container, host.mail
    start = begin(host)
    host.drop_in("at-once", AT_ONCE, unit="chrootsync.timer")
    for delay in (0, 0.4, 0.6):
        host.wait_at_rest()
        since = cursor(container)
        container.write("/etc/resolv.conf.new", resolver(f"number {next(NUMBERS)}"))
        container.shell(ALL_AT_ONCE, f"{delay}")
        host.wait_synced("/etc/resolv.conf")
        host.wait_reloaded(start, *INSTANCES)
        host.wait_at_rest()

        assert by_instance(repairs(container, since)) == dict.fromkeys(NAMES, 1), delay
        assert reloads(mail, start) == sorted(NAMES), delay
        check(container, code=0)
        start = mail.mark()


def test_what_changes_while_others_repair_is_never_lost(host: Automatic) -> None:
    container, mail, count = host.container, host.mail, 15
    start = begin(host)
    host.drop_in("at-once", AT_ONCE, unit="chrootsync.timer")
    host.wait_at_rest()
    since = cursor(container)
    container.shell(ON_AND_ON, f"{count}")
    host.wait_synced("/etc/resolv.conf")
    host.wait_at_rest()

    assert container.read(f"{INSTANCES[0].chroot}/etc/resolv.conf") == f"{RESOLVER}# on and on, {count}\n"
    check(container, code=0)
    said = repairs(container, since)
    assert all(" reload=done " in line for line in said)
    done, reloaded = by_instance(said), Counter(reloads(mail, start))
    assert all(1 <= reloaded[name] <= done[name] <= count for name in NAMES), (done, reloaded)
