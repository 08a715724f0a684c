"""Whom files and nodes of a chroot should belong to."""

from __future__ import annotations

from functools import cached_property

from chrootsync import accounts
from chrootsync.model import Kind, Problem, Reader, Rule, State
from chrootsync.model.frozen import replace


class Owning:
    """Owners and groups as rules name them, in the numbers of one root."""

    def __init__(self, root: Reader) -> None:
        """Look names up in the account files of ``root``."""
        self._root = root
        self._own = max(root.owners)

    def numbers(self, rule: Rule) -> tuple[int, int] | Problem:
        """The user and the group that a rule gives its copies to; root's where it says nothing."""
        if rule.owner is None and rule.group is None:
            return 0, 0
        uid = self._number(self._users, rule.owner)
        gid = self._number(self._groups, rule.group)
        if uid is None or gid is None:
            name = rule.owner if uid is None else rule.group
            return Problem(kind=Kind.METADATA, reason=f"its rule wants it to belong to {name}, who is not known here")
        return uid, gid

    def owned(self, want: State, have: State | None) -> State:
        """Who runs this counts as root, as for the walk: where that is not root, nothing can be given to root."""
        own = self._own
        if own == 0:
            return want
        uid = have.uid if have is not None and have.uid in self._root.owners else own
        return replace(want, uid=uid if want.uid == 0 else want.uid, gid=None if want.gid == 0 else want.gid)

    def _number(self, known: dict[str, int], name: str | None) -> int | None:
        if name is None:
            return 0
        return int(name) if name.isdigit() else known.get(name)

    @cached_property
    def _users(self) -> dict[str, int]:
        return accounts.known(self._root, "/etc/passwd")

    @cached_property
    def _groups(self) -> dict[str, int]:
        return accounts.known(self._root, "/etc/group")
