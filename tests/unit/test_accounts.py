"""passwd(5) and group(5): numbers for names, names for numbers, and copies without password fields."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrootsync.accounts import names, numbers, without_passwords

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
postfix:x:101:103::/var/spool/postfix:/usr/sbin/nologin
"""


def test_names_have_their_numbers() -> None:
    assert numbers(PASSWD) == {"root": 0, "postfix": 101}
    assert numbers(b"postdrop:x:104:\nroot:x:0:a,b") == {"postdrop": 104, "root": 0}


def test_of_two_alike_the_first_counts() -> None:
    assert numbers(b"toor:x:0:0\ntoor:x:7:0\nroot:x:0:0") == {"toor": 0, "root": 0}
    assert names({"toor": 0, "root": 0, "postfix": 101}) == {0: "toor", 101: "postfix"}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"root",
        b"root:x",
        b":x:0:0",
        b"root:x::0",
        b"root:x:-1:0",
        b"root:x: 0:0",
        b"root:x:0x0:0",
        "root:x:٣:0".encode(),
        b"+::::::",
        b"root:x:4294967295:0",  # (uid_t) -1, which chown(2) takes for "leave it"
        b"root:x:4294967296:0",
        b"root:x:" + b"9" * 5000 + b":0",  # more digits than int() takes
    ],
)
def test_malformed_lines_are_passed_over(line: bytes) -> None:
    assert numbers(line + b"\nmail:x:8:8") == {"mail": 8}


def test_the_largest_number_that_can_own_a_file() -> None:
    assert numbers(b"nobody:x:4294967294:0") == {"nobody": 4294967294}


def test_undecodable_names_are_kept() -> None:
    assert numbers(b"\xff:x:5:5") == {os.fsdecode(b"\xff"): 5}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"root:$6$salt$hash:0:0:root:/root:/bin/sh\n", b"root:x:0:0:root:/root:/bin/sh\n"),
        (b"root::0:0:root:/root:/bin/sh", b"root:x:0:0:root:/root:/bin/sh"),
        (b"root:x:0:0\nmail:*:8:8\n\n", b"root:x:0:0\nmail:x:8:8\n\n"),
        (b"staff:secret:50:a,b\n", b"staff:x:50:a,b\n"),
        (b"odd\nline:hash", b"odd\nline:x"),
        (b"\xff:\xfe:1:1", b"\xff:x:1:1"),
        (b"", b""),
    ],
)
def test_password_fields_are_left_out(text: bytes, expected: bytes) -> None:
    assert without_passwords(text) == expected


@given(text=st.binary())
def test_any_text_is_survived_and_only_its_second_fields_change(text: bytes) -> None:
    filtered = without_passwords(text)
    assert without_passwords(filtered) == filtered
    assert set(numbers(filtered)) == set(numbers(text))
    for before, after in zip(text.split(b"\n"), filtered.split(b"\n"), strict=True):
        old, new = before.split(b":"), after.split(b":")
        assert new[:1] + new[2:] == old[:1] + old[2:]
        assert new[1:2] == [b"x"] * len(old[1:2])
