"""Looks at what is wanted and at what is there, one need at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from chrootsync.inventory.files import FileLooker
from chrootsync.inventory.needs import FileNeed, Need, NodeNeed, Place, ProblemNeed, SurplusNeed, entry_at, problem_of
from chrootsync.inventory.nodes import NodeLooker
from chrootsync.inventory.owning import Owning
from chrootsync.model import Entry, FileType, PathError, Reader, Trust
from chrootsync.model.frozen import replace


class Looker:
    """Turns needs into entries with their states."""

    def __init__(self, root: Reader, trust: Trust) -> None:
        """Look through ``root``; what ``trust`` knows to be in sync is not read."""
        owning = Owning(root)
        self._root = root
        self._files = FileLooker(root, trust, owning)
        self._nodes = NodeLooker(root, owning)

    def look(self, need: Need) -> Sequence[Entry]:
        """The entries of one need."""
        if isinstance(need, FileNeed):  # as most are
            return self._files.look(need)
        match need:
            case ProblemNeed():
                return [entry_at(need.place, None, need.problem)]
            case NodeNeed():
                return [self._nodes.look(need)]
            case SurplusNeed():
                return [self._surplus(need.place)]
            case _:
                assert_never(need)

    def _surplus(self, place: Place) -> Entry:
        """What should not be there."""
        entry = replace(entry_at(place, None), surplus=True)
        try:
            copy = place.jail.chroot.look(place.path)
        except PathError as error:
            return replace(entry, problem=problem_of(error, place))
        have = copy.state
        if have is not None and have.type is FileType.FILE and (have.mode or 0) & 0o004:
            have = replace(have, sha256=self._root.sha256(copy))
        return replace(entry, have=have)
