"""Which package a file belongs to, from the databases of dpkg, pacman and apk, and from rpm's own answers."""

from __future__ import annotations

import shutil
import subprocess
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chrootsync import packages
from chrootsync.model import Completed, Host, Reader, UnreadableError
from chrootsync.packages.rpm import BATCH, BETWEEN
from tests.unit.tree_reader import MemoryCache, TreeReader, plant

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


def owners(reader: Reader, paths: Iterable[str]) -> dict[str, str]:
    """The owners of paths where nothing can be run."""
    return packages.owners(Host(root=reader, run=None, cache=MemoryCache()), paths)


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


@pytest.mark.parametrize("others", [0, 50])
def test_only_a_whole_line_of_a_list_names_a_path(tmp_path: Path, others: int) -> None:
    root = dpkg(tmp_path)
    (root / "var/lib/dpkg/info/longer.list").write_bytes(b"/srv/etc/hosts\n/etc/hosts.allow\n")
    asked = ["/etc/hosts", "/etc/services", *(f"/srv/{number}" for number in range(others))]
    assert owners(TreeReader(root), asked) == {"/etc/services": "netbase 6.4"}


def test_each_list_is_read_once(tmp_path: Path) -> None:
    reader = TreeReader(dpkg(tmp_path))
    owners(reader, ["/etc/services", "/lib/x/libcap.so.2"])
    assert len(reader.reads) == len(set(reader.reads))


def test_what_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    hidden = {"/var/lib/dpkg/info/libcap2:amd64.list", "/var/lib/dpkg/status"}
    reader = TreeReader(dpkg(tmp_path), unreadable=hidden)
    assert owners(reader, ["/etc/services", "/lib/x/libcap.so.2"]) == {"/etc/services": "netbase"}


def test_what_dpkg_is_unpacking(tmp_path: Path) -> None:
    """As it is while the new files are in place, with the old list: the names come from the package's control files."""
    plant(
        dpkg(tmp_path),
        {
            "/usr/lib/x/libcap.so.2.67": b"",
            "/usr/lib/x/libcap.so": "libcap.so.2.67",
            "/var/lib/dpkg/tmp.ci/control": b"Package: libcap2\nVersion: 1:2.67-1\nArchitecture: amd64\n",
            "/var/lib/dpkg/tmp.ci/md5sums": b"d41d8cd98f00b204e9800998ecf8427e  lib/x/libcap.so.2.67\n",
            "/var/lib/dpkg/tmp.ci/conffiles": b"/etc/cap.conf\nremove-on-upgrade /etc/old cap.conf\n",
            "/var/lib/dpkg/info/libcap2:amd64.list-new": b"/etc/hosts\n",
        },
    )
    asked = ["/usr/lib/x/libcap.so.2.67", "/lib/x/libcap.so", "/etc/cap.conf", "/etc/old cap.conf", "/etc/hosts"]
    assert owners(TreeReader(tmp_path), [*asked, "/usr/lib/x/libcap.so.2.66", "/etc/services", "/"]) == {
        **dict.fromkeys(asked[:4], "libcap2 1:2.67-1"),
        "/usr/lib/x/libcap.so.2.66": "libcap2 1:2.66-4",
        "/etc/services": "netbase 6.4",
    }


@pytest.mark.parametrize("control", [b"", b"garbage", b"Version: 1\n", b"Package: x\n"])
def test_an_unpacking_that_was_cut_short(tmp_path: Path, control: bytes) -> None:
    plant(dpkg(tmp_path), {"/var/lib/dpkg/tmp.ci/control": control})
    assert owners(TreeReader(tmp_path), ["/", "/etc/x", "/etc/services"]) == {"/etc/services": "netbase 6.4"}


def test_what_dpkg_is_unpacking_is_looked_at_before_the_lists(tmp_path: Path) -> None:
    """It is in one or the other at any time, but goes from the one to the other."""
    plant(dpkg(tmp_path), {"/var/lib/dpkg/tmp.ci/control": b"Package: x\n"})
    reader = TreeReader(tmp_path)
    owners(reader, ["/etc/services"])
    kinds = ["list" if path.endswith(".list") else path.rpartition("/")[2] for path in reader.reads]
    assert kinds[:4] == ["control", "md5sums", "conffiles", "list"]


