"""Whether libraries fit together: the loader's rules on small files, and this machine's own libraries and loader."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chrootsync.libraries import loader, symbols
from chrootsync.libraries.closure import ALWAYS_MAPPED
from chrootsync.libraries.inputs import Inputs
from chrootsync.libraries.symbols import Binary, Fit, Libraries, is_elf
from tests.unit import elf_builder as build
from tests.unit.elf_builder import Symbol, VersionNeed, elf, has, needs
from tests.unit.tree_reader import TreeReader

LIBC = "libc.so.6"
GOOD_LIBC = elf(symbols=[has("malloc@GLIBC_2.2.5"), has("__libc_nss@GLIBC_PRIVATE")])


def shelf(files: dict[str, bytes]) -> Libraries:
    return {name: [Binary(name=name, contents=contents)] for name, contents in files.items()}


def unfit(file: bytes, after: dict[str, bytes], before: dict[str, bytes] | None = None) -> list[str]:
    """What is said of one file that is put beside some libraries."""
    now = None if before is None else shelf(before)
    return symbols.unfit([Binary(name="module", contents=file)], shelf(after), before=now)


def unfit_staying(file: bytes, after: dict[str, bytes], before: dict[str, bytes] | None) -> list[str]:
    """What is said of one file that stays while the libraries beside it change."""
    now = None if before is None else shelf(before)
    return symbols.unfit([], shelf(after), staying=[Binary(name="module", contents=file)], before=now)


def module(*wanted: Symbol, needed: Sequence[str] = (LIBC,), versions: Sequence[VersionNeed] = ()) -> bytes:
    return elf(needed, symbols=wanted, versions=versions)


# --- What the loader would say ----------------------------------------------------------------------------------


def test_what_fits_is_not_mentioned() -> None:
    assert unfit(module(needs("malloc@GLIBC_2.2.5", LIBC)), {LIBC: GOOD_LIBC}) == []
    assert unfit(elf(), {}) == []


def test_a_private_symbol_that_is_gone_is_named_although_its_version_is_there() -> None:
    old = module(needs("__nss_files_fopen@GLIBC_PRIVATE", LIBC), needs("malloc@GLIBC_2.2.5", LIBC))
    assert unfit(old, {LIBC: GOOD_LIBC}) == [
        "module needs __nss_files_fopen@GLIBC_PRIVATE, which libc.so.6 does not have"
    ]


def test_each_file_has_one_clause() -> None:
    bad = [
        Binary(name=name, contents=module(*(needs(f"{name}{number}@GLIBC_PRIVATE", LIBC) for number in range(3))))
        for name in ("a", "b")
    ]
    assert symbols.unfit(bad, shelf({LIBC: GOOD_LIBC})) == [
        "a needs a0@GLIBC_PRIVATE, which libc.so.6 does not have, and 2 more",
        "b needs b0@GLIBC_PRIVATE, which libc.so.6 does not have, and 2 more",
    ]


def test_a_symbol_with_another_version_does_not_do() -> None:
    libc = elf(symbols=[has("memcpy@GLIBC_2.14"), has("malloc@GLIBC_2.2.5")])
    assert unfit(module(needs("memcpy@GLIBC_2.2.5", LIBC)), {LIBC: libc}) == [
        "module needs memcpy@GLIBC_2.2.5, which libc.so.6 does not have"
    ]


def test_a_library_that_is_not_there_is_told_once() -> None:
    file = module(
        needs("cap_get@CAP_1", "libcap.so.2"), needs("helper"), needs("gone@GLIBC_PRIVATE", LIBC),
        needed=["libcap.so.2", LIBC],
    )  # fmt: skip
    assert unfit(file, {LIBC: GOOD_LIBC}) == [
        "module needs libcap.so.2, which is not there, and 1 more",
    ]
    assert unfit(module(needed=["libcap.so.2"]), {}) == ["module needs libcap.so.2, which is not there"]


def test_a_symbol_without_a_version_comes_from_all_that_a_file_needs() -> None:
    file = module(needs("near"), needs("far"), needed=["liba.so", LIBC])
    others = {LIBC: GOOD_LIBC, "libb.so": elf(["liba.so"], symbols=[has("far")])}
    assert unfit(file, others | {"liba.so": elf(["libb.so"], symbols=[has("near")])}) == []
    assert unfit(file, others | {"liba.so": elf(["absent.so"], symbols=[has("near")])}) == [
        "module needs far, which none of its libraries has"
    ]


def test_what_is_always_mapped_serves_all() -> None:
    file = elf(symbols=[needs("malloc"), needs("__tls_get_addr@GLIBC_2.3", "ld-linux-x86-64.so.2")])
    assert unfit(file, {LIBC: GOOD_LIBC, "ld-linux-x86-64.so.2": elf(symbols=[has("__tls_get_addr@GLIBC_2.3")])}) == []


def test_a_symbol_may_have_moved_to_another_library() -> None:
    file = module(needs("pthread_once@GLIBC_2.2.5", "libpthread.so.0"), needed=["libpthread.so.0", LIBC])
    stub = elf([LIBC], versions=["GLIBC_2.2.5"])
    assert unfit(file, {LIBC: elf(symbols=[has("pthread_once@GLIBC_2.2.5")]), "libpthread.so.0": stub}) == []
    assert unfit(file, {LIBC: GOOD_LIBC, "libpthread.so.0": stub}) == [
        "module needs pthread_once@GLIBC_2.2.5, which libpthread.so.0 does not have"
    ]


@pytest.mark.parametrize(
    "wanted",
    [
        needs("x", bind=build.WEAK),
        needs("x", bind=build.LOCAL),
        needs("x", visibility=2),
        needs(""),
    ],
)
def test_what_the_loader_can_do_without(wanted: Symbol) -> None:
    assert unfit(module(wanted), {LIBC: GOOD_LIBC}) == []


@pytest.mark.parametrize(
    ("found", "does"),
    [
        (has("x@V"), True),
        (has("x@V", bind=build.WEAK), True),
        (has("x@V", bind=build.UNIQUE), True),
        (has("x@V", kind=build.TLS, value=0), True),
        (has("x@V", hidden=True), True),  # not the default version, but the one that is asked for
        (has("x@V", bind=build.LOCAL), False),
        (has("x@V", bind=5), False),
        (has("x@V", visibility=1), False),
        (has("x@V", kind=build.SECTION), False),
        (has("x@V", value=0), False),
        (needs("x@V", "libelse.so"), False),
    ],
)
def test_which_symbols_a_library_has_for_others(found: Symbol, *, does: bool) -> None:
    clauses = unfit(module(needs("x@V", LIBC)), {LIBC: elf(symbols=[found], versions=["V"])})
    assert clauses == ([] if does else ["module needs x@V, which libc.so.6 does not have"])


@pytest.mark.parametrize(
    ("wanted", "library", "does"),
    [
        ("x@V", elf(symbols=[has("x")], versions=["V"]), True),  # a definition without a version stands in
        ("x@V", elf(symbols=[has("x", hidden=True)], versions=["V"]), False),
        ("x@V", elf(symbols=[has("x")]), False),  # but glibc aborts where the library has no versions at all
        ("x", elf(symbols=[has("x")]), True),
        ("x", elf(symbols=[has("x@V")]), True),
        ("x", elf(symbols=[has("x@V", hidden=True)]), True),  # the oldest version
        ("x", elf(symbols=[has("y@V"), has("x@W")]), True),
        ("x", elf(symbols=[has("y@V"), has("x@W", hidden=True)]), False),
    ],
)
def test_which_versions_do(wanted: str, library: bytes, *, does: bool) -> None:
    assert bool(unfit(module(needs(wanted, LIBC if "@" in wanted else "")), {LIBC: library})) is not does


def test_a_version_that_has_to_match_exactly() -> None:
    file = module(needs("x@V", LIBC), versions=[VersionNeed(file=LIBC, version="V", hidden=True)])
    assert len(unfit(file, {LIBC: elf(symbols=[has("x")], versions=["V"])})) == 1
    assert unfit(file, {LIBC: elf(symbols=[has("x@V")])}) == []


def test_another_library_without_versions_may_have_what_moved_there() -> None:
    file = module(needs("x@V", LIBC), needed=[LIBC, "libnew.so"])
    assert unfit(file, {LIBC: elf(versions=["V"]), "libnew.so": elf(symbols=[has("x")])}) == []


def test_a_symbol_of_its_own_with_another_version() -> None:
    assert unfit(elf(symbols=[Symbol(name="x", version="V"), has("x@V")]), {}) == []
    assert unfit(elf(symbols=[Symbol(name="x", version="V"), has("x@W")], versions=["V"]), {}) == [
        "module needs x@V, which none of its libraries has"
    ]


@pytest.mark.parametrize(
    ("flags", "libc", "clauses"),
    [
        (0, GOOD_LIBC, ["module needs version GLIBC_ABI_DT_RELR, which libc.so.6 does not have"]),
        (2, GOOD_LIBC, []),  # weak
        (0, elf(versions=["GLIBC_ABI_DT_RELR"]), []),
        (0, elf(symbols=[has("malloc")]), []),  # no versions at all: the loader only warns
    ],
)
def test_a_version_is_needed_without_a_symbol(flags: int, libc: bytes, clauses: list[str]) -> None:
    file = module(versions=[VersionNeed(file=LIBC, version="GLIBC_ABI_DT_RELR", flags=flags)])
    assert unfit(file, {LIBC: libc}) == clauses


def test_a_version_is_told_by_its_symbol() -> None:
    file = module(needs("arc4random@GLIBC_2.36", LIBC), versions=[VersionNeed(file=LIBC, version="GLIBC_ABI_DT_RELR")])
    assert unfit(file, {LIBC: GOOD_LIBC}) == [
        "module needs arc4random@GLIBC_2.36, which libc.so.6 does not have, and 1 more"
    ]


def test_libraries_for_other_machines_are_passed_over() -> None:
    foreign, own = elf(bits=32, machine=build.I386), GOOD_LIBC
    candidates = [Binary(name="lib32", contents=foreign), Binary(name="lib64", contents=own)]
    file = Binary(name="module", contents=module(needs("malloc@GLIBC_2.2.5", LIBC)))
    assert symbols.unfit([file], {LIBC: candidates}) == []
    assert symbols.unfit([file], {LIBC: candidates[:1]}) == ["module needs libc.so.6, which is for another machine"]


def test_a_need_may_be_a_path() -> None:
    file = elf(["/usr/lib/libx.so", "$ORIGIN/liby.so"], symbols=[needs("x"), needs("y")])
    assert unfit(file, {"libx.so": elf(symbols=[has("x")]), "liby.so": elf(symbols=[has("y")])}) == []


def test_long_names_are_cut_for_people_and_for_them_alone() -> None:
    first, second = "x" * 300 + "1", "x" * 300 + "2"
    library = elf(symbols=[has(first)])
    assert unfit(module(needs(first), needs(second)), {LIBC: library}) == [
        f"module needs {'x' * 199}…, which none of its libraries has"
    ]
    assert unfit_staying(module(needs(first), needs(second)), {LIBC: elf()}, {LIBC: library}) != []


# --- Before and after -------------------------------------------------------------------------------------------


def test_a_file_that_stays_is_told_only_where_it_gets_worse() -> None:
    old, new = elf(symbols=[has("cap_old")]), elf(symbols=[has("cap_old"), has("cap_new")])
    file = module(needs("cap_old"), needs("cap_new"), needed=["libcap.so.2"])
    clause = "module needs cap_new, which none of its libraries has"
    assert unfit_staying(file, {"libcap.so.2": old}, {"libcap.so.2": new}) == [clause]
    assert unfit_staying(file, {"libcap.so.2": old}, {"libcap.so.2": old}) == []
    assert unfit_staying(file, {"libcap.so.2": old}, None) == [clause]
    assert unfit_staying(file, {}, {}) == []
    assert unfit_staying(file, {}, {"libcap.so.2": old}) == ["module needs libcap.so.2, which is not there"]
    assert unfit_staying(b"garbage", {}, {}) == []


def test_a_file_that_is_put_back_is_told_whatever_was_before() -> None:
    file = module(needs("gone@GLIBC_PRIVATE", LIBC), needs("gone@GLIBC_2.2.5", LIBC))
    assert unfit(file, {LIBC: GOOD_LIBC}, {LIBC: GOOD_LIBC}) == [
        "module needs gone@GLIBC_PRIVATE, which libc.so.6 does not have, and 1 more"
    ]
    assert unfit(module(needed=["libcap.so.2"]), {}, {}) != []


def test_a_module_may_have_symbols_from_the_program_that_loads_it() -> None:
    plugin = [needs("Perl_newSV"), needs("malloc@GLIBC_2.2.5", LIBC)]
    assert unfit(module(*plugin), {LIBC: GOOD_LIBC}, {LIBC: GOOD_LIBC}) == []
    assert unfit(module(*plugin), {LIBC: GOOD_LIBC}) != []
    program = elf([LIBC], symbols=plugin, interpreter="/lib64/ld-linux-x86-64.so.2")
    assert unfit(program, {LIBC: GOOD_LIBC}, {LIBC: GOOD_LIBC}) == [
        "module needs Perl_newSV, which none of its libraries has"
    ]


def test_contents_are_read_once_and_only_when_needed() -> None:
    calls: list[str] = []

    def reading(name: str, contents: bytes) -> Callable[[], bytes]:
        def read() -> bytes:
            calls.append(name)
            return contents

        return read

    file = Binary(name="module", contents=reading("module", module(needs("malloc@GLIBC_2.2.5", LIBC))))
    files = {LIBC: [Binary(name=LIBC, contents=reading(LIBC, GOOD_LIBC))]}
    files["libother.so"] = [Binary(name="libother.so", contents=reading("libother.so", b""))]
    assert symbols.unfit([file, file], files, before=files) == []
    assert sorted(calls) == [LIBC, "module"]


# --- Every kind of file -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0, 0x10000])
@pytest.mark.parametrize(
    "count_by",
    [
        [build.DT_HASH],
        [build.DT_GNU_HASH, build.DT_RELA],
        [build.DT_GNU_HASH, build.DT_REL],
        [build.DT_GNU_HASH, build.DT_JMPREL],
        [build.DT_HASH, build.DT_GNU_HASH],
    ],
)
@pytest.mark.parametrize(
    ("bits", "order", "machine"),
    [
        (64, "<", build.X86_64),
        (32, "<", build.I386),
        (64, ">", build.S390X),
        (32, ">", 20),
    ],
)
def test_every_class_byte_order_and_hash_table(
    bits: int, order: str, machine: int, count_by: Sequence[int], shift: int
) -> None:
    def made(*found: Symbol) -> bytes:
        return elf([LIBC], bits=bits, order=order, machine=machine, symbols=found, count_by=count_by, shift=shift)

    wanted = [needs("a@V1", LIBC), needs("b@V2", LIBC), needs("c@V1", LIBC), needs("d")]
    libc = [has("a@V1"), has("b@V2"), has("c@V1"), has("d")]
    assert unfit(made(*wanted), {LIBC: made(*libc)}) == []
    assert unfit(made(*wanted), {LIBC: made(*libc[1:])}) == ["module needs a@V1, which libc.so.6 does not have"]
    assert unfit(made(*wanted), {LIBC: made(*libc[:3])}) == ["module needs d, which none of its libraries has"]
    assert unfit(made(*wanted, has("mine")), {LIBC: made(*libc, needs("theirs"))}) == []


@pytest.mark.parametrize("order", ["<", ">"])
def test_mips_tells_the_number_of_symbols(order: str) -> None:
    made = [
        elf([LIBC], bits=32, order=order, machine=build.MIPS, symbols=found, count_by=[build.DT_MIPS_SYMTABNO])
        for found in ([needs("a@V", LIBC)], [has("a@V")], [has("b@V")])
    ]
    assert unfit(made[0], {LIBC: made[1]}) == []
    assert unfit(made[0], {LIBC: made[2]}) == ["module needs a@V, which libc.so.6 does not have"]


def test_symbols_that_neither_a_hash_table_nor_a_relocation_names_are_nobodys() -> None:
    assert unfit(elf(symbols=[needs("a")], count_by=[]), {}) == []
    assert unfit(elf(symbols=[needs("a")], count_by=[build.DT_GNU_HASH]), {}) == []


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (GOOD_LIBC, True),
        (elf(bits=32, order=">"), True),
        (b"\x7fELF", True),
        (GOOD_LIBC[:16] + b"\1" + GOOD_LIBC[17:18], False),  # an object file
        (elf(order=">")[:16] + b"\0\4", False),  # a core dump
        (b"#!/bin/sh\n", False),
        (b"", False),
    ],
)
def test_what_is_elf(head: bytes, *, expected: bool) -> None:
    assert is_elf(head) is expected


# --- Whatever a file holds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("garbage", [b"", b"#!/bin/sh\n", GOOD_LIBC[:80], GOOD_LIBC[:-4], b"\x7fELF" * 100])
def test_garbage_is_told(garbage: bytes) -> None:
    assert unfit(garbage, {LIBC: GOOD_LIBC}) == ["module cannot be read as an ELF file"]
    assert unfit(module(needs("malloc@GLIBC_2.2.5", LIBC)), {LIBC: garbage}) == [
        "module needs libc.so.6, which cannot be read as an ELF file"
    ]


GOOD = elf(
    [LIBC, "libcap.so.2"],
    symbols=[needs("malloc@GLIBC_2.2.5", LIBC), needs("cap_get"), has("own@MINE"), has("base")],
    versions=[VersionNeed(file="libcap.so.2", version="CAP_1", flags=2)],
    count_by=[build.DT_GNU_HASH, build.DT_RELA],
)


def with_tag(data: bytes, tag: int, value: int) -> bytes:
    """A 64-bit file in which a tag of the dynamic section has another value."""
    start = data.index(struct.pack("<Q", tag), 64 + 3 * 56)
    while (start - 64 - 3 * 56) % 16:
        start = data.index(struct.pack("<Q", tag), start + 1)
    return data[: start + 8] + struct.pack("<Q", value) + data[start + 16 :]


@st.composite
def damaged(draw: st.DrawFn, good: bytes) -> bytes:
    """A good file with some bytes or words changed and perhaps its end lost."""
    data = bytearray(good)
    for _ in range(draw(st.integers(0, 8))):
        place = draw(st.integers(0, len(data) - 4))
        word = draw(st.sampled_from([0, 1, 2, 8, 16, 0x7FFF, 0x8002, 0xFFFFFFFF]) | st.integers(0, len(good)))
        size = draw(st.sampled_from([1, 2, 4]))
        data[place : place + size] = word.to_bytes(4, "little")[:size]
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@given(file=damaged(GOOD) | st.binary(max_size=200), library=damaged(GOOD) | damaged(GOOD_LIBC))
@example(file=with_tag(GOOD, build.DT_SYMTAB, 1 << 63), library=GOOD)
def test_no_file_makes_it_crash(file: bytes, library: bytes) -> None:
    others = {LIBC: library, "libcap.so.2": library}
    for found in (unfit(file, others), unfit(GOOD, others), unfit_staying(GOOD, others, {LIBC: GOOD_LIBC})):
        assert all(clause.startswith("module ") for clause in found)
        assert len(found) <= 1
    is_elf(file)


@pytest.mark.parametrize(
    "tag",
    [
        build.DT_STRTAB,
        build.DT_SYMTAB,
        build.DT_VERSYM,
        build.DT_VERDEF,
        build.DT_VERNEED,
        build.DT_GNU_HASH,
    ],
)
def test_a_table_outside_the_file_is_refused(tag: int) -> None:
    for address in (1 << 63, len(GOOD), len(GOOD) - 1):
        assert unfit(with_tag(GOOD, tag, address), {}) == ["module cannot be read as an ELF file"]


def test_a_dynamic_section_without_an_end_is_refused_soon() -> None:
    start = 64 + 3 * 56 + 2 * 16  # behind the tags of the string table
    endless = elf(tail=bytes(1 << 20))
    count = (len(endless) - start) // 16
    rest = len(endless) - start - 16 * count
    endless = endless[:start] + struct.pack("<QQ", build.DT_SYMTAB, 0) * count + bytes(rest)
    assert unfit(endless, {}) == ["module cannot be read as an ELF file"]


def hostile_counts() -> list[bytes]:
    """Files whose tables promise far more than any library has, or lead round for ever."""
    many = elf(symbols=[needs("x")], count_by=[build.DT_HASH])
    place = many.index(struct.pack("<III", 1, 2, 0))
    counted = many[: place + 4] + b"\xff\xff\xff\x7f" + many[place + 8 :]
    zeros = bytes(2 << 20) + b"\1\0\0\0"
    chained = elf(symbols=[has("x")], count_by=[build.DT_GNU_HASH], tail=bytes(24) + zeros * 3)
    chained = with_tag(chained, build.DT_GNU_HASH, chained.index(bytes(4096)))
    hashed = struct.pack("<IIIIQI", 1, 1, 1, 0, 0, 1)
    start = chained.index(bytes(4096))
    chained = chained[:start] + hashed + chained[start + len(hashed) :]
    looped = elf(tail=struct.pack("<HHHHIII", 1, 1, 1, 1, 0, 0, 20) * (1 << 17), symbols=[has("x@V")])
    looped = with_tag(looped, build.DT_VERDEF, len(looped) - (20 << 17))
    related = elf(symbols=[needs("x")], count_by=[build.DT_GNU_HASH, build.DT_RELA])
    related = with_tag(related, build.DT_RELASZ, 1 << 62)
    return [counted, chained, looped, related]


@pytest.mark.parametrize("number", range(4))
def test_tables_that_promise_too_much_are_refused_soon(number: int) -> None:
    started = time.monotonic()
    assert unfit(hostile_counts()[number], {}) == ["module cannot be read as an ELF file"]
    assert time.monotonic() - started < 10


# --- The machine that runs the tests ----------------------------------------------------------------------------

OPEN = """
import ctypes, os, re, sys
for path in sys.argv[1:]:
    try:
        ctypes.CDLL(path, mode=os.RTLD_NOW)
        print("loaded")
    except OSError as error:
        print(*re.findall(r"undefined symbol: ([^ ,]+)", str(error)) or [error])
