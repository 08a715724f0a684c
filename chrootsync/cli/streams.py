"""The standard streams: they may be closed, full, gone, or unable to say what is to be said."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from io import FileIO, TextIOWrapper
from typing import TextIO

from chrootsync.model import ChrootsyncError, Code, clause

ERROR = "<3>"  # the level of an error, sd-daemon(3)
NOTICE = "<5>"
FILES = 65_536  # open files; whoever may have more needs no more


class Ended(Exception):  # noqa: N818 -- no error: it is how a verb comes to its end
    """A verb has said what it had to say; ``status`` is the exit status."""

    def __init__(self, status: int) -> None:
        """End with a status."""
        super().__init__(status)
        self.status = status


class OutputError(ChrootsyncError):
    """Standard output cannot be written; ``code`` is the status of the run where that is not 0."""

    def __init__(self, what: str, error: OSError, status: int = Code.OK) -> None:
        # EBADF is what _open_closed() gives for a closed stream.
        reason = "standard output is closed" if error.errno == errno.EBADF else clause(error)
        super().__init__(f"cannot write {what}: {reason}")
        self.code = status or Code.FAILED


def prepare() -> None:
    """Make the process fit to work, whoever started it and how; nothing of this can fail."""
    _open_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A path may hold what the locale's encoding has no character for; that must not end a report. What a broken
            # stream says to that, it says again when it is written to.
            with suppress(OSError):
                stream.reconfigure(errors="backslashreplace")
    _allow_many_files()


def _open_closed() -> None:
    """Give closed standard descriptors back, lest the next file that is opened becomes standard output."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest free number is this one. Standard output is for reading only: writing it must fail.
            with suppress(OSError):
                os.open(os.devnull, os.O_RDONLY if fd == 1 else os.O_RDWR)
                os.set_inheritable(fd, True)  # noqa: FBT003 -- takes it in no other way
    if sys.stdout is None:
        sys.stdout = TextIOWrapper(FileIO(1, "w", closefd=False), encoding="utf-8")
    if sys.stderr is None:
        sys.stderr = TextIOWrapper(FileIO(2, "w", closefd=False), encoding="utf-8")


def _allow_many_files() -> None:
    """Raise the soft limit of open files to the hard one.

    A directory such as /etc/ssl/certs is compared with several descriptors for each of hundreds of files, in every
    instance; the soft limit is 1024 for the sake of programs that use select(2) (systemd.exec(5), LimitNOFILE=).
    """
    import resource

    with suppress(OSError, ValueError):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = FILES if hard == resource.RLIM_INFINITY else min(hard, FILES)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def in_color() -> bool:
    """Whether standard output is a terminal whose user has nothing against colours (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def write(text: str, status: int = Code.OK) -> None:
    """Print to standard output at once; ``status`` is how the run ends if that fails.

    Raises OutputError. Raises Ended where whoever read our output went away, as head(1) does: nothing more can be
    said to him, but what came of the run stays what it is.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        silence(sys.stdout)
        raise Ended(status) from None
    except OSError as error:
        silence(sys.stdout)
        raise OutputError("the report", error, status) from None


def tell(messages: Iterable[str], *, level: str = ERROR) -> None:
    """Print sentences to standard error, to the journal with ``level``; where that fails too, nobody is listening."""
    from chrootsync.report.text import clean

    prefix = level if to_journal(sys.stderr) else ""
    try:
        for message in messages:
            print(f"{prefix}chrootsync: {clean(message)}", file=sys.stderr, flush=True)  # noqa: T201 -- the stream is named
    except OSError:
        silence(sys.stderr)


def to_journal(stream: TextIO) -> bool:
    """Whether a stream leads to systemd's journal, which reads a level at the beginning of a line (sd-daemon(3)).

    JOURNAL_STREAM alone does not tell: who inherits it may have been given other streams (systemd.exec(5)).
    """
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def silence(stream: TextIO) -> None:
    """Send what a broken stream still holds to nowhere, lest the interpreter complains of it at its end."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)
