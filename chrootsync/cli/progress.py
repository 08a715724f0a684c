"""Progress on a terminal, once a run takes longer than a second."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from chrootsync.model import Entry

if TYPE_CHECKING:
    from threading import Timer

    from rich.status import Status
    from rich.text import Text

PATIENCE = 1.0  # seconds before anything is shown


class Progress:
    """What is going on, for whoever shows it."""

    def __init__(self) -> None:
        """Begin with nothing that could be told."""
        self._doing = ""
        self._count = 0

    def say(self, doing: str) -> None:
        """Tell what begins now: "repairing postfix-out"."""
        self._doing = doing

    def seen(self, entry: Entry) -> None:
        """Count an entry that was compared."""
        self._count += 1
        self._doing = f"comparing {entry.instance.name}, {self._count} entries so far"

    def __rich__(self) -> Text:
        """What rich shows; it asks several times a second, from a thread of its own."""
        from rich.text import Text

        from chrootsync.report.text import clean

        return Text(clean(self._doing))


class Spinner:
    """Shows progress on standard error after a second, whatever the main thread is busy with."""

    def __init__(self, shown: Progress) -> None:
        """Begin to wait now."""
        from threading import Lock, Timer

        self._shown = shown
        self._lock = Lock()
        self._stopped = False
        self._status: Status | None = None
        self._timer: Timer = Timer(PATIENCE, self._start)
        self._timer.daemon = True
        self._timer.start()

    def _start(self) -> None:
        from rich.console import Console
        from rich.status import Status

        status = Status(self._shown, console=Console(stderr=True))
        with self._lock:
            if not self._stopped:
                status.start()
                self._status = status

    def stop(self) -> None:
        """Clear what was shown, and show nothing any more."""
        self._timer.cancel()
        with self._lock:
            self._stopped = True
            if self._status is not None:
                self._status.stop()


@contextmanager
def progress(*, quiet: bool) -> Iterator[Progress]:
    """Progress, seen where somebody is looking: standard error is a terminal and he did not ask for silence."""
    shown = Progress()
    spinner = None if quiet or not sys.stderr.isatty() else Spinner(shown)
    try:
        yield shown
    finally:
        if spinner is not None:
            spinner.stop()
