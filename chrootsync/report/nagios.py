"""The output of a monitoring plugin, as the Monitoring Plugins guidelines want it: for Nagios, Icinga and others.

The first line has the state, what sums it up, and performance data behind a bar; what is wrong follows line by line,
the worst first, up to a few KB. The exit status is the plugin's, not that of the contract.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING

from chrootsync.model import Severity
from chrootsync.report import text
from chrootsync.report.troubles import troubles
from chrootsync.report.verdict import counts, failed, findings, repaired, summary, waiting

if TYPE_CHECKING:
    from chrootsync.model import Finding, InstanceReport, Report
    from chrootsync.report import Options

LIMIT = 4000  # bytes of all of it; Nagios reads 8 KiB, older NRPE 1 KiB, which the first line stays far below
FIRST = 400  # bytes of what sums it up

_ESCAPES = str.maketrans({character: f"\\x{ord(character):02x}" for character in '|<>&`$"'})
"""The bar ends a text; the others mean something to web pages, macros and shells that are shown it."""


class State(IntEnum):
    """The states of a service, by the exit status of a plugin."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


_STATES = {Severity.ERROR: State.CRITICAL, Severity.WARNING: State.WARNING, Severity.INFO: State.OK}
_RANKS = (State.OK, State.UNKNOWN, State.WARNING, State.CRITICAL)
"""From good to bad: what is known to be wrong tells more than what is not known."""


def render(report: Report, options: Options) -> str:
    """The report as the output of a plugin."""
    told = _cut(_escaped(summary(report, strict=options.strict)), FIRST)
    head = f"CHROOTSYNC {state(report, strict=options.strict).name} - {told} | {' '.join(_performance(report))}"
    return "".join(f"{line}\n" for line in _fitting(head, _problems(report, options)))


def state(report: Report, *, strict: bool) -> State:
    """The state of the service: drift is critical; a warning is one with ``strict``; without instances nobody knows."""
    if not report.instances:
        return State.UNKNOWN
    states = [_of_finding(finding, strict=strict) for finding in findings(report)]
    states += [_STATES[trouble.severity] for instance in report.instances for trouble in troubles(instance)]
    return max(states, key=_RANKS.index, default=State.OK)


def error(messages: Iterable[str]) -> str:
    """An error as the output of a plugin: nothing is known."""
    return f"CHROOTSYNC UNKNOWN - {_cut(_escaped('; '.join(map(text.clean, messages))), FIRST)}\n"


def _of_finding(finding: Finding, *, strict: bool) -> State:
    if repaired(finding):
        return State.OK
    if waiting(finding):
        return State.WARNING
    if failed(finding) or counts(finding):
        return State.CRITICAL
    return State.WARNING if counts(finding, strict=strict) else State.OK


# --- Lines --------------------------------------------------------------------------------------------------------


def _problems(report: Report, options: Options) -> list[str]:
    """A line for all that is wrong, the worst first."""
    found = [one for instance in report.instances for one in _of_instance(instance, strict=options.strict)]
    found += [(State.OK, f"note: {text.clean(note)}") for note in report.notes]
    return [line for _, line in sorted(found, key=lambda one: -_RANKS.index(one[0]))]


def _of_instance(instance: InstanceReport, *, strict: bool) -> Iterator[tuple[State, str]]:
    name = text.clean(instance.instance.name)
    for finding in instance.findings:
        drift = finding.drift
        if drift.severity is Severity.INFO or repaired(finding):
            continue
        became = text.outcome(finding)
        line = f"{drift.severity}: {drift.kind} {name} {''.join(text.location(drift))}: {text.reason(drift)}"
        yield _of_finding(finding, strict=strict), line + (f" - {became}" if became else "")
    for trouble in troubles(instance):
        if trouble.severity is Severity.INFO:
            continue
        yield _STATES[trouble.severity], f"{trouble.severity}: {trouble.topic} {name}: {trouble.reason}"


def _fitting(head: str, problems: Sequence[str]) -> Iterator[str]:
    """The first line and as many of the others as there is room for; how many more there are is said."""
    yield head
    room = LIMIT - len(head.encode()) - len("... and 1000000 more: chrootsync check\n")
    for number, problem in enumerate(map(_escaped, problems)):
        room -= len(problem.encode()) + 1
        if room < 0:
            yield f"... and {len(problems) - number} more: chrootsync check"
            return
        yield problem


def _escaped(line: str) -> str:
    """A clean text without what means something to those who show it."""
    return line.translate(_ESCAPES)


def _cut(line: str, most: int) -> str:
    encoded = line.encode()
    return line if len(encoded) <= most else encoded[: most - 3].decode(errors="ignore") + "..."


# --- Performance data ---------------------------------------------------------------------------------------------


def _performance(report: Report) -> Iterator[str]:
    """``'label'=value[unit];warning;critical;minimum``; a range of 0 means that anything else is too much."""
    found = findings(report)
    left = [finding for finding in found if not repaired(finding)]
    entries = sum(instance.entries for instance in report.instances)
    beside = [
        trouble
        for instance in report.instances
        for trouble in troubles(instance)
        if trouble.severity is not Severity.INFO
    ]
    yield f"'drift'={sum(map(counts, left))};;0;0"
    yield f"'warnings'={sum(one.drift.severity is Severity.WARNING for one in left)};;;0"
    yield f"'repaired'={sum(map(repaired, found))};;;0"
    yield f"'failed'={sum(map(failed, found))};;0;0"
    yield f"'reloads'={sum(one.topic == 'reload' for one in beside)};0;;0"
    yield f"'lookups'={sum(one.topic == 'probe' for one in beside)};0;;0"
    yield f"'stale'={sum(len(instance.stale) for instance in report.instances)};;;0"
    yield f"'instances'={len(report.instances)};;;0"
    yield f"'entries'={entries};;;0"
    yield f"'time'={report.duration:.3f}s;;;0"
