"""What is done with the database, and what becomes of errors: notes, and going on with less."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from chrootsync.state.opening import identity_of, set_same_aside, told
from chrootsync.state.schema import transaction
from chrootsync.state.trouble import TROUBLE, Place, Trouble, UnusableError, clause, is_bad, is_bad_to_write

T = TypeVar("T")

LOST = "nobody can tell what was changed by whom"


class Access:
    """A connection for as long as it serves. After an error that writing meets, it only reads; after others, nothing.

    ``trouble`` is a clause on the last error.
    """

    def __init__(
        self, place: Place | None, connection: sqlite3.Connection | None, notes: list[str], *, writable: bool
    ) -> None:
        """Without a connection nothing is remembered."""
        self._place = place
        self._connection = connection
        self._notes = notes
        self._writable = writable
        self._identity = None if place is None or connection is None else identity_of(place)
        self.trouble = "there is no usable database"

    @property
    def reads(self) -> bool:
        """Whether anything can be recalled."""
        return self._connection is not None

    @property
    def writes(self) -> bool:
        """Whether anything can be remembered."""
        return self._connection is not None and self._writable

    def read(self, work: Callable[[sqlite3.Connection], T], default: T) -> T:
        """What ``work`` finds in one consistent view; ``default`` where there is none."""
        if self._connection is None:
            return default
        try:
            with transaction(self._connection, "DEFERRED"):
                return work(self._connection)
        except TROUBLE as error:
            self._give_up(error, bad=is_bad(error))
            return default

    def write(self, work: Callable[[sqlite3.Connection], T], default: T) -> T:
        """What ``work`` gives after all that it did is on the disk; ``default`` where nothing of it is."""
        if self._connection is None or not self._writable:
            return default
        try:
            with transaction(self._connection, "IMMEDIATE"):
                return work(self._connection)
        except TROUBLE as error:
            self._give_up_writing(error)
            return default

    def close(self) -> None:
        """End the connection; afterwards nothing is remembered."""
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None

    def _give_up_writing(self, error: Trouble) -> None:
        if self._place is None or is_bad_to_write(error, self._place):
            self._give_up(error, bad=True)
            return
        self.trouble = clause(error)
        self._writable = False
        self._notes.append(f"{self._place.path}: cannot be written ({self.trouble}); this run is not remembered")

    def _give_up(self, error: Trouble, *, bad: bool) -> None:
        self.trouble = clause(error)
        self.close()
        if self._place is None:
            return
        path = self._place.path
        if not bad:
            self._notes.append(f"{path}: cannot be read ({self.trouble}), so that {LOST}")
        elif not self._writable:
            self._notes.append(f"{path}: is damaged ({self.trouble}), so that {LOST}; check --fix sets it aside")
        else:
            self._notes.append(self._set_aside(self._place))

    def _set_aside(self, place: Place) -> str:
        """Make room for a new database, which the next run makes; a sentence that says so."""
        try:
            name = set_same_aside(place, self._identity)
        except UnusableError as error:
            return str(error)
        except OSError as error:
            return f"{place.path}: is damaged ({self.trouble}) and cannot be set aside ({clause(error)}); move it away"
        if name is None:
            return f"{place.path}: was replaced during this run, which is not remembered"
        return told(place, f"is damaged ({self.trouble})", name)
