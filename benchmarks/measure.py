"""Runs whole processes in turn, and tells what they took."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from resource import struct_rusage

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}

Steps = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """What is measured: one or more processes, one after the other, each an argument list with the program's path.

    ``before`` prepares each run and is not measured. ``rounds`` limits how often something slow is run.
    """

    name: str
    steps: Steps
    stdin: str = os.devnull
    expected: int = 0
    before: Callable[[], object] | None = None
    rounds: int = 1000
    terminal: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One run: wall-clock and processor time in milliseconds, and the most memory that a process of it held, in MB.

    A process that was just started counts with what its parent held, so that the driver has to stay small.
    """

    ms: float
    cpu_ms: float
    mb: float


@dataclass(slots=True)
class Samples:
    """The runs of one command, in the order of the rounds."""

    runs: list[Sample] = field(default_factory=list)

    @property
    def ms(self) -> list[float]:
        """Wall-clock times."""
        return [run.ms for run in self.runs]

    @property
    def cpu_ms(self) -> list[float]:
        """User and system time."""
        return [run.cpu_ms for run in self.runs]

    @property
    def mb(self) -> float:
        """The most memory of all runs."""
        return max(run.mb for run in self.runs)


def run(command: Command) -> Sample:
    """Run a command once.

    Raises RuntimeError where it does not end as expected: what fails may be quick, and measures nothing.
    """
    if command.before is not None:
        command.before()
    cpu = memory = 0.0
    began = time.perf_counter()
    for step in command.steps:
        status, usage = _with_terminal(step, command.stdin) if command.terminal else _run(step, command.stdin)
        cpu += usage.ru_utime + usage.ru_stime
        memory = max(memory, usage.ru_maxrss / 1024)
        if status != command.expected:
            raise RuntimeError(f"{' '.join(step)} ended with status {status}")
    return Sample(ms=(time.perf_counter() - began) * 1000, cpu_ms=cpu * 1000, mb=memory)


def _run(step: tuple[str, ...], stdin: str, stderr: int = 2) -> tuple[int, struct_rusage]:
    pid = _start(step, stdin, stderr)
    _, status, usage = os.wait4(pid, 0)
    return os.waitstatus_to_exitcode(status), usage


def _start(step: tuple[str, ...], stdin: str, stderr: int) -> int:
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, stdin, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, stderr, 2),
    ]
    return os.posix_spawn(step[0], step, {**ENVIRONMENT, "TERM": "xterm"}, file_actions=actions)


def _with_terminal(step: tuple[str, ...], stdin: str) -> tuple[int, struct_rusage]:
    """Run a process whose standard error is a terminal, and read what it shows there."""
    ours, theirs = os.openpty()
    pid = _start(step, stdin, theirs)
    os.close(theirs)
    try:
        while os.read(ours, 65536):
            pass
    except OSError:  # EIO: nobody has the other end any more
        pass
    os.close(ours)
    _, status, usage = os.wait4(pid, 0)
    return os.waitstatus_to_exitcode(status), usage


def interleaved(commands: Sequence[Command], rounds: int) -> dict[str, Samples]:
    """Run every command once a round, each round beginning with another one.

    Whatever slows the machine down meets all of them, so that ratios within a round hold. What runs more than once has
    a first run that warms up and is left out.
    """
    samples = {command.name: Samples() for command in commands}
    for command in commands:
        if min(rounds, command.rounds) > 1:
            run(command)
    for number in range(rounds):
        first = number % len(commands)
        for command in [*commands[first:], *commands[:first]]:
            if number < command.rounds:
                samples[command.name].runs.append(run(command))
    return samples


@dataclass(frozen=True, kw_only=True, slots=True)
class Ratio:
    """How two commands compare: the median of the ratios of runs of one round, and the quartiles of these."""

    median: float
    low: float
    high: float


def ratio(ours: Sequence[float], others: Sequence[float]) -> Ratio:
    """Compare run by run; of less than four rounds the quartiles are the least and the greatest."""
    each = sorted(one / other for one, other in zip(ours, others, strict=False))
    if len(each) < 4:
        return Ratio(median=statistics.median(each), low=each[0], high=each[-1])
    low, middle, high = statistics.quantiles(each, n=4, method="inclusive")
    return Ratio(median=middle, low=low, high=high)


def note(text: str) -> None:
    """Tell whoever waits what is under way."""
    print(f"  {text}", file=sys.stderr, flush=True)


def scratch(step: tuple[str, ...], stdin: str = os.devnull) -> Callable[[], object]:
    """A preparation that is one process."""
    return lambda: run(Command(name="preparation", steps=(step,), stdin=stdin))
