"""What is seen of an instance beside its files: lookups inside its chroot, and processes that use what was replaced."""

from __future__ import annotations

from chrootsync.model.frozen import frozen
from chrootsync.model.words import Answer


@frozen
class Lookup:
    """One lookup, done inside the chroot and outside.

    ``what`` is the lookup as one would write it down (``getaddrinfo localhost``), the same in each run. ``inside`` and
    ``outside`` are the answers, or why there was none; the ``worked`` pair tells which of the two it is. ``advice`` is
    a clause on what to do where they differ. ``matters`` is true where daemons cannot get along with that difference.
    """

    what: str
    answer: Answer
    inside: str
    outside: str
    worked_inside: bool
    worked_outside: bool
    advice: str | None = None
    matters: bool = False


@frozen
class Probe:
    """What an instance's lookups came to; ``error`` tells why they did not come to their end, in one clause.

    ``lost`` names the lookups that worked before a repair and fail after it, while outside they work. ``asked`` is true
    where somebody asked for the probe: then each lookup that matters counts, else only what was lost. ``duration`` is
    in seconds.
    """

    lookups: tuple[Lookup, ...] = ()
    error: str | None = None
    lost: tuple[str, ...] = ()
    asked: bool = False
    duration: float = 0.0


@frozen
class StaleProcess:
    """A process of an instance that still uses what was replaced.

    ``daemon`` is its program's name, ``began`` is in seconds since the epoch. ``uses`` are the paths inside
    the chroot of files that it has mapped or read and that are others by now; ``why`` is one clause for people.
    """

    pid: int
    daemon: str
    began: float
    uses: tuple[str, ...]
    why: str


@frozen
class Retry:
    """Deferred messages that were tried again after a repair, because a name could not be looked up before.

    ``tried`` counts them, ``left`` those that are left to their own time. ``error`` is one clause on what went wrong.
    """

    tried: int = 0
    left: int = 0
    error: str | None = None
