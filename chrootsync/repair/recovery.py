"""Rolls forward from a repair that was cut short: clears away what it left, and tells what it had done.

What it had not done is drift, which the run that recovers finds and repairs like any other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

from chrootsync.model import AbsentError, Copy, FileType, Outcome, PathError, Status
from chrootsync.model.frozen import frozen, replace
from chrootsync.model.memory import Change, Step, Unfinished
from chrootsync.root.leftovers import Leftover
from chrootsync.root.write import Writer

DONE = Outcome(status=Status.REPAIRED, reason="the run was cut short after this; a later one cleared up")


@frozen
class Recovered:
    """What a repair that was cut short had done, and what of it could not be cleared away (a sentence each)."""

    changes: tuple[Change, ...]
    problems: tuple[str, ...]


def recover(writer: Writer, unfinished: Unfinished, keep: Callable[[Copy], str | None]) -> Recovered:
    """Clear away what a repair of one instance left; ``keep`` is given the contents that it had replaced."""
    changes, problems = [], []
    try:
        with closing(writer.chroot(unfinished.chroot)) as chroot:
            for step in reversed(unfinished.steps):  # what is inside a directory before the directory
                try:
                    for path in _elsewhere(step, unfinished.steps):
                        chroot.clear(_leftover(step, path), keep)
                    if chroot.clear(_leftover(step), keep):
                        changes.append(replace(step.change, outcome=DONE))
                except PathError as error:
                    problems.append(f"{unfinished.chroot.rstrip('/')}{error}")
    except AbsentError:
        pass  # what was in the chroot went with it
    except PathError as error:
        problems.append(f"the interrupted repair of {unfinished.instance} cannot be cleared up: {error}")
    return Recovered(changes=tuple(reversed(changes)), problems=tuple(problems))


def _elsewhere(step: Step, steps: Sequence[Step]) -> Iterator[str]:
    """Where a path also may be: below a directory that is still, or again, called by its temporary name.

    A directory that takes the place of something else is put before what belongs inside is staged there. A power cut
    can keep what is inside, and forget that the directory was put.
    """
    path = step.change.path
    for outer in steps:
        place = outer.change.path
        if outer.inode is not None and path.startswith(f"{place}/"):
            yield f"{os.path.dirname(place).rstrip('/')}/{outer.temporary}{path.removeprefix(place)}"


def _leftover(step: Step, elsewhere: str | None = None) -> Leftover:
    after = step.change.after
    return Leftover(
        path=elsewhere or step.change.path,
        temporary=step.temporary,
        staged=None if step.inode is None else step.inode[1],
        old=None if step.old is None else step.old[1],
        removes=after is None,
        makes=elsewhere is not None and after is not None and after.type is FileType.DIRECTORY,
    )
