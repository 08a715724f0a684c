"""Has deferred mail tried again after a repair: what waits because names could not be looked up, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from chrootsync.model import Host, Instance, InstanceReport, PathError, Retry, Runner, Status
from chrootsync.model.frozen import replace
from chrootsync.model.queues import Listen
from chrootsync.pipeline.status import ask, master

RETRY_TIMEOUT = 10.0  # seconds for one message


def retry(host: Host, reports: Sequence[InstanceReport], listen: Listen) -> tuple[InstanceReport, ...]:
    """The reports; where a repair went well, with what became of the messages that name errors had deferred."""
    return tuple(
        replace(report, retry=_retry(host, host.run, report.instance, listen))
        if host.run is not None and _is_due(report)
        else report
        for report in reports
    )


def _is_due(report: InstanceReport) -> bool:
    """Whether an instance was repaired, all of it, its daemons know, and lookups work."""
    became = [finding.outcome.status for finding in report.findings if finding.outcome is not None]
    reload = report.reload
    if reload.pending or reload.error is not None or (reload.needed and not reload.done):
        return False
    if report.probe is not None and report.probe.lost:
        return False
    done = {Status.REPAIRED, Status.SKIPPED}
    return set(became) <= done and (Status.REPAIRED in became or reload.done)


def _retry(host: Host, run: Runner, instance: Instance, listen: Listen) -> Retry | None:
    """Have messages tried again, one after the other: postqueue(1) takes one id a time.

    What does not run tries them all when it starts.
    """
    running = master(host, instance)
    if not instance.control.retry or (running is not None and running.running is False):
        return None
    queues = ask(instance, listen)
    if queues is None:
        return None
    if queues.problem is not None and not queues.retries:
        return Retry(error=queues.problem)
    tried = 0
    for message in queues.retries:
        error = _try(run, (*instance.control.retry, message))
        if error is not None:
            return Retry(tried=tried, left=queues.name_errors - tried, error=error)
        tried += 1
    return Retry(tried=tried, left=queues.name_errors - tried)


def _try(run: Runner, command: tuple[str, ...]) -> str | None:
    """Have one message tried again; what went wrong, in one clause."""
    try:
        done = run.run(command, timeout=RETRY_TIMEOUT)
    except PathError as error:
        return str(error)
    if done.code is None:
        return f"{' '.join(command)} did not end within {RETRY_TIMEOUT:.0f} seconds"
    return None if done.code == 0 else f"{' '.join(command)} ended with status {done.code}"
