"""What chrootsync remembers between runs, and the lock that keeps repairs apart.

``chrootsync.state.database`` is imported by what needs it, never from here: a quiet check of a root in sync must not
pay for SQLite.
"""

from chrootsync.state.cache import Store
from chrootsync.state.lock import is_held, lock
from chrootsync.state.marker import pending

__all__ = ["Store", "is_held", "lock", "pending"]
