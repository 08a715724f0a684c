"""Files that an image's owner made to keep a check busy, to fill memory, or to make it crash."""

from __future__ import annotations

import struct
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from chrootsync import libraries
from chrootsync.libraries import closure, symbols
from chrootsync.libraries import elf as elf_reader
from chrootsync.libraries.elf import MAX_SYMBOLS, MAX_VERSIONS, BadElfError, Tables, parse
from chrootsync.libraries.elf import symbols as elf_symbols
from chrootsync.model import LibrarySet
from tests.unit.elf_builder import AARCH64, I386, MIPS, S390X, elf, has, needs
from tests.unit.test_libraries import TRIPLET, debian
from tests.unit.tree_reader import MemoryCache, TreeReader, plant

SECONDS = 1.0
MEGABYTE = 1 << 20
DYNAMIC = 64 + 3 * 56  # where the dynamic section of a 64-bit file from elf() begins


def asked(root: Path) -> LibrarySet:
    """What the module of a root comes to, which takes neither long nor much memory."""
    start = time.process_time()
    found = libraries.needs_nss(TreeReader(root), MemoryCache(), ["hosts"])
    assert time.process_time() - start < SECONDS
    return found


def module(root: Path, data: bytes) -> Path:
    debian(root)
    (root / f"usr{TRIPLET}/libnss_mymachines.so.2").write_bytes(data)
    return root


def put(data: bytes, tag: int, value: int) -> bytes:
    """A file from elf() in which a tag of its dynamic section has another number."""
    changed = bytearray(data)
    place = next(at for at in range(DYNAMIC, len(data), 16) if struct.unpack_from("<Q", data, at)[0] == tag)
    struct.pack_into("<Q", changed, place + 8, value)
    return bytes(changed)


def headers(count: int, kind: int) -> bytes:
    """A file with many program headers of one kind, all the same."""
    data = elf(["libcap.so.2"])
    table = bytearray(data[64 + 56 : 64 + 112])
    struct.pack_into("<I", table, 0, kind)
    made = bytearray(data + bytes(table) * count)
    struct.pack_into("<Q", made, 32, len(data))
    struct.pack_into("<H", made, 56, count)
    return bytes(made)