"""


def own_libraries() -> dict[str, bytes]:
    """This machine's NSS modules and some large libraries with all that they need, by name."""
    inputs = Inputs(TreeReader("/"))
    own = loader.load(inputs)
    names = [name for path in own.layout.directories for name in inputs.names(path)]
    queue = deque(
        sorted(name for name in names if re.fullmatch(r"libnss_\w+\.so\.2|lib(stdc\+\+|curl|krb5)\.so\.\d", name))
    )
    found: dict[str, bytes] = {}
    while queue:
        name = queue.popleft()
        library = None if name in found else own.find(name)
        if library is not None:
            found[name] = Path(library.path).read_bytes()
            queue.extend(library.elf.needed)
    if LIBC not in found:
        pytest.skip("the machine has no glibc")
    return found


def fit_of(contents: bytes) -> Fit:
    fit = symbols._Shelf({}, {}).read(Binary(name="", contents=contents))
    assert fit is not None
    return fit


def test_the_libraries_of_this_machine_fit() -> None:
    served = shelf(own_libraries())
    assert symbols.unfit([files[0] for files in served.values()], served) == []


def test_a_libc_without_one_of_its_private_symbols_is_refused() -> None:
    own = own_libraries()
    served = fit_of(own[LIBC])
    for name, contents in own.items():
        for want in fit_of(contents).wanted:
            if want.version == b"GLIBC_PRIVATE" and want.file == LIBC and _renamed(own[LIBC], want.symbol):
                assert (want.symbol, want.version) in served.exact
                after = own | {LIBC: _renamed(own[LIBC], want.symbol)}
                clauses = symbols.unfit([Binary(name=name, contents=contents)], shelf(after), before=shelf(own))
                assert clauses == [f"{name} needs {os.fsdecode(want.symbol)}@GLIBC_PRIVATE, which {LIBC} does not have"]
                return
    pytest.skip("no library here needs a private symbol")


