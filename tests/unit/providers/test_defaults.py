"""What is compiled into a Postfix that cannot be asked: by its distribution, and by the files that are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from chrootsync.model import Host
from chrootsync.providers.postfix import defaults
from tests.unit.machine import descriptors
from tests.unit.tree_reader import MemoryCache, TreeReader, plant

DEBIAN = ("/usr/lib/postfix/sbin", "/usr/sbin", "/usr/lib/postfix", "postdrop")
RED_HAT = ("/usr/libexec/postfix", "/usr/sbin", "/usr/lib64/postfix", "postdrop")
SUSE = ("/usr/lib/postfix/bin", "/usr/sbin", "/usr/lib/postfix", "maildrop")
ARCH = ("/usr/lib/postfix/bin", "/usr/bin", "/usr/lib/postfix", "postdrop")
UPSTREAM = ("/usr/libexec/postfix", "/usr/sbin", "/usr/lib/postfix", "postdrop")

# os-release as the distributions ship it.
RELEASES = {
    "ubuntu": ('ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n', DEBIAN),
    "linuxmint": ('ID=linuxmint\nID_LIKE="ubuntu debian"\nVERSION_ID="22"\n', DEBIAN),
    "raspbian": ('ID=raspbian\nID_LIKE=debian\nVERSION_ID="12"\n', DEBIAN),
    "rhel": ('ID="rhel"\nID_LIKE="fedora"\nVERSION_ID="9.4"\n', RED_HAT),
    "rocky": ('ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n', RED_HAT),
    "almalinux": ('ID="almalinux"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n', RED_HAT),
    "centos": ('ID="centos"\nID_LIKE="rhel fedora"\nVERSION_ID="9"\n', RED_HAT),
    "fedora": ("ID=fedora\nVERSION_ID=42\n", RED_HAT),
    "amzn": ('ID="amzn"\nID_LIKE="fedora"\nVERSION_ID="2023"\n', RED_HAT),
    "opensuse-leap": ('ID="opensuse-leap"\nID_LIKE="suse opensuse"\nVERSION_ID="15.6"\n', SUSE),
    "opensuse-tumbleweed": ('ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"\n', SUSE),
    "sles": ('ID="sles"\nID_LIKE="suse"\nVERSION_ID="15.6"\n', SUSE),
    "arch": ("ID=arch\nBUILD_ID=rolling\n", ARCH),
    "manjaro": ("ID=manjaro\nID_LIKE=arch\n", ARCH),
    "alpine": ("ID=alpine\nVERSION_ID=3.22.1\n", UPSTREAM),
    "unknown": ('ID=something\nID_LIKE="of its own"\n', UPSTREAM),
    "damaged": ('ID="debian\nID_LIKE\n=\n\0', DEBIAN),
}

NAMES = ("daemon_directory", "command_directory", "shlib_directory", "setgid_group")


def known(root: Path, files: dict[str, str]) -> dict[str, str]:
    """The defaults of an image with these files."""
    plant(root, {path: text.encode() for path, text in files.items()})
    return dict(defaults.load(Host(root=TreeReader(root), run=None, cache=MemoryCache())))


@pytest.mark.parametrize("name", RELEASES)
def test_a_derivative_has_what_its_parent_has(tmp_path: Path, name: str) -> None:
    text, expected = RELEASES[name]
    values = known(tmp_path, {"/usr/lib/os-release": text})
    assert tuple(values[one] for one in NAMES) == expected
    assert "mail_version" not in values


def test_without_os_release_it_is_as_upstream_has_it(tmp_path: Path) -> None:
    values = known(tmp_path, {})
    assert tuple(values[one] for one in NAMES) == UPSTREAM


@pytest.mark.parametrize("name", ["", *RELEASES])
@pytest.mark.parametrize("expected", [DEBIAN, RED_HAT, SUSE, ARCH, UPSTREAM])
def test_where_the_programs_lie_is_seen_whatever_the_distribution(
    tmp_path: Path, name: str, expected: tuple[str, ...]
) -> None:
    daemons, commands, libraries, _ = expected
    values = known(
        tmp_path,
        {
            "/etc/os-release": RELEASES[name][0] if name else "",
            f"{daemons}/master": "",
            f"{commands}/postfix": "",
            f"{libraries}/libpostfix-global.so": "",
        },
    )
    assert tuple(values[one] for one in NAMES[:3]) == expected[:3]


def test_the_distribution_decides_between_two_places(tmp_path: Path) -> None:
    files = {"/usr/libexec/postfix/master": "", "/usr/lib/postfix/bin/master": ""}
    assert known(tmp_path, {**files, "/etc/os-release": "ID=arch\n"})["daemon_directory"] == "/usr/lib/postfix/bin"
    assert known(tmp_path, {**files, "/etc/os-release": "ID=fedora\n"})["daemon_directory"] == "/usr/libexec/postfix"


@pytest.mark.parametrize("path", ["/usr/lib64/postfix/libpostfix-global.so", "/usr/libexec/postfix/master"])
@pytest.mark.parametrize("version", ["2.10.1", "3.5.25", "3.10.13", "3.12-20250801", "3.11-RC1"])
def test_the_version_is_read_from_the_library_or_the_daemon(tmp_path: Path, path: str, version: str) -> None:
    program = f"ELF\x002.0.0\x005.7.1\0mail_version\0{version}\0multi_instance_group\0"
    values = known(tmp_path, {"/etc/os-release": "ID=fedora\n", path: program})
    assert values["mail_version"] == version


@pytest.mark.parametrize("program", ["", "mail_version", "\0mail_version\0", "\0mail_version\0x\0", "x\x003.7.11\0"])
def test_a_library_that_does_not_tell_gives_no_version(tmp_path: Path, program: str) -> None:
    values = known(tmp_path, {"/usr/lib/postfix/libpostfix-global.so": program})
    assert "mail_version" not in values


def test_what_is_no_file_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "usr/lib/postfix/sbin/master").mkdir(parents=True)
    (tmp_path / "usr/lib/postfix/libpostfix-global.so").symlink_to("libpostfix-global.so")
    values = known(tmp_path, {})
    assert tuple(values[one] for one in NAMES) == UPSTREAM


def test_looking_for_programs_leaves_no_descriptor(tmp_path: Path) -> None:
    plant(tmp_path, dict.fromkeys(("/usr/lib/postfix/sbin/master", "/usr/sbin/postfix"), b""))
    host = Host(root=TreeReader(tmp_path), run=None, cache=MemoryCache())
    defaults.load(host)
    before = descriptors()
    defaults.load(host)
    assert descriptors() == before
