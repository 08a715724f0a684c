"""A service's line to systemd."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from chrootsync.watch.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A manager's socket and what NOTIFY_SOCKET says of it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@chrootsync-{os.getpid()}"
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as line:
        line.bind(name.replace("@", "\0", 1))
        line.settimeout(30)
        yield line, name


def test_the_manager_hears(manager: tuple[socket.socket, str]) -> None:
    line, name = manager
    Notifier({"NOTIFY_SOCKET": name}).say(READY=1, STATUS="3 instances in sync")
    assert line.recv(4096) == b"READY=1\nSTATUS=3 instances in sync"


def test_no_text_begins_a_line_of_its_own(manager: tuple[socket.socket, str]) -> None:
    line, name = manager
    Notifier({"NOTIFY_SOCKET": name}).say(STATUS="a\nSTOPPING=1\udcff")
    assert line.recv(4096) == b"STATUS=a STOPPING=1\\udcff"


def test_a_manager_that_does_not_read_does_not_block(manager: tuple[socket.socket, str]) -> None:
    line, name = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})
    for _ in range(2000):
        notifier.say(STATUS="x" * 1000)
    assert line.recv(4096).startswith(b"STATUS=")


@pytest.mark.parametrize("address", ["", "/nowhere/at/all", "vsock:2:1", "relative"])
def test_without_a_manager_nothing_is_said(address: str) -> None:
    Notifier({"NOTIFY_SOCKET": address}).say(READY=1)


def test_pings_are_twice_as_frequent_as_asked_for() -> None:
    assert Notifier({"WATCHDOG_USEC": "60000000"}).ping_every == 30
    assert Notifier({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}).ping_every == 30
    assert Notifier({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}).ping_every is None
    assert Notifier({"WATCHDOG_USEC": "0"}).ping_every is None
    assert Notifier({"WATCHDOG_USEC": "often"}).ping_every is None
    assert Notifier({}).ping_every is None
