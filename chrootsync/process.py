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

    from chrootsync.model import Completed, UnreadableError

OUTPUT_LIMIT = 1 << 20
GRACE = 5.0  # seconds between SIGTERM and SIGKILL
POLL = 0.02  # seconds between two looks whether it has ended meanwhile
TRIM = 0.2  # seconds between two looks at how much it has printed
LINE_LIMIT = 1 << 20  # bytes of one line; what is longer is cut off
ERROR_LIMIT = 4096  # bytes of standard error beside a stream of lines
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


class LiveRunner:
    """Runs commands with a minimal environment, from ``/``, without standard input and never longer than told."""

    def run(self, command: Sequence[str], *, timeout: float) -> Completed:
        """Run ``command`` and give its exit status and output (both streams, at most 1 MiB).

        Past ``timeout`` its process group gets SIGTERM, then SIGKILL. Raises UnreadableError where the program is not
        absolute or cannot be started.
        """
        from chrootsync.model import Completed  # the watcher does without

        with ExitStack() as undo:
            # A file, not a pipe: a daemon that the command leaves behind could hold a pipe open for ever.
            output = _file(undo, command)
            process = _begin(command, output, output)
            try:
                code = _wait(process, timeout, output)
            finally:
                _end(process)
            return Completed(code=code, output=_text(output, OUTPUT_LIMIT))

    def started(self, pid: int, child: str | None) -> float | None:
        """When the newest child of ``pid`` called ``child``, else it itself, began, in seconds since the epoch."""
        own = procfs.process(pid)
        if own is None:
            return None
        if child is None:
            return own.began
        children = [one for one in _processes() if one.parent == pid and procfs.is_name_of(one.name, child)]
        return max([own, *children], key=lambda one: one.ticks).began


class Answerer:
    """A process of our own that has a line of answer for each line that it is given; see ``answering``."""

    def __init__(self, process: subprocess.Popen[bytes], given: int, said: int) -> None:
        """Take over the descriptors: the writing end of its standard input, the reading end of its output."""
        self._process = process
        self._given = given
        self._said = said

    def give(self, line: bytes, *, timeout: float) -> None:
        """Give it a line. Where it takes none, ``answer`` tells."""
        import select

        poll = select.poll()
        poll.register(self._given, select.POLLOUT)
        rest = memoryview(line + b"\n")
        deadline = time.monotonic() + timeout
        while rest and (left := deadline - time.monotonic()) > 0:
            with suppress(BlockingIOError):
                try:
                    rest = rest[os.write(self._given, rest) :]
                except BrokenPipeError:
                    return
            if rest:
                poll.poll(left * 1000)

    def answer(self, *, timeout: float) -> Completed:
        """Its answer, with the status 0; else nothing, and how it ended, or None where the time was over."""
        import select

        from chrootsync.model import Completed

        poll = select.poll()
        poll.register(self._said, select.POLLIN)
        deadline = time.monotonic() + timeout
        text = bytearray()
        while len(text) <= OUTPUT_LIMIT and (left := deadline - time.monotonic()) > 0:
            if not poll.poll(left * 1000):
                break
            chunk = os.read(self._said, 1 << 16)
            if not chunk:
                return Completed(code=_ended(self._process, max(0.0, deadline - time.monotonic())), output="")
            text += chunk
            if text.endswith(b"\n"):
                return Completed(code=0, output=text.decode("utf-8", "backslashreplace"))
        return Completed(code=None, output="")

    def close(self) -> None:
        """End it at once, with all that it started: it only answers, so that nothing is lost."""
        import signal

        os.close(self._given)
        os.close(self._said)
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def answering(command: Sequence[str]) -> Answerer:
    """Start ``command`` as LiveRunner does, to be given lines and to answer each with one; the caller closes it.

    Raises UnreadableError as LiveRunner does.
    """
    import subprocess

    with ExitStack() as undo, ExitStack() as theirs:
        try:
            their_input, given = os.pipe2(os.O_CLOEXEC)
            theirs.callback(os.close, their_input)
            undo.callback(os.close, given)
            said, their_output = os.pipe2(os.O_CLOEXEC)
            undo.callback(os.close, said)
            theirs.callback(os.close, their_output)
        except OSError as error:
            raise _refusal(command, error) from None
        os.set_blocking(given, False)
        process = _begin(command, their_output, subprocess.DEVNULL, their_input)
        undo.pop_all()
        return Answerer(process, given, said)


