"""Which names in which directories lead to a path."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from chrootsync.watch.places import ReadLink, end, hops, merged, places, read_link

RESOLVED: Mapping[str, str] = {
    "/etc": "",
    "/etc/resolv.conf": "../run/systemd/resolve/stub-resolv.conf",
    "/run": "",
    "/run/systemd": "",
    "/run/systemd/resolve": "",
    "/run/systemd/resolve/stub-resolv.conf": "",
    "/lib": "usr/lib",
    "/usr": "",
    "/usr/lib": "",
    "/usr/lib/libnss_dns.so.2": "",
    "/spool": "/var/spool",
    "/var": "",
    "/var/spool": "",
    "/loop": "loop",
}


def tree(links: Mapping[str, str]) -> ReadLink:
    return links.get


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (
            "/etc/resolv.conf",
            [
                ("/", "etc"),
                ("/etc", "resolv.conf"),
                ("/", "run"),
                ("/run", "systemd"),
                ("/run/systemd", "resolve"),
                ("/run/systemd/resolve", "stub-resolv.conf"),
            ],
        ),
        (
            "/lib/libnss_dns.so.2",
            [("/", "lib"), ("/", "usr"), ("/usr", "lib"), ("/usr/lib", "libnss_dns.so.2")],
        ),
        ("/spool/missing/deep", [("/", "spool"), ("/", "var"), ("/var", "spool"), ("/var/spool", "missing")]),
        ("/etc//./../etc/resolv.conf/", None),
        ("/", []),
        ("/..", []),
    ],
)
def test_every_name_that_a_walk_looks_up(path: str, expected: list[tuple[str, str]] | None) -> None:
    if expected is None:
        expected = [("/", "etc"), *hops("/etc/resolv.conf", tree(RESOLVED))]
    assert list(hops(path, tree(RESOLVED))) == expected


def test_links_that_lead_to_themselves_end_somewhere() -> None:
    assert set(hops("/loop", tree(RESOLVED))) == {("/", "loop")}


def test_where_a_path_leads_to() -> None:
    assert end("/etc/resolv.conf", tree(RESOLVED)) == "/run/systemd/resolve/stub-resolv.conf"
    assert end("/", tree(RESOLVED)) == "/"


def test_names_of_one_directory_come_together() -> None:
    found = places(["/etc/resolv.conf", "/etc/services"], [], tree(RESOLVED))
    assert found["/etc"] == frozenset({"resolv.conf", "services"})
    assert found["/"] == frozenset({"etc", "run"})


def test_all_names_of_a_listed_directory_matter_wherever_it_is() -> None:
    found = places(["/usr/lib/libnss_dns.so.2"], ["/lib"], tree(RESOLVED))
    assert found["/usr/lib"] is None
    assert found["/"] == frozenset({"lib", "usr"})


def test_a_listed_directory_that_is_missing_is_waited_for() -> None:
    assert places([], ["/etc/chrootsync/rules.d"], tree(RESOLVED)) == {
        "/": frozenset({"etc"}),
        "/etc": frozenset({"chrootsync"}),
    }


def test_what_lies_beneath_our_own_directories_is_left_out() -> None:
    links = {**RESOLVED, "/var/spool/postfix": "", "/var/spool/postfix/pid": ""}
    found = places(["/var/spool/postfix/pid/master.pid"], [], tree(links), ["/var/spool/postfix"])
    assert found == {"/": frozenset({"var"}), "/var": frozenset({"spool"}), "/var/spool": frozenset({"postfix"})}


def test_of_very_many_names_all_count() -> None:
    assert places([f"/etc/{number}" for number in range(501)], [], tree(RESOLVED))["/etc"] is None


def test_two_are_merged_name_by_name() -> None:
    one = {"/a": frozenset({"x"}), "/b": None, "/c": frozenset({"x"})}
    other = {"/a": frozenset({"y"}), "/b": frozenset({"y"}), "/c": None, "/d": frozenset({"z"})}
    assert merged(one, other) == {"/a": frozenset({"x", "y"}), "/b": None, "/c": None, "/d": frozenset({"z"})}


def test_links_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    assert read_link(str(tmp_path / "link")) == "file"
    assert read_link(str(tmp_path / "file")) == ""
    assert read_link(str(tmp_path)) == ""
    assert read_link(str(tmp_path / "missing")) is None
    assert read_link(str(tmp_path / "file" / "below")) is None