FILES: dict[str, Callable[[], bytes]] = {
    "a dynamic section without an end": lambda: (
        (data := elf(["a"], tail=bytes(16 * MEGABYTE)))[:DYNAMIC]
        + struct.pack("<QQ", 1, 1)
        + b"\x06\0\0\0\0\0\0\0" * ((len(data) - DYNAMIC - 16) // 8)
    ).ljust(len(data), b"\1"),
    "a name without an end": lambda: put(elf(["a"], tail=b"z" * (16 * MEGABYTE)), 5, 300),
    "a name of 16 MB": lambda: elf(["LONG"], tail=b"y" * (16 * MEGABYTE)).replace(b"LONG\0", b"LONGy"),
    "names beyond the file": lambda: put(elf(["abc"]), 1, 1 << 62),
    "a string table nowhere": lambda: put(elf(["abc"]), 5, (1 << 64) - 1),
    "no string table": lambda: elf(["abc"]).replace(struct.pack("<Q", 5), struct.pack("<Q", 99), 1),
    "an empty name": lambda: elf([""]),
    "a name that no file can have": lambda: elf(["x" * 256]),
    "thousands of names": lambda: elf([f"lib{number}.so" for number in range(4000)]),
    "more names than anybody has": lambda: elf([f"lib{number}.so" for number in range(60_000)]),
    "thousands of search paths": lambda: elf(["libnone.so"], runpath=":".join(["$ORIGIN"] * 500)),
    "512 dynamic sections": lambda: headers(512, 2),
    "512 interpreters": lambda: headers(512, 3),
    "512 segments": lambda: headers(512, 1),
    "65535 segments": lambda: headers(65535, 1),
    "a table of headers beyond the end": lambda: elf(["a"])[:32] + b"\xff" * 8 + elf(["a"])[40:],
    "a section table of 2^64 entries": lambda: elf(["a"])[:40] + b"\x40" + bytes(7) + elf(["a"])[48:58] + b"\xff" * 500,
}


@pytest.mark.parametrize("name", FILES)
def test_no_file_takes_long_or_much_memory(tmp_path: Path, name: str) -> None:
    data = FILES[name]()
    parse(elf())  # the ELF reader is imported
    start = time.process_time()
    tracemalloc.start()
    try:
        found = parse(data).needed
    except BadElfError:
        found = ()
    finally:
        taken, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert taken < SECONDS
    assert peak < MEGABYTE + len(data) // 4
    assert len(found) <= 4096
    asked(module(tmp_path, data))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a dynamic section without an end", "has a dynamic section without an end"),
        ("a name without an end", "has a broken string table"),
        ("a string table nowhere", "has a table outside the file"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(name: str, reason: str) -> None:
    with pytest.raises(BadElfError) as caught:
        parse(FILES[name]())
    assert str(caught.value) == reason


@pytest.mark.parametrize("error", [ValueError("of a number"), LookupError()])
def test_whatever_the_elf_reader_stumbles_over_is_damage(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def stumble(*_: object) -> None:
        raise error

    monkeypatch.setattr(elf_reader, "_read", stumble)
    with pytest.raises(BadElfError, match=r"^is a damaged ELF file$"):
        parse(elf())


def test_tables_without_an_end_are_told() -> None:
    data = elf(["libcap.so.2"], symbols=[needs("f@V", "libcap.so.2"), has("g@W")])
    with pytest.raises(BadElfError, match=r"^has a table outside the file$"):
        Tables(data, parse(data)).rows("H", 0, len(data))
    tables = Tables(data + b"\1" * MAX_VERSIONS * 2, parse(data))
    with pytest.raises(BadElfError, match=r"^has too many versions$"):
        list(tables.chain("B", len(data)))  # the next one is always one byte further on
    many = replace(parse(data), numbers={**parse(data).numbers, "DT_MIPS_SYMTABNO": MAX_SYMBOLS + 1})
    with pytest.raises(BadElfError, match=r"^has too many symbols$"):
        list(elf_symbols(Tables(data, many)))


def test_a_table_that_the_file_cuts_short_is_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(*_: object) -> None:
        struct.unpack("I", b"")

    monkeypatch.setattr(symbols, "_fit", cut)
    with pytest.raises(BadElfError, match=r"^is a damaged ELF file$"):
        symbols._read(elf())


@pytest.mark.parametrize(
    "data",
    [
        elf(["libcap.so.2"], runpath="$ORIGIN", interpreter="/lib64/ld-linux-x86-64.so.2"),
        elf(["libcap.so.2"], bits=32, machine=I386, rpath="/opt"),
        elf(["libcap.so.2"], order=">", machine=S390X, symbols=[needs("f@V", "libcap.so.2"), has("g@W")]),
        elf(["libcap.so.2"], machine=AARCH64, shift=1 << 16, tail=b"x" * 40),
    ],
    ids=["x86_64", "i386", "s390x", "aarch64"],
)
def test_a_file_that_ends_anywhere(data: bytes) -> None:
    whole = parse(data)
    assert whole.needed == ("libcap.so.2",)
    for end in range(len(data)):
        with pytest.raises(BadElfError):
            parse(data[:end])


def test_a_byte_changed_anywhere() -> None:
    data = elf(["libcap.so.2"], runpath="$ORIGIN", interpreter="/lib64/ld-linux-x86-64.so.2")
    for place in range(len(data)):
        for value in (0, 0xFF):
            try:
                found = parse(data[:place] + bytes([value]) + data[place + 1 :])
            except BadElfError:
                continue
            assert len(found.needed) <= 2


def test_a_static_program_and_mips() -> None:
    assert (
        parse(elf(machine=MIPS, order=">", bits=32, symbols=[has("f")], count_by=[0x70000011])).numbers[
            "DT_MIPS_SYMTABNO"
        ]
        == 2
    )
    static = bytearray(elf())
    struct.pack_into("<I", static, 64 + 56, 4)  # no PT_DYNAMIC, but a note
    struct.pack_into("<Q", static, 64 + 16, 0x400000)
    assert parse(bytes(static)).needed == ()


def test_a_chain_that_is_longer_than_any(tmp_path: Path) -> None:
    module(tmp_path, elf(["lib0.so"]))
    plant(tmp_path, {f"/usr{TRIPLET}/lib{n}.so": elf([f"lib{n + 1}.so"]) for n in range(300)})
    found = asked(tmp_path)
    assert len(found.libraries) == closure.MAX_CHAIN
    (missing,) = found.unresolved
    assert missing.because.endswith("what it needs is not followed, since no library needs such a chain")


def test_loops_of_every_length_end(tmp_path: Path) -> None:
    module(tmp_path, elf(["lib0.so", "libnss_mymachines.so.2"]))
    plant(tmp_path, {f"/usr{TRIPLET}/lib{n}.so": elf([f"lib{m}.so" for m in range(n + 2)]) for n in range(20)})
    plant(tmp_path, {f"/usr{TRIPLET}/lib{n}.so": elf(["lib0.so"]) for n in (20, 21)})
    found = asked(tmp_path)
    assert len(found.libraries) == 22
    assert found.unresolved == ()


def test_libraries_without_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closure, "MAX_LIBRARIES", 100)
    names = [f"lib{number}.so" for number in range(120)]
    module(tmp_path, elf(names))
    plant(tmp_path, {f"/usr{TRIPLET}/{name}": elf(names[:30]) for name in names})
    found = asked(tmp_path)
    assert len(found.libraries) == 100
    assert found.unresolved[-1].because.endswith("no more is followed, since no chroot needs that much")
    assert len(libraries.locations(TreeReader(tmp_path), names)) == 100


def test_names_that_nobody_has_are_told_up_to_a_hundred(tmp_path: Path) -> None:
    found = asked(module(tmp_path, elf([f"libnone{number}.so" for number in range(4000)])))
    assert len(found.unresolved) == closure.MAX_UNRESOLVED + 1
    assert found.unresolved[-1].because.endswith("no more is followed, since no chroot needs that much")
    told = libraries.locations(TreeReader(tmp_path), ["libnss_mymachines.so.2"])
    assert list(told) == ["libnss_mymachines.so.2"]


def test_lookups_have_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"lib{number}.so" for number in range(60)]
    module(tmp_path, elf(names))
    plant(tmp_path, {f"/usr{TRIPLET}/{name}": elf(names) for name in names})
    assert asked(tmp_path).unresolved == ()
    monkeypatch.setattr(closure, "MAX_LOOKUPS", 500)
    found = asked(tmp_path)
    assert len(found.libraries) == 61
    assert len(found.unresolved) == 1


def test_an_nsswitch_conf_of_thousands_of_words(tmp_path: Path) -> None:
    debian(tmp_path, b"hosts: " + b" ".join(b"m%d [!UNAVAIL=return]" % number for number in range(4_000)) + b"\n")
    assert asked(tmp_path) == LibrarySet()
    (tmp_path / "etc/nsswitch.conf").write_bytes(b"hosts: dns [" + b"NOTFOUND=return " * 30_000 + b"]\n")
    assert asked(tmp_path) == LibrarySet()
    (tmp_path / "etc/nsswitch.conf").write_bytes(b"hosts: " + b"mdns " * 20_000 + b"\n")
    plant(tmp_path, {f"/usr{TRIPLET}/libnss_mdns.so.2": elf()})
    assert len(asked(tmp_path).sockets) == 1
