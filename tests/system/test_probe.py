"""Lookups inside the chroots of real instances: what works, what fails, what crashes, what a repair breaks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chrootsync.model import Code

from . import image
from .container import Container
from .mail import INPUT, INSTANCES, OUTPUT, STALE_RESOLVER, Postfix

HOSTS = "mymachines files dns"  # a module that is no part of libc, and that is asked first
OVERRIDE = "/etc/chrootsync/rules.d/broken.toml"
MARK = "/var/tmp/was-run"

# Puts modules that Python would import after chroot, were it let to, into the chroot $1; each leaves a mark. The mark's
# directory is one that everybody can write to, so that dropped rights do not hide it.
TRAPS = """
chroot=$1 mark=$2
mkdir -p -m 1777 "$chroot${mark%/*}"
for directory in $(/opt/chrootsync/bin/python -I -S -c 'import sys; print(*sys.path)'); do
    mkdir -p "$chroot$directory/encodings"
    for module in encodings/idna stringprep traceback linecache unicodedata; do
        echo "open('$mark', 'w').write('$module')" > "$chroot$directory/$module.py"
    done
done
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """What ``chrootsync probe`` said: its exit status and, by instance, its lookups by what was looked up.

    Those are left out that do not matter: D-Bus, without which name service gets along.
    """

    code: int
    lookups: dict[str, dict[str, dict[str, Any]]]

    def answers(self, instance: Postfix) -> dict[str, str]:
        """How each lookup in an instance's chroot compares."""
        return {what: found["answer"] for what, found in self.lookups[instance.log].items()}


@pytest.fixture(scope="module")
def container(base: Path, chrootsync: tuple[Path, ...], three_instances: tuple[Path, ...]) -> Iterator[Container]:
    """Debian 12 with three instances, and systemd's modules for nsswitch.conf."""
    with Container([*chrootsync, three_instances[0], image.modules(base), base]) as host:
        host.run(["sed", "-i", f"s/^hosts:.*/hosts: {HOSTS}/", "/etc/nsswitch.conf"])
        host.write("/etc/hosts", "127.0.0.1 localhost\n192.0.2.7 relay.example relay\n")
        yield host


@pytest.fixture
def in_sync(container: Container) -> None:
    """Start from a host that was repaired, and of which nothing is held or contested."""
    container.shell('rm -rf "$1" /var/lib/chrootsync', OVERRIDE)
    done = container.run(["chrootsync", "check", "--fix", "--no-reload"], check=False)
    if done.returncode == Code.BUG:
        pytest.fail(container.shell("cat /tmp/chrootsync-*.log"))
    assert done.returncode == Code.OK, done.stdout + done.stderr


def probe(container: Container, *arguments: str) -> Said:
    done = container.run(["chrootsync", "probe", "--format", "json", *arguments], check=False)
    assert done.returncode in (Code.OK, Code.FAILED), done.stdout + done.stderr
    document = json.loads(done.stdout)
    lookups = {
        one["name"]: {
            lookup["what"]: lookup
            for lookup in one["probe"]["lookups"]
            if lookup["matters"] or lookup["answer"] == "same"
        }
        for one in document["instances"]
    }
    assert all(one["probe"]["error"] is None for one in document["instances"]), done.stdout
    return Said(code=done.returncode, lookups=lookups)


def left_over(container: Container) -> str:
    """Processes of a probe that still live."""
    return container.shell("pgrep -af '[p]robe/child.py' || true")


@pytest.mark.usefixtures("in_sync")
def test_all_lookups_give_the_same_after_a_repair(container: Container) -> None:
    said = probe(container)

    assert said.code == Code.OK
    for instance in INSTANCES:
        assert set(said.answers(instance).values()) == {"same"}, said.lookups[instance.log]
    output = said.lookups[OUTPUT.log]
    assert {
        "getaddrinfo localhost",
        "getaddrinfo relay.example",
        "getaddrinfo sink.test",
        "DNS . NS",
        "DNS sink.test A",
        "getservbyname smtp/tcp",
        "localtime",
        "CApath /etc/ssl/certs",
    } <= set(output)
    assert output["getaddrinfo relay.example"]["inside"] == "192.0.2.7"
    assert output["DNS sink.test A"]["worked_inside"]
    assert re.fullmatch(r"1\d\d hashed names", output["CApath /etc/ssl/certs"]["inside"])
    assert left_over(container) == ""


@pytest.mark.usefixtures("in_sync")
def test_a_stale_resolver_fails_inside(container: Container) -> None:
    container.write(f"{OUTPUT.chroot}/etc/resolv.conf", STALE_RESOLVER)

    said = probe(container)

    assert said.code == Code.FAILED
    failing = {what for what, answer in said.answers(OUTPUT).items() if answer == "fails-inside"}
    assert failing == {"DNS . NS", "DNS sink.test A", "getaddrinfo sink.test"}
    assert "127.0.0.9" in said.lookups[OUTPUT.log]["DNS . NS"]["inside"]
    assert set(said.answers(INPUT).values()) == {"same"}
    assert probe(container, "--no-dns").code == Code.OK
    plain = container.run(["chrootsync", "check", "--probe", "out"], check=False)
    assert plain.returncode == Code.FAILED
    assert "postfix-out: DNS . NS fails inside the chroot: no answer" in plain.stdout
    assert "lookups fail in postfix-out" in plain.stdout.splitlines()[-1]


