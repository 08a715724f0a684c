"""nsswitch.conf, read as glibc reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from chrootsync.libraries import nss_modules
from chrootsync.libraries.nsswitch import parse
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
        ("hosts: files files dns", ("files", "dns")),
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
    assert parse(line.encode()).get("hosts") == modules


def test_nothing_is_read_into_odd_lines() -> None:
    assert parse(b"\n:\n   \n#\nHOSTS: x\n") == {"HOSTS": ("x",)}
    assert parse(b"hosts: \xff\n") == {"hosts": ("\udcff",)}


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
