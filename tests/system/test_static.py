"""An instance of the configuration file, tried for real: BIND, moved into a chroot by the book.

The book is docs/services.md for the commands and docs/chrootsync.toml.example for the settings. They are taken from
there as they are, so that what is tried is what administrators read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from .book import chapter
from .container import Container
from .image import PROJECT
from .test_main_job import Run, check, moved_away

CONFIG = "/etc/chrootsync/chrootsync.toml"
CHROOT = "/var/lib/named"
KEY = "/etc/bind/rndc.key"
ZONE = "/etc/bind/db.example"
LOCAL = "/etc/bind/named.conf.local"
NAME = "www.example.test"
FIRST, SECOND = "192.0.2.1", "192.0.2.2"

EXAMPLE = (PROJECT / "docs" / "chrootsync.toml.example").read_text()

# A line with "#" and no blank behind it is a setting.
SETTINGS = re.sub(r"^#(?=\S)", "", EXAMPLE, flags=re.MULTILINE)

# One block of commands before the settings are taken in, and one after.
BY_HAND, FILL_AND_START = chapter("BIND").commands

ZONES = f'zone "example.test" {{ type primary; file "{ZONE}"; }};\n'

# Asks for the address of $1, again until it is $2 or two seconds are over, since named loads zones behind a reload's
# back. Prints the last answer.
ASK = """
import socket, sys, time

name, wanted = sys.argv[1:]
question = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\\0\\0\\1\\0\\1"
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(2)
deadline = time.monotonic() + 2
while True:
    client.sendto(b"\\1\\2\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0" + question, ("127.0.0.1", 53))
    answer = client.recv(4096)
    status = answer[3] & 15
    said = f"status {status}" if status else socket.inet_ntoa(answer[-4:])
    if said == wanted or time.monotonic() > deadline:
        break
    time.sleep(0.05)
print(said)
"""


def zone(address: str) -> str:
    """A zone in which the tested name has this address."""
    head = "$TTL 60\n@ IN SOA localhost. root.localhost. ( 1 3600 600 86400 60 )\n@ IN NS localhost.\n"
    return f"{head}www IN A {address}\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Bind:
    """The chrooted BIND of a container; ``first`` is what a check said before the chroot was filled."""

    container: Container
    first: Run

    def answer(self, name: str, wanted: str) -> str:
        """The address that named gives for a name, once it is ``wanted`` or was not for a while."""
        return self.container.run(["python3", "-c", ASK, name, wanted]).stdout.strip()

    def reloads(self) -> int:
        """How many times named was told to reload so far."""
        self.container.run(["journalctl", "--sync"])
        log = self.container.run(["journalctl", "--unit=named.service", "--output=cat", "--no-pager"]).stdout
        return log.count("received control channel command 'reload'")

    def process(self) -> str:
        """The process number of named."""
        return self.container.run(
            ["systemctl", "show", "--property=MainPID", "--value", "named.service"]
        ).stdout.strip()

    def synced(self, path: str) -> bool:
        """Whether a copy holds what the host's file holds."""
        return self.container.run(["cmp", "-s", path, CHROOT + path], check=False).returncode == 0

    def mode(self, path: str) -> int:
        """The permission bits of a file."""
        return int(self.container.run(["stat", "-c", "%a", path]).stdout, 8)

    def may_read(self, user: str, path: str) -> bool:
        """Whether a user may read a file."""
        return self.container.run(["runuser", "-u", user, "--", "test", "-r", path], check=False).returncode == 0


def about(run: Run) -> dict[str, Any]:
    """What a report says of BIND."""
    [found] = [each for each in run.report["instances"] if each["name"] == "named"]
    assert isinstance(found, dict)
    return found


def drift(run: Run) -> dict[str, str]:
    """The kind of each drift of BIND that counts, by path."""
    return {each["path"]: each["kind"] for each in about(run)["drift"] if each["severity"] == "error"}


@pytest.fixture(scope="module")
def moved_in(container: Container) -> Bind:
    """A BIND that ran without a chroot, moved into one by all that the example tells to do."""
    container.run(["systemctl", "start", "named.service"])
    check(container, "--fix", code=0)  # the Postfix instances are not what is tried here
    container.shell(BY_HAND)
    container.write(CONFIG, SETTINGS)
    first = check(container, "named", code=1)
    container.shell(FILL_AND_START)
    return Bind(container=container, first=first)


@pytest.fixture
def bind(moved_in: Bind) -> Bind:
    """Start from a BIND that is in sync and serves the first address, whatever a test before has left behind."""
    container = moved_in.container
    container.write(CONFIG, SETTINGS)
    container.write(ZONE, zone(FIRST))
    container.write(LOCAL, ZONES)
    check(container, "--fix", "named", code=0)
    assert moved_in.answer(NAME, FIRST) == FIRST
    return moved_in


@pytest.fixture
def stopped(bind: Bind) -> Iterator[Bind]:
    """A BIND that does not run meanwhile."""
    bind.container.run(["systemctl", "stop", "named.service"])
    yield bind
    bind.container.run(["systemctl", "start", "named.service"])


