"""Processes as proc(5) tells of them: their names, parents and starts."""

from __future__ import annotations

import os
import time
from typing import NamedTuple


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


def numbers() -> list[int]:
    """The numbers of all processes that can be seen."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]
