"""Progress on a terminal, once a run takes longer than a second."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from chrootsync.model import Entry
from chrootsync.report.text import clean

PATIENCE = 1.0  # seconds before anything is shown
FRAME = 0.2  # seconds between two looks at how far it is
REST = "\x1b[K"  # clears the line from here on


class Progress:
    """What is going on, for whoever shows it."""

    def __init__(self) -> None:
        """Begin with nothing that could be told."""
        self._doing = ""
        self._count = 0
        self._last: Entry | None = None

    def say(self, doing: str) -> None:
        """Tell what begins now: "repairing postfix-out"."""
        self._doing = doing
        self._last = None

    def seen(self, entry: Entry) -> None:
        """Count an entry that was compared; a text is made of that when it is shown, of one in ten thousand."""
        self._count += 1
        self._last = entry

    @property
    def doing(self) -> str:
        """What is going on, in one clause."""
        last = self._last  # which may change meanwhile
        return self._doing if last is None else f"comparing {last.instance.name}, {self._count} entries so far"


class Line:
    """Shows progress on the last line of a terminal after a second, whatever the main thread is busy with.

    The table library could do it too: to load it takes as long as to compare 2000 files, and it draws in more colours
    than anybody wants to pay for.
    """

    def __init__(self, shown: Progress) -> None:
        """Begin to wait now."""
        from threading import Event, Thread

        self._shown = shown
        self._ended = Event()
        self._thread: Thread = Thread(target=self._show, daemon=True)
        self._thread.start()

    def _show(self) -> None:
        if self._ended.wait(PATIENCE):
            return
        with suppress(OSError, ValueError):  # nobody is there any more
            while not self._ended.wait(FRAME):
                self._write(_fitting(clean(self._shown.doing)))
            self._write("")

    def _write(self, text: str) -> None:
        sys.stderr.write(f"\r{text}{REST}\r")
        sys.stderr.flush()

    def stop(self) -> None:
        """Clear what was shown, and show nothing any more."""
        self._ended.set()
        self._thread.join(PATIENCE)  # a terminal may have been told to wait


def _fitting(text: str) -> str:
    """As much of a text as has room on one line."""
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        columns = 80
    return text[: max(columns - 1, 0)]


@contextmanager
def progress(*, quiet: bool) -> Iterator[Progress]:
    """Progress, seen where somebody is looking: standard error is a terminal and he did not ask for silence."""
    shown = Progress()
    can_clear = os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
    line = Line(shown) if not quiet and can_clear and sys.stderr.isatty() else None
    try:
        yield shown
    finally:
        if line is not None:
            line.stop()
