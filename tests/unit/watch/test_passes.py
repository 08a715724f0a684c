"""What a pass is told, and what it tells."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrootsync.watch.passes import Command, Told, Where, read, written

NAMES = st.text(st.characters(exclude_characters="/\0"), min_size=1) | st.binary(min_size=1).map(os.fsdecode)
SECONDS = st.none() | st.floats(0, 1e6)


@given(
    st.builds(
        Told,
        status=st.text(),
        places=st.dictionaries(NAMES, st.none() | st.frozensets(NAMES)),
        problems=st.lists(st.text()).map(tuple),
        retry=st.booleans(),
        reload_in=SECONDS,
        settle=SECONDS,
        maximum=SECONDS,
        interval=SECONDS,
    )
)
def test_what_is_written_can_be_read(told: Told) -> None:
    assert read(written(told)) == told


def test_what_a_later_version_adds_is_left_out() -> None:
    told = Told(status="fine", places={"/etc": None})
    assert read(json.dumps({**json.loads(written(told)), "mood": "good"}).encode()) == told


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b'{"status": "x"}',
        b'{"status": "x", "places": [], "problems": [], "retry": false}',
        b'{"status": "x", "places": {"/": 7}, "problems": [], "retry": false}',
        b'{"status": "x", "places": {}, "problems": 7, "retry": false}',
    ],
)
def test_what_is_no_report_is_none(data: bytes) -> None:
    assert read(data) is None


def test_a_pass_is_started_isolated_and_with_the_options_of_the_watcher() -> None:
    where = Where(config="/etc/c.toml", state="/var/lib/x")
    arguments = Command(interpreter="/usr/bin/python3", where=where).arguments(7, 8)
    assert arguments == [
        *("/usr/bin/python3", "-I", "-m", "chrootsync", "watch-pass", "--word=7", "--report=8"),
        *("--config=/etc/c.toml", "--state=/var/lib/x"),
    ]
