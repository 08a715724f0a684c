"""Somebody else who is at work while chrootsync runs: another process in a tight loop, or a step at a chosen moment."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

from chrootsync.root import kernel

COUNT = struct.Struct("=Q")


class Racer:
    """Counts what another process has done, in memory that both see."""

    def __init__(self) -> None:
        """Nothing was done yet."""
        self._shared = mmap.mmap(-1, 1 + COUNT.size)

    @property
    def steps(self) -> int:
        """How many steps were taken."""
        found: int = COUNT.unpack_from(self._shared, 1)[0]
        return found

    def stop(self) -> None:
        """Let the other process come to its end."""
        self._shared[0] = 1

    def run(self, step: Callable[[], object]) -> None:
        """Take steps until told to stop, or until nobody is there to tell; what fails is tried again."""
        parent, count = os.getppid(), 0
        while not self._shared[0] and os.getppid() == parent:
            with contextlib.suppress(OSError):
                step()
                count += 1
                COUNT.pack_into(self._shared, 1, count)


@contextlib.contextmanager
def meanwhile(step: Callable[[], object], *, uid: int = 0, directory: str | os.PathLike[str] = "/") -> Iterator[Racer]:
    """Another process takes a step over and over again, as a user who starts in a directory."""
    racer = Racer()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the threads of a test runner hold no locks of ours
        child = os.fork()
    if child == 0:
        try:
            os.chdir(directory)
            if uid:
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
            racer.run(step)
        finally:
            os._exit(0)
    try:
        yield racer
    finally:
        racer.stop()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def exchange(directory: int, one: str, other: str) -> None:
    """Swap two names in one step, as fast as somebody can."""
    kernel.rename(directory, one, other, kernel.EXCHANGE)


BY_NAME = (
    *("chmod", "chown", "getxattr", "link", "listxattr", "lstat", "mkdir", "mknod", "open", "readlink", "removexattr"),
    *("rename", "rmdir", "scandir", "setxattr", "stat", "symlink", "unlink", "utime"),
)
BY_DESCRIPTOR = ("close", "fchmod", "fchown", "fsync", "ftruncate", "write")


@contextlib.contextmanager
def before_each_call(look: Callable[[], object], names: Sequence[str] = BY_NAME) -> Iterator[None]:
    """Do something before each of those calls of the os module, and before each swap of two names.

    By default those that look a name up: what a name stands for matters to no other.
    """
    looking = False

    def after_looking(call: Callable[..., Any]) -> Callable[..., Any]:
        def looked(*arguments: Any, **options: Any) -> Any:
            nonlocal looking
            if not looking:
                looking = True
                try:
                    look()
                finally:
                    looking = False
            return call(*arguments, **options)

        return looked

    with contextlib.ExitStack() as patches:
        for module, name in [*((os, name) for name in names), (kernel, "rename")]:
            patches.enter_context(mock.patch.object(module, name, after_looking(getattr(module, name))))
        yield


@contextlib.contextmanager
def at_call(number: int, act: Callable[[], object]) -> Iterator[Callable[[], bool]]:
    """Act once, before that call that looks a name up; gives what tells whether there was such a call."""
    count = 0

    def look() -> None:
        nonlocal count
        count += 1
        if count == number:
            act()

    with before_each_call(look):
        yield lambda: count >= number