def test_is_listed_beside_the_three_postfix_instances(bind: Bind) -> None:
    said = bind.container.run(["chrootsync", "instances"]).stdout
    listed = json.loads(bind.container.run(["chrootsync", "instances", "--format", "json"]).stdout)["instances"]

    assert [(each["name"], each["provider"]) for each in listed] == [
        ("postfix", "postfix"),
        ("postfix-in", "postfix"),
        ("postfix-out", "postfix"),
        ("named", "static"),
    ]
    assert listed[-1]["chroot"] == CHROOT
    assert listed[-1]["reload"] == ["/usr/sbin/rndc", "reload"]
    assert f"named\n  chroot      {CHROOT}\n  found       listed in the configuration file\n" in said


def test_the_first_fix_fills_the_chroot(moved_in: Bind) -> None:
    missing = drift(moved_in.first)

    assert set(missing.values()) == {"missing"}
    assert {"/etc/bind/named.conf", "/etc/bind/db.local", KEY, "/usr/share/dns/root.hints", "/dev/null"} <= set(missing)
    assert check(moved_in.container, "named", code=0).report["status"] == "in-sync"


def test_named_runs_chrooted_and_answers(bind: Bind) -> None:
    container = bind.container

    assert container.run(["readlink", f"/proc/{bind.process()}/root"]).stdout == f"{CHROOT}\n"
    assert container.run(["systemctl", "is-active", "named.service"]).stdout == "active\n"
    assert bind.answer("localhost", "127.0.0.1") == "127.0.0.1"
    assert container.exists(f"{CHROOT}/var/cache/bind/managed-keys.bind.jnl"), "named writes into its chroot"
    assert not re.search("permission denied|file not found", container.shell("journalctl -u named.service"))


def test_a_changed_zone_is_served_after_a_fix(bind: Bind) -> None:
    container, before = bind.container, bind.reloads()
    container.write(ZONE, zone(SECOND))

    named = check(container, code=1)
    said = container.run(["chrootsync", "check"], check=False).stdout
    assert bind.answer(NAME, FIRST) == FIRST
    fixed = check(container, "--fix", code=0)
    after = check(container, code=0)

    assert drift(named) == {ZONE: "outdated"}
    assert f"{CHROOT}{ZONE}" in said
    assert about(fixed)["reload"]["command"] == ["/usr/sbin/rndc", "reload"]
    assert [each["name"] for each in fixed.report["instances"] if each["reload"]["done"]] == ["named"]
    assert bind.synced(ZONE)
    assert bind.answer(NAME, SECOND) == SECOND
    assert bind.reloads() == before + 1
    assert drift(after) == {}


def test_a_changed_option_is_in_force_after_a_fix(bind: Bind) -> None:
    container = bind.container
    options = "/etc/bind/named.conf.options"
    original = container.read(options)
    container.write(options, original.replace("options {", "options { allow-query { none; };"))
    try:
        named = check(container, "named", code=1)
        check(container, "--fix", "named", code=0)

        assert drift(named) == {options: "outdated"}
        assert bind.answer(NAME, "status 5") == "status 5", "refused"
    finally:
        container.write(options, original)


def test_what_the_configuration_names_elsewhere_is_brought_along(bind: Bind) -> None:
    container, more, loaded = bind.container, "/etc/dhcp/zones.conf", "/etc/bind/db.more"
    container.write(more, f'zone "more.test" {{ type primary; file "{loaded}"; }};\n')
    container.write(loaded, zone(SECOND))
    container.write(LOCAL, f'{ZONES}// include "/etc/hostname";\ninclude "{more}";\n')

    fixed = check(container, "--fix", "named", code=0)

    assert drift(fixed) == {LOCAL: "outdated", "/etc/dhcp": "missing", more: "missing", loaded: "missing"}
    assert bind.answer("www.more.test", SECOND) == SECOND


def test_a_second_fix_writes_and_reloads_nothing(bind: Bind) -> None:
    listing = ["find", CHROOT, "-path", f"{CHROOT}/var", "-prune", "-o", "-printf", "%p %i %C@\\n"]
    before, reloads, process = bind.container.run(listing).stdout, bind.reloads(), bind.process()

    check(bind.container, "--fix", "named", code=0)

    assert before.count("\n") > 20
    assert bind.container.run(listing).stdout == before
    assert bind.reloads() == reloads
    assert bind.process() == process


def test_a_reload_that_fails_is_told_and_tried_again_until_it_is_done(bind: Bind) -> None:
    container, before = bind.container, bind.reloads()
    container.write(LOCAL, ZONES.replace("};", "", 1))
    container.write(ZONE, zone(SECOND))

    broken = check(container, "--fix", "named", code=4)
    said = container.run(["chrootsync", "check", "--fix", "named"], check=False)

    assert drift(broken) == {LOCAL: "outdated", ZONE: "outdated"}
    assert about(broken)["reload"]["pending"]
    assert about(broken)["reload"]["error"] == "/usr/sbin/rndc reload ended with status 1"
    assert said.returncode == 4
    assert "rndc: 'reload' failed" in said.stdout
    assert bind.reloads() == before + 2
    assert bind.answer(NAME, FIRST) == FIRST, "named goes on with what it has"

    container.write(LOCAL, ZONES)
    check(container, "--fix", "named", code=0)
    assert bind.answer(NAME, SECOND) == SECOND


