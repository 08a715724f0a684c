"""Modules that talk to a daemon: its socket, whether lookups get along without it, and the way out."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

from chrootsync import libraries
from chrootsync.libraries.sockets import TALKERS, socket_of
from chrootsync.model import LibrarySet, ModuleSocket
from tests.unit.elf_builder import elf
from tests.unit.test_libraries import BANNER, OLD_BANNER, TRIPLET, debian
from tests.unit.tree_reader import MemoryCache, TreeReader, plant

RESOLVE = "/run/systemd/resolve/io.systemd.Resolve"
NSLCD = b"\0/var/run/nslcd/s\0"


def needed(root: Path, *databases: str) -> LibrarySet:
    return libraries.needs_nss(TreeReader(root), MemoryCache(), databases)


def asked(root: Path, line: str, *installed: str, banner: bytes = BANNER) -> ModuleSocket:
    """The one socket that a line of nsswitch.conf comes to where some modules are installed."""
    database = line.partition(":")[0]
    debian(root, f"{line}\n".encode())
    plant(root, {f"/usr{TRIPLET}/libnss_{name}.so.2": elf(tail=NSLCD) for name in installed})
    (root / f"usr{TRIPLET}/libc.so.6").write_bytes(elf(tail=banner))
    (root / f"usr{TRIPLET}/libnss_mymachines.so.2").unlink()
    (found,) = needed(root, database).sockets
    return found


@pytest.mark.parametrize(
    ("line", "module", "advice"),
    [
        ("hosts: files resolve [!UNAVAIL=return] dns", "resolve", "lookups go on with dns"),
        ("hosts: resolve [!UNAVAIL=return] files myhostname dns", "resolve", "lookups go on with dns"),
        ("hosts: files mdns4_minimal [NOTFOUND=return] dns", "mdns4_minimal", "lookups go on with dns"),
        ("hosts: mdns files", "mdns", "lookups go on with files"),
        (
            "hosts: dns resolve",
            "resolve",
            "libnss_resolve.so.2 answers nothing inside the chroot, but dns is asked before it",
        ),
        (
            "hosts: dns wins [NOTFOUND=return] files",
            "wins",
            "libnss_wins.so.2 answers nothing inside the chroot, but dns is asked before it",
        ),
        (
            "services: files sss",
            "sss",
            "libnss_sss.so.2 answers nothing inside the chroot, but files is asked before it",
        ),
        (
            "passwd: files systemd",
            "systemd",
            "libnss_systemd.so.2 answers nothing inside the chroot, but files is asked before it",
        ),
        ("hosts: resolve nosuch dns", "resolve", "lookups go on with dns"),
        ("hosts: resolve [UNAVAIL=merge] dns", "resolve", "lookups go on with dns"),
    ],
)
def test_lookups_get_along_without_it(tmp_path: Path, line: str, module: str, advice: str) -> None:
    found = asked(tmp_path, line, module, "myhostname")
    assert (found.falls_through, found.advice) == (True, advice)
    assert found.chain == (f"libnss_{module}.so.2", f"nsswitch.conf {line.partition(':')[0]}")


@pytest.mark.parametrize(
    ("line", "module", "way_out"),
    [
        ("hosts: files resolve", "resolve", "name dns behind it in the hosts line of /etc/nsswitch.conf"),
        ("hosts: resolve files myhostname", "resolve", "name dns behind it in the hosts line of /etc/nsswitch.conf"),
        ("hosts: mdns", "mdns", "name dns behind it in the hosts line of /etc/nsswitch.conf"),
        (
            "hosts: files resolve [!SUCCESS=return] dns",
            "resolve",
            "take the action in brackets that keeps lookups from dns out of the hosts line of /etc/nsswitch.conf",
        ),
        (
            "hosts: resolve files [NOTFOUND=return] dns",
            "resolve",
            "take the action in brackets that keeps lookups from dns out of the hosts line of /etc/nsswitch.conf",
        ),
        (
            "hosts: resolve nosuch [UNAVAIL=return] dns",
            "resolve",
            "take the action in brackets that keeps lookups from dns out of the hosts line of /etc/nsswitch.conf",
        ),
        (
            "services: sss [NOTFOUND=return] files",
            "sss",
            "take the action in brackets that keeps lookups from files out of the services line of /etc/nsswitch.conf",
        ),
        ("services: ldap", "ldap", "name files behind it in the services line of /etc/nsswitch.conf"),
        (
            "passwd: files sss",
            "sss",
            "have passwd looked up outside of it, in Postfix by proxy:unix:passwd.byname",
        ),
        (
            "group: winbind files",
            "winbind",
            "have group looked up outside of it, in Postfix by proxy:unix:group.byname",
        ),
    ],
)
def test_lookups_do_not_get_along_without_it(tmp_path: Path, line: str, module: str, way_out: str) -> None:
    found = asked(tmp_path, line, module, "myhostname")
    assert (found.falls_through, found.advice) == (
        False,
        f"libnss_{module}.so.2 answers nothing inside the chroot; {way_out}",
    )


def test_before_2_34_dns_stands_in_only_where_its_module_is_installed(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    line = "hosts: resolve dns"
    assert asked(first, line, "resolve", "dns", banner=OLD_BANNER).falls_through
    assert not asked(second, line, "resolve", banner=OLD_BANNER).falls_through


def test_accounts_that_compat_brings_in(tmp_path: Path) -> None:
    debian(tmp_path, b"passwd: compat\npasswd_compat: sss\n")
    plant(tmp_path, {f"/usr{TRIPLET}/libnss_{name}.so.2": elf() for name in ("compat", "sss")})
    (found,) = needed(tmp_path, "passwd").sockets
    assert (found.path, found.falls_through) == ("/var/lib/sss/pipes/nss", False)
    assert found.chain == ("libnss_sss.so.2", "nsswitch.conf passwd_compat")
    assert found.advice.endswith("by proxy:unix:passwd.byname")


def test_the_database_where_it_matters_is_told(tmp_path: Path) -> None:
    debian(tmp_path, b"services: files sss\npasswd: files sss\nhosts: files\n")
    plant(tmp_path, {f"/usr{TRIPLET}/libnss_sss.so.2": elf()})
    (found,) = needed(tmp_path, "hosts", "services", "passwd").sockets
    assert not found.falls_through
    assert "have passwd looked up outside" in found.advice
    assert found.chain == ("libnss_sss.so.2", "nsswitch.conf services, passwd")


def test_the_module_stays_in_the_closure_and_one_that_is_not_installed_has_no_socket(tmp_path: Path) -> None:
    debian(tmp_path, b"hosts: resolve [!UNAVAIL=return] dns\n")
    assert needed(tmp_path, "hosts") == LibrarySet()
    plant(tmp_path, {f"/usr{TRIPLET}/libnss_resolve.so.2": elf(["libc.so.6"])})
    found = needed(tmp_path, "hosts")
    assert [library.path for library in found.libraries] == [f"{TRIPLET}/libnss_resolve.so.2"]
    assert [socket.path for socket in found.sockets] == [RESOLVE]


def test_sockets_come_out_of_the_cache_as_they_went_in(tmp_path: Path) -> None:
    debian(tmp_path, b"hosts: files resolve\nservices: files sss\n")
    plant(tmp_path, {f"/usr{TRIPLET}/libnss_{name}.so.2": elf() for name in ("resolve", "sss")})
    cache = MemoryCache()
    first = libraries.needs_nss(TreeReader(tmp_path), cache, ["hosts", "services"])
    again = TreeReader(tmp_path)
    assert libraries.needs_nss(again, cache, ["hosts", "services"]) == first
    assert len(first.sockets) == 2
    assert again.reads == []


@pytest.mark.parametrize(
    ("module", "data", "path"),
    [
        ("resolve", b"", RESOLVE),
        ("resolve", b"\0/run/systemd/resolve/io.systemd.Resolve\0unix:path=/run/dbus/system_bus_socket\0", RESOLVE),
        ("resolve", b"unix:path=/run/dbus/system_bus_socket", "/run/dbus/system_bus_socket"),
        ("resolve", b"unix:path=/var/run/dbus/system_bus_socket", "/var/run/dbus/system_bus_socket"),
        ("mymachines", b"", "/run/systemd/machine/io.systemd.Machine"),
        ("systemd", b"", "/run/systemd/userdb/io.systemd.Multiplexer"),
        ("mdns4_minimal", b"", "/run/avahi-daemon/socket"),
        ("mdns", b"..../var/run/avahi-d....", "/var/run/avahi-daemon/socket"),
        ("mdns6", b"..../run/avahi-daemo....", "/run/avahi-daemon/socket"),
        ("sss", b"", "/var/lib/sss/pipes/nss"),
        ("winbind", b"", "/run/samba/winbindd/pipe"),
        ("wins", b"/var/run/samba/winbindd", "/var/run/samba/winbindd/pipe"),
        ("ldap", b"/run/nslcd/socket", "/run/nslcd/socket"),
        ("ldap", NSLCD, "/var/run/nslcd/socket"),
        ("ldap", b"/etc/libnss-ldap.conf", None),
        ("files", b"/run/nslcd/socket", None),
    ],
)
def test_which_socket_a_build_talks_to(module: str, data: bytes, path: str | None) -> None:
    assert socket_of(module, data) == path


STATUS = {-1: "UNAVAIL", 0: "NOTFOUND"}
FUNCTIONS = ("gethostbyname2_r", "getpwnam_r", "getservbyname_r")


def real() -> list[str]:
    """The modules of this machine that talk to a daemon which does not run here."""
    reader = TreeReader("/")
    return [
        module
        for module in TALKERS
        for found in (libraries.locations(reader, [f"libnss_{module}.so.2"]).get(f"libnss_{module}.so.2"),)
        if found and (path := socket_of(module, Path(found).read_bytes())) and not os.path.exists(path)
    ]


@pytest.mark.skipif(not real(), reason="no such module is installed, or its daemon runs")
@pytest.mark.parametrize("module", real())
def test_real_modules_without_their_daemon_give_the_statuses_that_are_known(module: str) -> None:
    library = ctypes.CDLL(f"libnss_{module}.so.2")
    result, buffer = ctypes.create_string_buffer(512), ctypes.create_string_buffer(4096)
    error, host_error = ctypes.c_int(), ctypes.c_int()
    space = (result, buffer, len(buffer), ctypes.byref(error))
    arguments = {
        "gethostbyname2_r": (b"nosuch.invalid", 2, *space, ctypes.byref(host_error)),
        "getpwnam_r": (b"nosuchuser", *space),
        "getservbyname_r": (b"nosuchservice", b"tcp", *space),
    }
    told = {
        name: STATUS[call(*arguments[name])]
        for name in FUNCTIONS
        if (call := getattr(library, f"_nss_{module}_{name}", None)) is not None
    }
    told.pop("getpwnam_r" if module == "mymachines" else "", None)  # it knows no accounts any more and asks nobody
    assert told
    assert set(told.values()) <= set(TALKERS[module].statuses)
