"""What is remembered of places in chroots, of sources and of reloads."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from chrootsync.model import FileType, Record, State, Status
from chrootsync.model.frozen import replace
from chrootsync.model.memory import Baseline, Hold, Memory, Spot
from chrootsync.state.codec import (
    GarbledError,
    integer_in,
    integers_in,
    integers_out,
    number_in,
    path_in,
    path_out,
    state_in,
    state_out,
    text_in,
    text_out,
)
from chrootsync.state.records import sane_records

MOST_DIGESTS = 1000  # of one source
RECENT = 7 * 86400.0  # what a repair put there longer ago says nothing about a tug-of-war
DONE = (Status.REPAIRED.value, Status.UNKNOWN.value)

_BASELINES = (
    "SELECT number, state, written FROM temp.spots CROSS JOIN baselines "
    "ON baselines.root = ? AND baselines.chroot = spots.chroot AND baselines.path = spots.path"
)
_HOLDS = (
    "SELECT number, since, until, repair, holds.source, restored FROM temp.spots CROSS JOIN holds "
    "ON holds.root = ? AND holds.chroot = spots.chroot AND holds.path = spots.path WHERE until > ?"
)
_CHANGES = (
    "SELECT number, after, undoes IS NOT NULL FROM temp.spots CROSS JOIN changes "
    "ON changes.root = ? AND changes.chroot = spots.chroot AND changes.path = spots.path "
    "CROSS JOIN repairs ON repairs.id = changes.repair WHERE status IN (?, ?) AND began > ? "
    "ORDER BY number, changes.id DESC"
)
_DIGESTS = (
    "SELECT digests.source, sha256 FROM (SELECT DISTINCT source FROM temp.spots WHERE source IS NOT NULL) AS wanted "
    "CROSS JOIN digests ON digests.root = ? AND digests.source = wanted.source"
)


# --- Places -------------------------------------------------------------------------------------------------------


def recall(connection: sqlite3.Connection, root: int, spots: Sequence[Spot], now: float) -> list[Memory]:
    """What is remembered of each spot; the cost does not grow with what is remembered of others."""
    _put_spots(connection, spots)
    baselines = {
        number: Baseline(state=_state(state), written=number_in(written))
        for number, state, written in connection.execute(_BASELINES, (root,))
    }
    holds = {number: _hold(row) for number, *row in connection.execute(_HOLDS, (root, now))}
    repaired = _repaired(connection.execute(_CHANGES, (root, *DONE, now - RECENT)))
    digests: dict[str, set[str]] = {}
    for source, sha256 in connection.execute(_DIGESTS, (root,)):
        digests.setdefault(path_in(source), set()).add(text_in(sha256))
    frozen = {source: frozenset(known) for source, known in digests.items()}
    return [
        Memory(
            baseline=baselines.get(number),
            digests=frozenset() if spot.source is None else frozen.get(spot.source, frozenset()),
            hold=holds.get(number),
            repaired=tuple(repaired.get(number, ())),
        )
        for number, spot in enumerate(spots)
    ]


def _put_spots(connection: sqlite3.Connection, spots: Sequence[Spot]) -> None:
    connection.execute(
        "CREATE TEMP TABLE IF NOT EXISTS spots (number INTEGER PRIMARY KEY, chroot BLOB, path BLOB, source BLOB)"
    )
    connection.execute("DELETE FROM temp.spots")
    rows = (
        (number, path_out(chroot), path_out(path), None if source is None else path_out(source))
        for number, (chroot, path, source) in enumerate(spots)
    )
    connection.executemany("INSERT INTO temp.spots VALUES (?, ?, ?, ?)", rows)


def _state(value: object) -> State:
    state = state_in(value)
    if state is None:
        raise GarbledError
    return state


def _hold(row: Sequence[object]) -> Hold:
    since, until, repair, source, restored = row
    return Hold(
        since=number_in(since),
        until=number_in(until),
        repair=integer_in(repair),
        source=None if source is None else text_in(source),
        restored=state_in(restored),
    )


def _repaired(rows: sqlite3.Cursor) -> dict[int, list[str | None]]:
    """What repairs put into each place, newest first, up to the last rollback."""
    found: dict[int, list[str | None]] = {}
    ended: set[int] = set()
    for number, after, rollback in rows:
        if rollback:
            ended.add(number)
        if number not in ended:
            state = state_in(after)
            is_file = state is not None and state.type is FileType.FILE
            found.setdefault(number, []).append(state.sha256 if state is not None and is_file else None)
    return found


def hold(connection: sqlite3.Connection, root: int, chroot: str, path: str, hold: Hold) -> None:
    """Remember that a place was rolled back by hand."""
    restored = None if hold.restored is None else state_out(replace(hold.restored, identity=None))
    source = None if hold.source is None else text_out(hold.source)
    connection.execute(
        "INSERT OR REPLACE INTO holds (root, chroot, path, since, until, repair, source, restored) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (root, path_out(chroot), path_out(path), hold.since, hold.until, hold.repair, source, restored),
    )


# --- Sources ------------------------------------------------------------------------------------------------------


def sources(connection: sqlite3.Connection, root: int) -> dict[str, tuple[int, ...]]:
    """The identity under which the checksum of each source was last recorded."""
    rows = connection.execute("SELECT source, identity FROM sources WHERE root = ?", (root,))
    return {path_in(source): integers_in(identity) for source, identity in rows}


def record_sources(connection: sqlite3.Connection, root: int, found: Mapping[str, tuple[tuple[int, ...], str]]) -> None:
    """Remember checksums of sources, with the identities that they had then."""
    for source, (identity, sha256) in found.items():
        connection.execute(
            "INSERT OR REPLACE INTO sources (root, source, identity) VALUES (?, ?, ?)",
            (root, path_out(source), integers_out(identity)),
        )
        add_digest(connection, root, source, sha256)


def add_digest(connection: sqlite3.Connection, root: int, source: str, sha256: str) -> None:
    """Count a checksum, as the newest, among those that a source is known to have had."""
    key = (root, path_out(source))
    connection.execute(
        "INSERT OR REPLACE INTO digests (root, source, sha256) VALUES (?, ?, ?)", (*key, text_out(sha256))
    )
    connection.execute(
        "DELETE FROM digests WHERE root = ? AND source = ? AND id <= (SELECT id FROM digests WHERE root = ? "
        "AND source = ? ORDER BY id DESC LIMIT 1 OFFSET ?)",
        (*key, *key, MOST_DIGESTS),
    )


# --- Reloads ------------------------------------------------------------------------------------------------------


def reloads(connection: sqlite3.Connection, root: int) -> dict[str, Record]:
    """What is remembered of each instance's reloads; what makes no sense is forgotten."""
    rows = connection.execute("SELECT instance, record FROM due WHERE root = ?", (root,))
    return sane_records({text_in(instance): _fields(record) for instance, record in rows})


def remember(connection: sqlite3.Connection, root: int, records: Mapping[str, Record]) -> None:
    """Let nothing but ``records`` be remembered of reloads."""
    connection.execute("DELETE FROM due WHERE root = ?", (root,))
    rows = [(root, text_out(name), json.dumps(asdict(record))) for name, record in records.items()]
    connection.executemany("INSERT INTO due (root, instance, record) VALUES (?, ?, ?)", rows)


def is_pending(connection: sqlite3.Connection) -> bool:
    """Whether any root has an unfinished plan, or a reload that is due."""
    if connection.execute("SELECT 1 FROM steps LIMIT 1").fetchone() is not None:
        return True
    rows = connection.execute("SELECT record FROM due")
    records = sane_records({number: _fields(record) for number, (record,) in enumerate(rows)})
    return any(record.pending for record in records.values())


def _fields(record: object) -> object:
    try:
        return json.loads(record) if isinstance(record, str) else None
    except (ValueError, RecursionError):
        return None