def test_the_journal_of_dpkg_is_newer_than_its_status(tmp_path: Path) -> None:
    plant(
        dpkg(tmp_path),
        {
            "/var/lib/dpkg/info/new.list": b"/etc/new\n",
            "/var/lib/dpkg/updates/0000": b"Package: netbase\nStatus: install ok half-installed\nVersion: 6.4\n",
            "/var/lib/dpkg/updates/0001": b"Package: new\nStatus: install ok unpacked\nVersion: 1\n",
            "/var/lib/dpkg/updates/0002": b"Package: netbase\nStatus: install ok unpacked\nVersion: 6.5\n",
            "/var/lib/dpkg/updates/tmp.i": b"Package: netbase\nVersion: 7\n#padded\n",
        },
    )
    assert owners(TreeReader(tmp_path), ["/etc/services", "/etc/new"]) == {
        "/etc/services": "netbase 6.5",
        "/etc/new": "new 1",
    }


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


def compressed(text: bytes) -> bytes:
    """As gzip does it."""
    compressor = zlib.compressobj(wbits=31)
    return compressor.compress(text) + compressor.flush()


@pytest.mark.parametrize("written", [None, b"%FILES%\netc/\netc/serv"])
def test_what_pacman_is_unpacking(tmp_path: Path, written: bytes | None) -> None:
    mtree = b"#mtree\n/set type=file mode=644\n./.PKGINFO time=1.0 size=3\n./etc time=1.0 mode=755 type=dir\n"
    mtree += b"./etc/services time=1.0 size=3\n./etc/o\\040dd\\377 time=1.0\n/etc/hosts\n"
    local = "/var/lib/pacman/local/iana-etc-20240814-1"
    plant(tmp_path, {f"{local}/mtree": compressed(mtree), **({f"{local}/files": written} if written else {})})
    assert owners(TreeReader(tmp_path), ["/etc/services", "/etc/o dd\udcff", "/etc/hosts", "/"]) == {
        "/etc/services": "iana-etc 20240814-1",
        "/etc/o dd\udcff": "iana-etc 20240814-1",
    }


def test_the_mtree_of_an_installed_package_is_not_read(tmp_path: Path) -> None:
    local = "/var/lib/pacman/local/iana-etc-20240814-1"
    plant(tmp_path, {f"{local}/files": b"%FILES%\netc/services\n\n", f"{local}/mtree": compressed(b"./etc/hosts x\n")})
    reader = TreeReader(tmp_path)
    assert owners(reader, ["/etc/services", "/etc/hosts"]) == {"/etc/services": "iana-etc 20240814-1"}
    assert f"{local}/mtree" not in reader.reads


@pytest.mark.parametrize("mtree", [b"", b"garbage", compressed(b"./etc/services")[:-12], compressed(b"./\n.\n")])
def test_an_mtree_that_cannot_be_read(tmp_path: Path, mtree: bytes) -> None:
    plant(tmp_path, {"/var/lib/pacman/local/iana-etc-20240814-1/mtree": mtree})
    owners(TreeReader(tmp_path), ["/etc/services"])


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


# --- rpm ----------------------------------------------------------------------------------------------------------


class Rpm:
    """Answers as rpm 4.18 does: in the order of the paths, a line for each owner."""

    def __init__(self, owned: dict[str, list[str]], *, code: int | None = 0, missing: bool = False) -> None:
        self.owned = owned
        self.code = code
        self.missing = missing
        self.calls: list[Sequence[str]] = []

    def run(self, command: Sequence[str], *, timeout: float) -> Completed:
        self.calls.append(command)
        if self.missing:
            raise UnreadableError(command[0], "cannot be started: no such file or directory")
        assert timeout > 0
        assert command[:2] == ["/usr/bin/rpm", "-qf"]
        said = "warning: Found bdb_ro Packages database while attempting sqlite backend: using bdb_ro backend.\n"
        for path in command[command.index("--queryformat") + 2 :]:
            told = [f"@{owner}\n" for owner in self.owned.get(path, [])]
            said += "".join(told) or f"file {path} is not owned by any package\n"
        return Completed(code=self.code, output=said)

    def started(self, pid: int, child: str | None) -> float | None:
        raise AssertionError(f"nobody asks for {child} of {pid}")


