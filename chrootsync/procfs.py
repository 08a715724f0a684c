"""Processes as proc(5) tells of them: names, parents, starts, roots, and the libraries that they have mapped."""

from __future__ import annotations

import os
import re
import time
from typing import Final, NamedTuple

_NAME_LIMIT: Final = 15  # bytes that the kernel keeps of a program's name, proc_pid_comm(5)
_DELETED: Final = b" (deleted)"
_LINE_BREAK: Final = b"\\012"
_LIBRARY: Final = re.compile(r"\.so(?:\.|$)")


class Process(NamedTuple):
    """What proc_pid_stat(5) says of a process: its name, its parent, and its start in clock ticks after boot."""

    name: str
    parent: int
    ticks: int

    @property
    def began(self) -> float:
        """When it began, in seconds since the epoch, to a hundredth: /proc/stat has the boot in whole seconds only."""
        boot = time.clock_gettime(time.CLOCK_REALTIME) - time.clock_gettime(time.CLOCK_BOOTTIME)
        return boot + self.ticks / os.sysconf("SC_CLK_TCK")


def process(pid: int) -> Process | None:
    """A process; None where it is gone, or not to be seen."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            head, _, tail = file.read().rpartition(b")")
    except OSError:
        return None
    fields = tail.split()
    return Process(os.fsdecode(head.partition(b"(")[2]), int(fields[1]), int(fields[19]))


def is_name_of(name: str, program: str) -> bool:
    """Whether a process of that name may run a program."""
    return name == os.fsdecode(os.fsencode(program)[:_NAME_LIMIT])


def numbers() -> list[int]:
    """The numbers of all processes that can be seen."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def children(pid: int) -> list[int]:
    """The children that the first thread of a process has, proc_pid_task_children(5); without that file, a search."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
            return [int(number) for number in file.read().split()]
    except OSError:
        if not os.path.exists(f"/proc/{pid}"):
            return []
    known = ((number, process(number)) for number in numbers())
    return [number for number, one in known if one is not None and one.parent == pid]


def root(pid: int) -> tuple[int, int] | None:
    """The device and inode of a process's root; None where it is gone, or not ours to see."""
    try:
        status = os.stat(f"/proc/{pid}/root")
    except OSError:
        return None
    return status.st_dev, status.st_ino


def is_neighbour(pid: int) -> bool:
    """Whether a process lives in our PID namespace: one of a container may well have the same root."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid") == os.readlink("/proc/self/ns/pid")
    except OSError:
        return False


def maps(pid: int) -> bytes:
    """What a process has mapped, a line each, proc_pid_maps(5); nothing where it is gone, or not ours to see."""
    try:
        with open(f"/proc/{pid}/maps", "rb") as file:
            return file.read()
    except OSError:
        return b""


def libraries(text: bytes) -> dict[str, bool]:
    """The paths of the libraries in a text as ``maps`` gives it, each with whether it has lost its name since.

    That is called ``(deleted)``, as of a file that another one was renamed over; one that was swapped with another
    beforehand has the name that it had in the end, which may be a hidden one. All other deleted files are left out:
    shared memory and just-in-time compilers have them, too.
    """
    found: dict[str, bool] = {}
    for line in text.splitlines():
        fields = line.split(None, 5)
        if len(fields) < 6 or not fields[5].startswith(b"/"):
            continue
        deleted = fields[5].endswith(_DELETED)
        path = os.fsdecode(fields[5].removesuffix(_DELETED).replace(_LINE_BREAK, b"\n"))
        name = path.rpartition("/")[2]
        if _LIBRARY.search(name) or (deleted and name.startswith(".")):
            found[path] = deleted
    return found
