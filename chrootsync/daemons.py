"""The processes of instances on the live host: which ones run inside a chroot, and when their instance was reloaded."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from chrootsync import procfs
from chrootsync.model import AbsentError, Instance, PathError, Reader


class Running(NamedTuple):
    """A process inside a chroot: its number, its program's name, and its start in ticks and since the epoch."""

    pid: int
    name: str
    ticks: int
    began: float

    @property
    def label(self) -> str:
        """As the mail log calls it."""
        return f"{self.name}[{self.pid}]"


def master_number(root: Reader, instance: Instance) -> int | None:
    """The number that an instance's pid file holds; None where it has none. Raises UnreadableError."""
    if instance.control.pid_file is None:
        return None
    try:
        number = root.read(instance.control.pid_file, limit=64).split()
    except AbsentError:
        return None
    return int(number[0]) if number and number[0].isdigit() else None


def since(root: Reader, instance: Instance) -> float | None:
    """A time before which none of an instance's processes began, which costs little; None where nothing runs.

    It is the start of its master or, where it has none, that of this machine.
    """
    if instance.control.pid_file is None:
        return procfs.Process("", 0, 0).began
    master = _master(root, instance)
    return None if master is None else master[1].began


def chrooted(root: Reader, instances: Iterable[Instance]) -> dict[str, tuple[Running, ...]]:
    """By name of their instance, the processes whose root is its chroot, as far as they can be seen.

    Where an instance has a master, its children alone count. Who may not see a process's root (ptrace(2)) sees none.
    """
    found: dict[str, tuple[Running, ...]] = {}
    by_root: dict[tuple[int, int], list[int]] | None = None
    for instance in instances:
        try:
            status = os.stat(instance.chroot)
        except OSError:
            continue
        place = (status.st_dev, status.st_ino)
        if instance.control.pid_file is not None:
            master = _master(root, instance)
            children = [] if master is None else procfs.children(master[0])
            pids = [pid for pid in children if procfs.root(pid) == place]
        else:
            by_root = _by_root() if by_root is None else by_root
            pids = [pid for pid in by_root.get(place, ()) if procfs.is_neighbour(pid)]
        found[instance.name] = tuple(filter(None, map(_running, pids)))
    return found


def lives(one: Running) -> bool:
    """Whether a process has not ended yet."""
    process = procfs.process(one.pid)
    return process is not None and process.ticks == one.ticks and procfs.root(one.pid) is not None


def reborn(root: Reader, instance: Instance) -> Running | None:
    """The child that each reload starts anew, the newest of them; None where there is none."""
    master, name = _master(root, instance), instance.control.reborn
    if master is None or name is None:
        return None
    children = filter(None, map(_running, procfs.children(master[0])))
    return max((one for one in children if one.name == name), key=lambda one: one.ticks, default=None)


def _master(root: Reader, instance: Instance) -> tuple[int, procfs.Process] | None:
    """The number and the process of an instance's master; another one with its number is none."""
    try:
        number = master_number(root, instance)
    except PathError:
        return None
    process = None if number is None else procfs.process(number)
    if number is None or process is None or process.name != instance.control.master:
        return None
    return number, process


def _running(pid: int) -> Running | None:
    process = procfs.process(pid)
    return None if process is None else Running(pid, process.name, process.ticks, process.began)


def _by_root() -> dict[tuple[int, int], list[int]]:
    found: dict[tuple[int, int], list[int]] = {}
    for pid in procfs.numbers():
        if (place := procfs.root(pid)) is not None:
            found.setdefault(place, []).append(pid)
    return found
