"""Reloads instances after a repair, and makes sure that they live, that what is old ends and what is new stays."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from typing import TypeAlias, TypeVar

from chrootsync import daemons, maillog
from chrootsync.daemons import Running
from chrootsync.maillog import Log
from chrootsync.model import (
    Config,
    Host,
    Instance,
    OnChange,
    PathError,
    Record,
    Reload,
    Runner,
    UnreadableError,
)
from chrootsync.model.frozen import frozen, replace

OUTPUT_LIMIT = 4096
CLOCK_SLACK = 0.1  # seconds; starts of processes are counted in ticks of a hundredth, and the clock may be slewed
MOST_BACKOFF = 3600.0
PATIENCE = 2.0  # seconds that processes from before have to end, and new ones to come up
POLL = 0.02
STEADY = 0.1  # seconds that what begins anew has to last: what cannot read its configuration ends sooner
MOST_TEXT = 200  # characters of a line of the log

Result = TypeVar("Result")
Steps: TypeAlias = Generator[None, None, Result]
"""What comes to a result, step by step; each ends where there is something to wait for."""
Done: TypeAlias = tuple[Reload, Record]
"""What came of a reload, and what is to be remembered."""


@frozen
class Occasion:
    """When and for whom reloads are done: ``automatic`` is any trigger but a person's own command."""

    now: float
    automatic: bool
    config: Config


def together(reloads: Sequence[Steps[Result]]) -> list[Result]:
    """What all come to: commands are run one after the other, and what they do is waited for at the same time."""
    results: dict[int, Result] = {}
    left = dict(enumerate(reloads))
    while left:
        for number, steps in list(left.items()):
            try:
                next(steps)
            except StopIteration as end:
                results[number] = end.value
                del left[number]
        if left:
            time.sleep(POLL)
    return [results[number] for number in range(len(reloads))]


def reload(host: Host, instance: Instance, wanted: OnChange, record: Record, occasion: Occasion) -> Steps[Done]:
    """Reload (or restart) one instance if it runs; what came of it, and what is to be remembered.

    What cannot be done now is pending and said so: a reload that failed, one too soon after the last, and one while the
    instance's configuration is newer than its last start or reload, because an administrator is at work there. In an
    image nothing runs.
    """
    if wanted is OnChange.NOTHING and not still_due(host, instance, record):
        return Reload(needed=False), Record(last=record.last)
    due = pending(record, wanted, occasion.now)
    command = _command(instance, restart=due.restart)
    if host.run is None:
        return Reload(needed=False), record
    if command is None:
        return _left_to_people(instance, due), Record(last=record.last)
    try:
        if not _runs(host.run, instance, occasion):
            return Reload(needed=False, command=command), Record(last=record.last)
        # That took a while, in which somebody else may have done it.
        if wanted is OnChange.NOTHING and not still_due(host, instance, record):
            return Reload(needed=False, command=command), Record(last=record.last)
        reason = _reason_to_wait(host, host.run, instance, due, occasion)
        if reason is not None:
            return Reload(needed=True, pending=True, command=command, error=reason), due
        return (yield from _carry_out(host, host.run, instance, command, due, occasion))
    except PathError as error:
        failed = replace(due, failures=due.failures + 1, last=occasion.now)
        return Reload(needed=True, pending=True, command=command, error=str(error)), failed


def pending(record: Record, wanted: OnChange, now: float) -> Record:
    """The record with a reload (or restart) that is due from now on."""
    since = now if wanted is not OnChange.NOTHING or not record.pending else record.since
    return replace(record, pending=True, since=since, restart=record.restart or wanted is OnChange.RESTART)


def still_due(host: Host, instance: Instance, record: Record) -> bool:
    """Whether a pending reload has not been done by somebody else meanwhile, or by a restart."""
    if not record.pending:
        return False
    if host.run is None or instance.control.pid_file is None:
        return True
    try:
        started = _started(host, host.run, instance)
    except UnreadableError:
        return True
    # What does not run reads everything anew when it starts.
    return started is not None and started <= record.since + CLOCK_SLACK


def why_due(host: Host, instance: Instance) -> str:
    """What a check says of a reload that is still due: who does it."""
    newer = None if host.run is None else _newer_configuration(host, host.run, instance)
    return "still due after an earlier repair; check --fix does it" if newer is None else _being_edited(newer, instance)


def next_try(record: Record, config: Config) -> float:
    """When an automatic run will try again at the earliest, in seconds since the epoch."""
    return record.last + _interval(record, config)


def _interval(record: Record, config: Config) -> float:
    """How far apart automatic reloads are: after failures twice as far each time."""
    return min(config.reload_interval * 2.0**record.failures, max(config.reload_interval, MOST_BACKOFF))


def _command(instance: Instance, *, restart: bool) -> tuple[str, ...] | None:
    control = instance.control
    if restart:
        return ("/usr/bin/systemctl", "try-restart", control.unit) if control.unit is not None else None
    return control.reload or None


def _left_to_people(instance: Instance, due: Record) -> Reload:
    if not due.restart:
        return Reload(needed=False)
    reason = f"{instance.name} has to be restarted by hand: no unit is known for it"
    return Reload(needed=True, error=reason)


