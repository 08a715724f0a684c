"""What the parts of a session are given: where to work, what to run, and how often."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.data import DataSet, load
from benchmarks.measure import Command, note

CHECK = "check"
TRUSTING = "check --trust-stat"
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

    def checks(self, *options: str) -> Iterator[Command]:
        """Ours: all bytes read, and where it can be told so, fingerprints trusted."""
        yield Command(name=CHECK, steps=(self.check(*options),))
        if self.can_trust:
            yield Command(name=TRUSTING, steps=(self.check("--trust-stat", *options),))

    @property
    def can_trust(self) -> bool:
        """Whether the program knows --trust-stat."""
        text = subprocess.run([*self.chrootsync, "check", "--help"], capture_output=True, text=True, check=True).stdout
        return "--trust-stat" in text

    def bare(self) -> Command:
        """An interpreter that does nothing: no program in Python is quicker."""
        return Command(name=BARE, steps=((sys.executable, "-I", "-S", "-c", "pass"),))


def remember(setup: Setup, *options: str) -> None:
    """Let a repair find nothing to do, so that whatever is remembered between runs is there."""
    subprocess.run(setup.check("--fix", *options), check=True, cwd="/", env={"PATH": os.environ["PATH"]})
