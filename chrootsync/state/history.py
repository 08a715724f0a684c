"""What repairs did: their changes, what these mean for places and sources, and when they are forgotten."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING

from chrootsync.model import Reload, State
from chrootsync.model.frozen import frozen, replace
from chrootsync.model.memory import Change, Repair
from chrootsync.state import placed
from chrootsync.state.codec import (
    CHANGE_COLUMNS,
    CHANGE_VALUES,
    change_in,
    change_out,
    integer_in,
    number_in,
    path_out,
    reload_in,
    reload_out,
    state_in,
    state_out,
    text_in,
    text_out,
)
from chrootsync.state.recall import DONE, add_digest

if TYPE_CHECKING:
    from chrootsync.model.queues import LastRepair

DAY = 86400.0
UNDER_WAY = 3600.0  # a plan of the last hour may be one that another run is carrying out
LARGEST = 2**63 - 1

_ADD_CHANGE = (
    f"INSERT INTO changes (repair, root, placed, {CHANGE_COLUMNS}) "  # noqa: S608 -- names of columns
    f"VALUES (?, ?, ?, {CHANGE_VALUES})"
)
_CHANGES = f"SELECT {CHANGE_COLUMNS} FROM changes WHERE repair = ? ORDER BY id"  # noqa: S608 -- names of columns


@frozen
class Heading:
    """What is known of a repair from its begin."""

    began: float
    trigger: str
    version: str
    undoes: int | None = None


# --- Writing ------------------------------------------------------------------------------------------------------


def add_repair(connection: sqlite3.Connection, root: int, heading: Heading) -> int:
    """Begin a repair; gives its number."""
    cursor = connection.execute(
        "INSERT INTO repairs (root, began, trigger, version, undoes) VALUES (?, ?, ?, ?, ?)",
        (root, heading.began, text_out(heading.trigger), text_out(heading.version), heading.undoes),
    )
    return integer_in(cursor.lastrowid)


def add_changes(
    connection: sqlite3.Connection, root: int, repair: int, heading: Heading, changes: Sequence[Change]
) -> None:
    """Remember what a repair did, and what follows from it for the places and their sources."""
    for change in changes:
        done = change.outcome.status in DONE
        replaced = placed.of_replaced(connection, root, change) if done else None
        connection.execute(_ADD_CHANGE, (repair, root, replaced, *change_out(change)))
        if done:
            _take_for_known(connection, root, heading, change, replaced)


def _take_for_known(
    connection: sqlite3.Connection, root: int, heading: Heading, change: Change, replaced: str | None
) -> None:
    """What was put is the baseline from now on, and what the source has been; a hold outlives only its own rollback.

    ``replaced`` tells who had placed what was replaced.
    """
    place = (root, path_out(change.chroot), path_out(change.path))
    rollback = heading.undoes is not None  # what it brings back need never have been the source's
    if not (rollback and _is_held(connection, place, change.after)):
        connection.execute("DELETE FROM holds WHERE root = ? AND chroot = ? AND path = ?", place)
    if change.after is None:
        connection.execute("DELETE FROM baselines WHERE root = ? AND chroot = ? AND path = ?", place)
        return
    if heading.undoes is not None:
        by = placed.of_undone(connection, root, heading.undoes, change)
    else:
        by = placed.out(change, heading.began) if change.before is None else replaced
    connection.execute(
        "INSERT OR REPLACE INTO baselines (root, chroot, path, state, written, placed) VALUES (?, ?, ?, ?, ?, ?)",
        (*place, state_out(replace(change.after, identity=None)), heading.began, by),
    )
    if change.source is not None and change.after.sha256 is not None and not rollback:
        add_digest(connection, root, change.source, change.after.sha256)


def _is_held(connection: sqlite3.Connection, place: tuple[int, bytes, bytes], after: State | None) -> bool:
    """Whether what was put is what the hold of a place says that is restored there."""
    row = connection.execute("SELECT restored FROM holds WHERE root = ? AND chroot = ? AND path = ?", place).fetchone()
    if row is None:
        return False
    restored = None if row[0] is None else state_in(row[0])
    if restored is None or after is None:
        return restored is after
    return (restored.type, restored.sha256, restored.target) == (after.type, after.sha256, after.target)


def is_news(connection: sqlite3.Connection, root: int, change: Change) -> bool:
    """Whether a change is more than the same failure once again: a timer must not fill the history with it."""
    if change.outcome.status in DONE:
        return True
    newest = connection.execute(
        "SELECT status, reason FROM changes WHERE root = ? AND chroot = ? AND path = ? ORDER BY id DESC LIMIT 1",
        (root, path_out(change.chroot), path_out(change.path)),
    ).fetchone()
    return newest is None or newest != (change.outcome.status.value, text_out(change.outcome.reason))


def add_reload(connection: sqlite3.Connection, repair: int, instance: str, reload: Reload) -> None:
    """Remember what came of the reload that a repair made due."""
    connection.execute(
        "INSERT OR REPLACE INTO reloads (repair, instance, reload) VALUES (?, ?, ?)",
        (repair, text_out(instance), reload_out(reload)),
    )


def drop_if_empty(connection: sqlite3.Connection, repair: int) -> bool:
    """Forget a repair that planned nothing more and changed nothing; whether it was one.

    Its number is given back where it is the newest, or a failure that a timer meets again and again would use them up.
    """
    left = "SELECT 1 FROM changes WHERE repair = :repair UNION ALL SELECT 1 FROM steps WHERE repair = :repair LIMIT 1"
    if connection.execute(left, {"repair": repair}).fetchone() is not None:
        return False
    connection.execute("DELETE FROM repairs WHERE id = ?", (repair,))
    connection.execute("UPDATE sqlite_sequence SET seq = seq - 1 WHERE name = 'repairs' AND seq = ?", (repair,))
    return True


# --- Reading ------------------------------------------------------------------------------------------------------


def repairs(connection: sqlite3.Connection, root: int, limit: int) -> list[Repair]:
    """The newest repairs, newest first."""
    rows = connection.execute(
        "SELECT id, began, trigger, version, undoes FROM repairs WHERE root = ? ORDER BY id DESC LIMIT ?",
        (root, max(0, min(limit, LARGEST))),
    )
    return [_repair(connection, row) for row in rows.fetchall()]


def repair(connection: sqlite3.Connection, root: int, number: int) -> Repair | None:
    """The repair of that number, None where there is none."""
    if not 0 < number <= LARGEST:
        return None
    row = connection.execute(
        "SELECT id, began, trigger, version, undoes FROM repairs WHERE root = ? AND id = ?", (root, number)
    ).fetchone()
    return None if row is None else _repair(connection, row)


def last_repairs(connection: sqlite3.Connection, root: int) -> dict[str, LastRepair]:
    """By instance, the repair that last changed something for it."""
    from chrootsync.model.queues import LastRepair

    # Beside max(), SQLite takes the other columns from the row that has it.
    rows = connection.execute(
        "SELECT changes.instance, max(repairs.id), began, trigger, undoes FROM repairs "
        "JOIN changes ON changes.repair = repairs.id WHERE repairs.root = ? AND status IN (?, ?) "
        "GROUP BY changes.instance",
        (root, *DONE),
    )
    return {
        text_in(instance): LastRepair(
            id=integer_in(number), began=number_in(began), trigger=text_in(trigger), rollback=undoes is not None
        )
        for instance, number, began, trigger, undoes in rows
    }


def heading_of(connection: sqlite3.Connection, root: int, number: int) -> Heading | None:
    """How a repair began, None where there is none of that number."""
    found = repair(connection, root, number)
    if found is None:
        return None
    return Heading(began=found.began, trigger=found.trigger, version=found.version, undoes=found.undoes)


def _repair(connection: sqlite3.Connection, row: Sequence[object]) -> Repair:
    number, began, trigger, version, undoes = row
    reloads = connection.execute("SELECT instance, reload FROM reloads WHERE repair = ? ORDER BY instance", (number,))
    return Repair(
        id=integer_in(number),
        began=number_in(began),
        trigger=text_in(trigger),
        version=text_in(version),
        undoes=None if undoes is None else integer_in(undoes),
        changes=tuple(change_in(change) for change in connection.execute(_CHANGES, (number,))),
        reloads={text_in(instance): reload_in(reload) for instance, reload in reloads},
    )


# --- Forgetting ---------------------------------------------------------------------------------------------------


def prune(connection: sqlite3.Connection, root: int, *, days: float, repairs: int, now: float) -> None:
    """Forget repairs that began too long ago, those of this root beyond its newest, and holds that have expired."""
    connection.execute(
        "DELETE FROM repairs WHERE id NOT IN (SELECT repair FROM steps) AND (began < ? OR (root = ? AND id NOT IN "
        "(SELECT id FROM repairs WHERE root = ? ORDER BY id DESC LIMIT ?)))",
        (now - days * DAY, root, root, max(0, min(repairs, LARGEST))),
    )
    connection.execute("DELETE FROM holds WHERE until <= ?", (now,))


def kept_contents(connection: sqlite3.Connection, now: float) -> frozenset[str] | None:
    """Which kept contents something refers to; None where a run may be about to refer to more."""
    recent = "SELECT 1 FROM steps JOIN repairs ON repairs.id = steps.repair WHERE began > ? LIMIT 1"
    if connection.execute(recent, (now - UNDER_WAY,)).fetchone() is not None:
        return None
    rows = connection.execute(
        "SELECT kept FROM changes WHERE kept IS NOT NULL UNION SELECT kept FROM steps WHERE kept IS NOT NULL"
    )
    return frozenset(sha256 for (sha256,) in rows if isinstance(sha256, str))
