"""The process that looks things up, from its first question to its last."""

from __future__ import annotations

import os
import sys

from chrootsync import process
from chrootsync.model import Completed

HERE = os.path.dirname(os.path.abspath(__file__))
# Python keeps the compiled form of what is imported, and not of the program itself.
PROGRAM = """\
import sys
sys.path.append(sys.argv[1])
import child
child.main()
"""
SECONDS = 8.0  # for all lookups of one side, which are done at the same time
GRACE = 7.0  # seconds that the process may take beyond them


class Asker:
    """Asks one process that is begun when it is first needed: Python's start costs as much as twenty lookups.

    One that failed to answer is not asked again, but another one. Whoever makes this closes it.
    """

    def __init__(self) -> None:
        """Begin nothing yet."""
        self._process: process.Answerer | None = None

    def begin(self) -> process.Answerer:
        """Let the process be ready when it is asked. Raises UnreadableError."""
        if self._process is None:
            self._process = process.answering((os.path.abspath(sys.executable), "-I", "-S", "-c", PROGRAM, HERE))
        return self._process

    def ask(self, plans: bytes) -> None:
        """Ask for lookups; ``answer`` waits for what they come to. Raises UnreadableError."""
        self.begin().give(plans, timeout=SECONDS + GRACE)

    def answer(self) -> Completed:
        """What that came to, a line with the status 0; else how the process ended. Raises UnreadableError."""
        done = self.begin().answer(timeout=SECONDS + GRACE)
        if not done.output:
            self.close()
        return done

    def close(self) -> None:
        """End the process, if it was begun."""
        if self._process is not None:
            self._process.close()
            self._process = None
