"""The watcher's story: changes settle, a pass looks at everything, and tells what to watch from then on."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from chrootsync.watch.ears import Changed, Ears
from chrootsync.watch.notify import Notifier
from chrootsync.watch.passes import Told, read
from chrootsync.watch.places import Places
from chrootsync.watch.quiet import Quiet

PASS_LIMIT = 600.0  # seconds that a pass may take
GRACE = 15.0  # seconds between SIGTERM and SIGKILL for one that takes longer
RETRY = 5.0  # seconds after a failed pass; twice as long after each further one, up to the interval
LAST = 0.8  # seconds that a pass gets to take back what it began when the watcher is to end
DEAF = 60.0  # seconds between full checks at most, where some changes are not heard of
SLACK = 0.2  # seconds later than a reload is due, lest the pass comes a moment too early
MENTIONED = 3  # directories in one sentence
CHANGE = b"\0"

OK, BUG = 0, 70  # exit statuses of the model, which is not loaded here
ERROR, WARNING, NOTICE, INFO = 3, 4, 5, 6  # levels of syslog(3)


class Pass(Protocol):
    """A pass under way, see ``process.Child``."""

    def fileno(self) -> int: ...
    def begin(self, word: bytes) -> None: ...
    def code(self) -> int | None: ...
    def report(self) -> bytes: ...
    def send(self, number: int) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """What the watcher does not make itself.

    ``version`` is ours. ``start`` starts a pass that waits for its word (raises OSError), ``listen`` gives ears and
    why they are not the best ones. ``tell`` logs a sentence with its level. ``clock`` is monotonic, in seconds;
    ``spread`` is a factor near 1, so that many machines do not work at the same moment. ``first`` are the places to
    watch before a pass has told better.
    """

    version: str
    start: Callable[[], Pass]
    listen: Callable[[Changed], tuple[Ears, str | None]]
    tell: Callable[[int, str], None]
    notifier: Notifier
    clock: Callable[[], float]
    spread: Callable[[], float]
    first: Callable[[], Places]


@dataclass(slots=True)
class _Plan:
    """When the next pass is due beside what changed; times of the clock, None for never."""

    interval: float = 3600.0
    full: float = 0.0
    retry: float | None = None
    reload: float | None = None
    failures: int = 0

    def due(self, changed: float | None) -> float:
        """The earliest of all."""
        return min(when for when in (self.full, self.retry, self.reload, changed) if when is not None)


@dataclass(slots=True)
class _Said:
    """What was said last, so that nothing is said twice in a row."""

    trouble: str | None = None
    deaf: dict[str, str] = field(default_factory=dict)
    status: str = ""
    logged: bytes = b""  # what the last pass knows of what it logged, for the next one


class Watcher:
    """Watches, and starts passes; ``run`` returns when ``stop`` was called, or another version should take over."""

    def __init__(self, world: World) -> None:
        """Prepare to run in ``world``."""
        self._world = world
        self._listening, self._bell = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._quiet = Quiet(0.5, 10.0)
        self._plan = _Plan()
        self._said = _Said()
        self._pass: Pass | None = None
        self._begun = False
        self._unready = False  # the last pass could not get ready
        self._limit = 0.0
        self._killed = False
        self._ping = 0.0
        self._stopping = False
        self._outdated = False
        self._asked = False  # a reload was asked for
        self._owed = False  # the manager waits for the end of a reload, which the next pass answers
        self._answering = False  # the pass under way does

    @property
    def outdated(self) -> bool:
        """Whether it ended because the passes are of another version by now, and it is to begin as that one."""
        return self._outdated and not self._stopping

    @property
    def bell(self) -> int:
        """A descriptor that wakes the watcher by whatever is written to it, for signal.set_wakeup_fd()."""
        return self._bell

    def stop(self) -> None:
        """End soon; may be called by a signal handler."""
        self._stopping = True

    def reload(self) -> None:
        """Look at everything now; may be called by a signal handler."""
        self._asked = True

    def run(self) -> int:
        """Watch until it is to end; the exit status."""
        world = self._world
        self._begin()
        code = OK
        while not (self._stopping or self._outdated):
            if not self._ears.works:
                world.tell(ERROR, "a thread that listens has ended, which is a bug in chrootsync; ending too")
                code = BUG
                break
            self._turn(world.clock())
        self._end()
        return code

    def _begin(self) -> None:
        world = self._world
        self._ears, reason = world.listen(self._changed)
        if reason is not None:
            world.tell(WARNING, f"there is no inotify ({reason}): looking every few seconds instead")
        self._watch(world.first())
        world.notifier.say(READY=1, STATUS="the first check is under way")
        self._plan.full = world.clock()

    # --- One turn -----------------------------------------------------------------------------------------------------

    def _turn(self, now: float) -> None:
        """Do what is due, then wait for what comes next."""
        self._answer(now)
        self._look_after_pass(now)
        if self._outdated:
            return
        self._start_pass(now)
        self._wait(self._wake_up(now) - now)

    def _answer(self, now: float) -> None:
        """Answer the manager: a reload that was asked for, and that the watcher lives."""
        notifier = self._world.notifier
        if self._asked:
            self._asked = False
            self._owed = True
            self._plan.full = now
            notifier.say(RELOADING=1, MONOTONIC_USEC=int(now * 1e6))
        if notifier.ping_every is not None and now >= self._ping:
            notifier.say(WATCHDOG=1)
            self._ping = now + notifier.ping_every

    def _look_after_pass(self, now: float) -> None:
        if self._pass is None:
            return
        code = self._pass.code()
        if code is not None:
            told = read(self._pass.report())
            self._pass.close()
            self._pass = None
            self._ended(now, code, told)
        elif self._begun and now >= self._limit:
            self._pass.send(signal.SIGKILL if self._killed else signal.SIGTERM)
            self._limit = now + GRACE
            self._killed = True

    def _start_pass(self, now: float) -> None:
        """Start one as soon as something changed: while that settles it gets ready; and let it begin when it is due."""
        due = self._plan.due(self._quiet.due)
        if self._pass is None:
            if due > now and (self._quiet.due is None or self._unready):
                return
            try:
                self._begun = self._killed = False
                self._pass = self._world.start()
            except OSError as error:
                self._failed(now, f"a pass cannot be started: {(error.strerror or str(error)).lower()}")
                return
        if not self._begun and due <= now:
            word = self._word(now)
            # Whatever changes from here on is for the next one; what changed before, this one will see.
            self._quiet.taken()
            self._plan.retry = self._plan.reload = None
            self._plan.full = now + self._plan.interval * self._world.spread()
            self._answering, self._owed = self._owed, False
            self._begun = True
            self._unready = False
            self._limit = now + PASS_LIMIT
            self._pass.begin(word)

    def _word(self, now: float) -> bytes:
        """What the pass is told: what is logged already and, where changes alone are the reason, when the last came.

        What it has looked at after that, while it waited for its word, need not be looked at again.
        """
        other = self._plan.due(None) <= now
        return self._said.logged if other else b"%s %.6f" % (self._said.logged, self._quiet.last)

    def _wake_up(self, now: float) -> float:
        """When to look again at the latest."""
        times = []
        if self._pass is None or not self._begun:
            times.append(self._plan.due(self._quiet.due))
        elif self._begun:
            times.append(self._limit)
        if self._world.notifier.ping_every is not None:
            times.append(self._ping)
        return max(now, min(times))

    def _wait(self, seconds: float) -> None:
        poll = select.poll()
        poll.register(self._listening, select.POLLIN)
        if self._pass is not None:
            poll.register(self._pass.fileno(), select.POLLIN)
        poll.poll(seconds * 1000 + 1)
        rung = b""
        with suppress(BlockingIOError):
            rung = os.read(self._listening, 1 << 16)
        if CHANGE in rung:
            self._quiet.noticed(self._world.clock())

    def _changed(self) -> None:
        """Something changed; called by another thread. A pipe that is full will wake the watcher all the same."""
        with suppress(BlockingIOError):
            os.write(self._bell, CHANGE)

    # --- After a pass -------------------------------------------------------------------------------------------------

    def _ended(self, now: float, code: int, told: Told | None) -> None:
        """Take in what a pass came to."""
        if told is None:
            after = f"did not end within {PASS_LIMIT:.0f} seconds" if self._killed else _how(code)
            self._failed(now, f"a pass {after}")
        else:
            self._take_in(now, told)
            self._reloaded()
            self._compare_versions(told)

    def _take_in(self, now: float, told: Told) -> None:
        plan = self._plan
        if told.settle is not None and told.maximum is not None and told.interval is not None:
            self._quiet.settle, self._quiet.maximum = told.settle, told.maximum
            if plan.interval != told.interval:
                plan.interval = told.interval
                plan.full = min(plan.full, now + told.interval * self._world.spread())
        if told.reload_in is not None:
            plan.reload = now + told.reload_in + SLACK
        if told.retry:
            self._retry_later(now)
        else:
            plan.failures = 0
        self._trouble("; ".join(told.problems) or None)
        self._said.status, self._said.logged = told.status, told.logged.encode()
        self._show()
        if self._watch(told.places):
            # What changed there before it was watched, nobody has heard of.
            self._quiet.noticed(now)
        if self._said.deaf:
            plan.full = min(plan.full, now + DEAF * self._world.spread())

    def _compare_versions(self, told: Told) -> None:
        """Make room for a version that was installed meanwhile: a pass of it may tell what this one does not know."""
        if told.version not in ("", self._world.version):
            self._outdated = True
            self._world.tell(NOTICE, f"chrootsync {told.version} was installed meanwhile; beginning anew as that one")

    def _failed(self, now: float, sentence: str) -> None:
        """A pass came to nothing: try again later, or as soon as something changes."""
        delay = self._retry_later(now)
        if not self._begun:
            # Whatever was due is for the next one, and that is not started by each change: it may not get ready either.
            self._unready = True
            self._quiet.taken()
            self._plan.full = max(self._plan.full, now + delay)
            self._plan.reload = None
            self._answering, self._owed = self._owed, False
        self._trouble(f"{sentence}; trying again every now and then, first in {delay:.0f} seconds")
        self._show()
        self._reloaded()

    def _reloaded(self) -> None:
        """Tell the manager that a reload has ended, if it waits for that."""
        if self._answering:
            self._answering = False
            self._world.notifier.say(READY=1)

    def _retry_later(self, now: float) -> float:
        delay = min(RETRY * 2.0**self._plan.failures, max(RETRY, self._plan.interval))
        self._plan.failures = min(self._plan.failures + 1, 16)
        self._plan.retry = now + delay
        return delay

    def _trouble(self, sentence: str | None) -> None:
        """Say what is wrong, once, and that it is over."""
        before, self._said.trouble = self._said.trouble, sentence
        if sentence is None and before is not None:
            self._world.tell(NOTICE, "passes work again as they should")
        elif sentence is not None and _gist(sentence) != _gist(before):
            self._world.tell(ERROR, sentence)

    def _show(self) -> None:
        parts = (self._said.status, self._said.trouble)
        self._world.notifier.say(STATUS="; ".join(part for part in parts if part))

    def _watch(self, places: Places) -> bool:
        """Watch these places; whether any is new."""
        armed = self._ears.watch(places)
        new = {directory: why for directory, why in armed.deaf.items() if self._said.deaf.get(directory) != why}
        for reason in sorted(set(new.values())):
            where = _some([directory for directory, why in new.items() if why == reason])
            self._world.tell(WARNING, f"changes in {where} are seen by a check every minute only: {reason}")
        self._said.deaf = armed.deaf
        return armed.fresh

    # --- The end ------------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        """End; a pass under way takes back what it began, and what it cannot in time is in its journal."""
        if not self.outdated:
            self._world.notifier.say(STOPPING=1)
        if self._pass is not None:
            self._pass.send(signal.SIGTERM)
            poll = select.poll()
            poll.register(self._pass.fileno(), select.POLLIN)
            poll.poll(LAST * 1000)
            self._pass.code()
            self._pass.close()
            self._pass = None
        self._ears.close()
        os.close(self._listening)
        os.close(self._bell)


def _how(code: int) -> str:
    """How a process ended that told nothing."""
    if code < 0:
        return f"was ended by signal {-code}"
    return f"ended with status {code}"


def _some(directories: list[str]) -> str:
    """Directories for people, of many the first."""
    more = len(directories) - MENTIONED
    return ", ".join(directories[:MENTIONED]) + (f" and {more} more" if more > 0 else "")


def _gist(sentence: str | None) -> str | None:
    """A sentence without what differs each time it is said."""
    return None if sentence is None else sentence.partition("; trying again")[0]
