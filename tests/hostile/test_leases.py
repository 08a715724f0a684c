"""Leases and locks, by which somebody else can make open(2) or read(2) wait."""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.hostile.arena import ATTACKER, NEW, OLD, Arena
from tests.unit.machine import needs_root, promptly

LEASE_BREAK_TIME = 45  # seconds by default, /proc/sys/fs/lease-break-time
OTHER = b"WHAT THE HOST HAS\n"


@contextmanager
def leased(path: Path, kind: int, owner: int) -> Iterator[None]:
    """Another process holds a lease on a file, and does not give it up when it is asked to."""
    shared = mmap.mmap(-1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the threads of a test runner hold no locks of ours
        child = os.fork()
    if child == 0:
        hold(path, kind, owner, shared)
    try:
        while not shared[0]:
            time.sleep(0.002)
        if shared[0] == 2:
            pytest.skip("no leases here")
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def hold(path: Path, kind: int, owner: int, shared: mmap.mmap) -> None:
    """Take a lease in a process that then does nothing but ignore all signals that ask for it."""
    try:
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        fd = os.open(path, os.O_RDONLY)
        if owner:
            os.setgid(owner)
            os.setuid(owner)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, kind)
        shared[0] = 1
        while True:
            signal.pause()
    except OSError:
        shared[0] = 2
    finally:
        os._exit(0)


OWNERS = [pytest.param(0, id="roots"), pytest.param(ATTACKER, id="attackers")]
KINDS = [pytest.param(fcntl.F_WRLCK, id="write"), pytest.param(fcntl.F_RDLCK, id="read")]


@needs_root
@pytest.mark.parametrize("owner", OWNERS)
@pytest.mark.parametrize("copy", [None, OLD, OTHER, NEW], ids=["no-copy", "other-size", "same-size", "same"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_lease_on_the_source_holds_nothing_up(arena: Arena, kind: int, copy: bytes | None, owner: int) -> None:
    arena.tally.add("case")
    arena.plant({"/etc": None} if copy is None else {"/etc/conf": copy})
    os.chown(arena.image / "etc/conf", owner, owner)
    with arena.untouched(inside=kind == fcntl.F_WRLCK), leased(arena.image / "etc/conf", kind, owner), promptly(10):
        found, fixed = arena.said(arena.check()), arena.said(arena.fix())
    if kind == fcntl.F_WRLCK:
        assert found.kinds == fixed.kinds == {"/etc/conf": "unreadable"}
        assert "the source cannot be read: resource temporarily unavailable" in found.messages
    assert arena.fix().code == 0
    assert arena.check().kinds == {}


@needs_root
@pytest.mark.parametrize("owner", OWNERS)
@pytest.mark.parametrize("copy", [OLD, OTHER, NEW], ids=["other-size", "same-size", "same"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_lease_on_the_copy_holds_nothing_up(arena: Arena, kind: int, copy: bytes, owner: int) -> None:
    arena.tally.add("case")
    arena.plant({"/etc/conf": copy})
    arena.give_away("/etc/conf", owner=owner)
    with arena.untouched(inside=True), leased(arena.jail / "etc/conf", kind, owner), promptly(10):
        found = arena.said(arena.check())
    with arena.untouched(), leased(arena.jail / "etc/conf", kind, owner), promptly(10):
        arena.said(arena.fix())
    unseen = kind == fcntl.F_WRLCK and copy != OLD
    stale = "differs" if copy != NEW else "metadata" if owner else None
    expected = "unreadable" if unseen else stale
    assert found.kinds == ({"/etc/conf": expected} if expected else {})
    assert arena.fix().code == 0
    assert arena.check().kinds == {}


@needs_root
@pytest.mark.parametrize("where", ["etc/conf", "jail/one/etc/conf"])
def test_a_lock_on_a_file_holds_nothing_up(arena: Arena, where: str) -> None:
    arena.plant({"/etc/conf": OTHER})
    with open(arena.image / where, "rb+") as file, promptly(10):
        fcntl.flock(file, fcntl.LOCK_EX)
        fcntl.lockf(file, fcntl.LOCK_EX)
        arena.trial({"/etc/conf": "differs"})