def _runs(run: Runner, instance: Instance, occasion: Occasion) -> bool:
    """Whether an instance runs. Raises UnreadableError where that cannot be told."""
    running, timeout = instance.control.running, occasion.config.reload_timeout
    if not running:
        return True
    code = run.run(running, timeout=timeout).code
    if code is None:
        raise UnreadableError(" ".join(running), f"did not end within {timeout:.0f} seconds")
    return code == 0


def _reason_to_wait(host: Host, run: Runner, instance: Instance, record: Record, occasion: Occasion) -> str | None:
    newer = _newer_configuration(host, run, instance)
    if newer is not None:
        return _being_edited(newer, instance)
    if not occasion.automatic:
        return None
    interval = _interval(record, occasion.config)
    wait = record.last + interval - occasion.now
    if 0 < wait <= interval:
        return f"{instance.name} was reloaded less than {interval:.0f} seconds ago; the next run does it"
    return None


def _being_edited(newer: str, instance: Instance) -> str:
    return f"{newer} was changed after the last start or reload; reload {instance.name} when it is complete"


def _newer_configuration(host: Host, run: Runner, instance: Instance) -> str | None:
    """The configuration file that is newer than the last start or reload, if any."""
    try:
        started = _started(host, run, instance)
    except UnreadableError:
        return None
    if started is None:
        return None
    for path in instance.control.watched:
        identity = host.root.state(path).identity
        if identity is not None and identity[4] / 1e9 > started + CLOCK_SLACK:
            return path
    return None


def _started(host: Host, run: Runner, instance: Instance) -> float | None:
    """When an instance last started or reloaded; None where it does not run, or nothing tells.

    Raises UnreadableError where it could be told with more rights.
    """
    number = daemons.master_number(host.root, instance)
    return None if number is None else run.started(number, instance.control.reborn)


def _carry_out(
    host: Host, run: Runner, instance: Instance, command: tuple[str, ...], due: Record, occasion: Occasion
) -> Steps[Done]:
    with ExitStack() as files:
        before = _before(host, instance, files)
        completed = run.run(command, timeout=occasion.config.reload_timeout)
        output = completed.output[-OUTPUT_LIMIT:]
        error = None
        if completed.code is None:
            error = f"{os.path.basename(command[0])} did not end within {occasion.config.reload_timeout:.0f} seconds"
        elif completed.code != 0:
            error = f"{' '.join(command)} ended with status {completed.code}"
        elif not _runs(run, instance, occasion):
            error = f"{instance.name} does not run any more after its reload; look at its log"
        if error is not None:
            failed = replace(due, failures=due.failures + 1, last=occasion.now)
            return Reload(needed=True, pending=True, command=command, error=error, output=output), failed
        trouble, seen = (None, ()) if before is None else (yield from _made_sure(host, instance, before))
    done = Reload(needed=True, done=True, command=command, error=trouble, output=output, seen=seen)
    return done, Record(last=occasion.now)


# --- What is made sure of afterwards ------------------------------------------------------------------------------


@frozen
class _Before:
    """What there was before a reload: the processes inside the chroot, the child that is to begin anew, the log."""

    processes: Sequence[Running]
    reborn: Running | None
    log: Log


def _before(host: Host, instance: Instance, files: ExitStack) -> _Before | None:
    """What there is now; None where nothing begins anew with a reload, or it could not be seen."""
    if instance.control.reborn is None or not host.root.live:
        return None
    log = maillog.begin(host, instance)
    files.enter_context(log.files)
    processes = daemons.chrooted(host.root, [instance]).get(instance.name, ())
    return _Before(processes=processes, reborn=daemons.reborn(host.root, instance), log=log)


def _made_sure(host: Host, instance: Instance, before: _Before) -> Steps[tuple[str | None, tuple[str, ...]]]:
    """What went wrong after a reload, if anything, and clauses on what was looked at.

    Neither a process that is finishing its job nor a log that cannot be found is wrong.
    """
    left = yield from _wait(host, instance, before)
    lines = before.log.lines()
    trouble = [line for line in lines or () if line.is_trouble]
    seen = ["the master runs"]
    if before.processes:
        labels = [one.label for one in left[:3]] + ([f"{len(left) - 3} more"] if len(left) > 3 else [])
        all_ended = "what ran inside the chroot has ended"
        seen.append(f"still finishing their jobs: {', '.join(labels)}" if left else all_ended)
    if lines is None:
        seen.append("its log was not found")
    elif not trouble:
        seen.append("its log has no fatal line since")
        return None, tuple(seen)
    if not trouble:
        return None, tuple(seen)
    more = f" (and {len(trouble) - 1} more lines)" if len(trouble) > 1 else ""
    first = f"{trouble[0].who}: {trouble[0].message}"[:MOST_TEXT]
    return f"its log says since the reload: {first}{more}; look there for what follows", tuple(seen)


def _wait(host: Host, instance: Instance, before: _Before) -> Steps[list[Running]]:
    """Wait, not for long, until what ran before has ended and what begins anew stays; gives what has not ended."""
    deadline = time.monotonic() + PATIENCE
    newest, since = before.reborn, deadline
    while True:
        left = [one for one in before.processes if daemons.lives(one)]
        anew, now = daemons.reborn(host.root, instance), time.monotonic()
        if anew is None or newest is None or anew[:3] != newest[:3]:
            newest, since = anew, deadline if anew is None else now
        if now >= deadline or (not left and now - since >= STEADY):
            return left
        yield
