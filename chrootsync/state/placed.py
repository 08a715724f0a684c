"""Who put there what stands in a chroot: the repairs that put something where nothing was.

It belongs to a baseline, and is as true as that. It is kept when what was put is refreshed, for as long as what is
replaced is what was put; a change remembers it of what it replaced, so that a rollback restores it with the contents.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from chrootsync.model import FileType, State
from chrootsync.model.memory import Change, Placed
from chrootsync.state.codec import path_in, path_out, placer_in, placer_out, state_in

Places = dict[str, dict[str, list[str]]]
"""By root (its real path) and chroot the paths where something was put."""


def out(change: Change, began: float) -> str | None:
    """Who put there what a change made, as a column; only files and links are ever taken away again."""
    if change.after is None or change.after.type not in (FileType.FILE, FileType.LINK):
        return None
    return placer_out(change.instance, change.rule, began)


def of_replaced(connection: sqlite3.Connection, root: int, change: Change) -> str | None:
    """Who had placed what a change replaced; None where that was not what was put there."""
    row = connection.execute(
        "SELECT placed, state FROM baselines WHERE root = ? AND chroot = ? AND path = ?",
        (root, path_out(change.chroot), path_out(change.path)),
    ).fetchone()
    if row is None or row[0] is None or not _is_same(state_in(row[1]), change.before):
        return None
    return placer_out(*placer_in(row[0]))


def of_undone(connection: sqlite3.Connection, root: int, repair: int, change: Change) -> str | None:
    """Who had placed what a rollback of ``repair`` puts back."""
    row = connection.execute(
        "SELECT placed FROM changes WHERE repair = ? AND root = ? AND chroot = ? AND path = ? ORDER BY id DESC LIMIT 1",
        (repair, root, path_out(change.chroot), path_out(change.path)),
    ).fetchone()
    return None if row is None or row[0] is None else placer_out(*placer_in(row[0]))


def placed(connection: sqlite3.Connection, root: int, chroot: str) -> list[Placed]:
    """What was put into a chroot where nothing was, by path."""
    rows = connection.execute(
        "SELECT path, state, placed FROM baselines WHERE root = ? AND chroot = ? AND placed IS NOT NULL ORDER BY path",
        (root, path_out(chroot)),
    )
    found = []
    for path, column, placer in rows:
        state, (instance, rule, since) = state_in(column), placer_in(placer)
        if state is not None:
            found.append(Placed(path=path_in(path), state=state, instance=instance, rule=rule, since=since))
    return found


def places(connection: sqlite3.Connection) -> Places:
    """Where something was put, in every root."""
    rows = connection.execute(
        "SELECT roots.path, chroot, baselines.path FROM baselines JOIN roots ON roots.id = root "
        "WHERE placed IS NOT NULL ORDER BY 1, 2, 3"
    )
    found: Places = {}
    for root, chroot, path in rows:
        found.setdefault(path_in(root), {}).setdefault(path_in(chroot), []).append(path_in(path))
    return found


def disown(connection: sqlite3.Connection, root: int, chroot: str, paths: Sequence[str]) -> None:
    """Forget who put something at these paths: somebody else has changed or removed it."""
    connection.executemany(
        "UPDATE baselines SET placed = NULL WHERE root = ? AND chroot = ? AND path = ?",
        [(root, path_out(chroot), path_out(path)) for path in paths],
    )


def _is_same(state: State | None, before: State | None) -> bool:
    """Whether what was replaced is what had been written there; without a checksum nobody can tell."""
    if state is None or before is None or state.type is not before.type:
        return False
    if state.type is FileType.FILE:
        return state.sha256 is not None and state.sha256 == before.sha256
    return (state.target, state.device) == (before.target, before.device)
