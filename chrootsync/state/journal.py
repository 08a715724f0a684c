"""The journal of a repair: what it is about to do, and what came of it, on the disk before anything else happens."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from chrootsync.model import Copy, Reload
from chrootsync.model.memory import Change, Step, Unfinished
from chrootsync.state import history
from chrootsync.state.access import Access
from chrootsync.state.codec import (
    CHANGE_COLUMNS,
    CHANGE_VALUES,
    change_in,
    change_out,
    integer_in,
    number_in,
    pair_in,
    pair_out,
    path_in,
    path_out,
)
from chrootsync.state.history import Heading
from chrootsync.state.kept import Keeper
from chrootsync.state.marker import set_marker

# Planned first, then written once more with what is known before it takes effect.
_AGAIN = ", ".join(f"{name} = excluded.{name}" for name in f"inode, old, {CHANGE_COLUMNS}".split(", "))
_PUT_STEP = (
    f"INSERT INTO steps (repair, plan, key, temporary, inode, old, {CHANGE_COLUMNS}) "  # noqa: S608 -- names of columns
    f"VALUES (?, ?, ?, ?, ?, ?, {CHANGE_VALUES}) ON CONFLICT (repair, plan, chroot, key) DO UPDATE SET {_AGAIN}"
)
_UNFINISHED = (
    f"SELECT repair, plan, began, temporary, inode, old, {CHANGE_COLUMNS} FROM steps "  # noqa: S608 -- likewise
    "JOIN repairs ON repairs.id = steps.repair WHERE repairs.root = ? ORDER BY repair, plan, steps.id"
)


class RepairJournal:
    """The journal of one run; implements Journal. ``id`` is its number, None until it has planned something."""

    def __init__(self, access: Access, keeper: Keeper, directory: str | None, root: int, heading: Heading) -> None:
        """Nothing is written before the first plan."""
        self.id: int | None = None
        self._access = access
        self._keeper = keeper
        self._directory = directory
        self._root = root
        self._heading = heading
        self._plans: dict[str, int] = {}  # the number of the plan that is open, by chroot, the newest last

    @property
    def remembers(self) -> bool:
        """Whether what was planned last is remembered."""
        return bool(self._plans) and self._access.writes

    def plan(self, steps: Sequence[Step]) -> None:
        """Remember which temporaries are about to be made in one chroot; on the disk when this returns."""
        if not steps:
            return
        planned = self._access.write(lambda connection: self._plan(connection, steps), None)
        if planned is not None:
            self.id, plan = planned
            for chroot in {step.change.chroot for step in steps}:
                self._plans.pop(chroot, None)
                self._plans[chroot] = plan

    def keep(self, copy: Copy) -> str | None:
        """Keep the contents of a copy that is about to be replaced; their checksum, None where they are not kept."""
        return self._keeper.keep(copy) if self._access.writes else None

    def intend(self, steps: Sequence[Step]) -> None:
        """Remember the inodes and states of planned steps before they take effect; on the disk when this returns."""
        if any(step.change.chroot not in self._plans for step in steps):
            self.plan(steps)
        elif steps:
            self._access.write(lambda connection: self._intend(connection, steps), None)

    def settle(self, changes: Sequence[Change]) -> None:
        """Remember what came of all planned steps: the plans of these chroots are over.

        Without any changes it is the newest plan that is over.
        """
        over = {change.chroot for change in changes} or set(list(self._plans)[-1:])
        plans = {self._plans[chroot] for chroot in over if chroot in self._plans}
        settled = self._access.write(lambda connection: self._settle(connection, changes, plans), None)
        if settled is not None:
            (self.id,) = settled
            self._plans = {chroot: plan for chroot, plan in self._plans.items() if plan not in plans}

    def reloaded(self, instance: str, reload: Reload) -> None:
        """Remember what came of the reload of an instance that was repaired."""
        repair = self.id
        if repair is not None:
            self._access.write(lambda connection: history.add_reload(connection, repair, instance, reload), None)

    def _plan(self, connection: sqlite3.Connection, steps: Sequence[Step]) -> tuple[int, int]:
        if self._directory is not None:
            set_marker(self._directory)
        repair = self.id or history.add_repair(connection, self._root, self._heading)
        (newest,) = connection.execute("SELECT max(plan) FROM steps WHERE repair = ?", (repair,)).fetchone()
        plan = 1 if newest is None else integer_in(newest) + 1
        for step in steps:
            _put_step(connection, repair, plan, step)
        return repair, plan

    def _intend(self, connection: sqlite3.Connection, steps: Sequence[Step]) -> None:
        if self.id is None:
            return
        for step in steps:
            _put_step(connection, self.id, self._plans[step.change.chroot], step)

    def _settle(self, connection: sqlite3.Connection, changes: Sequence[Change], plans: set[int]) -> tuple[int | None]:
        """Gives the number that the repair has afterwards: none where nothing is worth to be remembered of it."""
        news = [change for change in changes if history.is_news(connection, self._root, change)]
        repair = self.id
        if repair is None and news:
            repair = history.add_repair(connection, self._root, self._heading)
        if repair is None:
            return (None,)
        history.add_changes(connection, self._root, repair, self._heading, news)
        rows = [(repair, plan) for plan in plans]
        connection.executemany("DELETE FROM steps WHERE repair = ? AND plan = ?", rows)
        return (None if history.drop_if_empty(connection, repair) else repair,)


def _put_step(connection: sqlite3.Connection, repair: int, plan: int, step: Step) -> None:
    """Write a step down, or what is known of it by now. What has no temporary is known by its path."""
    connection.execute(
        _PUT_STEP,
        (
            repair,
            plan,
            path_out(step.temporary or step.change.path),
            path_out(step.temporary),
            pair_out(step.inode),
            pair_out(step.old),
            *change_out(step.change),
        ),
    )


# --- After a run that was cut short ---------------------------------------------------------------------------------


def unfinished(connection: sqlite3.Connection, root: int) -> list[Unfinished]:
    """The plans that were never settled, oldest first."""
    rows = connection.execute(_UNFINISHED, (root,))
    plans: dict[tuple[int, int, str, str], list[Step]] = {}
    begins: dict[int, float] = {}
    for repair, plan, began, temporary, inode, old, *change_row in rows:
        change = change_in(change_row)
        step = Step(change=change, temporary=path_in(temporary), inode=pair_in(inode), old=pair_in(old))
        begins[repair] = number_in(began)
        plans.setdefault((repair, plan, change.instance, change.chroot), []).append(step)
    return [
        Unfinished(repair=repair, began=begins[repair], instance=instance, chroot=chroot, steps=tuple(steps))
        for (repair, _, instance, chroot), steps in plans.items()
    ]


def recovered(connection: sqlite3.Connection, root: int, plan: Unfinished, changes: Sequence[Change]) -> None:
    """Remember what was found to have been done, as that of the repair that was cut short: its plan is over."""
    heading = history.heading_of(connection, root, plan.repair)
    if heading is None:
        return
    news = [change for change in changes if history.is_news(connection, root, change)]
    history.add_changes(connection, root, plan.repair, heading, news)
    connection.executemany(
        "DELETE FROM steps WHERE repair = ? AND chroot = ? AND key = ?",
        [
            (plan.repair, path_out(step.change.chroot), path_out(step.temporary or step.change.path))
            for step in plan.steps
        ],
    )
    history.drop_if_empty(connection, plan.repair)
