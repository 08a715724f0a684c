"""What the parts of a session are given: where to work, what to run, and how often."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.data import DataSet, load
from benchmarks.measure import Command, note, run

CHECK = "check"
TRUSTING = "check --trust-stat"
SETTLED = 62.0  # seconds: --trust-stat takes note of what nobody has changed for a minute
BARE = "python -I -S -c pass"


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """The surroundings of one session; ``live`` means that this is the container with three Postfix instances."""

    place: str
    chrootsync: tuple[str, ...]
    floor: str | None
    small: bool
    live: bool

    def rounds(self, whole: int, small: int) -> int:
        """How many rounds to measure."""
        return small if self.small else whole

    @contextmanager
    def data(self, name: str) -> Iterator[DataSet]:
        """A data set, removed afterwards. A process of its own builds it, which may hold long lists."""
        place = f"{self.place}/{name}"
        note(f"building {name}")
        try:
            build = [sys.executable, "-m", "benchmarks.data", name, place]
            subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
            yield load(place)
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def check(self, *options: str) -> tuple[str, ...]:
        """A check that prints nothing."""
        return (*self.chrootsync, "check", "--format", "plain", "--quiet", *options)

    def reading(self, *options: str) -> Command:
        """Ours: all bytes are read."""
        return Command(name=CHECK, steps=(self.check(*options),))

    def trusting(self, since: float, *options: str) -> Command:
        """Ours: what was compared before is not read again. ``since`` is when a file last changed, by the clock.

        What was changed a short while ago is always read: so wait until it is not, and let one run take note of all.
        """
        note("waiting until nothing is new any more")
        time.sleep(max(0.0, since + SETTLED - time.time()))
        command = Command(name=TRUSTING, steps=(self.check("--trust-stat", *options),))
        run(command)
        return command

    def bare(self) -> Command:
        """An interpreter that does nothing: no program in Python is quicker."""
        return Command(name=BARE, steps=((sys.executable, "-I", "-S", "-c", "pass"),))


def remember(setup: Setup, *options: str) -> None:
    """Let a repair find nothing to do, so that whatever is remembered between runs is there."""
    subprocess.run(setup.check("--fix", *options), check=True, cwd="/", env={"PATH": os.environ["PATH"]})
