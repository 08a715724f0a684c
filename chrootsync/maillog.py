"""What an instance's log says since some moment: the file that it is written to or, without one, the journal."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final, NamedTuple

from chrootsync.model import FileType, Host, Instance, PathError, Reader, Runner, Source
from chrootsync.model.frozen import field, frozen

LIMIT: Final = 1 << 20  # bytes of a file, from where it ended before
MOST_LINES: Final = 2000  # of the journal
JOURNALCTL: Final = "/usr/bin/journalctl"
TIMEOUT: Final = 5.0  # seconds that journalctl may take

# In the text of other programs' messages anything may stand: what comes before the name has no colon at its end.
_LINE: Final = r"^(?:\S*[^\s:] +){{2,4}}?(?:{names})/(?:\S+/)?({programs})\[(\d+)\]: (.*)$"
# What others say stands in messages, too, such as the answer of a server that throttles mail: only master's own warning
# that a daemon does not come up (master_spawn.c in Postfix's sources) has this end.
_FATAL: Final = re.compile(r"(?:fatal|panic): ")
_MASTER: Final = re.compile(r"master\[\d+\]")
_NOT_UP: Final = re.compile(r"warning: .* -- throttling")


class Line(NamedTuple):
    """A line of the log: the program that wrote it, as ``smtp[123]``, and its message."""

    who: str
    message: str

    @property
    def is_trouble(self) -> bool:
        """Whether a daemon has ended in the midst, or does not come up."""
        if _MASTER.fullmatch(self.who) and _NOT_UP.fullmatch(self.message):
            return True
        return _FATAL.match(self.message) is not None


@frozen
class _Mark:
    """How far a file had been written; None where there was none."""

    path: str
    source: Source | None
    end: int = 0


@frozen
class Log:
    """The log of an instance from some moment on; for use in a ``with`` statement of its ``files``."""

    host: Host
    instance: Instance
    began: float
    marks: tuple[_Mark, ...]
    files: ExitStack = field(default_factory=ExitStack)

    def lines(self) -> list[Line] | None:
        """What was logged since; None where no log of the instance is found."""
        pattern = _pattern(self.instance)
        for mark in self.marks:
            found = list(_parsed(pattern, _written(self.host.root, mark)))
            if found:
                return found
        if self.host.run is None:
            return None
        return list(_parsed(pattern, _journal(self.host.run, self.instance, self.began))) or None


def begin(host: Host, instance: Instance) -> Log:
    """Remember where the log of an instance ends now."""
    with ExitStack() as undo:
        marks = tuple(_mark(host.root, path, undo) for path in instance.control.logs)
        return Log(host=host, instance=instance, began=time.time(), marks=marks, files=undo.pop_all())


def _mark(root: Reader, path: str, files: ExitStack) -> _Mark:
    try:
        source = root.source(path)
        files.callback(source.close)
        if source.state.type is FileType.FILE:
            return _Mark(path=path, source=source, end=os.fstat(source.fileno()).st_size)
    except PathError:
        pass
    return _Mark(path=path, source=None)


def _written(root: Reader, mark: _Mark) -> bytes:
    """What was written since; of a file that was rotated, what both hold."""
    text = b""
    if mark.source is not None:
        size = os.fstat(mark.source.fileno()).st_size
        text = os.pread(mark.source.fileno(), LIMIT, mark.end if size >= mark.end else 0)
    try:
        now = root.source(mark.path)
    except PathError:
        return text
    try:
        if now.state.type is FileType.FILE and (mark.source is None or _inode(now) != _inode(mark.source)):
            text += os.pread(now.fileno(), LIMIT, 0)
    except (PathError, OSError):
        pass
    finally:
        now.close()
    return text


def _inode(source: Source) -> tuple[int, ...]:
    return () if source.state.identity is None else source.state.identity[:2]


def _journal(run: Runner, instance: Instance, began: float) -> bytes:
    """What the journal has of an instance since some moment; nothing where there is none."""
    names = [f"{name}/{program}" for name in instance.control.log_names for program in _programs(instance)]
    options = ["--quiet", "--no-pager", "--output=short-unix", f"--since=@{int(began)}", f"--lines={MOST_LINES}"]
    try:
        done = run.run([JOURNALCTL, *options, *(f"--identifier={name}" for name in names)], timeout=TIMEOUT)
    except PathError:
        return b""
    if done.code != 0:
        return b""
    recent = (line for line in done.output.splitlines() if _stamp(line) >= began)
    return os.fsencode("".join(f"{line}\n" for line in recent))


def _stamp(line: str) -> float:
    try:
        return float(line.partition(" ")[0])
    except ValueError:
        return 0.0


def _programs(instance: Instance) -> list[str]:
    names = (*(daemon.program for daemon in instance.daemons), instance.control.master)
    return [name for name in dict.fromkeys(names) if name]


def _pattern(instance: Instance) -> re.Pattern[str]:
    names = "|".join(map(re.escape, instance.control.log_names)) or "(?!)"
    programs = "|".join(map(re.escape, _programs(instance))) or "(?!)"
    return re.compile(_LINE.format(names=names, programs=programs))


def _parsed(pattern: re.Pattern[str], text: bytes) -> Iterator[Line]:
    for line in os.fsdecode(text).split("\n"):
        if (match := pattern.match(line)) is not None:
            yield Line(f"{match[1]}[{match[2]}]", match[3])
