"""Faults in system calls, put there by strace(1)."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

import pytest

from .warm import Ended, Warm

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is missing")

# Calls that can change a file system; of openat(2) those that make or empty a file.
CHANGING = frozenset(
    {
        *(
            "mkdir",
            "mkdirat",
            "rmdir",
            "unlink",
            "unlinkat",
            "rename",
            "renameat",
            "renameat2",
            "link",
            "linkat",
            "symlink",
            "symlinkat",
            "mknod",
            "mknodat",
            "creat",
        ),
        *(
            "write",
            "writev",
            "pwrite64",
            "pwritev",
            "pwritev2",
            "sendfile",
            "copy_file_range",
            "truncate",
            "ftruncate",
            "fallocate",
        ),
        *("fsync", "fdatasync", "sync", "syncfs", "sync_file_range", "msync"),
        *(
            "chmod",
            "fchmod",
            "fchmodat",
            "fchmodat2",
            "chown",
            "lchown",
            "fchown",
            "fchownat",
            "utime",
            "utimes",
            "futimesat",
            "utimensat",
        ),
        *("setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr"),
    }
)
LINE = re.compile(r"^(\w+)\((.*)")


@dataclass(frozen=True, slots=True)
class Call:
    """A system call of a run: the ``nth`` of its name, with its arguments as strace shows them."""

    name: str
    nth: int
    arguments: str

    @property
    def changes(self) -> bool:
        """Whether it changes a file system."""
        makes = self.name in ("openat", "open") and ("O_CREAT" in self.arguments or "O_TRUNC" in self.arguments)
        return makes or self.name in CHANGING

    def __str__(self) -> str:
        """As an assertion shows it."""
        return f"{self.name} no. {self.nth} ({self.arguments[:90]})"


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at a call: ``how`` is what strace's ``inject=`` takes; ``onwards``: at all later ones too."""

    name: str
    nth: int
    how: str
    onwards: bool = False

    def option(self) -> str:
        """As strace takes it."""
        return f"inject={self.name}:{self.how}:when={self.nth}{'+' if self.onwards else ''}"


def traced(warm: Warm, log: Path, arguments: Sequence[str], options: Sequence[str]) -> Ended:
    """Run under strace."""
    pid = warm.begin(*arguments)
    tracer = attach(pid, log, options)
    os.kill(pid, signal.SIGCONT)
    ended = warm.wait()
    finish(tracer)
    return replace(ended, trace=tuple(log.read_text(errors="backslashreplace").splitlines()))


def attach(pid: int, log: Path, options: Sequence[str]) -> subprocess.Popen[str]:
    """Let strace follow a process that is stopped; where the machine forbids it, the test is skipped."""
    tracer = subprocess.Popen(
        ["strace", "-o", log, "-p", str(pid), *options], stderr=subprocess.PIPE, text=True, errors="replace"
    )
    assert tracer.stderr is not None
    said = tracer.stderr.readline()
    if "attached" not in said:
        os.kill(pid, signal.SIGKILL)
        tracer.communicate()
        pytest.skip(f"strace cannot trace here: {said.strip()}")
    return tracer


def finish(tracer: subprocess.Popen[str]) -> None:
    """Wait for strace to end after what it followed."""
    tracer.communicate(timeout=30)


def calls(warm: Warm, log: Path, arguments: Sequence[str], base: str) -> list[Call]:
    """All system calls of a run without faults, which must end 0; paths are shown as from ``base``."""
    ended = traced(warm, log, arguments, ["-y", "-s", "160", "-e", "signal=none"])
    assert ended.code == 0, ended
    seen: Counter[str] = Counter()
    found = []
    for line in ended.trace:
        match = LINE.match(line)
        if match is not None:
            name, rest = match.groups()
            seen[name] += 1
            found.append(Call(name, seen[name], rest.replace(base, "")))
    return found


def with_faults(warm: Warm, log: Path, arguments: Sequence[str], *faults: Fault) -> Ended:
    """Run with faults."""
    names = ",".join(sorted({fault.name for fault in faults}))
    injections = [option for fault in faults for option in ("-e", fault.option())]
    return traced(warm, log, arguments, ["-e", f"trace={names}", *injections])


def spread(points: Iterable[Call], count: int) -> list[Call]:
    """About ``count`` of some calls, evenly spread over those of each name, and at least one of each."""
    by_name: dict[str, list[Call]] = {}
    for call in points:
        by_name.setdefault(call.name, []).append(call)
    every = max(1.0, sum(map(len, by_name.values())) / count)
    chosen = []
    for found in by_name.values():
        wanted = max(1, min(len(found), round(len(found) / every)))
        chosen += [found[(2 * index + 1) * len(found) // (2 * wanted)] for index in range(wanted)]
    return chosen


def stops(
    warm: Warm, log: Path, arguments: Sequence[str], names: Iterable[str], options: Sequence[str] = ()
) -> Iterator[str]:
    """Run, and stand still after each call of these names; gives the call."""
    which = ",".join(sorted(names))
    pid = warm.begin(*arguments)
    tracer = attach(pid, log, ["-e", f"trace={which},fsync,fdatasync", "-e", f"inject={which}:signal=STOP", *options])
    with log.open(errors="backslashreplace") as told:
        os.kill(pid, signal.SIGCONT)
        call = ""
        for line in _lines(told, tracer):
            if "--- stopped by SIGSTOP" in line and call:
                yield call
                os.kill(pid, signal.SIGCONT)
            elif LINE.match(line):
                call = line.rstrip()
    warm.wait()
    finish(tracer)


def _lines(told: TextIO, tracer: subprocess.Popen[str]) -> Iterator[str]:
    """The lines of a trace as they are written, until the process has ended."""
    line = ""
    while "+++ " not in line:
        line += told.readline()
        if line.endswith("\n"):
            yield line
            line = "" if "+++ " not in line else line
        elif tracer.poll() is not None:
            return
        else:
            time.sleep(0.0002)
