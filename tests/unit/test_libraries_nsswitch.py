"""nsswitch.conf, read as glibc reads it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from chrootsync.libraries import nss_modules
from chrootsync.libraries.inputs import Inputs
from chrootsync.libraries.nsswitch import STATUSES, Service, modules, parse, read
from tests.unit.tree_reader import TreeReader, plant


@pytest.mark.parametrize(
    ("line", "modules"),
    [
        ("hosts: files dns", ("files", "dns")),
        ("  hosts:\tfiles\tdns  ", ("files", "dns")),
        ("hosts : files", ("files",)),
        ("hosts files", ("files",)),
        ("hosts:files", ("files",)),
        ("hosts: files mdns4_minimal [NOTFOUND=return] dns", ("files", "mdns4_minimal", "dns")),
        ("hosts: resolve[!UNAVAIL=return]files", ("resolve", "files")),
        ("hosts: files [SUCCESS=merge] systemd", ("files", "systemd")),
        ("hosts: files [ NOTFOUND=return  TRYAGAIN = continue ] dns", ("files", "dns")),
        ("hosts: files [NOTFOUND=return", ("files",)),
        ("hosts: [NOTFOUND=return] files", ()),
        ("hosts: files files dns", ("files", "files", "dns")),
        ("hosts: +dns", ("+dns",)),
        ("hosts: ../../tmp/x files", ("files",)),
        ("hosts:", ()),
        ("hosts: files \\\n dns", ("files", "\\")),
        ("hosts: dns\nhosts: files", ("files",)),
        ("#hosts: dns\n # hosts: wins\nhosts: files", ("files",)),
        ("hosts: files # mdns", ("files", "#", "mdns")),
    ],
)
def test_lines(line: str, modules: tuple[str, ...]) -> None:
    assert tuple(service.module for service in parse(line.encode())["hosts"]) == modules


def test_nothing_is_read_into_odd_lines() -> None:
    assert parse(b"\n:\n   \n#\nHOSTS: x\n") == {"HOSTS": (Service(module="x"),)}
    assert parse(b"hosts: \xff\n") == {"hosts": (Service(module="\udcff"),)}


@pytest.mark.parametrize(
    ("brackets", "actions"),
    [
        ("", {}),
        ("[NOTFOUND=return]", {"NOTFOUND": "return"}),
        ("[notfound = Return]", {"NOTFOUND": "return"}),
        ("[ NOTFOUND=return\tTRYAGAIN=continue ]", {"NOTFOUND": "return", "TRYAGAIN": "continue"}),
        ("[SUCCESS=merge]", {"SUCCESS": "merge"}),
        ("[!UNAVAIL=return]", {"SUCCESS": "return", "NOTFOUND": "return", "TRYAGAIN": "return"}),
        (
            "[!SUCCESS=return UNAVAIL=continue]",
            {"NOTFOUND": "return", "UNAVAIL": "continue", "TRYAGAIN": "return"},
        ),
        (
            "[UNAVAIL=return !UNAVAIL=continue]",
            {"UNAVAIL": "return", "SUCCESS": "continue", "NOTFOUND": "continue", "TRYAGAIN": "continue"},
        ),
        ("[]", {}),
        ("[NOTFOUND]", {}),
        ("[NOTFOUND=]", {}),
        ("[NOTFOUND=returned]", {}),
        ("[! NOTFOUND=return]", {}),
        ("[NOSUCH=return]", {}),
        ("[UNAVAIL=return NOSUCH=return NOTFOUND=return]", {"UNAVAIL": "return"}),
    ],
)
def test_actions(brackets: str, actions: dict[str, str]) -> None:
    first, second = parse(f"hosts: resolve {brackets} dns".encode())["hosts"]
    assert (first, second) == (Service(module="resolve", actions=actions), Service(module="dns"))


def test_what_follows_by_default() -> None:
    service = Service(module="resolve", actions={"NOTFOUND": "return"})
    told = {status: service.action(status) for status in STATUSES}
    assert told == {"SUCCESS": "return", "NOTFOUND": "return", "UNAVAIL": "continue", "TRYAGAIN": "continue"}


def test_comments_behind_modules_ended_with_glibc_2_33(tmp_path: Path) -> None:
    plant(tmp_path, {"/etc/nsswitch.conf": b"hosts: files # mdns [\nservices: files #\n"})
    reader = TreeReader(tmp_path)
    for version, expected in (((2, 31), ["files"]), ((2, 33), ["files", "#", "mdns"]), (None, ["files", "#", "mdns"])):
        assert list(modules(read(Inputs(reader), version), ["hosts"])) == expected


ASK = """
import encodings.idna, os, socket, sys
os.chroot(sys.argv[1]); os.chdir("/")
try: socket.getaddrinfo("planted", None); print("found")
except OSError: print("nothing")
"""


def test_a_last_line_without_an_end_is_lost_since_glibc_2_33(tmp_path: Path) -> None:
    plant(tmp_path, {"/etc/nsswitch.conf": b"services: db files\nhosts: mdns"})
    reader = TreeReader(tmp_path)
    for version, expected in (((2, 32), ["mdns"]), ((2, 36), ["dns", "files"]), (None, ["dns", "files"])):
        assert list(modules(read(Inputs(reader), version), ["hosts"])) == expected
    plant(tmp_path / "one", {"/etc/nsswitch.conf": b"hosts: mdns"})
    assert list(nss_modules(TreeReader(tmp_path / "one"), ["hosts"])) == ["dns", "files"]


@pytest.mark.skipif(os.geteuid() != 0 or platform.libc_ver()[0] != "glibc", reason="needs chroot and glibc")
def test_the_c_library_of_this_machine_loses_a_last_line_without_an_end(tmp_path: Path) -> None:
    plant(tmp_path, {"/etc/nsswitch.conf": b"hosts: nosuchmodule", "/etc/hosts": b"192.0.2.1 planted\n"})
    told = subprocess.check_output([sys.executable, "-c", ASK, tmp_path], text=True).strip()
    version = tuple(map(int, platform.libc_ver()[1].split(".")))
    assert ("files" in modules(read(Inputs(TreeReader(tmp_path)), version), ["hosts"])) is (told == "found")


@pytest.mark.skipif(os.geteuid() != 0 or platform.libc_ver()[0] != "glibc", reason="needs chroot and glibc")
@pytest.mark.parametrize(
    "brackets",
    [
        "",
        "[UNAVAIL=return]",
        "[!UNAVAIL=return]",
        "[!SUCCESS=return]",
        "[!SUCCESS=return UNAVAIL=continue]",
        "[ unavail = RETURN ]",
        "[UNAVAIL=merge]",
        "[NOTFOUND=return TRYAGAIN=return]",
        "[NOTFOUND=return] [UNAVAIL=return]",
    ],
)
def test_the_c_library_of_this_machine_goes_on_where_we_say_so(tmp_path: Path, brackets: str) -> None:
    line = f"hosts: nosuchmodule {brackets} files\n"
    plant(tmp_path, {"/etc/nsswitch.conf": line.encode(), "/etc/hosts": b"192.0.2.1 planted\n"})
    told = subprocess.check_output([sys.executable, "-c", ASK, tmp_path], text=True).strip()
    found = parse(line.encode())["hosts"]
    reached = found[0].action("UNAVAIL") == "continue" and any(service.module == "files" for service in found)
    assert reached is (told == "found")


def test_modules_know_who_named_them(tmp_path: Path) -> None:
    plant(tmp_path, {"/etc/nsswitch.conf": b"hosts: files dns\nservices: db files\npasswd: compat\n"})
    assert nss_modules(TreeReader(tmp_path), ["hosts", "services", "passwd"]) == {
        "files": ("hosts", "services"),
        "dns": ("hosts",),
        "db": ("services",),
        "compat": ("passwd",),
        "nis": ("passwd_compat",),
    }


def test_defaults_of_libc(tmp_path: Path) -> None:
    databases = ["hosts", "services", "initgroups"]
    expected = {"dns": ("hosts",), "files": ("hosts", "services")}
    assert nss_modules(TreeReader(tmp_path), databases) == expected
    plant(tmp_path, {"/etc/nsswitch.conf": b"passwd: systemd\n"})
    assert nss_modules(TreeReader(tmp_path), databases) == expected
    assert nss_modules(TreeReader(tmp_path), ["shadow"]) == {"systemd": ("shadow",)}


def test_suse_keeps_its_own_in_usr(tmp_path: Path) -> None:
    plant(tmp_path, {"/usr/etc/nsswitch.conf": b"hosts: usr\n"})
    assert list(nss_modules(TreeReader(tmp_path), ["hosts"])) == ["usr"]
    plant(tmp_path, {"/etc/nsswitch.conf": b"hosts: etc\n"})
    assert list(nss_modules(TreeReader(tmp_path), ["hosts"])) == ["etc"]
