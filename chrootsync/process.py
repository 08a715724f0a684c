"""Runs commands of the live host and looks at its processes; the sole user of subprocess."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from chrootsync import procfs

if TYPE_CHECKING:
    import subprocess

    from chrootsync.model import Completed

OUTPUT_LIMIT = 1 << 20
GRACE = 5.0  # seconds between SIGTERM and SIGKILL
POLL = 0.02  # seconds between two looks whether it has ended meanwhile
TRIM = 0.2  # seconds between two looks at how much it has printed
NAME_LIMIT = 15  # bytes that the kernel keeps of a program's name, proc_pid_comm(5)
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


class LiveRunner:
    """Runs commands with a minimal environment, from ``/``, without standard input and never longer than told."""

    def run(self, command: Sequence[str], *, timeout: float) -> Completed:
        """Run ``command`` and give its exit status and output (both streams, at most 1 MiB).

        Past ``timeout`` its process group gets SIGTERM, then SIGKILL. Raises UnreadableError where the program is not
        absolute or cannot be started.
        """
        import subprocess

        from chrootsync.model import Completed, UnreadableError  # the watcher does without

        if not command or not command[0].startswith("/"):
            raise UnreadableError(command[0] if command else "(no command)", "must be an absolute path to a program")
        output = -1
        try:
            # A file, not a pipe: a daemon that the command leaves behind could hold a pipe open for ever.
            output = os.memfd_create("output", os.MFD_CLOEXEC)
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=ENVIRONMENT,
                start_new_session=True,
            )
            try:
                code = _wait(process, timeout, output)
            finally:
                _end(process)
            return Completed(code=code, output=os.pread(output, OUTPUT_LIMIT, 0).decode("utf-8", "backslashreplace"))
        except (OSError, ValueError) as error:  # a ValueError is a NUL byte in an argument
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise UnreadableError(command[0], f"cannot be started: {reason.lower()}") from None
        finally:
            if output >= 0:
                os.close(output)

    def started(self, pid: int, child: str | None) -> float | None:
        """When the newest child of ``pid`` called ``child``, else it itself, began, in seconds since the epoch."""
        own = procfs.process(pid)
        if own is None:
            return None
        name = None if child is None else os.fsdecode(os.fsencode(child)[:NAME_LIMIT])
        children = [] if name is None else [one for one in _processes() if one.parent == pid and one.name == name]
        newest = max([own, *children], key=lambda one: one.ticks)
        return newest.began


def _wait(process: subprocess.Popen[bytes], timeout: float, output: int) -> int | None:
    """The exit status; None where the time is over. Output beyond the limit is thrown away meanwhile."""
    import subprocess

    deadline = time.monotonic() + timeout
    while True:
        left = deadline - time.monotonic()
        try:
            return process.wait(max(0.0, min(left, TRIM)))
        except subprocess.TimeoutExpired:
            if left <= TRIM:
                return None
        if os.fstat(output).st_size > OUTPUT_LIMIT:
            os.ftruncate(output, OUTPUT_LIMIT)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a process that ran out of time, or was interrupted, with all that it started.

    While the first process is not waited for, its number, which is its group's, cannot be given to another.
    """
    import signal

    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while not _has_ended(process.pid) and time.monotonic() < deadline:
        time.sleep(POLL)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _has_ended(pid: int) -> bool:
    """Whether a child has ended; it stays to be waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _processes() -> Iterator[procfs.Process]:
    for number in procfs.numbers():
        if (process := procfs.process(number)) is not None:
            yield process


class Child:
    """A process of our own that waits for a word before it begins, and leaves a report; see ``start``."""

    def __init__(self, process: subprocess.Popen[bytes], word: int, report: int) -> None:
        """Take over the descriptors: the writing end of the pipe for the word, and the file for the report."""
        self._process = process
        self._word = word
        self._report = report
        self._ended = os.pidfd_open(process.pid)

    def fileno(self) -> int:
        """A descriptor that is readable once the process has ended, pidfd_open(2)."""
        return self._ended

    def begin(self, word: bytes) -> None:
        """Say the word, a short line without its end. Where the process has ended already, ``code`` tells."""
        try:
            with suppress(BrokenPipeError):
                os.write(self._word, word + b"\n")
        finally:
            os.close(self._word)
            self._word = -1

    def code(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def report(self) -> bytes:
        """What it wrote; it is ours, and is believed."""
        return os.pread(self._report, os.fstat(self._report).st_size, 0)

    def send(self, number: int) -> None:
        """Send a signal to it and to all that it started; nothing where it was waited for already."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def close(self) -> None:
        """Give the descriptors back; one that still runs is left alone, and told no word."""
        for fd in (self._word, self._report, self._ended):
            if fd >= 0:
                os.close(fd)


def start(command: Callable[[int, int], Sequence[str]], environment: Mapping[str, str]) -> Child:
    """Start a process from ``/``, in a session of its own, with our standard output and error and a few variables more.

    ``command`` makes the arguments from two descriptors: one to read the word from (at its end, nobody is left to say
    it), one to write the report to. Raises OSError where it cannot be started.
    """
    import subprocess

    with ExitStack() as undo:
        report = os.memfd_create("report", os.MFD_CLOEXEC)
        undo.callback(os.close, report)
        wait, word = os.pipe2(os.O_CLOEXEC)
        undo.callback(os.close, word)
        try:
            process = subprocess.Popen(
                list(command(wait, report)),
                stdin=subprocess.DEVNULL,
                cwd="/",
                env={**ENVIRONMENT, **environment},
                pass_fds=(wait, report),
                start_new_session=True,
            )
        finally:
            os.close(wait)
        child = Child(process, word, report)
        undo.pop_all()
        return child
