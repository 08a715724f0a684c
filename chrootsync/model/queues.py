"""What waits in the queues of an instance, and how the instance is at all: what ``status`` tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from chrootsync.model.entries import InstanceReport
from chrootsync.model.frozen import field, frozen
from chrootsync.model.machine import Completed


class Listen(Protocol):
    """Runs a command and tells each line that it prints as it comes; ``Completed.output`` is its standard error."""

    def __call__(self, command: Sequence[str], hear: Callable[[bytes], None], *, timeout: float) -> Completed:
        """Raises UnreadableError where the program cannot be started."""
        ...


class QueueReader(Protocol):
    """Counts what the ``Control.queue`` of one instance prints."""

    def see(self, line: bytes) -> None:
        """Take one line of it, without the newline; of a very long one it may be only the beginning."""
        ...

    def queues(self, problem: str | None) -> Queues:
        """What the lines came to; ``problem`` tells why these were not all."""
        ...


@frozen
class Queues:
    """The messages in the queues of an instance.

    ``counts`` has the number of messages by the name of their queue. ``oldest_deferred`` is when the deferred message
    that waits longest arrived (seconds since the epoch). ``name_errors`` counts the deferred messages that wait because
    a name could not be looked up, ``retries`` are the first of their ids. ``problem`` tells in one clause why the
    counts are not complete, or why there are none; ``down``: because nobody answers.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    oldest_deferred: float | None = None
    name_errors: int = 0
    retries: tuple[str, ...] = ()
    problem: str | None = None
    down: bool = False


@frozen
class Master:
    """The master process of an instance; ``began`` is in seconds since the epoch. ``running`` None: cannot be told."""

    running: bool | None = None
    pid: int | None = None
    began: float | None = None


@frozen
class LastRepair:
    """The repair that last changed something for an instance; ``rollback``: it took another one back."""

    id: int
    began: float
    trigger: str
    rollback: bool = False


@frozen
class InstanceStatus:
    """How one instance is.

    ``role`` is submission, input, output, or empty where nothing tells. ``queues`` is None where there are none.
    """

    report: InstanceReport
    role: str = ""
    master: Master | None = None
    queues: Queues | None = None
    repair: LastRepair | None = None