@pytest.mark.usefixtures("in_sync")
def test_a_repair_that_mends_lookups_says_so_and_ends_well(container: Container) -> None:
    container.write(f"{OUTPUT.chroot}/etc/resolv.conf", STALE_RESOLVER)

    done = container.run(["chrootsync", "check", "--fix"])

    assert re.search(
        r"^postfix-out: \d+ lookups give inside the chroot what they give outside", done.stdout, re.MULTILINE
    )
    assert "postfix-in: " not in done.stdout, "nothing was repaired there"


@pytest.mark.usefixtures("in_sync")
def test_a_missing_copy_and_a_truncated_module_are_told_by_the_lookups_that_need_them(container: Container) -> None:
    container.run(["rm", f"{OUTPUT.chroot}/etc/services"])
    module = container.shell(f"ls {OUTPUT.chroot}/lib/*/libnss_mymachines.so.2").strip()
    container.run(["truncate", "--size=20000", module])

    said = probe(container, "out")

    assert said.code == Code.FAILED
    lookups = said.lookups[OUTPUT.log]
    assert lookups["getservbyname smtp/tcp"]["answer"] == "fails-inside"
    assert lookups["getservbyname smtp/tcp"]["inside"] == "unknown service"
    assert lookups["getaddrinfo localhost"]["inside"] == "crashed: killed by signal 7 (Bus error)"
    assert lookups["getaddrinfo localhost"]["outside"] == "127.0.0.1"
    assert lookups["DNS . NS"]["answer"] == "same", "a crash keeps no other lookup back"
    assert "chrootsync check postfix-out" in lookups["getaddrinfo localhost"]["advice"]
    for columns in (80, 200):
        shown = container.run(
            ["chrootsync", "probe", "--format", "table", "out"], check=False, env={"COLUMNS": str(columns)}
        )
        assert shown.returncode == Code.FAILED
        assert "crashed: killed by" in shown.stdout
        assert max(map(len, shown.stdout.splitlines())) <= columns
    assert left_over(container) == ""


@pytest.mark.usefixtures("in_sync")
def test_a_repair_that_breaks_lookups_ends_with_3_and_names_the_way_back(container: Container) -> None:
    container.write(OVERRIDE, '[[override]]\nid = "postfix.services"\nmode = "0600"\n')

    done = container.run(["chrootsync", "check", "--fix", "out"], check=False)

    assert done.returncode == Code.FAILED, done.stdout
    sentence = (
        "postfix-out: getservbyname smtp/tcp worked inside the chroot before this repair and fails now: "
        "unknown service; outside: port 25; take the repair back with: "
    )
    [command] = re.findall(f"^{re.escape(sentence)}(chrootsync rollback [0-9]+)$", done.stdout, re.MULTILINE)
    assert container.shell(f'stat -c %a "{OUTPUT.chroot}/etc/services"').strip() == "600", "not taken back by itself"
    container.run(command.split())
    assert container.shell(f'stat -c %a "{OUTPUT.chroot}/etc/services"').strip() == "644"
    assert probe(container, "out").code == Code.OK


@pytest.fixture
def units(container: Container, in_sync: None) -> Iterator[None]:  # noqa: ARG001 -- the units begin on a host in sync
    """The service that does automatic runs, with all that is forbidden to it, and nothing that starts it."""
    container.run(["chrootsync", "install", "systemd", "--mode", "timer"])
    container.run(["systemctl", "stop", "chrootsync.timer"])
    yield
    container.run(["chrootsync", "uninstall", "systemd"])


@pytest.mark.usefixtures("units")
def test_the_service_logs_what_its_repair_broke(container: Container) -> None:
    container.write(OVERRIDE, '[[override]]\nid = "postfix.services"\nmode = "0600"\n')

    container.run(["systemctl", "start", "chrootsync.service"], check=False)

    assert container.run(["systemctl", "show", "-P", "ExecMainStatus", "chrootsync.service"]).stdout == "3\n"
    log = container.run(["journalctl", "-o", "cat", "-u", "chrootsync.service"]).stdout
    lost = {line.split()[1]: line for line in log.splitlines() if line.startswith("probe ") and " answer=lost " in line}
    assert set(lost) == {f"instance={instance.log}" for instance in INSTANCES}, log
    line = lost[f"instance={OUTPUT.log}"]
    assert 'lookup="getservbyname smtp/tcp" answer=lost trigger=systemd inside="unknown service"' in line
    assert re.search(r'reason="take the repair back with: chrootsync rollback [0-9]+"$', line)
    assert "answer=none" not in log, "its chroots can be entered in spite of all that the unit forbids"


@pytest.mark.usefixtures("in_sync")
def test_nothing_of_a_chroot_is_run(container: Container) -> None:
    container.shell(TRAPS, OUTPUT.chroot, MARK)

    said = probe(container, "out")

    assert said.code == Code.OK
    assert not container.exists(f"{OUTPUT.chroot}{MARK}")
    assert not container.exists(MARK)


def test_an_image_and_a_mere_user_are_refused(container: Container) -> None:
    container.run(["mkdir", "-p", "/srv/image/etc"])
    image_said = container.run(["chrootsync", "probe", "--root", "/srv/image"], check=False)
    assert (image_said.returncode, image_said.stderr) == (
        Code.USAGE,
        "chrootsync: probe: an image runs no daemons to look things up for; run it on the host itself\n",
    )
    user_said = container.run(["setpriv", "--reuid=nobody", "chrootsync", "check", "--probe"], check=False)
    assert (user_said.returncode, user_said.stderr) == (
        Code.USAGE,
        "chrootsync: --probe: only root can enter a chroot (chroot(2)); run it as root\n",
    )
