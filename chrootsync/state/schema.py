"""The tables of the state database, and how those of earlier versions become them.

Every row belongs to a root, because one state directory may serve several. A step that was ever released is never
changed: what it lacks is a step of its own. Nothing here needs more than SQLite 3.26.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_CHANGE = """
    instance TEXT NOT NULL, chroot BLOB NOT NULL, path BLOB NOT NULL, source BLOB, rule TEXT NOT NULL,
    kind TEXT NOT NULL, package TEXT, before TEXT, after TEXT, status TEXT NOT NULL, reason TEXT NOT NULL, kept TEXT
"""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE roots (id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE)",
        """CREATE TABLE repairs (
            id INTEGER PRIMARY KEY AUTOINCREMENT, root INTEGER NOT NULL REFERENCES roots, began REAL NOT NULL,
            trigger TEXT NOT NULL, version TEXT NOT NULL)""",
        "CREATE INDEX repairs_of_root ON repairs (root, id)",
        f"""CREATE TABLE changes (
            id INTEGER PRIMARY KEY, repair INTEGER NOT NULL REFERENCES repairs ON DELETE CASCADE,
            root INTEGER NOT NULL REFERENCES roots, {_CHANGE})""",
        "CREATE INDEX changes_of_repair ON changes (repair, id)",
        "CREATE INDEX changes_of_place ON changes (root, chroot, path, id)",
        # What a repair plans for one chroot at a time is a plan. The key is the temporary's name, else the path.
        f"""CREATE TABLE steps (
            id INTEGER PRIMARY KEY, repair INTEGER NOT NULL REFERENCES repairs ON DELETE CASCADE,
            plan INTEGER NOT NULL, key BLOB NOT NULL, temporary BLOB NOT NULL, inode TEXT, old TEXT, {_CHANGE},
            UNIQUE (repair, plan, chroot, key))""",
        """CREATE TABLE baselines (
            root INTEGER NOT NULL REFERENCES roots, chroot BLOB NOT NULL, path BLOB NOT NULL, state TEXT NOT NULL,
            written REAL NOT NULL, PRIMARY KEY (root, chroot, path)) WITHOUT ROWID""",
        """CREATE TABLE sources (
            root INTEGER NOT NULL REFERENCES roots, source BLOB NOT NULL, identity TEXT NOT NULL,
            PRIMARY KEY (root, source)) WITHOUT ROWID""",
        """CREATE TABLE digests (
            id INTEGER PRIMARY KEY, root INTEGER NOT NULL REFERENCES roots, source BLOB NOT NULL,
            sha256 TEXT NOT NULL, UNIQUE (root, source, sha256))""",
        "CREATE INDEX digests_of_source ON digests (root, source, id)",
        # Which reloads are due; what came of those of a repair is in the table that is called reloads.
        """CREATE TABLE due (
            root INTEGER NOT NULL REFERENCES roots, instance TEXT NOT NULL, record TEXT NOT NULL,
            PRIMARY KEY (root, instance)) WITHOUT ROWID""",
        """CREATE TABLE reloads (
            repair INTEGER NOT NULL REFERENCES repairs ON DELETE CASCADE, instance TEXT NOT NULL, reload TEXT NOT NULL,
            PRIMARY KEY (repair, instance)) WITHOUT ROWID""",
    ),
    (
        "ALTER TABLE repairs ADD COLUMN undoes INTEGER",
        """CREATE TABLE holds (
            root INTEGER NOT NULL REFERENCES roots, chroot BLOB NOT NULL, path BLOB NOT NULL, since REAL NOT NULL,
            until REAL NOT NULL, repair INTEGER NOT NULL, source TEXT, restored TEXT,
            PRIMARY KEY (root, chroot, path)) WITHOUT ROWID""",
    ),
    (
        # Who put there, for whom and when, what stands where nothing was; NULL: not chrootsync, or nobody knows.
        "ALTER TABLE baselines ADD COLUMN placed TEXT",
        # The same of what a change replaced, for its rollback.
        "ALTER TABLE changes ADD COLUMN placed TEXT",
    ),
)

VERSION = len(MIGRATIONS)


def version_of(connection: sqlite3.Connection) -> int:
    """Which version of the schema a database has; 0 where it has none."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a database up to date, one version after the other, each wholly or not at all."""
    for version, statements in enumerate(MIGRATIONS, start=1):
        if version_of(connection) >= version:
            continue
        with transaction(connection, "IMMEDIATE"):
            for statement in statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {version}")


@contextmanager
def transaction(connection: sqlite3.Connection, kind: str) -> Iterator[None]:
    """Everything within takes effect, or nothing: ``DEFERRED`` for a consistent view, ``IMMEDIATE`` to write."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # some errors have rolled back already
            connection.execute("ROLLBACK")
        raise
