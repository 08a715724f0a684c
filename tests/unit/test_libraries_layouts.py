"""Distributions and machines: where the loader of a root looks, and that nothing of a root is run to find out."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import pytest

from chrootsync import libraries
from chrootsync.libraries import layout
from chrootsync.libraries.inputs import Inputs
from chrootsync.libraries.layout import Layout
from tests.unit.elf_builder import AARCH64, ARM, I386, S390X, X86_64, elf
from tests.unit.test_libraries import BANNER, DEBIAN_12, DEBIAN_13, debian, nss, paths
from tests.unit.tree_reader import MemoryCache, TreeReader, plant

RISCV, PPC = 243, 21
RHEL = b'ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n'
SUSE = b'ID="opensuse-leap"\nID_LIKE="suse opensuse"\nVERSION_ID="15.6"\n'
MANJARO = b"ID=manjaro\nID_LIKE=arch\n"
ARCH_ARM = b"ID=archarm\nID_LIKE=arch\n"
VOID = b'ID="void"\n'
MERGED_64 = {"/bin": "usr/bin", "/lib": "usr/lib", "/lib64": "usr/lib64"}
MERGED = {"/bin": "usr/bin", "/lib": "usr/lib", "/lib64": "usr/lib", "/usr/lib64": "lib"}


def found(root: Path) -> Layout:
    return layout.find(Inputs(TreeReader(root)))


def loader_of(*directories: str) -> bytes:
    """A loader whose file holds its default directories in a row, and other paths as well."""
    row = b"".join(f"{directory}/\0".encode() for directory in directories)
    return elf(tail=b"\0/usr/lib/other/\0x\0/etc/ld.so.cache\0\x07\0" + row + b"\0/proc/self/\0")


def tree(
    root: Path,
    release: bytes,
    links: Mapping[str, str],
    directory: str,
    *,
    made: Mapping[str, int | str],
    interpreter: str,
    listed: tuple[str, ...] = (),
) -> Path:
    """A root with a shell, a libc, and a module that needs libcap, all in ``directory``."""

    def file(*needed: str, tail: bytes = b"", interpreter: str | None = None) -> bytes:
        return elf(needed, tail=tail, interpreter=interpreter, **made)  # type: ignore[arg-type]

    plant(
        root,
        {
            **links,
            "/usr/bin/sh": file("libc.so.6", interpreter=interpreter),
            "/etc/os-release": release,
            "/etc/nsswitch.conf": b"hosts: files myhostname dns\n",
            f"{directory}/libc.so.6": file(tail=BANNER),
            f"{directory}/libnss_myhostname.so.2": file("libcap.so.2", "libc.so.6"),
            f"{directory}/libcap.so.2": file("libc.so.6"),
        },
    )
    if listed:
        place = os.path.join(root, os.path.relpath(os.path.realpath(f"{root}{interpreter}"), root))
        os.makedirs(os.path.dirname(place), exist_ok=True)
        Path(place).write_bytes(loader_of(*listed))
    return root


LITTLE_64: dict[str, int | str] = {"bits": 64, "order": "<"}
CASES = {
    "RHEL x86_64": (RHEL, MERGED_64, "/usr/lib64", X86_64, "/lib64/ld-linux-x86-64.so.2", ("/lib64", "/usr/lib64")),
    "RHEL aarch64": (RHEL, MERGED_64, "/usr/lib64", AARCH64, "/lib/ld-linux-aarch64.so.1", ("/lib64", "/usr/lib64")),
    "SUSE aarch64": (SUSE, {}, "/lib64", AARCH64, "/lib/ld-linux-aarch64.so.1", ("/lib64", "/usr/lib64")),
    "manjaro": (MANJARO, MERGED, "/usr/lib", X86_64, "/lib64/ld-linux-x86-64.so.2", ("/usr/lib",)),
    "Arch Linux ARM": (ARCH_ARM, MERGED, "/usr/lib", AARCH64, "/lib/ld-linux-aarch64.so.1", ("/usr/lib",)),
}


@pytest.mark.parametrize("told", [True, False], ids=["told by the loader", "guessed"])
@pytest.mark.parametrize("name", CASES)
def test_distributions(tmp_path: Path, name: str, *, told: bool) -> None:
    release, links, directory, machine, interpreter, listed = CASES[name]
    made = {**LITTLE_64, "machine": machine}
    tree(
        tmp_path,
        release,
        {"/bin": "usr/bin", **links},
        directory,
        made=made,
        interpreter=interpreter,
        listed=listed if told else (),
    )
    assert list(paths(nss(tmp_path))) == [f"{listed[0]}/{name}" for name in ("libnss_myhostname.so.2", "libcap.so.2")]
    assert found(tmp_path).lib == listed[0].rpartition("/")[2]
    assert not told or found(tmp_path).directories == listed


def test_rhel_on_i686_has_its_libraries_in_lib(tmp_path: Path) -> None:
    made: dict[str, int | str] = {"bits": 32, "order": "<", "machine": I386}
    tree(tmp_path, RHEL, MERGED_64, "/usr/lib", made=made, interpreter="/lib/ld-linux.so.2")
    (tmp_path / "usr/lib64").mkdir()
    (tmp_path / "usr/lib64/libcap.so.2").write_bytes(elf())
    assert list(paths(nss(tmp_path))) == ["/lib/libnss_myhostname.so.2", "/lib/libcap.so.2"]


def test_an_unknown_distribution_is_as_its_loader_says(tmp_path: Path) -> None:
    made: dict[str, int | str] = {**LITTLE_64, "machine": X86_64}
    interpreter = "/lib64/ld-linux-x86-64.so.2"
    tree(tmp_path, VOID, MERGED, "/usr/lib", made=made, interpreter=interpreter, listed=("/usr/lib",))
    assert list(paths(nss(tmp_path))) == ["/usr/lib/libnss_myhostname.so.2", "/usr/lib/libcap.so.2"]


def test_directories_that_belong_to_an_abi(tmp_path: Path) -> None:
    made: dict[str, int | str] = {**LITTLE_64, "machine": RISCV}
    listed = ("/lib64/lp64d", "/usr/lib64/lp64d")
    interpreter = "/lib/ld-linux-riscv64-lp64d.so.1"
    tree(tmp_path, RHEL, MERGED_64, "/usr/lib64/lp64d", made=made, interpreter=interpreter, listed=listed)
    assert list(paths(nss(tmp_path))) == [f"/lib64/lp64d/{name}" for name in ("libnss_myhostname.so.2", "libcap.so.2")]


def test_a_loader_elsewhere(tmp_path: Path) -> None:
    made: dict[str, int | str] = {**LITTLE_64, "machine": X86_64}
    store = "/nix/store/abc-glibc-2.40/lib"
    tree(tmp_path, b"ID=nixos\n", {"/bin": "usr/bin"}, store, made=made, interpreter=f"{store}/ld.so", listed=(store,))
    assert list(paths(nss(tmp_path))) == [f"{store}/libnss_myhostname.so.2", f"{store}/libcap.so.2"]


@pytest.mark.parametrize(("release", "target"), [(DEBIAN_12, "/lib/x86_64-linux-gnu"), (DEBIAN_13, "/lib")])
def test_debian_keeps_copies_where_its_own_script_does(tmp_path: Path, release: bytes, target: str) -> None:
    debian(tmp_path, release=release)
    guessed = found(tmp_path)
    listed = ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib", "/usr/lib")
    plant(tmp_path, {"/lib64/ld-linux-x86-64.so.2": loader_of(*listed)})
    assert found(tmp_path) == guessed
    assert (guessed.directories, guessed.target, guessed.lib) == (listed, target, "lib/x86_64-linux-gnu")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"/lib/",
        loader_of(),
        loader_of("/lib/../../tmp"),
        loader_of("/lib", "/tmp/x", "/usr/lib"),
        loader_of("/l" * 300),
        b"/lib\0" * 1000,
        b"/srv/\0/opt/\0",
    ],
    ids=["empty", "no end", "other", "leads out", "no library directory", "long", "no slashes", "none at all"],
)
def test_a_loader_that_tells_nothing_of_use(tmp_path: Path, data: bytes) -> None:
    debian(tmp_path)
    expected = found(tmp_path)
    plant(tmp_path, {"/lib64/ld-linux-x86-64.so.2": data})
    assert found(tmp_path) == expected


def test_another_loader_is_noticed(tmp_path: Path) -> None:
    made: dict[str, int | str] = {**LITTLE_64, "machine": X86_64}
    interpreter = "/lib64/ld-linux-x86-64.so.2"
    tree(tmp_path, VOID, {**MERGED, "/usr/lib32": "lib"}, "/usr/lib", made=made, interpreter=interpreter)
    cache = MemoryCache()
    first = libraries.needs_nss(TreeReader(tmp_path), cache, ["hosts"])
    assert list(paths(first)) == ["/lib64/libnss_myhostname.so.2", "/lib64/libcap.so.2"]
    plant(tmp_path, {"/usr/lib/ld-linux-x86-64.so.2": loader_of("/usr/lib")})
    second = libraries.needs_nss(TreeReader(tmp_path), cache, ["hosts"])
    assert list(paths(second)) == ["/usr/lib/libnss_myhostname.so.2", "/usr/lib/libcap.so.2"]


# --- Other machines ---------------------------------------------------------------------------------------------

MACHINES = {
    "x86_64-linux-gnu": (64, "<", X86_64, 0, "/lib64/ld-linux-x86-64.so.2"),
    "i386-linux-gnu": (32, "<", I386, 0, "/lib/ld-linux.so.2"),
    "aarch64-linux-gnu": (64, "<", AARCH64, 0, "/lib/ld-linux-aarch64.so.1"),
    "arm-linux-gnueabihf": (32, "<", ARM, 0x400, "/lib/ld-linux-armhf.so.3"),
    "riscv64-linux-gnu": (64, "<", RISCV, 0, "/lib/ld-linux-riscv64-lp64d.so.1"),
    "powerpc64le-linux-gnu": (64, "<", PPC, 0, "/lib64/ld64.so.2"),
    "s390x-linux-gnu": (64, ">", S390X, 0, "/lib/ld64.so.1"),
}


def made_for(triplet: str) -> dict[str, int | str]:
    bits, order, machine, flags, _interpreter = MACHINES[triplet]
    return {"bits": bits, "order": order, "machine": machine, "flags": flags}


@pytest.mark.parametrize("triplet", MACHINES)
def test_images_of_other_machines_are_read_and_never_run(
    tmp_path: Path, triplet: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object, **_options: object) -> NoReturn:
        raise AssertionError("something of the root is run")

    for name in ("fork", "posix_spawn", "posix_spawnp", "execv", "execve", "system"):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    interpreter = MACHINES[triplet][-1]
    listed = (f"/lib/{triplet}", f"/usr/lib/{triplet}", "/lib", "/usr/lib")
    tree(
        tmp_path,
        DEBIAN_12,
        {"/lib": "usr/lib", "/bin": "usr/bin"},
        f"/usr/lib/{triplet}",
        made=made_for(triplet),
        interpreter=interpreter,
        listed=listed,
    )
    for other in MACHINES:
        if other != triplet:  # in the loader's way, and on its own
            foreign = elf(**made_for(other))  # type: ignore[arg-type]
            plant(tmp_path, {f"/usr/lib/{other}/libcap.so.2": foreign})
            plant(tmp_path, {f"/opt/{other}/libcap.so.2": foreign})
    module = tmp_path / f"usr/lib/{triplet}/libnss_myhostname.so.2"
    others = ":".join(f"/opt/{other}" for other in MACHINES)
    module.write_bytes(elf(["libcap.so.2"], runpath=others, **made_for(triplet)))  # type: ignore[arg-type]
    expected = [f"/lib/{triplet}/{name}" for name in ("libnss_myhostname.so.2", "libcap.so.2")]
    assert list(paths(nss(tmp_path))) == expected
    assert libraries.mapped(TreeReader(tmp_path), MemoryCache(), "/usr/bin/sh") == {"libc.so.6"}
    assert libraries.libc(TreeReader(tmp_path), MemoryCache()).version == "2.36"


def test_libraries_of_two_classes_do_not_mix(tmp_path: Path) -> None:
    debian(tmp_path)
    plant(
        tmp_path,
        {
            "/usr/lib/libnss_wins.so.2": elf(["libcap.so.2"], bits=32, machine=I386),
            "/usr/lib/libcap.so.2": elf(bits=32, machine=I386),
            "/usr/lib/libx32.so": elf(bits=32, machine=X86_64),
            "/usr/lib/libbig.so": elf(order=">"),
        },
    )
    (tmp_path / "etc/nsswitch.conf").write_bytes(b"hosts: wins mymachines\n")
    assert list(paths(nss(tmp_path))) == [
        f"/lib/x86_64-linux-gnu/{name}" for name in ("libnss_mymachines.so.2", "libcap.so.2")
    ]
    wanted = libraries.needs_libraries(TreeReader(tmp_path), MemoryCache(), ["libx32.so", "libbig.so"])
    assert [missing.name for missing in wanted.unresolved] == ["libx32.so", "libbig.so"]


def test_subdirectories_for_newer_processors_are_passed_over(tmp_path: Path) -> None:
    debian(tmp_path)
    for name in ("glibc-hwcaps/x86-64-v3", "haswell", "tls"):
        plant(tmp_path, {f"/usr/lib/x86_64-linux-gnu/{name}/libcap.so.2": elf(["libfast.so"])})
    assert list(paths(nss(tmp_path)))[1:] == ["/lib/x86_64-linux-gnu/libcap.so.2"]


def test_the_loader_of_this_machine_tells_the_same_directories() -> None:
    own = found(Path("/"))
    if "ld-linux" not in own.interpreter:
        pytest.skip("the machine has no glibc")
    command = [own.interpreter, "--list-diagnostics"]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    if not told:
        pytest.skip("its loader is older than 2.33")
    listed = re.findall(r'^path\.system_dirs\[\w+\]="(.*)/"$', told, re.MULTILINE)
    assert own.directories == tuple(dict.fromkeys(listed))
