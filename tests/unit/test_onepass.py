"""What a pass tells the watcher to watch."""

from __future__ import annotations

import os
from contextlib import closing
from unittest import mock

import pytest

from chrootsync.cli import onepass
from chrootsync.cli.setup import Places
from chrootsync.model import Config, Report
from chrootsync.root.noting import NotingRoot

REPORT = Report(generated=0, duration=0, version="1", root="/", instances=(), fixed=True)


def noted(*paths: str) -> NotingRoot:
    """A root of which these paths were asked."""
    with closing(NotingRoot("/")) as root:
        root.looked.update(paths)
        return root


def done(*chroots: str) -> onepass._Done:
    return onepass._Done(report=REPORT, config=Config(), chroots=chroots, repair=None, reload_in=None)


def tell(result: onepass._Done | None, *paths: str) -> dict[str, frozenset[str] | None]:
    return onepass._places(Places(), result, [noted(*paths)])


def test_what_was_looked_up_is_watched() -> None:
    names = tell(done(), "/etc/no-such-file")["/etc"]
    assert names is not None
    assert "no-such-file" in names


def test_what_package_managers_write_is_not_and_neither_are_chroots_and_state() -> None:
    found = tell(done("/usr"), "/var/lib/dpkg/status", "/usr/bin/x", "/var/lib/chrootsync/state.db", "/proc/self/stat")
    assert not any(
        f"{path}/".startswith(("/usr/", "/proc/", "/var/lib/dpkg/", "/var/lib/chrootsync/")) for path in found
    )
    assert "usr" in (found["/"] or ())


@pytest.mark.skipif(not os.path.isdir("/var/lib/dpkg"), reason="needs the directory of a package manager")
def test_locks_of_package_managers_are_watched_only_while_something_waits() -> None:
    lock = "/var/lib/dpkg/lock"
    assert "/var/lib/dpkg" not in tell(done(), lock)
    with mock.patch.object(onepass, "waits", return_value=True):
        assert "lock" in (tell(done(), lock)["/var/lib/dpkg"] or ())


def test_a_pass_that_came_to_nothing_still_tells_where_the_mending_will_be_seen() -> None:
    told = onepass._told(Places(config="/etc/no-such.toml"), None, ["a\nb"], [])
    assert "no-such.toml" in (told.places["/etc"] or ())
    assert told.retry
    assert told.settle is None
    assert "\n" not in told.problems[0]
    assert told.status == "nothing could be checked"
