"""Which package a file belongs to, from the databases of dpkg, pacman and apk."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chrootsync.packages import owners
from tests.unit.tree_reader import TreeReader, plant

STATUS = b"""Package: libcap2
Status: install ok installed
Architecture: i386
Version: 1:2.66-3

Package: libcap2
Status: install ok installed
Architecture: amd64
Multi-Arch: same
Version: 1:2.66-4

Package: netbase
Architecture: all
Version: 6.4
Description: x
 Version: wrong
"""


def dpkg(root: Path) -> Path:
    plant(
        root,
        {
            "/lib": "usr/lib",
            "/usr/lib/x/libcap.so.2": "libcap.so.2.66",
            "/usr/lib/x/libcap.so.2.66": b"",
            "/etc/services": b"",
            "/var/lib/dpkg/info/libcap2:amd64.list": b"/.\n/lib\n/lib/x/libcap.so.2.66\n",
            "/var/lib/dpkg/info/netbase.list": b"/.\n/etc\n/etc/services\n/etc/odd\xff",
            "/var/lib/dpkg/info/gone.list": b"/etc/gone\n",
            "/var/lib/dpkg/info/netbase.md5sums": b"/etc/resolv.conf\n",
            "/var/lib/dpkg/status": STATUS,
        },
    )
    return root


def test_dpkg(tmp_path: Path) -> None:
    asked = ["/etc/services", "/lib/x/libcap.so.2", "/usr/lib/x/libcap.so.2.66", "/etc/resolv.conf", "/etc/odd\udcff"]
    assert owners(TreeReader(dpkg(tmp_path)), [*asked, "/etc/gone"]) == {
        "/etc/services": "netbase 6.4",
        "/lib/x/libcap.so.2": "libcap2 1:2.66-4",
        "/usr/lib/x/libcap.so.2.66": "libcap2 1:2.66-4",
        "/etc/odd\udcff": "netbase 6.4",
        "/etc/gone": "gone",
    }


def test_each_list_is_read_once(tmp_path: Path) -> None:
    reader = TreeReader(dpkg(tmp_path))
    owners(reader, ["/etc/services", "/lib/x/libcap.so.2"])
    assert len(reader.reads) == len(set(reader.reads))


def test_what_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    hidden = {"/var/lib/dpkg/info/libcap2:amd64.list", "/var/lib/dpkg/status"}
    reader = TreeReader(dpkg(tmp_path), unreadable=hidden)
    assert owners(reader, ["/etc/services", "/lib/x/libcap.so.2"]) == {"/etc/services": "netbase"}


def test_pacman(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            "/var/lib/pacman/local/ALPM_DB_VERSION": b"9\n",
            "/var/lib/pacman/local/iana-etc-20240814-1/files": b"%FILES%\netc/\netc/services\n\n%BACKUP%\n",
            "/var/lib/pacman/local/broken-1-1/desc": b"%NAME%\n",
        },
    )
    assert owners(TreeReader(tmp_path), ["/etc/services", "/etc/hosts"]) == {"/etc/services": "iana-etc 20240814-1"}


@pytest.mark.parametrize("path", ["/lib/apk/db/installed", "/usr/lib/apk/db/installed"])
def test_apk(tmp_path: Path, path: str) -> None:
    data = (
        b"C:Q1\nP:alpine-baselayout-data\nV:3.6.5-r0\nF:etc\nR:services\nZ:Q1\nF:\nR:top\n\nP:other\nV:1\nF:etc\nR:x\n"
    )
    plant(tmp_path, {path: data})
    assert owners(TreeReader(tmp_path), ["/etc/services", "/top", "/etc/hosts"]) == {
        "/etc/services": "alpine-baselayout-data 3.6.5-r0",
        "/top": "alpine-baselayout-data 3.6.5-r0",
    }


def test_no_database_and_no_paths(tmp_path: Path) -> None:
    assert owners(TreeReader(tmp_path), ["/etc/services"]) == {}
    assert owners(TreeReader(tmp_path), []) == {}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lists=st.binary(max_size=60), status=st.binary(max_size=60), installed=st.binary(max_size=60))
def test_no_database_makes_it_crash(
    tmp_path_factory: pytest.TempPathFactory, lists: bytes, status: bytes, installed: bytes
) -> None:
    root = tmp_path_factory.mktemp("root")
    plant(
        root,
        {
            "/var/lib/dpkg/info/x.list": b"/etc/services\n" + lists,
            "/var/lib/dpkg/status": b"Package: x\n" + status,
            "/lib/apk/db/installed": b"F:etc\nR:services\n" + installed,
        },
    )
    assert owners(TreeReader(root), ["/etc/services"])["/etc/services"].startswith("x")
    shutil.rmtree(root)


@pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="dpkg is not installed")
def test_dpkg_itself_says_the_same() -> None:
    paths = [path for path in ("/etc/services", "/usr/bin/env", "/etc/debian_version") if Path(path).exists()]
    found = owners(TreeReader("/"), paths)
    for path, owner in found.items():
        name, version = owner.split(" ")
        command = ["dpkg-query", "-W", "-f", "${Version}", name]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == version
        told = subprocess.run(["dpkg", "-S", path], capture_output=True, text=True, check=False).stdout
        assert not told or name in told
    assert found
