"""Metrics for the textfile collector of the node exporter, in the text format of Prometheus, version 0.0.4.

Names follow its conventions: base units, ``_total`` only for counters (a run has none), times as gauges. Labels are
the names of instances, kinds and severities, never paths: so their number has a limit. What Prometheus itself calls an
``instance`` is what it scrapes, so that the label is ``name``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from chrootsync.model.frozen import frozen
from chrootsync.report.text import clean
from chrootsync.report.verdict import (
    ReloadVerdict,
    Verdict,
    failed,
    reload_verdict,
    repaired,
    verdict,
    waiting,
)

if TYPE_CHECKING:
    from chrootsync.model import InstanceReport, Report
    from chrootsync.report import Options

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


@frozen
class _Metric:
    """A gauge with its samples: pairs of labels and a value."""

    name: str
    help: str
    samples: Sequence[tuple[Mapping[str, str], float]]


def render(report: Report, options: Options) -> str:
    """The report as a text file of metrics."""
    metrics = [*_of_the_run(report), *_of_instances(report, options)]
    return "".join(f"{line}\n" for metric in metrics if metric.samples for line in _lines(metric))


def _lines(metric: _Metric) -> Iterator[str]:
    name = f"chrootsync_{metric.name}"
    yield f"# HELP {name} {metric.help}"
    yield f"# TYPE {name} gauge"
    for labels, value in metric.samples:
        named = ",".join(f'{key}="{clean(text).translate(_ESCAPES)}"' for key, text in labels.items())
        yield f"{name}{{{named}}} {_number(value)}" if named else f"{name} {_number(value)}"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _of_the_run(report: Report) -> Iterator[_Metric]:
    yield _single("build_info", "Version of chrootsync that wrote this file.", 1, {"version": report.version})
    yield _single(
        "last_check_timestamp_seconds", "When the last check began, in seconds since the epoch.", report.generated
    )
    yield _single(
        "last_check_duration_seconds", "How long the last check took, repairs and reloads included.", report.duration
    )
    yield _single("instances", "Instances that were found.", len(report.instances))


def _single(name: str, help_text: str, value: float, labels: Mapping[str, str] | None = None) -> _Metric:
    return _Metric(name=name, help=help_text, samples=[(labels or {}, value)])


def _of_instances(report: Report, options: Options) -> Iterator[_Metric]:
    def each(name: str, help_text: str, values: Sequence[float | None]) -> _Metric:
        pairs = zip(report.instances, values, strict=True)
        samples = [({"name": one.instance.name}, value) for one, value in pairs if value is not None]
        return _Metric(name=name, help=help_text, samples=samples)

    several = report.instances
    good = {Verdict.IN_SYNC, Verdict.REPAIRED}
    yield each(
        "in_sync",
        "Whether an instance has no drift that counts (1) or some (0).",
        [int(verdict(one.findings, strict=options.strict) in good) for one in several],
    )
    yield each("entries", "Entries that were compared.", [one.entries for one in several])
    yield _Metric(name="drift", help="Drift that is left, by kind and severity.", samples=[*_drift(several)])
    yield each("repaired", "Entries that the last run repaired.", [sum(map(repaired, one.findings)) for one in several])
    yield each(
        "repairs_failed", "Repairs of the last run that failed.", [sum(map(failed, one.findings)) for one in several]
    )
    yield each(
        "repairs_waiting",
        "Repairs that wait for a package manager.",
        [sum(map(waiting, one.findings)) for one in several],
    )
    for became, help_text in (
        (ReloadVerdict.PENDING, "Whether a reload is due and not done yet."),
        (ReloadVerdict.FAILED, "Whether the last reload failed."),
    ):
        yield each(f"reload_{became}", help_text, [int(reload_verdict(one.reload) is became) for one in several])
    yield each("stale_processes", "Processes that still use what was replaced.", [len(one.stale) for one in several])
    yield each("probe_lookups", "Lookups that were tried inside and outside.", [_lookups(one) for one in several])
    yield each(
        "probe_failing",
        "Lookups whose answer inside is not good enough for daemons.",
        [_failing(one) for one in several],
    )
    yield each("probe_complete", "Whether the lookups came to their end.", [_complete(one) for one in several])


def _drift(instances: Sequence[InstanceReport]) -> Iterator[tuple[Mapping[str, str], float]]:
    for one in instances:
        left = [finding.drift for finding in one.findings if not repaired(finding)]
        counted = Counter((drift.kind, drift.severity) for drift in left)
        for (kind, severity), count in sorted(counted.items()):
            yield {"name": one.instance.name, "kind": kind, "severity": severity}, count


def _lookups(instance: InstanceReport) -> int | None:
    return None if instance.probe is None else len(instance.probe.lookups)


def _failing(instance: InstanceReport) -> int | None:
    if instance.probe is None:
        return None
    return sum(lookup.matters or lookup.what in instance.probe.lost for lookup in instance.probe.lookups)


def _complete(instance: InstanceReport) -> int | None:
    return None if instance.probe is None else int(instance.probe.error is None)
