"""How instances are: what a check found, whether they run, and what waits in their queues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chrootsync import daemons, procfs, providers
from chrootsync.model import Host, Instance, InstanceReport, PathError, UnreadableError
from chrootsync.model.frozen import replace
from chrootsync.model.queues import InstanceStatus, LastRepair, Listen, Master, Queues

QUEUE_TIMEOUT = 60.0  # seconds to list the queues of one instance


def look(
    host: Host,
    reports: Sequence[InstanceReport],
    repairs: Mapping[str, LastRepair],
    listen: Listen,
    before: Mapping[str, InstanceStatus],
) -> tuple[InstanceStatus, ...]:
    """How each instance is; in an image nothing runs, and no queue is asked for.

    ``before`` is how they were at an earlier look: the queues of what was down then and is down now are not asked for
    again, since Postfix logs a warning each time.
    """
    return tuple(_look(host, report, repairs, listen, before) for report in reports)


def _look(
    host: Host,
    report: InstanceReport,
    repairs: Mapping[str, LastRepair],
    listen: Listen,
    before: Mapping[str, InstanceStatus],
) -> InstanceStatus:
    instance = report.instance
    status = InstanceStatus(report=report, role=providers.role(instance), repair=repairs.get(instance.name))
    if host.run is None or instance.problem is not None:
        return status
    seen = master(host, instance)
    earlier = before.get(instance.name)
    if _is_down(seen) and earlier is not None and _is_down(earlier.master):
        return replace(status, master=seen, queues=earlier.queues)
    queues = ask(instance, listen)
    return replace(status, master=_with_answer(seen, queues), queues=queues)


def _is_down(seen: Master | None) -> bool:
    return seen is not None and seen.running is False


def _with_answer(seen: Master | None, queues: Queues | None) -> Master | None:
    """What is known of a master: where its file is not for us to read, its daemons' answer tells."""
    if seen is None or seen.running is not None or queues is None:
        return seen
    if queues.problem is None or queues.down:
        return replace(seen, running=not queues.down)
    return seen


def master(host: Host, instance: Instance) -> Master | None:
    """The master process, as the file tells that it leaves; None where there is no such file.

    Asking by ``postfix status`` would cost a shell, and a line in the log where the answer is no.
    """
    control = instance.control
    if control.pid_file is None or control.master is None:
        return None
    try:
        number = daemons.master_number(host.root, instance)
    except PathError:
        return Master()
    process = None if number is None else procfs.process(number)
    if process is None or process.name != control.master:
        return Master(running=False)
    return Master(running=True, pid=number, began=process.began)


def ask(instance: Instance, listen: Listen) -> Queues | None:
    """What waits in the queues of an instance; None where it has none."""
    reader = providers.queue_reader(instance)
    if reader is None:
        return None
    command = instance.control.queue
    try:
        done = listen(command, reader.see, timeout=QUEUE_TIMEOUT)
    except UnreadableError as error:
        return reader.queues(str(error))
    if done.code is None:
        return reader.queues(f"{command[0]} did not end within {QUEUE_TIMEOUT:.0f} seconds")
    if done.code != 0:
        said = done.output.strip().rpartition("\n")[2]
        return reader.queues(said or f"{command[0]} ended with status {done.code}")
    return reader.queues(None)