def _renamed(library: bytes, symbol: bytes) -> bytes:
    """A library of which a symbol has another last letter; nothing where its name is a part of another one."""
    whole = b"\0" + symbol + b"\0"
    return library.replace(whole, b"\0" + symbol[:-1] + b"~\0") if library.count(whole) == 1 else b""


def test_the_loader_of_this_machine_agrees(tmp_path: Path) -> None:
    """Where one of the names that a library needs is misspelt, the loader refuses it, and we say the same of it."""
    own = own_libraries()
    served = shelf(own)
    paths: list[Path] = []
    clauses: list[str] = []
    for name, contents in own.items():
        for versioned in [] if ALWAYS_MAPPED.fullmatch(name) else [True, False]:
            # Linkers keep aliases such as __environ that no relocation names: nobody looks for these.
            names = [want for want in fit_of(contents).wanted if not want.symbol.startswith(b"__")]
            wanted = [want for want in names if bool(want.version) is versioned]
            broken = next(filter(None, (_renamed(contents, want.symbol) for want in wanted)), b"")
            if broken:
                paths.append(tmp_path / f"{len(paths)}-{name}")
                paths[-1].write_bytes(broken)
                clauses += symbols.unfit([Binary(name=name, contents=broken)], served)
    told = subprocess.check_output([sys.executable, "-c", OPEN, *paths], text=True).splitlines()
    assert [re.split("[ @,]", clause)[2] for clause in clauses] == told
    assert len(told) == len(paths) > 0
    assert all(symbol.endswith("~") for symbol in told)


@pytest.mark.skipif(shutil.which("readelf") is None, reason="readelf is not installed")
def test_what_a_file_needs_is_what_readelf_reads(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for contents in (*own_libraries().values(), Path(sys.executable).read_bytes()):
        path.write_bytes(contents)
        told = subprocess.run(["readelf", "-W", "--dyn-syms", path], capture_output=True, check=True).stdout
        rows = [row.replace(b"@@", b"@") for row in re.findall(rb"GLOBAL +DEFAULT +UND (\S+)", told)]
        wanted = [want.symbol + (b"@" + want.version if want.version else b"") for want in fit_of(contents).wanted]
        assert sorted(wanted) == sorted(rows)