def stream(command: Sequence[str], hear: Callable[[bytes], None], *, timeout: float) -> Completed:
    """Run ``command`` as LiveRunner does, and tell each line of its standard output as it comes, without the newline.

    Nothing is kept: the output may be of any length. Of a line longer than 1 MiB only the beginning is told, and empty
    ones are left out. Gives the exit status and standard error (at most 4 KiB). Raises UnreadableError as LiveRunner
    does.
    """
    from chrootsync.model import Completed

    deadline = time.monotonic() + timeout
    with ExitStack() as undo:
        errors = _file(undo, command)
        try:
            reading, writing = os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            raise _refusal(command, error) from None
        undo.callback(os.close, reading)
        try:
            process = _begin(command, writing, errors)
        finally:
            os.close(writing)
        try:
            in_time = _hear(reading, errors, hear, deadline)
            code = _wait(process, max(0.0, deadline - time.monotonic()), errors) if in_time else None
        finally:
            _end(process)
        return Completed(code=code, output=_text(errors, ERROR_LIMIT))


def _hear(reading: int, errors: int, hear: Callable[[bytes], None], deadline: float) -> bool:
    """Tell the lines that come through a pipe until its end; false where the time was over before."""
    import select

    poll = select.poll()
    poll.register(reading, select.POLLIN)
    lines = _Lines(hear)
    while (left := deadline - time.monotonic()) > 0:
        _cut(errors)
        if not poll.poll(min(left, TRIM) * 1000):
            continue
        data = os.read(reading, 1 << 16)
        if not data:
            lines.end()
            return True
        lines.feed(data)
    return False


class _Lines:
    """Cuts bytes into lines, each of them bounded."""

    def __init__(self, hear: Callable[[bytes], None]) -> None:
        self._hear = hear
        self._line = bytearray()

    def feed(self, data: bytes) -> None:
        *whole, rest = data.split(b"\n")
        for part in whole:
            self._add(part)
            self.end()
        self._add(rest)

    def _add(self, part: bytes) -> None:
        self._line += part[: LINE_LIMIT - len(self._line)]

    def end(self) -> None:
        if self._line:
            self._hear(bytes(self._line))
            self._line.clear()


def _file(undo: ExitStack, command: Sequence[str]) -> int:
    """A file in memory for what a command prints. Raises UnreadableError."""
    try:
        output = os.memfd_create("output", os.MFD_CLOEXEC)
    except OSError as error:
        raise _refusal(command, error) from None
    undo.callback(os.close, output)
    return output


def _begin(command: Sequence[str], output: int, errors: int, given: int | None = None) -> subprocess.Popen[bytes]:
    """Start a command in a minimal environment, with ``given`` as its standard input. Raises UnreadableError."""
    import subprocess

    from chrootsync.model import UnreadableError

    if not command or not command[0].startswith("/"):
        raise UnreadableError(command[0] if command else "(no command)", "must be an absolute path to a program")
    try:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL if given is None else given,
            stdout=output,
            stderr=errors,
            cwd="/",
            env=ENVIRONMENT,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:  # a ValueError is a NUL byte in an argument
        raise _refusal(command, error) from None


def _refusal(command: Sequence[str], error: OSError | ValueError) -> UnreadableError:
    from chrootsync.model import UnreadableError

    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return UnreadableError(command[0] if command else "(no command)", f"cannot be started: {reason.lower()}")


def _text(output: int, limit: int) -> str:
    return os.pread(output, limit, 0).decode("utf-8", "backslashreplace")


def _wait(process: subprocess.Popen[bytes], timeout: float, output: int) -> int | None:
    """The exit status; None where the time is over. Output beyond the limit is thrown away meanwhile."""
    deadline = time.monotonic() + timeout
    with ExitStack() as undo:
        wait = _waiting(process, undo)
        while process.poll() is None:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            wait(min(left, TRIM))
            _cut(output)
    return process.returncode


def _waiting(process: subprocess.Popen[bytes], undo: ExitStack) -> Callable[[float], object]:
    """What waits for the end of a process, so many seconds at most: Popen.wait() would notice it up to 50 ms later."""
    import select

    try:
        ended = os.pidfd_open(process.pid)
    except OSError:  # before Linux 5.3
        return lambda seconds: time.sleep(min(seconds, POLL))
    undo.callback(os.close, ended)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    return lambda seconds: poll.poll(seconds * 1000)


def _ended(process: subprocess.Popen[bytes], timeout: float) -> int | None:
    """The exit status of what is about to end; None where it has not within so many seconds."""
    deadline = time.monotonic() + timeout
    with ExitStack() as undo:
        wait = _waiting(process, undo)
        while process.poll() is None and (left := deadline - time.monotonic()) > 0:
            wait(left)
    return process.returncode


def _cut(output: int) -> None:
    """Throw away what a command printed beyond the limit."""
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
