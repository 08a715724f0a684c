"""What lookups inside chroots came to: a few lines beneath another report, or a report of its own."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from chrootsync.model import Answer
from chrootsync.model.frozen import frozen
from chrootsync.report.text import clean, plural
from chrootsync.report.verdict import probe_failed

if TYPE_CHECKING:
    from typing import Any

    from chrootsync.model import InstanceReport, Lookup, Probe, Report

WIDE: Final = 132
"""From this many columns on, each answer has a column of its own."""

LEAST: Final = 60
GAP = "  "
ANSWERS: Final[Mapping[Answer, str]] = MappingProxyType(
    {Answer.SAME: "same", Answer.DIFFERS: "differs", Answer.FAILS_INSIDE: "fails inside"}
)


def sentences(instance: InstanceReport) -> list[str]:
    """What a report of a check says of the lookups of one instance: what is wrong, or that nothing is."""
    probe = instance.probe
    if probe is None:
        return []
    name = clean(instance.instance.name)
    if probe.error is not None:
        return [f"{name}: nothing was looked up inside the chroot: {clean(probe.error)}"]
    told = [f"{name}: {_sentence(one, probe)}" for one in probe.lookups if one.matters or one.what in probe.lost]
    return told or [f"{name}: {_summary(probe)}"]


def _sentence(lookup: Lookup, probe: Probe) -> str:
    what, inside, outside = clean(lookup.what), clean(lookup.inside), clean(lookup.outside)
    advice = f"; {clean(lookup.advice)}" if lookup.advice else ""
    if lookup.what in probe.lost:
        said = f"worked inside the chroot before this repair and fails now: {inside}; outside: {outside}"
    elif lookup.answer is Answer.FAILS_INSIDE:
        said = f"fails inside the chroot: {inside}; outside: {outside}"
    else:
        said = f"differs inside the chroot: {inside}; outside: {outside}"
    return f"{what} {said}{advice}"


def _summary(probe: Probe) -> str:
    """One clause on a probe in which nothing that matters is wrong."""
    if not probe.lookups:
        return "its daemons look nothing up inside the chroot"
    alike = [one for one in probe.lookups if one.answer is Answer.SAME]
    failing = sum(not one.worked_inside for one in alike)
    said = "gives inside the chroot what it gives" if len(alike) == 1 else "give inside the chroot what they give"
    beside = f" ({failing} {'fails' if failing == 1 else 'fail'} in both)" if failing else ""
    return f"{plural(len(alike), 'lookup')} {said} outside{beside}"


# --- A report of its own ------------------------------------------------------------------------------------------


@frozen
class _Row:
    """The cells of a lookup; ``notes`` are lines of their own."""

    what: str
    inside: str
    outside: str
    verdict: str
    notes: tuple[str, ...]

    def cells(self) -> tuple[str, ...]:
        return (self.verdict, self.what, self.inside, self.outside)


def table(report: Report, width: int) -> str:
    """For people: a block for each instance, the answers side by side where there is room."""
    width = max(width, LEAST)
    blocks = [list(_block(instance, width)) for instance in report.instances]
    lines = [line for block in blocks for line in (*block, "")]
    for told in (*(f"note: {clean(note)}" for note in report.notes), summary(report)):
        lines += _wrapped(told, width, "")
    return "".join(f"{line}\n" for line in lines)


def plain(report: Report) -> str:
    """One line a lookup: ``ANSWER INSTANCE LOOKUP: inside; outside: ...``."""
    lines = []
    for instance in report.instances:
        name, probe = clean(instance.instance.name), instance.probe
        if probe is None or probe.error is not None or not probe.lookups:
            lines += sentences(instance)
            continue
        for lookup, row in zip(probe.lookups, map(_row, probe.lookups), strict=True):
            notes = "".join(f"; {note}" for note in row.notes)
            lines.append(f"{lookup.answer} {name} {row.what}: {row.inside}; outside: {row.outside}{notes}")
    lines += [f"note: {clean(note)}" for note in report.notes]
    return "".join(f"{line}\n" for line in [*lines, summary(report)])


def as_json(report: Report) -> str:
    """For programs."""
    from chrootsync.report import json

    return json.dump(
        {
            "schema": json.SCHEMA,
            "version": report.version,
            "generated": json.utc(report.generated),
            "duration_ms": round(report.duration * 1000, 1),
            "notes": [clean(note) for note in report.notes],
            "instances": [_object(instance) for instance in report.instances],
        }
    )


def summary(report: Report) -> str:
    """One line on all lookups."""
    probes = [one.probe for one in report.instances if one.probe is not None]
    lookups = [lookup for probe in probes for lookup in probe.lookups]
    same = sum(one.answer is Answer.SAME for one in lookups)
    fail = sum(one.matters and one.answer is Answer.FAILS_INSIDE for one in lookups)
    differ = sum(one.matters and one.answer is Answer.DIFFERS for one in lookups)
    others = len(lookups) - same - fail - differ
    missed = sum(probe.error is not None for probe in probes)
    said = [
        f"{same} same" if same else "",
        f"{fail} {'fails' if fail == 1 else 'fail'} inside" if fail else "",
        f"{differ} {'differs' if differ == 1 else 'differ'}" if differ else "",
        f"{others} not the same, but daemons get along with that" if others else "",
        f"{plural(missed, 'instance')} not probed" if missed else "",
    ]
    seen = f"{plural(len(report.instances), 'instance')}, {plural(len(lookups), 'lookup')}"
    return f"{seen}: {', '.join(filter(None, said)) or 'nothing to look up'}"


def _object(instance: InstanceReport) -> dict[str, Any]:
    from chrootsync.report import json

    return {
        "name": clean(instance.instance.name),
        **json.path_fields("chroot", instance.instance.chroot),
        "failed": probe_failed(instance.probe),
        "probe": json.probe_object(instance.probe),
    }


def _block(instance: InstanceReport, width: int) -> Iterator[str]:
    """The lines of one instance."""
    probe = instance.probe
    yield f"{clean(instance.instance.name)}{GAP}{clean(instance.instance.chroot)}".rstrip()
    if probe is None or probe.error is not None or not probe.lookups:
        for said in sentences(instance):
            yield from _wrapped(said.partition(": ")[2], width, GAP)
        return
    rows = [_row(lookup) for lookup in probe.lookups]
    yield from _wide(rows, width) if width >= WIDE else _narrow(rows, width)


def _row(lookup: Lookup) -> _Row:
    notes = []
    if lookup.answer is Answer.SAME and not lookup.worked_inside:
        notes.append("it fails outside, too")
    elif lookup.answer is not Answer.SAME and not lookup.matters:
        notes.append("daemons get along with that")
    elif lookup.advice:
        notes.append(clean(lookup.advice))
    return _Row(
        what=clean(lookup.what),
        inside=clean(lookup.inside),
        outside=clean(lookup.outside),
        verdict=ANSWERS[lookup.answer],
        notes=tuple(notes),
    )


def _wide(rows: Sequence[_Row], width: int) -> Iterator[str]:
    """A line for each lookup, and its cells beneath each other where one is too long."""
    head = ("VERDICT", "LOOKUP", "INSIDE", "OUTSIDE")
    first, second = (max(len(head[at]), *(len(row.cells()[at]) for row in rows)) for at in (0, 1))
    second = min(second, width // 4)
    half = (width - first - second - 4 * len(GAP)) // 2
    widths = (first, second, half, half)
    yield _line(head, widths)
    for row in rows:
        columns = [_wrapped(cell, size, "") for cell, size in zip(row.cells(), widths, strict=True)]
        yield from _lines(columns, widths)
        for note in row.notes:
            indent = GAP + " " * (first + len(GAP))
            yield from _wrapped(note, width, indent)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return (GAP + GAP.join(f"{cell:<{size}}" for cell, size in zip(cells, widths, strict=True))).rstrip()


def _narrow(rows: Sequence[_Row], width: int) -> Iterator[str]:
    """Verdict, lookup and answer on one line where the answers are alike; else the answers beneath each other."""
    first = max(len(row.verdict) for row in rows)
    second = min(max(len(row.what) for row in rows), width // 2 - first)
    widths = (first, second, width - first - second - 3 * len(GAP))
    for row in rows:
        alike = row.inside == row.outside
        answers = (row.inside,) if alike else (f"inside:  {row.inside}", f"outside: {row.outside}")
        told = [line for answer in answers for line in _wrapped(answer, widths[2], "", "" if alike else " " * 9)]
        columns = [[row.verdict], _wrapped(row.what, widths[1], ""), told]
        yield from _lines(columns, widths)
        for note in row.notes:
            yield from _wrapped(note, width, GAP + " " * (first + len(GAP)))


def _lines(columns: Sequence[Sequence[str]], widths: Sequence[int]) -> Iterator[str]:
    """The lines of one row, whose cells may have several."""
    for at in range(max(map(len, columns))):
        yield _line([column[at] if at < len(column) else "" for column in columns], widths)


def _wrapped(text: str, width: int, indent: str, further: str | None = None) -> list[str]:
    """Lines of at most so many columns; a word that is longer is broken."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent if further is None else further,
        break_on_hyphens=False,
        drop_whitespace=True,
    ) or [indent]
