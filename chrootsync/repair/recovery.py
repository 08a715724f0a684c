"""Rolls forward from a repair that was cut short: clears away what it left, and tells what it had done.

What it had not done is drift, which the run that recovers finds and repairs like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace

from chrootsync.model import AbsentError, Copy, Outcome, PathError, Status
from chrootsync.model.memory import Change, Step, Unfinished
from chrootsync.root.leftovers import Leftover
from chrootsync.root.write import Writer

DONE = Outcome(status=Status.REPAIRED, reason="the run was cut short after this; a later one cleared up")


@dataclass(frozen=True, kw_only=True, slots=True)
class Recovered:
    """What a repair that was cut short had done, and what of it could not be cleared away (a sentence each)."""

    changes: tuple[Change, ...]
    problems: tuple[str, ...]


def recover(writer: Writer, unfinished: Unfinished, keep: Callable[[Copy], str | None]) -> Recovered:
    """Clear away what a repair of one instance left; ``keep`` is given the contents that it had replaced."""
    changes, problems = [], []
    try:
        with closing(writer.chroot(unfinished.chroot)) as chroot:
            for step in unfinished.steps:
                try:
                    if chroot.clear(_leftover(step), keep):
                        changes.append(_done(step.change))
                except PathError as error:
                    problems.append(f"{unfinished.chroot.rstrip('/')}{error}")
    except AbsentError:
        pass  # what was in the chroot went with it
    except PathError as error:
        problems.append(f"the interrupted repair of {unfinished.instance} cannot be cleared up: {error}")
    return Recovered(changes=tuple(changes), problems=tuple(problems))


def _leftover(step: Step) -> Leftover:
    return Leftover(
        path=step.change.path,
        temporary=step.temporary,
        staged=step.inode,
        old=step.old,
        removes=step.change.after is None,
    )


def _done(change: Change) -> Change:
    return replace(change, outcome=DONE)
