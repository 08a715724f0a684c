"""What a whole run brought: measurements, the watcher's figures, and what failed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.measurement import Measurement, from_json

if TYPE_CHECKING:
    from benchmarks.watcher import Figures


@dataclass(slots=True)
class Outcome:
    """A part that fails takes nothing away from the others, but the whole run has failed."""

    measurements: list[Measurement] = field(default_factory=list)
    figures: Figures | None = None
    failures: list[str] = field(default_factory=list)

    def add(self, part: str, done: subprocess.CompletedProcess[str]) -> None:
        """Take what a session printed; of one that failed, what it had measured before."""
        self.measurements += [from_json(json.loads(line)) for line in done.stdout.splitlines()]
        if done.returncode:
            lines = (done.stderr or "").splitlines()[-8:]
            self.failures.append("\n    ".join((f"{part} ended with {done.returncode}", *lines)))

    def watch(self, measure: Callable[[], Figures]) -> None:
        """Take the watcher's figures."""
        try:
            self.figures = measure()
        except Exception as error:  # noqa: BLE001 -- whatever it is, the other parts are to be shown
            self.failures.append(f"watcher: {error}")
