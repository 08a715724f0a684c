"""Compares what is to be installed with what is there, and carries it out. Nothing of others is ever touched."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from chrootsync.hooks.items import Facts, Item
from chrootsync.hooks.marks import Author, author, marked
from chrootsync.hooks.table import TARGETS, Target, hook
from chrootsync.root.settings import Found, Settings

EDITED = "was edited since chrootsync wrote it"
FOREIGN = "was not written by chrootsync"


class Action(Enum):
    """What is done about a path."""

    WRITE = "written"
    UPDATE = "updated"
    KEEP = "unchanged"
    REMOVE = "removed"
    REFUSE = "refused"


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What is done about a path, and with REFUSE why not."""

    item: Item
    action: Action
    reason: str = ""

    @property
    def path(self) -> str:
        """The path that this is about."""
        return self.item.path

    @property
    def changes(self) -> bool:
        """Whether something is written or removed."""
        return self.action in (Action.WRITE, Action.UPDATE, Action.REMOVE)


def installing(settings: Settings, targets: Sequence[Target], facts: Facts) -> list[Step]:
    """The steps that install targets, in order; what earlier ones wrote and these do not need goes.

    Raises UnreadableError, UnsafeError.
    """
    wanted = [hook(facts)] if any(target.calls for target in targets) else []
    wanted += [item for target in targets for item in target.items(facts)]
    paths = {item.path for item in wanted}
    stale = [item for target in targets for item in target.possible(facts) if item.path not in paths]
    removals = [step for step in _removing(settings, stale) if step.action is Action.REMOVE]
    return [*removals, *(_putting(settings, item) for item in wanted)]


def uninstalling(settings: Settings, targets: Sequence[Target], facts: Facts) -> list[Step]:
    """The steps that uninstall targets; the hook script goes with the last hook that calls it.

    Raises UnreadableError, UnsafeError.
    """
    going = [item for target in targets for item in target.possible(facts)]
    others = [target for target in TARGETS.values() if target.calls and target not in targets]
    still = any(_is_ours(settings.look(item.path), item) for target in others for item in target.possible(facts))
    if not still:
        going.append(hook(facts))
    return _removing(settings, going)


def apply(settings: Settings, steps: Iterable[Step]) -> Iterator[Step]:
    """Carry out steps, and give each that is done.

    Raises RepairError, UnsafeError, UnreadableError where one fails; those before it are done.
    """
    for step in steps:
        if step.action is Action.REMOVE:
            settings.remove(step.path)
            directory = os.path.dirname(step.path)
            if directory.endswith((".service.d", ".path.d", ".wants")) or directory == "/etc/chrootsync":
                settings.remove_directory(directory)
        elif step.changes and step.item.target is not None:
            settings.link(step.path, step.item.target)
        elif step.changes:
            settings.write(step.path, marked(step.item.text, step.item.comment), step.item.mode)
        if step.action is not Action.REFUSE:
            yield step


def _putting(settings: Settings, item: Item) -> Step:
    found = settings.look(item.path)
    if found is None:
        return Step(item=item, action=Action.WRITE)
    if _is_as_wanted(found, item):
        return Step(item=item, action=Action.KEEP)
    if _is_ours(found, item):
        return Step(item=item, action=Action.UPDATE)
    reason = f"{_not_ours(found)}; move it away, and what you need of it to a drop-in"
    return Step(item=item, action=Action.REFUSE, reason=reason)


def _removing(settings: Settings, items: Iterable[Item]) -> list[Step]:
    steps = []
    for item in items:
        found = settings.look(item.path)
        if found is None or _enables_another(found, item):
            continue
        if _is_ours(found, item):
            steps.append(Step(item=item, action=Action.REMOVE))
            continue
        reason = f"{_not_ours(found)}, and stays; remove it by hand"
        steps.append(Step(item=item, action=Action.REFUSE, reason=reason))
    return steps


def _not_ours(found: Found) -> str:
    """Why something is not ours any more, or never was."""
    return EDITED if found.data is not None and author(found.data) is Author.EDITED else FOREIGN


def _is_as_wanted(found: Found, item: Item) -> bool:
    if item.target is not None:
        return found.target == item.target
    return found.data == marked(item.text, item.comment) and found.mode == item.mode


def _enables_another(found: Found, item: Item) -> bool:
    """Whether a link enables a unit of the same name that somebody else has brought, as a package does."""
    return _is_ours(found, item) and item.target is not None and found.target != item.target


def _is_ours(found: Found | None, item: Item) -> bool:
    """Whether what is there may be replaced: a file by its mark, a link by the unit that it leads to."""
    if found is None:
        return False
    if item.target is not None:
        return found.target is not None and os.path.basename(found.target) == os.path.basename(item.path)
    return found.data is not None and author(found.data) is Author.OURS
