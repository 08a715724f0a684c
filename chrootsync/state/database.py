"""The state database: baselines, sources, plans, history and kept contents.

It is a convenience. Whatever becomes of it, nothing here raises: what is lost is told by ``notes``, what is there stays
the same, and the run goes on without. Those who write run one at a time for each root; those who read need not wait.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from chrootsync.model import ChrootsyncError, Copy, Record
from chrootsync.model.memory import Change, Hold, Memory, Placed, Repair, Spot, Unfinished
from chrootsync.state import history, journal, placed, places, recall
from chrootsync.state.access import LOST, Access
from chrootsync.state.cache import Store
from chrootsync.state.codec import integer_in, path_out
from chrootsync.state.history import Heading
from chrootsync.state.journal import RepairJournal
from chrootsync.state.kept import Keeper
from chrootsync.state.marker import clear_marker, set_marker
from chrootsync.state.opening import open_to_read, open_to_write
from chrootsync.state.records import legacy_records
from chrootsync.state.trouble import TROUBLE, BadError, Place, UnusableError, clause

if TYPE_CHECKING:
    from chrootsync.model.queues import LastRepair

QUOTA = 256 << 20
READER_PATIENCE = 2.0
WRITER_PATIENCE = 5.0
LEGACY = "reloads.json"
NOWHERE = 0  # the number of a root of which nothing is remembered


def open_database(
    directory: str | None,
    root: str,
    *,
    write: bool,
    now: float,
    quota: int = QUOTA,
    patience: float | None = None,
) -> Database:
    """Open what is remembered in ``directory`` of the root with that real path.

    With ``write`` the database is made, brought up to date or set aside as it needs; without, nothing is changed.
    ``now`` is seconds since the epoch, ``quota`` the bytes that kept contents may have, ``patience`` the seconds to
    wait for who has the database locked.
    """
    if directory is not None:
        directory = os.path.abspath(directory)
    if patience is None:
        patience = WRITER_PATIENCE if write else READER_PATIENCE
    notes: list[str] = []
    keeper = Keeper(directory, quota, notes)
    if directory is None:
        access = Access(None, None, notes, writable=False)
        return Database(None, root, access, keeper, notes, now)
    place = Place(directory=directory, now=now, patience=patience)
    access = _to_write(place, notes) if write else _to_read(place, notes)
    return Database(directory, root, access, keeper, notes, now)


def _to_write(place: Place, notes: list[str]) -> Access:
    """Where there is no writing for now, reading will do."""
    try:
        return Access(place, open_to_write(place, notes), notes, writable=True)
    except UnusableError as error:
        notes.append(str(error))
    except BadError as error:
        notes.append(f"{place.path}: {error}, even though it is new; this run is not remembered")
    except TROUBLE as error:
        notes.append(f"{place.path}: cannot be written ({clause(error)}); this run is not remembered")
        with suppress(UnusableError, BadError):
            return Access(place, open_to_read(place), notes, writable=False)
    return Access(place, None, notes, writable=False)


def _to_read(place: Place, notes: list[str]) -> Access:
    connection = None
    try:
        connection = open_to_read(place)
    except UnusableError as error:
        notes.append(str(error))
    except BadError as error:
        notes.append(f"{place.path}: {error}, so that {LOST}; check --fix sets it aside")
    return Access(place, connection, notes, writable=False)


class Database:
    """What is remembered of one root; implements Memories. ``notes`` are sentences on what could not be."""

    def __init__(
        self, directory: str | None, root: str, access: Access, keeper: Keeper, notes: list[str], now: float
    ) -> None:
        """See open_database."""
        self.notes = notes
        self._directory = directory
        self._path = root
        self._access = access
        self._keeper = keeper
        self._now = now
        self._root = access.read(lambda connection: _number_of(connection, root), NOWHERE)
        self._known = self._root != NOWHERE
        if not self._known:
            self._root = access.write(lambda connection: _add_root(connection, root), NOWHERE)
        self._take_over()

    @property
    def fresh(self) -> bool:
        """Whether nothing is remembered of earlier runs."""
        return not self._known or not self._access.reads

    @property
    def writes(self) -> bool:
        """Whether anything can be remembered, as far as was seen."""
        return self._access.writes

    def try_to_write(self) -> bool:
        """Whether something can be remembered now."""
        update = "UPDATE roots SET path = path WHERE id = ?"

        def work(connection: sqlite3.Connection) -> bool:
            return connection.execute(update, (self._root,)).rowcount == 1

        return self._access.write(work, default=False)

    def close(self) -> None:
        """End the use of the database; small files tell without it what is pending, and where something was put."""
        self._access.write(self._update_files, None)
        self._access.close()

    # --- Places and sources ---------------------------------------------------------------------------------------

    def recall(self, spots: Sequence[Spot]) -> list[Memory]:
        """What is remembered of each spot, in their order."""
        nothing = [Memory() for _ in spots]
        if not spots:
            return nothing
        return self._access.read(lambda connection: recall.recall(connection, self._root, spots, self._now), nothing)

    def places(self) -> dict[str, list[str]]:
        """By chroot, the paths where repairs put something."""
        nothing: placed.Places = {}
        return self._access.read(placed.places, nothing).get(self._path, {})

    def placed(self, chroot: str) -> list[Placed]:
        """What repairs put into a chroot where nothing was, and what was not taken away again."""
        return self._access.read(lambda connection: placed.placed(connection, self._root, chroot), [])

    def disown(self, chroot: str, paths: Sequence[str]) -> None:
        """Forget, where anything can be remembered, that a repair put there what somebody else has changed since."""
        if paths:
            self._access.write(lambda connection: placed.disown(connection, self._root, chroot, paths), None)

    def sources(self) -> dict[str, tuple[int, ...]]:
        """The identity under which the checksum of each source was last recorded."""
        return self._access.read(lambda connection: recall.sources(connection, self._root), {})

    def record_sources(self, found: Mapping[str, tuple[tuple[int, ...], str]]) -> None:
        """Count checksums among those that their sources have had: source to identity and checksum."""
        if found:
            self._access.write(lambda connection: recall.record_sources(connection, self._root, found), None)

    def hold(self, chroot: str, path: str, hold: Hold) -> bool:
        """Leave a place alone that is rolled back by hand; whether that is remembered.

        It is released by what is settled there afterwards, unless that is what the hold says.
        """

        def work(connection: sqlite3.Connection) -> bool:
            recall.hold(connection, self._root, chroot, path, hold)
            return True

        return self._access.write(work, default=False)

    # --- Reloads --------------------------------------------------------------------------------------------------

    def reloads(self) -> dict[str, Record]:
        """What is remembered of each instance's reloads; what makes no sense is forgotten."""
        return self._access.read(lambda connection: recall.reloads(connection, self._root), {})

    def last_reloads(self) -> dict[str, float] | None:
        """By instance when it was last reloaded with success; None where a reload could not be remembered."""
        if not self.writes:
            return None
        return {name: record.last for name, record in self.reloads().items() if not record.failures}

    def remember(self, records: Mapping[str, Record]) -> None:
        """Keep what is to be remembered of reloads. Raises ChrootsyncError where a pending one would be lost."""
        wanted = {name: record for name, record in records.items() if record != Record()}
        if self._directory is None or wanted == self.reloads():
            return
        done = self._access.write(lambda connection: self._remember(connection, wanted), default=False)
        if not done and any(record.pending for record in wanted.values()):
            raise ChrootsyncError(
                f"{self._directory}: cannot keep in mind that a reload is due ({self._access.trouble}); reload by hand"
            )

    # --- Repairs --------------------------------------------------------------------------------------------------

    def begin(self, *, began: float, trigger: str, version: str, undoes: int | None = None) -> RepairJournal:
        """The journal of a repair, of which nothing is remembered before it plans something."""
        heading = Heading(began=began, trigger=trigger, version=version, undoes=undoes)
        return RepairJournal(self._access, self._keeper, self._directory, self._root, heading)

    def unfinished(self) -> list[Unfinished]:
        """The plans that were never settled, oldest first: their runs were cut short, or are still under way."""
        return self._access.read(lambda connection: journal.unfinished(connection, self._root), [])

    def recovered(self, unfinished: Unfinished, changes: Sequence[Change]) -> None:
        """Remember what was found to have been done of a plan, which is over with that."""
        self._access.write(lambda connection: journal.recovered(connection, self._root, unfinished, changes), None)

    def repairs(self, limit: int) -> list[Repair]:
        """The newest repairs, newest first."""
        return self._access.read(lambda connection: history.repairs(connection, self._root, limit), [])

    def repair(self, number: int) -> Repair | None:
        """The repair of that number; no number is used twice."""
        return self._access.read(lambda connection: history.repair(connection, self._root, number), None)

    def last_repairs(self) -> dict[str, LastRepair]:
        """By instance, the repair that last changed something for it."""
        return self._access.read(lambda connection: history.last_repairs(connection, self._root), {})

    def prune(self, *, days: float, repairs: int, now: float) -> None:
        """Forget repairs beyond that many days or newest repairs, with the contents that only they refer to.

        Unfinished plans and pending reloads stay, and so does what tells who wrote a copy.
        """
        wanted = self._access.write(
            lambda connection: _prune(connection, self._root, days=days, repairs=repairs, now=now), None
        )
        if wanted is not None:
            self._keeper.clean(wanted)

    # --- Kept contents --------------------------------------------------------------------------------------------

    def keep(self, copy: Copy) -> str | None:
        """Keep the contents of a copy; their checksum, None where they are not kept."""
        return self._keeper.keep(copy) if self._access.writes else None

    def kept(self, sha256: str) -> str | None:
        """Where contents are kept; None where they are gone, or are not what they were."""
        return self._keeper.path(sha256)

    # --- What these are made of -----------------------------------------------------------------------------------

    def _remember(self, connection: sqlite3.Connection, records: Mapping[str, Record]) -> bool:
        if self._directory is not None and any(record.pending for record in records.values()):
            set_marker(self._directory)
        recall.remember(connection, self._root, records)
        return True

    def _update_files(self, connection: sqlite3.Connection) -> None:
        """Within a transaction, so that no other run can begin something meanwhile."""
        if self._directory is not None:
            update = set_marker if recall.is_pending(connection) else clear_marker
            update(self._directory)
            places.write(Store(self._directory), placed.places(connection))

    def _take_over(self) -> None:
        """Take over what versions without a database remembered of reloads."""
        path = os.path.join(self._directory or "", LEGACY)
        if not self._access.writes or not os.path.lexists(path):
            return
        with suppress(ChrootsyncError):  # then it is tried again the next time
            self.remember(legacy_records(path) | self.reloads())
        if self._access.writes:
            with suppress(OSError):
                os.unlink(path)


def _number_of(connection: sqlite3.Connection, root: str) -> int:
    row = connection.execute("SELECT id FROM roots WHERE path = ?", (path_out(root),)).fetchone()
    return NOWHERE if row is None else integer_in(row[0])


def _add_root(connection: sqlite3.Connection, root: str) -> int:
    connection.execute("INSERT OR IGNORE INTO roots (path) VALUES (?)", (path_out(root),))
    return _number_of(connection, root)


def _prune(
    connection: sqlite3.Connection, root: int, *, days: float, repairs: int, now: float
) -> frozenset[str] | None:
    history.prune(connection, root, days=days, repairs=repairs, now=now)
    return history.kept_contents(connection, now)
