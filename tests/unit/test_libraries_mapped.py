"""What a program has mapped once it runs, beside what the loader of this machine says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from chrootsync import libraries
from chrootsync.libraries import layout
from chrootsync.libraries.inputs import Inputs
from chrootsync.model import UnreadableError
from tests.unit.elf_builder import elf
from tests.unit.test_libraries import GLIBC_SHELL, TRIPLET, debian
from tests.unit.tree_reader import MemoryCache, TreeReader, plant

SMTP = "/usr/lib/postfix/sbin/smtp"


def mapped(root: Path, command: str) -> frozenset[str]:
    return libraries.mapped(TreeReader(root), MemoryCache(), command)


def postfix(root: Path) -> Path:
    """A root whose smtp finds libraries of its own by RUNPATH, which libraries do not inherit."""
    debian(root)
    own = "/usr/lib/postfix"
    plant(
        root,
        {
            SMTP: elf(["libpostfix-dns.so", "libcap.so.2", "libc.so.6"], runpath=own),
            f"{own}/libpostfix-dns.so": elf(["libpostfix-util.so", "libgcc_s.so.1"], runpath=own),
            f"{own}/libpostfix-util.so": elf(["libhidden.so"]),
            f"{own}/libhidden.so": elf(),
        },
    )
    return root


def test_all_that_a_program_needs_by_its_names(tmp_path: Path) -> None:
    assert mapped(postfix(tmp_path), SMTP) == {
        "libpostfix-dns.so",
        "libpostfix-util.so",
        "libcap.so.2",
        "libgcc_s.so.1",
        "libc.so.6",
    }


def test_origin_is_where_the_program_lies_and_not_the_link_to_it(tmp_path: Path) -> None:
    debian(tmp_path)
    plant(
        tmp_path,
        {
            "/usr/sbin/named": "../../opt/bind/sbin/named",
            "/opt/bind/sbin/named": elf(["libisc.so"], runpath="$ORIGIN/../lib"),
            "/opt/bind/lib/libisc.so": elf(["libc.so.6"]),
        },
    )
    assert mapped(tmp_path, "/usr/sbin/named") == {"libisc.so", "libc.so.6"}


@pytest.mark.parametrize("contents", [b"#!/bin/sh\n", b"", elf(), elf(["libc.so.6"])[:90]])
def test_nothing_for_what_the_loader_does_not_start(tmp_path: Path, contents: bytes) -> None:
    debian(tmp_path)
    plant(tmp_path, {"/usr/sbin/x": contents})
    assert mapped(tmp_path, "/usr/sbin/x") == frozenset()
    assert mapped(tmp_path, "/usr/sbin/nosuch") == frozenset()
    assert mapped(tmp_path, "/usr/sbin") == frozenset()


def test_a_program_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    reader = TreeReader(postfix(tmp_path), unreadable=[SMTP])
    with pytest.raises(UnreadableError):
        libraries.mapped(reader, MemoryCache(), SMTP)


def test_it_is_remembered_until_something_changes(tmp_path: Path) -> None:
    postfix(tmp_path)
    cache = MemoryCache()
    first = libraries.mapped(TreeReader(tmp_path), cache, SMTP)
    again = TreeReader(tmp_path)
    assert libraries.mapped(again, cache, SMTP) == first
    assert again.reads == []
    (tmp_path / "usr/lib/postfix/libpostfix-util.so").write_bytes(elf(["libnew.so"]))
    plant(tmp_path, {f"/usr{TRIPLET}/libnew.so": elf()})
    assert libraries.mapped(TreeReader(tmp_path), cache, SMTP) == first | {"libnew.so"}
    (tmp_path / SMTP.lstrip("/")).unlink()
    assert libraries.mapped(TreeReader(tmp_path), cache, SMTP) == frozenset()


def test_a_damaged_cache_is_as_good_as_none(tmp_path: Path) -> None:
    postfix(tmp_path)
    cache = MemoryCache()
    first = libraries.mapped(TreeReader(tmp_path), cache, SMTP)
    (name,) = cache.values
    for value in (None, {"inputs": [], "result": [1]}, {"inputs": [], "result": "libc.so.6"}):
        cache.put(name, cache.values[name][0], value)
        assert libraries.mapped(TreeReader(tmp_path), cache, SMTP) == first


PROGRAMS = [
    path
    for name in ("sh", "python3", "curl", "openssl", "git", "ssh", "postconf", "bash", "ls")
    for path in (shutil.which(name),)
    if path
]


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_of_this_machine_have_mapped_what_its_loader_says(program: str) -> None:
    reader = TreeReader("/")
    loader = layout.find(Inputs(reader)).interpreter
    if not loader or "musl" in loader or Path(program).read_bytes()[:4] != b"\x7fELF":
        pytest.skip("the machine has no glibc, or this is a script")
    told = subprocess.run(
        [loader, "--list", os.path.realpath(program)], capture_output=True, text=True, env={}, check=True
    ).stdout
    expected = set(re.findall(r"^\s+(\S+) (?:=> )?[(/]", told, re.MULTILINE)) - {"linux-vdso.so.1", "linux-gate.so.1"}
    # The loader gives itself by its path where nothing needs it by its name.
    expected = {name for name in expected if "/" not in name}
    found = libraries.mapped(reader, MemoryCache(), program)
    assert {name for name in found if not name.startswith("ld-linux")} == {
        name for name in expected if not name.startswith("ld-linux")
    }


def test_a_shell_needs_libc(tmp_path: Path) -> None:
    debian(tmp_path)
    assert (tmp_path / "usr/bin/sh").read_bytes() == GLIBC_SHELL
    assert mapped(tmp_path, "/bin/sh") == {"libc.so.6"}
