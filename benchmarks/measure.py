"""Runs whole processes in turn and times them."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """What is measured: one or more processes, one after the other, each an argument list with the program's path."""

    name: str
    steps: tuple[tuple[str, ...], ...]
    stdin: str = os.devnull


def run(command: Command) -> float:
    """Run a command and give its wall-clock time in milliseconds.

    Raises RuntimeError where it does not end well: what fails may be quick, and measures nothing.
    """
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, command.stdin, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
    ]
    began = time.perf_counter()
    for step in command.steps:
        pid = os.posix_spawn(step[0], step, ENVIRONMENT, file_actions=actions)
        _, status = os.waitpid(pid, 0)
        if os.waitstatus_to_exitcode(status) != 0:
            raise RuntimeError(f"{' '.join(step)} ended with status {os.waitstatus_to_exitcode(status)}")
    return (time.perf_counter() - began) * 1000


def interleaved(commands: Sequence[Command], rounds: int) -> dict[str, list[float]]:
    """Run every command once a round, each round beginning with another one; a first round warms up and is left out.

    Whatever slows the machine down meets all of them, so that ratios within a round hold.
    """
    samples: dict[str, list[float]] = {command.name: [] for command in commands}
    for command in commands:
        run(command)
    for number in range(rounds):
        first = number % len(commands)
        for command in [*commands[first:], *commands[:first]]:
            samples[command.name].append(run(command))
    return samples


def ratio(ours: Sequence[float], others: Sequence[float]) -> float:
    """The median of the ratios of runs of the same round."""
    return statistics.median(one / other for one, other in zip(ours, others, strict=True))
