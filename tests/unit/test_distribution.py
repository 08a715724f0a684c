"""os-release(5) as distributions write it, and as nobody should."""

from __future__ import annotations

import pytest

from chrootsync.distribution import PATHS, fields, lineage, release
from chrootsync.model import AbsentError, UnreadableError


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b'NAME="Debian GNU/Linux"\nID=debian\n', {"NAME": "Debian GNU/Linux", "ID": "debian"}),
        (b"ID='opensuse-leap'\nID_LIKE=\"suse opensuse\"", {"ID": "opensuse-leap", "ID_LIKE": "suse opensuse"}),
        (b'NAME="a \\"b\\" c"\n', {"NAME": 'a "b" c'}),
        (b"# ID=no\n  ID=yes\nID_LIKE=\n", {"ID": "yes", "ID_LIKE": ""}),
        (b"ID=one\nID=two\n", {"ID": "two"}),
        (b'ID="half\n', {"ID": "half"}),
        (b'ID="\nVERSION=""\nNAME="a"b"c"\n', {"ID": "", "VERSION": "", "NAME": "abc"}),
        (b"\xff\0\nno mark\n", {}),
        (b"", {}),
    ],
)
def test_fields_are_read_as_a_shell_would(text: bytes, found: dict[str, str]) -> None:
    assert fields(text) == found


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (b"ID=debian\n", ("debian",)),
        (b'ID=rocky\nID_LIKE="rhel centos fedora"\n', ("rocky", "rhel", "centos", "fedora")),
        (b"NAME=Nobody\n", ()),
    ],
)
def test_the_nearest_ancestor_comes_first(text: bytes, names: tuple[str, ...]) -> None:
    assert lineage(fields(text)) == names


def test_the_first_file_that_exists_counts() -> None:
    def read(path: str) -> bytes:
        if path == PATHS[0]:
            raise AbsentError(path, "does not exist")
        return b"ID=arch\n"

    assert release(read) == {"ID": "arch"}


def test_a_root_without_the_file_says_nothing_and_an_unreadable_one_is_told() -> None:
    def absent(path: str) -> bytes:
        raise AbsentError(path, "does not exist")

    def hidden(path: str) -> bytes:
        raise UnreadableError(path, "permission denied")

    assert release(absent) == {}
    with pytest.raises(UnreadableError):
        release(hidden)
