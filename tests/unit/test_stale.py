"""Processes that use what was replaced: real ones, in chroots of temporary trees."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from chrootsync import daemons, procfs
from chrootsync.model import (
    Control,
    Drift,
    Entry,
    Evidence,
    FileType,
    Host,
    Instance,
    Kind,
    OnChange,
    Presence,
    Remedy,
    Severity,
    State,
)
from chrootsync.process import LiveRunner
from chrootsync.root import Root
from chrootsync.stale import Found, Suspects, living, stale, suspects
from chrootsync.state import Store
from tests.unit.machine import needs_root
from tests.unit.scenery import daemon, grow, instance, rule

LIBRARY = "/lib/libnss_test.so.2"
RESOLV = "/etc/resolv.conf"
RELOAD = ("/bin/true",)

# A master with two children called $3 and $4: both map $2, the first one goes into the chroot $1, the second one is
# ended and begun anew at each line that is read. Each prints its number once it is there.
FAMILY = """
import mmap, os, signal, sys

chroot, library, inside, reborn = sys.argv[1:]

def name(text):
    with open("/proc/self/comm", "w") as file:
        file.write(text)

def child(text, root):
    pid = os.fork()
    if pid == 0:
        with open(library, "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        name(text)
        if root:
            os.chroot(root)
        print(os.getpid(), flush=True)
        signal.pause()
    return pid

name("master")
first = child(inside, chroot)
second = child(reborn, None)
for line in sys.stdin:
    os.kill(second, signal.SIGKILL)
    os.waitpid(second, 0)
    second = child(reborn, None)
for pid in (first, second):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""


class Family(NamedTuple):
    """A master with a process in the chroot."""

    master: int
    inside: int
    process: subprocess.Popen[str]

    def reload(self) -> None:
        """Begin the other child anew."""
        later(self.inside)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("reload\n")
        self.process.stdin.flush()
        self.process.stdout.readline()


@contextmanager
def family(chroot: Path, library: Path, inside: str = "smtp") -> Iterator[Family]:
    command = [sys.executable, "-I", "-c", FAMILY, os.fspath(chroot), os.fspath(library), inside, "qmgr"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = {int(process.stdout.readline()) for _ in range(2)}
        place = (chroot.stat().st_dev, chroot.stat().st_ino)
        [pid] = [one for one in pids if procfs.root(one) == place]
        yield Family(process.pid, pid, process)
        assert process.stdin is not None
        process.stdin.close()


def later(pid: int) -> None:
    """Wait until a process has begun long enough ago for its age to count."""
    process = procfs.process(pid)
    assert process is not None
    while time.time() < process.began + 0.1:
        time.sleep(0.02)


@pytest.fixture
def jail(tmp_path: Path) -> Path:
    grow(tmp_path, {f"/jail{LIBRARY}": b"module", f"/jail{RESOLV}": b"nameserver 127.0.0.1\n", f"/host{LIBRARY}": b"m"})
    return tmp_path / "jail"


def postfix(jail: Path, master: int | None) -> Instance:
    pid_file = jail / "master.pid"
    pid_file.write_text(f"{master}\n" if master is not None else "")
    control = Control(reload=RELOAD, pid_file=os.fspath(pid_file), reborn="qmgr", master="master")
    return instance(chroot=os.fspath(jail), control=control, daemons=(daemon("smtp"), daemon("cleanup")))


def seen(path: str | Path) -> State:
    found = os.stat(path)
    identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return State(type=FileType.FILE, identity=identity)


def entry(of: Instance, path: str, *programs: str, source: str | None = None, **fields: object) -> Entry:
    """An entry in sync, as it is now; what ``fields`` are for its rule."""
    evidence = Evidence(daemons=tuple(f"{one}/unix" for one in programs))
    return Entry(
        instance=of,
        rule=rule(**fields),
        path=path,
        source=source or path,
        because="",
        want=seen(source) if source is not None else State(type=FileType.FILE),
        have=seen(of.chroot + path),
        evidence=evidence,
    )


@contextmanager
def on_this_host(of: Instance) -> Iterator[Suspects]:
    with closing(Root("/")) as root:
        yield suspects(Host(root=root, run=LiveRunner(), cache=Store(None)), [of])


def found(of: Instance, *entries: Entry, last: Mapping[str, float] | None = None) -> list[Found]:
    """What is found of an instance that has these entries."""
    with on_this_host(of) as held:
        for one in entries:
            held.see(one)
        return stale(held, lambda: last).get(of.name, [])


def drift(of: Instance, *entries: Entry, last: Mapping[str, float] | None = None) -> Drift:
    [(_, only)] = found(of, *entries, last=last)
    return only


def swap(path: str | Path, data: bytes = b"new") -> None:
    """Replace a file as everybody should: by rename."""
    with open(f"{path}.new", "wb") as file:
        file.write(data)
    os.rename(f"{path}.new", path)


# --- Libraries --------------------------------------------------------------------------------------------------------


@needs_root
def test_a_library_that_was_replaced_is_found_until_a_reload(jail: Path) -> None:
    with family(jail, jail / LIBRARY[1:]) as running:
        of = postfix(jail, running.master)
        assert found(of, entry(of, LIBRARY)) == []
        later(running.inside)
        swap(jail / LIBRARY[1:])
        [(process, told)] = found(of, entry(of, LIBRARY))
        assert (process.pid, process.daemon, process.uses) == (running.inside, "smtp", (LIBRARY,))
        assert process.why == "still uses this library as it was; a reload ends that"
        assert (told.kind, told.severity, told.remedy) == (Kind.STALE_PROCESS, Severity.WARNING, Remedy.RELOAD)
        assert told.reason == f"smtp[{running.inside}] {process.why}"
        assert list(living([process])) == [process]

        running.reload()
        [(process, told)] = found(of, entry(of, LIBRARY))
        assert (told.severity, told.remedy) == (Severity.INFO, Remedy.NONE)
        assert process.why == "still uses this library as it was; it was told to end, and is finishing its job"
    assert list(living([process])) == []
    assert found(of, entry(of, LIBRARY)) == []


@needs_root
def test_a_repair_swaps_a_library_out_under_another_name(jail: Path) -> None:
    with family(jail, jail / LIBRARY[1:]) as running:
        of = postfix(jail, running.master)
        later(running.inside)
        hidden = jail / "lib" / ".chrootsync-0-0"
        os.rename(jail / LIBRARY[1:], hidden)
        (jail / LIBRARY[1:]).write_bytes(b"new")
        hidden.unlink()
        [(process, _)] = found(of, entry(of, LIBRARY))
        assert process.uses == (LIBRARY,)


@needs_root
def test_the_hosts_library_counts_where_the_chroot_needs_a_copy_of_it(jail: Path) -> None:
    """The daemon mapped it before chroot, and a new module in the chroot would not fit it."""
    host = jail.parent / "host" / LIBRARY[1:]
    with family(jail, host) as running:
        of = postfix(jail, running.master)
        later(running.inside)
        swap(host)
        [(process, _)] = found(of, entry(of, LIBRARY, source=os.fspath(host)))
        assert process.uses == (LIBRARY,)
        swap(jail / LIBRARY[1:])
        assert found(of, entry(of, LIBRARY)) == [], "another library, and the copy is not mapped"


@needs_root
def test_a_library_that_nobody_has_mapped_is_nothing(jail: Path) -> None:
    with family(jail, jail / RESOLV[1:]) as running:
        of = postfix(jail, running.master)
        later(running.inside)
        swap(jail / LIBRARY[1:])
        assert found(of, entry(of, LIBRARY)) == []


# --- Files ------------------------------------------------------------------------------------------------------------


@needs_root
def test_a_file_counts_for_the_programs_that_read_it(jail: Path) -> None:
    with family(jail, jail / LIBRARY[1:]) as running:
        of = postfix(jail, running.master)
        later(running.inside)
        swap(jail / RESOLV[1:])
        told = drift(of, entry(of, RESOLV, "smtp", "cleanup"))
        assert told.reason == f"smtp[{running.inside}] began before this copy changed; a reload ends that"
        assert found(of, entry(of, RESOLV, "cleanup")) == []
        assert found(of, entry(of, RESOLV)) == []
        assert found(of, entry(of, RESOLV, "smtp", on_change=OnChange.NOTHING)) == []
        assert found(replace(of, chrooted=False), entry(of, RESOLV, "smtp")) == []

        running.reload()
        assert drift(of, entry(of, RESOLV, "smtp")).severity is Severity.INFO


@needs_root
def test_what_a_process_uses_is_told_once(jail: Path) -> None:
    with family(jail, jail / LIBRARY[1:]) as running:
        of = postfix(jail, running.master)
        later(running.inside)
        swap(jail / LIBRARY[1:])
        swap(jail / RESOLV[1:])
        [(process, told)] = found(of, entry(of, RESOLV, "smtp"), entry(of, LIBRARY))
        assert process.uses == (LIBRARY, RESOLV)
        assert told.entry.path == LIBRARY
        assert process.why == "still uses this library as it was, and 1 more; a reload ends that"


@needs_root
def test_times_that_tell_nothing_are_passed_over(jail: Path) -> None:
    with family(jail, jail / LIBRARY[1:]) as running:
        of = postfix(jail, running.master)
        process = procfs.process(running.inside)
        assert process is not None
        near = entry(of, RESOLV, "smtp")
        for changed in (process.began + 0.01, time.time() + 3600):
            assert near.have is not None
            assert near.have.identity is not None
            have = replace(near.have, identity=(*near.have.identity[:4], int(changed * 1e9)))
            assert found(of, replace(near, have=have)) == []


@needs_root
@pytest.mark.parametrize("pid", [None, 1, os.getpid(), 1 << 22], ids=["none", "first", "own", "gone"])
def test_only_the_children_of_a_master_count(jail: Path, pid: int | None) -> None:
    with family(jail, jail / LIBRARY[1:]) as running:
        later(running.inside)
        swap(jail / RESOLV[1:])
        of = postfix(jail, pid)
        assert found(of, entry(of, RESOLV, "smtp")) == []


# --- Instances without a master ---------------------------------------------------------------------------------------


@needs_root
def test_without_a_master_all_processes_of_the_chroot_count_once_for_each_change(jail: Path) -> None:
    with family(jail, jail / LIBRARY[1:], "named") as running:
        of = instance(chroot=os.fspath(jail), control=Control(reload=RELOAD, unit="named.service"))
        later(running.inside)
        swap(jail / RESOLV[1:])
        swap(jail / LIBRARY[1:])
        resolv, library = entry(of, RESOLV), entry(of, LIBRARY)
        assert found(of, resolv, last=None) == [], "nobody would know that it was reloaded"
        assert drift(of, resolv, last={}).remedy is Remedy.RELOAD
        assert found(of, entry(of, RESOLV, presence=Presence.IF_PRESENT), last={}) == []

        now = {of.name: time.time()}
        assert found(of, resolv, last=now) == [], "the reload has read it"
        kept = drift(of, resolv, library, last=now)
        assert (kept.severity, kept.remedy, kept.entry) == (Severity.WARNING, Remedy.NONE, library)
        assert kept.reason.endswith(
            "still uses this library as it was; no reload ends that: systemctl restart named.service"
        )
        assert drift(of, resolv, last={of.name: time.time() + 3600}).remedy is Remedy.RELOAD, "a clock was wrong"


@needs_root
def test_a_rule_that_asks_for_a_restart_gets_one(jail: Path) -> None:
    with family(jail, jail / LIBRARY[1:], "named") as running:
        of = instance(chroot=os.fspath(jail), control=Control(reload=RELOAD, unit="named.service"))
        later(running.inside)
        swap(jail / RESOLV[1:])
        told = drift(of, entry(of, RESOLV, on_change=OnChange.RESTART), last={})
        assert (told.remedy, told.reason.partition("; ")[2]) == (Remedy.RELOAD, "a restart ends that")
        of = replace(of, control=Control(reload=RELOAD))
        told = drift(of, entry(of, RESOLV, on_change=OnChange.RESTART), last={})
        assert told.remedy is Remedy.NONE
        assert told.reason.endswith("; restart one by hand: no unit is known for it")


@needs_root
def test_without_a_reload_command_nothing_is_asked(jail: Path) -> None:
    with family(jail, jail / LIBRARY[1:], "sshd") as running:
        of = instance(chroot=os.fspath(jail))
        later(running.inside)
        swap(jail / RESOLV[1:])
        assert found(of, entry(of, RESOLV), last={}) == []


# --- What proc(5) tells -----------------------------------------------------------------------------------------------


def test_the_libraries_of_a_maps_file() -> None:
    text = b"""\
55d0-55d1 r-xp 00000000 fe:00 11 /usr/lib/postfix/sbin/smtp
7f00-7f01 r--p 00000000 fe:00 12 /usr/lib/libc.so.6
7f01-7f02 r-xp 00001000 fe:00 12 /usr/lib/libc.so.6 (deleted)
7f02-7f03 r-xp 00000000 fe:00 13 /jail/a b/libx.so (deleted)
7f03-7f04 r-xp 00000000 fe:00 14 /jail/lib/.chrootsync-1-2 (deleted)
7f04-7f05 r-xp 00000000 fe:00 15 /jail/line\\012break.so.1
7f05-7f06 rw-s 00000000 00:01 16 /memfd:jit (deleted)
7f06-7f07 rw-s 00000000 00:01 17 /dev/zero (deleted)
7f07-7f08 rw-p 00000000 00:00 0 [heap]
7f08-7f09 rw-p 00000000 00:00 0
"""
    assert procfs.libraries(text) == {
        "/usr/lib/libc.so.6": True,
        "/jail/a b/libx.so": True,
        "/jail/lib/.chrootsync-1-2": True,
        "/jail/line\nbreak.so.1": False,
    }


def test_the_children_of_a_process() -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as child:
        assert child.pid in procfs.children(os.getpid())
        child.kill()
    assert procfs.children(1 << 22) == []
    assert procfs.root(1 << 22) is None
    assert procfs.maps(1 << 22) == b""
    assert procfs.is_neighbour(os.getpid())
    assert not procfs.is_neighbour(1 << 22)


def test_names_of_processes_are_cut() -> None:
    assert procfs.is_name_of("trivial-rewrite", "trivial-rewrite")
    assert procfs.is_name_of("name-of-15-byte", "name-of-15-bytes-and-more")
    assert not procfs.is_name_of("smtp", "smtpd")


def test_a_process_that_ended_does_not_live() -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as child:
        process = procfs.process(child.pid)
        assert process is not None
        one = daemons.Running(child.pid, "sleep", process.ticks, process.began)
        assert daemons.lives(one)
        assert not daemons.lives(one._replace(ticks=1))
        child.kill()
    assert not daemons.lives(one)
