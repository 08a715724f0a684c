"""What modules and libraries come to: the loader's rules on small trees, and this machine's own modules beside ldd."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from chrootsync import libraries
from chrootsync.libraries import layout, ldcache, loader
from chrootsync.libraries.inputs import Inputs
from chrootsync.model import Libc, LibrarySet, UnreadableError
from tests.unit.elf_builder import AARCH64, ARM, I386, S390X, X86_64, elf, loader_cache
from tests.unit.tree_reader import MemoryCache, TreeReader, plant

TRIPLET = "/lib/x86_64-linux-gnu"
BANNER = b"\0GNU C Library (Debian GLIBC 2.36-9+deb12u10) stable release version 2.36.\nCopyright\0"
OLD_BANNER = b"\0GNU C Library (GNU libc) stable release version 2.31.\n\0"
DEBIAN_12 = b'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\n'
DEBIAN_13 = b'ID=debian\nVERSION_ID="13"\n'
NOT_FOUND = "not in the loader's cache and directories on the host"
GLIBC_SHELL = elf(["libc.so.6"], interpreter="/lib64/ld-linux-x86-64.so.2")


def debian(root: Path, nsswitch: bytes = b"hosts: files mymachines dns\n", release: bytes = DEBIAN_12) -> Path:
    """A root with a merged /usr, glibc 2.36 and a module that needs libcap."""
    plant(
        root,
        {
            "/lib": "usr/lib",
            "/bin": "usr/bin",
            "/usr/bin/sh": GLIBC_SHELL,
            "/etc/os-release": release,
            "/etc/nsswitch.conf": nsswitch,
            f"/usr{TRIPLET}/libc.so.6": elf(["ld-linux-x86-64.so.2"], tail=BANNER),
            f"/usr{TRIPLET}/libnss_files.so.2": elf(["libc.so.6"]),
            f"/usr{TRIPLET}/libnss_mymachines.so.2": elf(["libcap.so.2", "libc.so.6", "ld-linux-x86-64.so.2"]),
            f"/usr{TRIPLET}/libcap.so.2": "libcap.so.2.66",
            f"/usr{TRIPLET}/libcap.so.2.66": elf(["libc.so.6"]),
            f"/usr{TRIPLET}/libgcc_s.so.1": elf(["libc.so.6"]),
        },
    )
    return root


def nss(root: Path, *databases: str) -> LibrarySet:
    return libraries.needs_nss(TreeReader(root), MemoryCache(), databases or ("hosts",))


def named(root: Path, *names: str) -> LibrarySet:
    return libraries.needs_libraries(TreeReader(root), MemoryCache(), names)


def paths(found: LibrarySet) -> dict[str, str]:
    return {library.path: library.source for library in found.libraries}


# --- What the modules of nsswitch.conf come to ------------------------------------------------------------------


def test_a_module_comes_with_what_it_needs_and_says_why(tmp_path: Path) -> None:
    found = nss(debian(tmp_path))
    assert [(library.path, library.source, library.because) for library in found.libraries] == [
        (f"{TRIPLET}/libnss_mymachines.so.2",) * 2 + ("libnss_mymachines.so.2 ← nsswitch.conf hosts",),
        (f"{TRIPLET}/libcap.so.2",) * 2 + ("libcap.so.2 ← libnss_mymachines.so.2 ← nsswitch.conf hosts",),
    ]
    assert found.unresolved == ()


def test_modules_are_built_into_libc_only_since_2_34(tmp_path: Path) -> None:
    debian(tmp_path, b"hosts: files dns\n")
    plant(tmp_path, {f"/usr{TRIPLET}/libnss_dns.so.2": elf(["libresolv.so.2"])})
    plant(tmp_path, {f"/usr{TRIPLET}/libresolv.so.2": elf(["libc.so.6"])})
    assert nss(tmp_path) == LibrarySet()
    (tmp_path / f"usr{TRIPLET}/libc.so.6").write_bytes(elf(tail=OLD_BANNER))
    assert list(paths(nss(tmp_path))) == [
        f"{TRIPLET}/{name}" for name in ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2")
    ]


def test_a_module_that_is_not_installed_needs_nothing(tmp_path: Path) -> None:
    assert nss(debian(tmp_path, b"hosts: files resolve [!UNAVAIL=return] dns\n")) == LibrarySet()


def test_a_dependency_that_is_not_installed_is_unresolved(tmp_path: Path) -> None:
    debian(tmp_path)
    (tmp_path / f"usr{TRIPLET}/libcap.so.2").unlink()
    found = nss(tmp_path)
    assert list(paths(found)) == [f"{TRIPLET}/libnss_mymachines.so.2"]
    assert [(missing.name, missing.because) for missing in found.unresolved] == [
        (
            "libcap.so.2",
            f"libcap.so.2 ← libnss_mymachines.so.2 ← nsswitch.conf hosts: {NOT_FOUND}",
        )
    ]


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (b"", "is not an ELF file"),
        (b"#!/bin/sh\n" * 10, "is not an ELF file"),
        (elf(["libc.so.6"])[:-4], "is a truncated ELF file"),
        (elf()[:60], "is a truncated ELF file"),
        (GLIBC_SHELL[:16] + b"\x01" + GLIBC_SHELL[17:], "is neither a shared library nor a program"),
        (GLIBC_SHELL[:4] + b"\x09" + GLIBC_SHELL[5:], "has a broken ELF header"),
        (GLIBC_SHELL[:54] + b"\0" + GLIBC_SHELL[55:], "has a broken ELF header"),
        (elf(["x" * 5000]), "has a broken string table"),
        (elf([""] * 3), "has a broken string table"),
    ],
)
def test_a_damaged_module_is_unresolved(tmp_path: Path, contents: bytes, reason: str) -> None:
    debian(tmp_path)
    (tmp_path / f"usr{TRIPLET}/libnss_mymachines.so.2").write_bytes(contents)
    found = nss(tmp_path)
    assert found.libraries == ()
    why = f"libnss_mymachines.so.2 ← nsswitch.conf hosts: {TRIPLET}/libnss_mymachines.so.2 {reason}"
    assert [missing.because for missing in found.unresolved] == [why]


def test_an_unreadable_module_is_said_and_nothing_is_remembered(tmp_path: Path) -> None:
    debian(tmp_path)
    cache = MemoryCache()
    reader = TreeReader(tmp_path, unreadable=[f"{TRIPLET}/libnss_mymachines.so.2"])
    with pytest.raises(UnreadableError, match=r"libnss_mymachines\.so\.2: permission denied"):
        libraries.needs_nss(reader, cache, ["hosts"])
    assert [name for name in cache.values if name.startswith("nss")] == []


def test_an_unreadable_nsswitch_conf_is_said(tmp_path: Path) -> None:
    reader = TreeReader(debian(tmp_path), unreadable=["/etc/nsswitch.conf"])
    with pytest.raises(UnreadableError):
        libraries.needs_nss(reader, MemoryCache(), ["hosts"])


@pytest.mark.parametrize("path", ["/etc/ld.so.cache", "/etc/os-release", TRIPLET, "/bin/sh"])
def test_what_the_loader_can_do_without_may_be_unreadable(tmp_path: Path, path: str) -> None:
    debian(tmp_path)
    plant(tmp_path, {"/etc/ld.so.cache": b""})
    expected = nss(tmp_path)
    for reader in (TreeReader(tmp_path, unreadable=[path]), TreeReader(tmp_path, unseen=[path])):
        cache = MemoryCache()
        found = libraries.needs_nss(reader, cache, ["hosts"])
        assert [(library.path, library.source) for library in found.libraries] == list(paths(expected).items())
        assert not reader.unseen or cache.values == {}


def test_what_cannot_be_seen_any_more_is_looked_at_again(tmp_path: Path) -> None:
    debian(tmp_path)
    cache = MemoryCache()
    first, _ = ask(tmp_path, cache)
    reader = TreeReader(tmp_path, unseen=["/etc/os-release"])
    assert libraries.needs_nss(reader, cache, ["hosts"]) == first
    assert reader.reads


def test_an_unreadable_libc_is_said(tmp_path: Path) -> None:
    libc = f"{TRIPLET}/libc.so.6"
    reader = TreeReader(debian(tmp_path), unreadable=[libc])
    with pytest.raises(UnreadableError):
        libraries.libc(reader, MemoryCache())
    with pytest.raises(UnreadableError):
        libraries.needs_nss(reader, MemoryCache(), ["hosts"])


def test_a_directory_or_a_dangling_link_is_no_library(tmp_path: Path) -> None:
    debian(tmp_path)
    (tmp_path / f"usr{TRIPLET}/libcap.so.2.66").unlink()
    assert [missing.name for missing in nss(tmp_path).unresolved] == ["libcap.so.2"]
    (tmp_path / f"usr{TRIPLET}/libcap.so.2.66").mkdir()
    assert "is a directory, not a file" in nss(tmp_path).unresolved[0].because
    plant(tmp_path, {"/etc/ld.so.cache": loader_cache([("libcap.so.2", "/etc/os-release/libcap.so.2", 0)])})
    assert len(nss(tmp_path).unresolved) == 1


def test_libraries_that_need_each_other_come_once(tmp_path: Path) -> None:
    debian(tmp_path)
    (tmp_path / f"usr{TRIPLET}/libcap.so.2.66").write_bytes(elf(["libcap.so.2", "libnss_mymachines.so.2"]))
    assert list(paths(nss(tmp_path))) == [f"{TRIPLET}/libnss_mymachines.so.2", f"{TRIPLET}/libcap.so.2"]


def test_musl_and_an_empty_root_need_nothing(tmp_path: Path) -> None:
    assert nss(tmp_path) == LibrarySet()
    shell = elf(["libc.musl-x86_64.so.1"], interpreter="/lib/ld-musl-x86_64.so.1")
    plant(tmp_path, {"/bin/sh": shell, "/lib/ld-musl-x86_64.so.1": elf(tail=b"\x001.2.5\0")})
    plant(tmp_path, {"/etc/os-release": b"ID=alpine\nVERSION_ID=3.20.3\n"})
    assert nss(tmp_path) == LibrarySet()
    assert named(tmp_path, "libgcc_s.so.1") == LibrarySet()
    assert libraries.libc(TreeReader(tmp_path), MemoryCache()) == Libc(name="musl", version="1.2.5")


def test_a_library_that_a_rule_names_must_exist(tmp_path: Path) -> None:
    found = named(debian(tmp_path), "libgcc_s.so.1", "libnone.so.9")
    assert [library.because for library in found.libraries] == ["libgcc_s.so.1"]
    assert [missing.name for missing in found.unresolved] == ["libnone.so.9"]


def test_an_absolute_path_keeps_its_place(tmp_path: Path) -> None:
    debian(tmp_path)
    plant(tmp_path, {"/usr/lib/sasl2/libplain.so": elf(["libcap.so.2"])})
    assert paths(named(tmp_path, "/usr/lib/sasl2/libplain.so")) == {
        "/usr/lib/sasl2/libplain.so": "/usr/lib/sasl2/libplain.so",
        f"{TRIPLET}/libcap.so.2": f"{TRIPLET}/libcap.so.2",
    }


# --- Which C library --------------------------------------------------------------------------------------------


def test_the_c_library_of_a_root(tmp_path: Path) -> None:
    assert libraries.libc(TreeReader(tmp_path), MemoryCache()) == Libc()
    debian(tmp_path)
    plant(tmp_path, {"/usr/lib/ld-musl-x86_64.so.1": elf(tail=b"\x001.2.3\0")})  # Debian's musl, beside its own libc
    assert libraries.libc(TreeReader(tmp_path), MemoryCache()) == Libc(name="glibc", version="2.36")
    (tmp_path / f"usr{TRIPLET}/libc.so.6").write_bytes(elf(tail=b"\0GLIBC_2.9\0GLIBC_2.31\0GLIBC_2.4\0"))
    assert libraries.libc(TreeReader(tmp_path), MemoryCache()) == Libc(name="glibc", version="2.31")
    (tmp_path / f"usr{TRIPLET}/libc.so.6").write_bytes(elf())
    assert libraries.libc(TreeReader(tmp_path), MemoryCache()) == Libc(name="glibc")


# --- Where the loader looks -------------------------------------------------------------------------------------


def test_runpath_with_origin_moves_along_with_its_library(tmp_path: Path) -> None:
    debian(tmp_path)
    (tmp_path / f"usr{TRIPLET}/libnss_mymachines.so.2").write_bytes(
        elf(["libshared.so"], runpath="$ORIGIN/../nowhere:relative:${ORIGIN}/systemd:/opt/$LIB/x")
    )
    plant(tmp_path, {f"/usr{TRIPLET}/systemd/libshared.so": elf(["libopt.so"], runpath="/opt/$LIB/x")})
    plant(tmp_path, {f"/opt{TRIPLET}/x/libopt.so": elf()})
    assert paths(nss(tmp_path)) == {
        f"{TRIPLET}/libnss_mymachines.so.2": f"{TRIPLET}/libnss_mymachines.so.2",
        f"{TRIPLET}/systemd/libshared.so": f"{TRIPLET}/systemd/libshared.so",
        f"/opt{TRIPLET}/x/libopt.so": f"/opt{TRIPLET}/x/libopt.so",
    }


@pytest.mark.parametrize(
    ("outer", "inner", "resolved"),
    [
        ({"rpath": "/opt"}, {}, True),
        ({"runpath": "/opt"}, {}, False),
        ({"rpath": "/opt"}, {"runpath": "/elsewhere"}, False),
        ({"rpath": "/opt", "runpath": "/opt"}, {}, False),
    ],
    ids=["RPATH is inherited", "RUNPATH is not", "RUNPATH disables what is inherited", "RUNPATH disables RPATH"],
)
def test_search_paths_of_the_chain(
    tmp_path: Path, outer: dict[str, str], inner: dict[str, str], *, resolved: bool
) -> None:
    debian(tmp_path)
    module, middle = (tmp_path / f"usr{TRIPLET}/{name}" for name in ("libnss_mymachines.so.2", "libcap.so.2.66"))
    module.write_bytes(elf(["libcap.so.2"], rpath=outer.get("rpath"), runpath=outer.get("runpath")))
    middle.write_bytes(elf(["libdeep.so"], runpath=inner.get("runpath")))
    plant(tmp_path, {"/opt/libdeep.so": elf()})
    assert ("/opt/libdeep.so" in paths(nss(tmp_path))) is resolved


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("marked", [False, True])
def test_the_loader_cache_leads_out_of_the_default_directories(
    tmp_path: Path, order: str, *, old: bool, marked: bool
) -> None:
    debian(tmp_path)
    (tmp_path / f"usr{TRIPLET}/libcap.so.2").unlink()
    plant(tmp_path, {"/opt/lib/libcap.so.2": elf(), "/opt/hw/libcap.so.2": elf(), "/opt/32/libcap.so.2": elf(bits=32)})
    entries = [
        ("libcap.so.2", "/opt/hw/libcap.so.2", 1 << 62),
        ("libcap.so.2", "/opt/gone/libcap.so.2", 0),
        ("libcap.so.2", "/opt/32/libcap.so.2", 0),
        ("libcap.so.2", "/opt/lib/libcap.so.2", 0),
    ]
    flags = (2 if order == "<" else 3) if marked else 0
    plant(tmp_path, {"/etc/ld.so.cache": loader_cache(entries, order=order, flags=flags, old=old)})
    found = nss(tmp_path)
    assert list(paths(found)) == [f"{TRIPLET}/libnss_mymachines.so.2", "/opt/lib/libcap.so.2", "/etc/ld.so.cache"]
    assert found.libraries[2].because.startswith("ld.so.cache ← libcap.so.2 ← ")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"glibc-ld.so.cache1.1",
        b"ld.so-1.7.0",
        b"ld.so-1.7.0\0" + bytes(40),
        loader_cache([("a", "/a", 0)], flags=1),
        loader_cache([("a", "/a", 0)], flags=0)[:70],
        b"glibc-ld.so.cache1.1" + b"\xff" * 60,
        b"glibc-ld.so.cache1.1" + b"\xff" * 8 + bytes(60),
        loader_cache([("a", "relative", 0), ("", "/a", 0)]),
    ],
)
def test_what_is_no_loader_cache_holds_nothing(data: bytes) -> None:
    assert ldcache.parse(data) == {}


def test_the_loader_cache_is_not_needed_for_the_default_directories(tmp_path: Path) -> None:
    debian(tmp_path)
    plant(tmp_path, {"/etc/ld.so.cache": loader_cache([("libcap.so.2", f"/usr{TRIPLET}/libcap.so.2", 0)])})
    assert paths(nss(tmp_path))[f"{TRIPLET}/libcap.so.2"] == f"/usr{TRIPLET}/libcap.so.2"
    assert "/etc/ld.so.cache" not in paths(nss(tmp_path))


def test_no_default_directories_where_the_library_says_so(tmp_path: Path) -> None:
    debian(tmp_path)
    (tmp_path / f"usr{TRIPLET}/libnss_mymachines.so.2").write_bytes(elf(["libcap.so.2"], no_default=True))
    plant(tmp_path, {"/etc/ld.so.cache": loader_cache([("libcap.so.2", f"{TRIPLET}/libcap.so.2", 0)])})
    assert [missing.name for missing in nss(tmp_path).unresolved] == ["libcap.so.2"]


def test_files_for_other_machines_are_passed_over(tmp_path: Path) -> None:
    debian(tmp_path)
    plant(tmp_path, {"/usr/lib/i386-linux-gnu/libnss_wins.so.2": elf(bits=32, machine=I386)})
    plant(
        tmp_path, {"/etc/ld.so.cache": loader_cache([("libnss_wins.so.2", "/lib/i386-linux-gnu/libnss_wins.so.2", 0)])}
    )
    (tmp_path / "etc/nsswitch.conf").write_bytes(b"hosts: wins\n")
    assert nss(tmp_path) == LibrarySet()


# --- Where copies belong ----------------------------------------------------------------------------------------


def test_debian_13_keeps_libraries_flat_and_never_libnss_files(tmp_path: Path) -> None:
    debian(tmp_path, release=DEBIAN_13)
    assert list(paths(nss(tmp_path))) == ["/lib/libnss_mymachines.so.2", "/lib/libcap.so.2"]
    assert list(paths(named(tmp_path, "libgcc_s.so.1", "libnss_files.so.2"))) == ["/lib/libgcc_s.so.1"]


@pytest.mark.parametrize(
    ("release", "flat"),
    [
        (b"ID=debian\nVERSION_ID='11'\n", False),
        (DEBIAN_12, False),
        (DEBIAN_13, True),
        (b"ID=debian\n", True),
        (b"ID=ubuntu\nID_LIKE=debian\nVERSION_ID='24.04'\n", False),
        (b"ID=ubuntu\nID_LIKE=debian\nVERSION_ID='25.04'\n", True),
        (b"ID=linuxmint\nID_LIKE='ubuntu debian'\nVERSION_ID='22'\n", True),
        (b"ID='broken\nID_LIKE=debian\n\xff\n#x=y\nnonsense", True),
        (b"", False),
    ],
)
def test_which_debian_is_flat(tmp_path: Path, release: bytes, *, flat: bool) -> None:
    target = layout.find(Inputs(TreeReader(debian(tmp_path, release=release)))).target
    assert target == ("/lib" if flat else TRIPLET)


def test_lib64_distributions(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            "/lib64": "usr/lib64",
            "/bin/sh": GLIBC_SHELL,
            "/usr/lib/os-release": b'ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n',
            "/etc/nsswitch.conf": b"hosts: files myhostname\n",
            "/usr/lib64/libc.so.6": elf(tail=BANNER),
            "/usr/lib64/libnss_myhostname.so.2": elf(["libcap.so.2"]),
            "/usr/lib64/libcap.so.2": elf(),
            "/etc/ld.so.cache": loader_cache([("libcap.so.2", "/usr/lib64/libcap.so.2", 0)]),
        },
    )
    assert paths(nss(tmp_path)) == {
        "/lib64/libnss_myhostname.so.2": "/lib64/libnss_myhostname.so.2",
        "/lib64/libcap.so.2": "/usr/lib64/libcap.so.2",
    }


def test_arch(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            "/lib": "usr/lib",
            "/lib64": "usr/lib",
            "/bin/sh": GLIBC_SHELL,
            "/etc/os-release": b"ID=arch\n",
            "/etc/nsswitch.conf": b"hosts: mymachines files\n",
            "/usr/lib/libc.so.6": elf(tail=BANNER),
            "/usr/lib/libnss_mymachines.so.2": elf(),
        },
    )
    assert list(paths(nss(tmp_path))) == ["/usr/lib/libnss_mymachines.so.2"]


@pytest.mark.parametrize(
    ("bits", "order", "machine", "flags", "triplet"),
    [
        (64, "<", X86_64, 0, "x86_64-linux-gnu"),
        (32, "<", I386, 0, "i386-linux-gnu"),
        (64, "<", AARCH64, 0, "aarch64-linux-gnu"),
        (32, "<", ARM, 0x400, "arm-linux-gnueabihf"),
        (32, "<", ARM, 0x200, "arm-linux-gnueabi"),
        (64, ">", S390X, 0, "s390x-linux-gnu"),
    ],
)
def test_images_of_other_machines(
    tmp_path: Path, bits: int, order: str, machine: int, flags: int, triplet: str
) -> None:
    def made(*needed: str, tail: bytes = b"") -> bytes:
        return elf(needed, bits=bits, order=order, machine=machine, flags=flags, tail=tail)

    directory = f"/usr/lib/{triplet}"
    plant(
        tmp_path,
        {
            "/lib": "usr/lib",
            "/etc/os-release": DEBIAN_12,
            f"{directory}/libc.so.6": made(tail=BANNER),
            f"{directory}/libnss_mymachines.so.2": made("libcap.so.2"),
            f"{directory}/libcap.so.2": made(),
            "/etc/nsswitch.conf": b"hosts: mymachines\n",
        },
    )
    assert list(paths(nss(tmp_path))) == [
        f"/lib/{triplet}/{name}" for name in ("libnss_mymachines.so.2", "libcap.so.2")
    ]


# --- The cache --------------------------------------------------------------------------------------------------


def ask(root: Path, cache: MemoryCache) -> tuple[LibrarySet, list[str]]:
    reader = TreeReader(root)
    libraries.libc(reader, cache)
    libraries.needs_libraries(reader, cache, ["libgcc_s.so.1"])
    return libraries.needs_nss(reader, cache, ["hosts"]), reader.reads


def test_a_root_in_sync_reads_nothing(tmp_path: Path) -> None:
    debian(tmp_path)
    cache = MemoryCache()
    first, reads = ask(tmp_path, cache)
    assert reads
    assert ask(tmp_path, cache) == (first, [])


def test_a_root_in_sync_imports_no_elf_reader(tmp_path: Path) -> None:
    debian(tmp_path)
    code = (
        "import sys; from test_libraries import ask, MemoryCache, Path; root = Path(sys.argv[1]); c = MemoryCache(); "
        "ask(root, c); mine = [m for m in sys.modules if m.startswith('chrootsync.libraries.')]; "
        "[sys.modules.pop(m) for m in mine if m != 'chrootsync.libraries.inputs']; ask(root, c); "
        "print([m for m in sys.modules if m.startswith('chrootsync.libraries.')])"
    )
    here = os.path.dirname(__file__)
    environment = {"PYTHONPATH": f"{here}:{here}/../.."}
    told = subprocess.check_output([sys.executable, "-c", code, tmp_path], env=environment, text=True)
    assert told == "['chrootsync.libraries.inputs']\n"


@pytest.mark.parametrize(
    "path",
    ["/etc/nsswitch.conf", "/etc/os-release", "/etc/ld.so.cache", f"{TRIPLET}/libcap.so.2", f"{TRIPLET}/libnew.so"],
)
def test_any_change_is_noticed(tmp_path: Path, path: str) -> None:
    debian(tmp_path)
    cache = MemoryCache()
    ask(tmp_path, cache)
    place = tmp_path / path.lstrip("/")
    if place.exists():
        os.utime(place, ns=(1, 1))
    else:
        place.write_bytes(b"")
    found, reads = ask(tmp_path, cache)
    assert reads
    assert f"{TRIPLET}/libcap.so.2" in paths(found)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"inputs": []},
        {"inputs": [], "result": [[["/a"]], []]},
        {"inputs": [], "result": [[[1, 2, 3]], []]},
        {"inputs": [], "result": [1, 2]},
        {"inputs": [], "result": {"name": "x"}},
        {"inputs": [["relative", None]], "result": [[], []]},
        {"inputs": [["/nosuch", [1]]], "result": [[], []]},
        {"inputs": [[1]], "result": [[], []]},
        {"inputs": "x", "result": [[], []]},
    ],
)
def test_a_damaged_cache_is_as_good_as_none(tmp_path: Path, value: object) -> None:
    debian(tmp_path)
    cache = MemoryCache()
    first, _ = ask(tmp_path, cache)
    for name, (fingerprint, _) in cache.values.items():
        cache.put(name, fingerprint, value)
    assert ask(tmp_path, cache)[0] == first
    assert libraries.libc(TreeReader(tmp_path), cache).name == "glibc"


def test_requests_whose_cache_names_are_equal_are_kept_apart(tmp_path: Path) -> None:
    debian(tmp_path)
    cache = MemoryCache()
    reader = TreeReader(tmp_path)
    first = libraries.needs_libraries(reader, cache, ["libcap/so.2"])
    assert libraries.needs_libraries(reader, cache, ["libcap_so.2"]) != first


# --- Whatever files hold ----------------------------------------------------------------------------------------

GOOD = elf(["libcap.so.2"], runpath="$ORIGIN/x", interpreter="/lib64/ld-linux-x86-64.so.2")
GOOD_CACHE = loader_cache([("libcap.so.2", "/opt/libcap.so.2", 0)], old=True)


@st.composite
def damaged(draw: st.DrawFn, good: bytes) -> bytes:
    """A good file with some bytes changed and perhaps its end lost."""
    data = bytearray(good)
    for _ in range(draw(st.integers(0, 8))):
        data[draw(st.integers(0, len(data) - 1))] = draw(
            st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255)
        )
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=2000)
@given(
    module=damaged(GOOD) | st.binary(max_size=200),
    shell=damaged(GOOD),
    nsswitch=st.binary(max_size=60) | st.text("hosts:[]!=files mymachines\n#+ ", max_size=60).map(str.encode),
    cache=damaged(GOOD_CACHE) | st.binary(max_size=80),
    release=st.binary(max_size=40),
)
@example(  # a section table of 2^64 entries
    module=GOOD[:40] + b"\x40".ljust(8, b"\0") + GOOD[48:58] + bytes(6) + b"\xff" * 500,
    shell=GOOD,
    nsswitch=b"hosts: mymachines\n",
    cache=b"",
    release=DEBIAN_12,
)
def test_no_file_makes_it_crash(
    tmp_path_factory: pytest.TempPathFactory, module: bytes, shell: bytes, nsswitch: bytes, cache: bytes, release: bytes
) -> None:
    root = tmp_path_factory.mktemp("root")
    debian(root, nsswitch, release)
    plant(root, {"/etc/ld.so.cache": cache})
    (root / f"usr{TRIPLET}/libnss_mymachines.so.2").write_bytes(module)
    (root / "usr/bin/sh").write_bytes(shell)
    found = nss(root, "hosts", "services")
    named(root, "libcap.so.2")
    assert all(library.path.startswith("/") for library in found.libraries)
    shutil.rmtree(root)


def test_a_dynamic_section_without_an_end_is_refused_soon(tmp_path: Path) -> None:
    debian(tmp_path)
    data = bytearray(elf(tail=b"\x01" * (4 << 20)))
    offset = 64 + 3 * 56
    data[offset:] = b"\x06\0\0\0\0\0\0\0" * ((len(data) - offset) // 8)
    (tmp_path / f"usr{TRIPLET}/libnss_mymachines.so.2").write_bytes(data)
    assert len(nss(tmp_path).unresolved) == 1


# --- The machine that runs the tests ----------------------------------------------------------------------------


LOAD = """
import ctypes, os, sys
os.chroot(sys.argv[1]); os.chdir("/")
for name in sys.argv[2:]: ctypes.CDLL(name)
print("loaded")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may call chroot")
def test_what_is_found_is_all_that_the_loader_needs_inside_a_chroot(tmp_path: Path) -> None:
    reader = TreeReader("/")
    own = Inputs(reader)
    wanted = [
        name
        for path in loader.load(own).layout.directories
        for name in own.names(path)
        if re.fullmatch(r"libnss_\w+\.so\.2", name) and name != "libnss_files.so.2"
    ]
    found = libraries.needs_libraries(reader, MemoryCache(), sorted(set(wanted)))
    for library in found.libraries:
        place = f"{tmp_path}{library.path}"
        os.makedirs(os.path.dirname(place), exist_ok=True)
        shutil.copyfile(library.source, place)
    command = [sys.executable, "-c", LOAD, str(tmp_path), *wanted]
    assert subprocess.check_output(command, text=True, stderr=subprocess.STDOUT) == "loaded\n"