def ask(root: Path, rpm: Rpm, paths: Iterable[str]) -> dict[str, str]:
    """The owners of paths where rpm can be run."""
    return packages.owners(Host(root=TreeReader(root), run=rpm, cache=MemoryCache()), paths)


@pytest.mark.parametrize(
    "database",
    ["/var/lib/rpm/Packages", "/var/lib/rpm/rpmdb.sqlite", "/usr/lib/sysimage/rpm/Packages.db"],
)
def test_rpm_is_asked_once(tmp_path: Path, database: str) -> None:
    plant(tmp_path, {database: b"", "/usr/lib64/x.so": "x.so.1", "/usr/lib64/x.so.1": b""})
    rpm = Rpm({"/usr/lib64/x.so.1": ["x 1-2", "y 2:1-2"], "/etc/services": ["setup 2.14-1"], "/": ["filesystem 3-1"]})
    asked = ["/usr/lib64/x.so", "/etc/services", "/etc/hosts", "/etc/gone", "/etc/li\nne", f"{BETWEEN}/x"]
    assert ask(tmp_path, rpm, asked) == {"/usr/lib64/x.so": "x 1-2", "/etc/services": "setup 2.14-1"}
    [command] = rpm.calls
    assert {"--nodigest", "--nosignature"} < set(command)
    assert not any("\n" in part for part in command)


def test_without_a_database_of_rpm_or_on_an_image_it_is_not_run(tmp_path: Path) -> None:
    rpm = Rpm({"/etc/services": ["setup 2.14-1"]})
    plant(tmp_path, {"/var/lib/rpm/.rpm.lock": b""})
    assert ask(tmp_path, rpm, ["/etc/services"]) == {}
    plant(tmp_path, {"/var/lib/rpm/rpmdb.sqlite": b""})
    assert owners(TreeReader(tmp_path), ["/etc/services"]) == {}
    assert ask(tmp_path, rpm, []) == {}
    assert not rpm.calls


def test_rpm_is_asked_about_what_the_others_do_not_know(tmp_path: Path) -> None:
    plant(dpkg(tmp_path), {"/var/lib/rpm/rpmdb.sqlite": b""})
    rpm = Rpm({"/etc/services": ["setup 2.14-1"], "/etc/resolv.conf": ["odd 1-1"]})
    found = ask(tmp_path, rpm, ["/etc/services", "/etc/resolv.conf"])
    assert found == {"/etc/services": "netbase 6.4", "/etc/resolv.conf": "odd 1-1"}
    assert "/etc/services" not in rpm.calls[0]
    rpm.calls.clear()
    ask(tmp_path, rpm, ["/etc/services"])
    assert not rpm.calls


def test_many_paths_are_asked_for_in_parts(tmp_path: Path) -> None:
    plant(tmp_path, {"/var/lib/rpm/rpmdb.sqlite": b""})
    paths = [f"/etc/{number}" for number in range(BATCH + 7)]
    assert ask(tmp_path, rpm := Rpm({path: [f"p {path}"] for path in paths}), paths) == {
        path: f"p {path}" for path in paths
    }
    assert len(rpm.calls) == 2


def test_an_rpm_that_is_missing_or_takes_too_long(tmp_path: Path) -> None:
    plant(tmp_path, {"/var/lib/rpm/rpmdb.sqlite": b""})
    assert ask(tmp_path, Rpm({}, missing=True), ["/etc/services"]) == {}
    rpm = Rpm({"/etc/services": ["setup 2.14-1"]}, code=None)
    assert ask(tmp_path, rpm, ["/etc/services"]) == {"/etc/services": "setup 2.14-1"}


@given(output=st.text(alphabet=f"@x \n{BETWEEN[0]}", max_size=60) | st.text(max_size=60))
def test_nothing_that_rpm_says_makes_it_crash(output: str) -> None:
    found = dict(packages.rpm._answers([b"/a", b"/b"], f"@x\n{BETWEEN}\n{output}\n{BETWEEN}\n@z\n"))
    assert found[b"/a"] == "x"


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
            "/var/lib/dpkg/updates/0000": status,
            "/var/lib/dpkg/tmp.ci/control": b"Package: x\n" + status,
            "/var/lib/dpkg/tmp.ci/md5sums": lists,
            "/var/lib/dpkg/tmp.ci/conffiles": lists,
            "/var/lib/pacman/local/x-1-1/mtree": status,
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
