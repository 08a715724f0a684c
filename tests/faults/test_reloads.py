"""A repair of a live machine that is killed: what the daemons have read in the end is what is in their chroots."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.unit.machine import mount
from tests.unit.scenery import Tree, grow

from .counting import tried
from .disks import needs_disks, with_own_mounts
from .place import copy, empty, picture, torn
from .tracing import Fault, calls, needs_strace, spread, with_faults
from .warm import PROJECT, Warm

pytestmark = [needs_strace, needs_disks]

POINTS = 30
DRIFTING = ("one", "two")
FIX = ["check", "--fix"]
OURS = ("etc", "jail", "var", "run")

RULES = b"""
[ruleset]
service = "test"
description = "for tests"

[[rule]]
id = "test.files"
why = "a test wants them"
files = ["/etc/hosts", "/etc/services"]
"""
# A daemon that reads its files when it is told to.
TABLE = """
[[instance]]
name = "{0}"
chroot = "/jail/{0}"
rules = ["test"]
reload = ["/bin/sh", "-c", "cat /jail/{0}/etc/hosts /jail/{0}/etc/services >/run/{0}-has-read"]
"""
NEW = b"127.0.0.1 localhost\nsmtp 25/tcp\n"
MACHINE: Tree = {
    "/etc/hosts": b"127.0.0.1 localhost\n",
    "/etc/services": b"smtp 25/tcp\n",
    "/etc/chrootsync/rules.d/test.toml": RULES,
    "/etc/chrootsync/chrootsync.toml": "".join(TABLE.format(name) for name in (*DRIFTING, "three")).encode(),
    "/jail/one/etc/hosts": b"old\n",
    "/jail/one/etc/services": b"old\n",
    "/jail/two/etc/services": b"smtp 25/tcp\n",
    "/jail/three/etc/hosts": b"127.0.0.1 localhost\n",
    "/jail/three/etc/services": b"smtp 25/tcp\n",
    "/var/lib": None,
    "/run": None,
}


@contextmanager
def machine(root: Path) -> Iterator[Warm]:
    """A chrootsync whose root is another one, with this machine's programs in it."""
    places = {"/usr", "/bin", "/sbin", "/lib", "/lib64", "/proc", "/dev", sys.prefix, sys.base_prefix, str(PROJECT)}
    for path in sorted(places):  # what holds others comes first
        here = root / path.lstrip("/")
        if os.path.islink(path):
            here.symlink_to(os.readlink(path))
        elif os.path.isdir(path) and not here.exists():
            here.mkdir(parents=True)
            mount("--bind", path, here)
    with Warm(root / "warm", root) as warm:
        yield warm


def killed_anywhere(base: Path, *, everywhere: bool) -> list[str]:
    """What is wrong after each of the kills; an empty text where nothing is."""
    root, template = base / "root", base / "template"
    root.mkdir()
    grow(template, MACHINE)
    with machine(root) as warm:
        renew(root, template)
        warm.load(*FIX)
        renew(root, template)
        old = picture(root / "jail")
        found = [call for call in calls(warm, base / "log", FIX, "") if call.changes]
        new = picture(root / "jail")
        told = []
        for call in found if everywhere else spread(found, POINTS):
            renew(root, template)
            ended = with_faults(warm, base / "log", FIX, Fault(call.name, call.nth, "signal=KILL"))
            wrong = [] if ended.killed else [f"it was not hit, and ended {ended.code}"]
            wrong += [f"torn: {one}" for one in torn(old, new, picture(root / "jail"))] + unread(root, warm)
            told.append(f"{call}: {'; '.join(wrong)}" if wrong else "")
        return told


def renew(root: Path, template: Path) -> None:
    """Let the machine have drifted again."""
    for name in OURS:
        (root / name).mkdir(exist_ok=True)
        empty(root / name)
        copy(f"{template / name}/.", root / name)


def unread(root: Path, warm: Warm) -> list[str]:
    """What is wrong after the next repair: with what it says, and with what the daemons have read."""
    wrong = []
    for time in ("next", "second"):
        before = readings(root)
        ended = warm.run(*FIX)
        if ended.code != 0:
            wrong.append(f"the {time} repair ended {ended.code}: {ended.output}{ended.errors}")
        if time == "second" and readings(root) != before:
            wrong.append("a second repair reloaded once more")
    for name in DRIFTING:
        read = root / f"run/{name}-has-read"
        if not read.exists() or read.read_bytes() != NEW:
            wrong.append(f"{name} was not reloaded after its repair")
    if (root / "run/three-has-read").exists():
        wrong.append("three was reloaded, which was in sync")
    return wrong


def readings(root: Path) -> dict[str, int]:
    """When each daemon last read its files."""
    return {path.name: path.stat().st_mtime_ns for path in (root / "run").glob("*-has-read")}


def test_after_a_kill_at_any_call_every_daemon_is_reloaded_in_the_end(tmp_path: Path, long: bool) -> None:
    tmp_path.chmod(0o755)
    found = with_own_mounts(tmp_path, lambda: killed_anywhere(tmp_path, everywhere=long))
    for one in found:
        tried("kill", bad=bool(one))
    assert len(found) >= POINTS
    assert not any(found), "\n".join(filter(None, found))
