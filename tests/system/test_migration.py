"""docs/migration.md, tried as it stands there: from Debian's script and from jailkit, on a host that is not booted."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import image
from .image import PROJECT
from .workshop import Workshop

TEXT = (PROJECT / "docs" / "migration.md").read_text()
CHROOT = "/var/spool/postfix"
JAIL = "/srv/jail"
SCRIPT = "/usr/lib/postfix/configure-instance.sh"


def blocks(heading: str, language: str) -> list[str]:
    """The blocks of a section of the documentation, in their order."""
    [section] = re.findall(rf"^(#+) {re.escape(heading)}\n(.*?)(?=^##? |^\1 |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    return [
        textwrap.dedent(f"{indent}{text}")
        for indent, text in re.findall(rf"^ *```{language}\n( *)(.*?)^ *```$", section[1], re.MULTILINE | re.DOTALL)
    ]


@pytest.fixture(scope="module")
def workshop(chrootsync: tuple[Path, ...], base: Path) -> Iterator[Workshop]:
    """A Debian 12 with Postfix, chrootsync and jailkit."""
    with Workshop([*chrootsync, image.jailkit(base), base], {}) as made:
        yield made


@pytest.fixture
def host(workshop: Workshop) -> Workshop:
    """The same without rules and memory, and with nothing in its chroots."""
    script = """
        rm -rf /etc/chrootsync /var/lib/chrootsync /etc/default/postfix /srv/jail /etc/policy.map /etc/mail
        printf 'nameserver 192.0.2.53\\n' > /etc/resolv.conf
        cd /var/spool/postfix
        rm -rf bin etc lib lib32 lib64 libexec sbin usr
        mkdir etc lib usr /srv/jail
    """
    workshop.shell(script)
    return workshop


def check(host: Workshop, *arguments: str, code: int) -> dict[str, str]:
    """What a check finds: the kind of each drift that counts by its path."""
    done = host.chrootsync("check", "--format", "json", *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return {
        drift["path"]: drift["kind"]
        for one in report["instances"]
        for drift in one["drift"]
        if drift["severity"] == "error"
    }


def type_in(host: Workshop, commands: str) -> None:
    host.run(["env", f"PATH=/opt/chrootsync/bin:{image.PATH}", "sh", "-euc", commands])


# --- From Debian's script ---------------------------------------------------------------------------------------------


def test_the_commands_at_the_top_exist(host: Workshop) -> None:
    commands = re.findall(r"^    chrootsync (\S.*?)(?:  .*)?$", TEXT, re.MULTILINE)
    assert len(commands) == 4
    endings = [host.chrootsync(*command.split()).returncode for command in commands]
    assert endings == [1, 0, 0, 0]


def test_a_rule_brings_what_the_settings_of_the_script_brought(host: Workshop) -> None:
    host.write("/etc/default/postfix", "chroot_extra_files=etc/policy.map\nchroot_extra_CAdir=/etc/mail/ca\n")
    host.write("/etc/policy.map", "a b\n")
    host.shell("mkdir -p /etc/mail/ca; cp /etc/ssl/certs/ISRG_Root_X1.pem /etc/mail/ca/")
    host.shell("openssl rehash /etc/mail/ca")
    host.run([SCRIPT, "-"])
    brought = sorted(host.shell(f"cd {CHROOT}; find etc/policy.map etc/mail -name '*[0-9p]'").split())
    assert brought[1:] == ["etc/policy.map"]
    assert re.fullmatch(r"etc/mail/ca/[0-9a-f]{8}\.0", brought[0])

    host.shell(f"cd {CHROOT}; rm -rf etc/policy.map etc/mail")
    [rule, *_] = blocks("From Debian's scripts", "toml")
    host.write("/etc/chrootsync/rules.d/local.toml", rule)
    assert host.chrootsync("rules", "check").returncode == 0
    check(host, "--fix", code=0)
    assert host.shell(f"cd {CHROOT}; ls -d {' '.join(brought)}").split() == brought


def test_the_script_can_be_switched_off(host: Workshop) -> None:
    [line] = blocks("From Debian's scripts", "sh")
    check(host, "--fix", code=0)
    host.write("/etc/resolv.conf", "nameserver 192.0.2.54\n")
    host.write("/etc/default/postfix", line)
    with host.untouched(CHROOT):
        host.run([SCRIPT, "-"])
    # And it is the setting that does it.
    host.shell("rm /etc/default/postfix")
    host.run([SCRIPT, "-"])
    assert "192.0.2.54" in host.shell(f"cat {CHROOT}/etc/resolv.conf")


# --- From jailkit -----------------------------------------------------------------------------------------------------


def test_jailkit_leaves_a_postfix_chroot_as_the_documentation_says(host: Workshop) -> None:
    [command] = re.findall(r"`(jk_init -j \S+ netbasics uidbasics)`", TEXT)
    host.run(["env", f"PATH={image.PATH}", *command.split()])
    found = check(host, code=1)
    kinds = {path: found.get(path) for path in ("/etc/gai.conf", "/etc/ssl/certs", "/etc/passwd", "/etc/group")}
    assert list(kinds.values()) == ["missing", "missing", "differs", "differs"]
    assert found["/etc/ld.so.cache"] == "differs"
    assert [kind for path, kind in found.items() if path.endswith("/libgcc_s.so.1")] == ["missing"]

    [commands] = blocks("A Postfix chroot that `jk_init` has filled", "sh")
    type_in(host, commands)
    assert check(host, code=0) == {}
    assert host.run(["ls", f"{CHROOT}/etc/passwd"], check=False).returncode != 0


def test_jk_update_overlooks_a_stale_resolver_and_says_nothing(host: Workshop) -> None:
    host.run(["jk_init", "-j", CHROOT, "netbasics"])
    check(host, "--fix", code=0)
    host.write("/etc/resolv.conf", "nameserver 192.0.2.54\n")
    assert host.run(["jk_update", "-j", CHROOT]).returncode == 0
    assert check(host, code=1) == {"/etc/resolv.conf": "outdated"}


def test_jk_update_removes_what_the_host_has_elsewhere(host: Workshop) -> None:
    check(host, "--fix", code=0)
    host.shell(f"mkdir -p {CHROOT}/usr/lib; cp /lib/x86_64-linux-gnu/libgcc_s.so.1 {CHROOT}/usr/lib/")
    host.run(["jk_update", "-j", CHROOT])
    assert host.run(["ls", f"{CHROOT}/usr/lib/libgcc_s.so.1"], check=False).returncode != 0


@pytest.fixture
def jail(host: Workshop) -> Workshop:
    """A jail with a shell, and the files of the documentation."""
    host.run(["jk_init", "-j", JAIL, "basicshell", "netbasics"])
    config, rules = blocks("A jail with programs", "toml")
    host.write("/etc/chrootsync/chrootsync.toml", config)
    host.write("/etc/chrootsync/rules.d/jail.toml", rules)
    return host


def lists_programs(host: Workshop) -> bool:
    done = host.run(["chroot", JAIL, "/bin/bash", "-c", "/bin/ls /bin | /bin/cat"])
    return {"bash", "cat", "ls"} <= set(done.stdout.split())


def test_a_jail_is_kept_fresh(jail: Workshop) -> None:
    accounts = jail.shell(f"cat {JAIL}/etc/passwd {JAIL}/etc/group")
    assert lists_programs(jail)
    found = check(jail, "jail", code=1)
    assert set(found.values()) == {"type"}
    assert [path.rpartition("/")[2] for path in found] == ["ld-linux-x86-64.so.2"]

    [commands] = blocks("A jail with programs", "sh")
    type_in(jail, commands)
    assert check(jail, "jail", code=0) == {}
    assert lists_programs(jail)
    assert jail.shell(f"cat {JAIL}/etc/passwd {JAIL}/etc/group") == accounts

    jail.shell(f"cp /bin/true {JAIL}/bin/cat")
    assert check(jail, "jail", "--fix", code=0) == {"/usr/bin/cat": "differs"}
    assert lists_programs(jail)


def test_the_rules_are_all_that_an_empty_jail_needs(jail: Workshop) -> None:
    jail.shell(f"rm -rf {JAIL}; mkdir {JAIL}")
    check(jail, "jail", "--fix", code=0)
    assert lists_programs(jail)
