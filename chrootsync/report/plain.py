"""Plain text, one line a drift: for pipes, mails and terminals without colour.

A line is ``SEVERITY KIND INSTANCE PATH: reason (rule)``, and after a repair ``-> outcome`` behind it. What is
indented belongs to the line above.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from chrootsync.report import text
from chrootsync.report.probe import sentences
from chrootsync.report.verdict import summary

if TYPE_CHECKING:
    from chrootsync.model import Finding, InstanceReport, Report
    from chrootsync.report import Options


def render(report: Report, options: Options) -> str:
    """The report as lines."""
    return "".join(f"{line}\n" for line in _lines(report, options))


def _lines(report: Report, options: Options) -> Iterator[str]:
    for instance in report.instances:
        if options.verbose:
            yield text.instance_line(instance)
        for finding in text.shown(instance, options):
            yield _drift(finding)
            if options.verbose and finding.drift.entry.rule.why:
                yield f"    why: {text.clean(finding.drift.entry.rule.why)}"
            for label, value in text.details(finding, report, options):
                yield f"    {label}: {value}"
            for line in text.difference(finding, options):
                yield f"    {line}"
        yield from _reload(instance, report, options)
        yield from sentences(instance)
        retried = text.retry_line(instance)
        if retried is not None:
            yield retried
    for note in report.notes:
        yield f"note: {text.clean(note)}"
    yield summary(report, strict=options.strict)


def _drift(finding: Finding) -> str:
    drift = finding.drift
    name = text.clean(drift.entry.instance.name)
    rule = text.clean(drift.entry.rule.id)
    became = text.outcome(finding)
    return (
        f"{drift.severity} {drift.kind} {name} {''.join(text.location(drift))}: {text.reason(drift)}"
        + (f" ({rule})" if rule else "")
        + (f" -> {became}" if became else "")
    )


def _reload(instance: InstanceReport, report: Report, options: Options) -> Iterator[str]:
    line = text.reload_line(instance, report)
    if line is None:
        return
    yield line
    for printed in text.reload_output(instance, options):
        yield f"    {printed}"