@pytest.mark.skipif(shutil.which("ldd") is None, reason="ldd is not installed")
def test_the_closure_of_real_modules_is_what_ldd_says() -> None:
    reader = TreeReader("/")
    found = loader.load(Inputs(reader))
    if found.layout.machine is None or libraries.libc(reader, MemoryCache()).name != "glibc":
        pytest.skip("the machine has no glibc")
    modules = [
        f"{directory}/{name}"
        for directory in dict.fromkeys(os.path.realpath(path) for path in found.layout.directories)
        if os.path.isdir(directory)
        for name in sorted(os.listdir(directory))
        if re.fullmatch(r"libnss_\w+\.so\.2|libcurl\S*\.so\.4|libkrb5\.so\.3", name)
    ]
    assert modules
    for module in modules:
        told = subprocess.run(["ldd", module], capture_output=True, text=True, check=True).stdout
        expected = {os.path.realpath(path) for path in re.findall(r"=> (/\S+)", told)}
        got = libraries.needs_libraries(reader, MemoryCache(), [module])
        assert got.unresolved == ()
        mine = {os.path.realpath(library.source) for library in got.libraries} - {os.path.realpath(module)}
        assert mine == {path for path in expected if not path.endswith("/libc.so.6")}


def test_the_loader_of_this_machine_agrees_on_its_own_cache() -> None:
    found = loader.load(Inputs(TreeReader("/")))
    if not os.path.exists("/etc/ld.so.cache") or shutil.which("ldconfig", path="/sbin:/usr/sbin") is None:
        pytest.skip("the machine has no loader cache")
    told = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    expected = {line.split(" => ")[1] for line in told.splitlines() if " => " in line and "hwcap" not in line}
    assert {path for known in found.cache.values() for path in known} == expected
