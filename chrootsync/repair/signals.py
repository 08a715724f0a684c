"""Holds signals back where a repair cannot be interrupted."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

from chrootsync.repair.errors import LeftBehindError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Handler = Callable[[int, FrameType | None], object]


class Undisturbed:
    """Holds signals back that Python code handles, such as those that raise KeyboardInterrupt.

    Their handlers run at ``pause``, and at the latest at the end; a signal that ends the process, or is ignored, does
    as before. Blocking them in this thread (pthread_sigmask) would not do: Python lets any other thread receive a
    signal, and runs its handler in the main thread all the same.
    """

    def __init__(self) -> None:
        """Hold nothing back yet."""
        self._held = True
        self._noted: list[int] = []
        self._handlers: dict[int, Handler] = {}

    def __enter__(self) -> Self:
        """Hold signals back from now on."""
        try:
            for number in SIGNALS:
                handler = signal.getsignal(number)
                if callable(handler):
                    self._handlers[number] = handler
                    signal.signal(number, self._note)
        except ValueError:
            self._handlers.clear()  # not in the main thread: no handler ever runs here
        except BaseException:
            self._restore()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hold nothing back any more; what came meanwhile takes effect now, unless it has already."""
        self._restore()
        if not isinstance(error, (KeyboardInterrupt, LeftBehindError)):
            self.pause()

    def pause(self) -> None:
        """Let what came meanwhile take effect: here it may raise."""
        while self._noted:
            number = self._noted.pop(0)
            self._handlers[number](number, None)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._held:
            self._noted.append(number)
        else:  # a signal between the two lines of _restore
            self._handlers[number](number, frame)

    def _restore(self) -> None:
        self._held = False
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
