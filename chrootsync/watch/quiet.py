"""When a burst of changes has settled; pure, for the times are given in."""

from __future__ import annotations


class Quiet:
    """Changes that nobody has looked at yet: due once nothing changed for ``settle`` seconds, or after ``maximum``."""

    def __init__(self, settle: float, maximum: float) -> None:
        """Wait ``settle`` seconds after the last change, but no more than ``maximum`` after the first."""
        self.settle = settle
        self.maximum = maximum
        self._first: float | None = None
        self.last = 0.0
        """When something changed last, as far as that was noticed."""

    def noticed(self, now: float) -> None:
        """Something changed."""
        if self._first is None:
            self._first = now
        self.last = now

    @property
    def due(self) -> float | None:
        """When to look; None while nothing has changed."""
        if self._first is None:
            return None
        return min(self.last + self.settle, self._first + max(self.settle, self.maximum))

    def taken(self) -> None:
        """Somebody is going to look at everything that changed so far."""
        self._first = None
