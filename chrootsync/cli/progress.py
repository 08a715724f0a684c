"""Progress on a terminal, once a run takes longer than a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from chrootsync.model import Entry

if TYPE_CHECKING:
    from rich.status import Status

PATIENCE = 1.0  # seconds before anything is shown
EVERY = 64  # entries between two looks at the clock


class Progress:
    """Counts entries, and after a while shows how many there were."""

    def __init__(self) -> None:
        """Begin to count now."""
        self._began = time.monotonic()
        self._count = 0
        self._status: Status | None = None

    def seen(self, entry: Entry) -> None:
        """Count one entry."""
        self._count += 1
        if self._count % EVERY == 0 and time.monotonic() - self._began > PATIENCE:
            self._show(entry)

    def _show(self, entry: Entry) -> None:
        from rich.markup import escape
        from rich.status import Status

        from chrootsync.report.text import clean

        text = f"{self._count:,} entries compared, now in {escape(clean(entry.instance.name))}"
        if self._status is None:
            from rich.console import Console

            self._status = Status(text, console=Console(stderr=True))
            self._status.start()
        self._status.update(text)

    def stop(self) -> None:
        """Clear what was shown."""
        if self._status is not None:
            self._status.stop()


@contextmanager
def progress(*, quiet: bool) -> Iterator[Progress | None]:
    """Progress where somebody is looking: standard error is a terminal and he did not ask for silence."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    shown = Progress()
    try:
        yield shown
    finally:
        shown.stop()