def test_a_pending_reload_is_done_by_the_next_fix_though_nothing_drifted_since(bind: Bind) -> None:
    container, before = bind.container, bind.reloads()
    container.write(ZONE, zone(SECOND))
    with moved_away(container, "/usr/sbin/rndc"):
        failed = check(container, "--fix", "named", code=4)

    again = check(container, "--fix", "named", code=0)

    assert "/usr/sbin/rndc" in about(failed)["reload"]["error"]
    assert drift(again) == {}
    assert about(again)["reload"]["done"]
    assert bind.answer(NAME, SECOND) == SECOND
    assert bind.reloads() == before + 1


def test_a_named_that_does_not_run_is_repaired_and_left_alone(stopped: Bind) -> None:
    container = stopped.container
    container.write(ZONE, zone(SECOND))

    fixed = check(container, "--fix", "named", code=0)

    assert not about(fixed)["reload"]["needed"]
    assert stopped.synced(ZONE)
    assert container.run(["systemctl", "is-active", "named.service"], check=False).stdout == "inactive\n"


def test_a_secret_is_never_more_readable_than_on_the_host(bind: Bind) -> None:
    container, copy = bind.container, CHROOT + KEY
    assert not bind.mode(copy) & ~bind.mode(KEY)
    assert bind.may_read("bind", copy)
    assert not bind.may_read("nobody", copy)
    assert bind.may_read("nobody", CHROOT + ZONE), "as everybody may on the host"

    container.run(["chmod", "600", KEY])
    try:
        tightened = check(container, "named", code=1)
        check(container, "--fix", "--no-reload", "named")
        assert drift(tightened) == {KEY: "metadata"}
        assert bind.mode(copy) == 0o600
    finally:
        container.run(["chmod", "640", KEY])


def test_a_new_key_restarts_named_since_rndc_cannot_reach_the_old_one(bind: Bind) -> None:
    container, before = bind.container, bind.process()
    container.run(["rndc-confgen", "-a"])

    named = check(container, "named", code=1)
    fixed = check(container, "--fix", "named", code=0)

    [found] = [each for each in about(named)["drift"] if each["path"] == KEY]
    assert found["kind"] == "outdated"
    assert not found["want"].get("sha256"), "a checksum of a secret would be a way to guess it"
    assert about(fixed)["reload"]["command"] == ["/usr/bin/systemctl", "try-restart", "named.service"]
    assert bind.process() != before
    assert bind.answer(NAME, FIRST) == FIRST
    container.run(["rndc", "status"])


def test_what_an_older_guide_put_there_is_kept_fresh(bind: Bind) -> None:
    container = bind.container
    container.write(f"{CHROOT}/etc/protocols", "# stale\n")

    named = check(container, "named", code=1)
    check(container, "--fix", "named", code=0)

    assert drift(named) == {"/etc/protocols": "differs"}
    assert bind.synced("/etc/protocols")


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ('chroot = "/var/lib/named"', 'chroot = "var/lib/named"', "instance[0].chroot: must be absolute"),
        ('chroot = "/var/lib/named"', 'chroot = "/"', "instance[0].chroot: must not be the root itself"),
        ('rules = ["bind"]', 'rules = ["bnid"]', 'instance[0].rules[0]: is not a known rule set; did you mean "bind"?'),
        ('"/usr/sbin/rndc"', '"rndc"', "instance[0].reload[0]: must be absolute"),
        ('unit = "', 'units = "', 'instance[0].units: is not a known key; did you mean "unit"?'),
        ('unit = "named.service"', 'unit = "named.service', "line "),
        (SETTINGS, SETTINGS + SETTINGS[SETTINGS.index("[[") :], 'instance[1].name: "named" is used already'),
    ],
    ids=["relative", "root", "rule set", "program", "key", "syntax", "twice"],
)
def test_a_wrong_setting_is_told_and_nothing_is_touched(bind: Bind, right: str, wrong: str, message: str) -> None:
    container, before = bind.container, bind.reloads()
    assert right in SETTINGS
    container.write(CONFIG, SETTINGS.replace(right, wrong))
    container.write(ZONE, zone(SECOND))

    done = container.run(["chrootsync", "check", "--fix"], check=False)

    assert done.returncode == 2
    assert done.stdout == ""
    assert f"{CONFIG}: " in done.stderr
    assert message in done.stderr
    assert not bind.synced(ZONE)
    assert bind.reloads() == before


def test_settings_that_others_can_write_are_not_trusted(bind: Bind) -> None:
    bind.container.write(CONFIG, SETTINGS, mode=0o666)

    done = bind.container.run(["chrootsync", "check", "--fix"], check=False)

    assert done.returncode == 2
    assert f"{CONFIG}: others can write to it" in done.stderr
