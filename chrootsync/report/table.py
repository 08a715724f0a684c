"""The table for people at a terminal: what drifted, where, why, and what became of it.

Where the terminal is wide each fact has its column; else each instance has a block, and the reason stands beneath the
path. Nothing is cut off: what does not fit is folded. Every cell is a ``Text``: no file name is ever read as markup.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from chrootsync.model import Code, Remedy, Severity, Status
from chrootsync.model.frozen import frozen
from chrootsync.report import text
from chrootsync.report.probe import sentences
from chrootsync.report.verdict import (
    ReloadVerdict,
    Verdict,
    exit_code,
    findings,
    hint,
    probe_failed,
    reload_verdict,
    summary,
    verdict,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from chrootsync.model import Drift, Finding, InstanceReport, Report
    from chrootsync.report import Options

WIDE: Final = 132
"""From this many columns on, each fact gets a column of its own."""

SAMPLE: Final = 2
"""How many of a bundle are shown."""

LEAST: Final = 40
"""A narrower terminal gets lines of this length, and wraps them."""

SEVERITIES: Final[Mapping[str, str]] = MappingProxyType(
    {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow", Severity.INFO: "bold cyan"}
)
STATUSES: Final[Mapping[str, str]] = MappingProxyType(
    {
        Status.REPAIRED: "green",
        Status.FAILED: "bold red",
        Status.UNKNOWN: "bold red",
        Status.SKIPPED: "yellow",
        Status.WAITING: "yellow",
    }
)
VERDICTS: Final[Mapping[str, str]] = MappingProxyType(
    {Verdict.IN_SYNC: "green", Verdict.REPAIRED: "green", Verdict.DRIFT: "bold red", Verdict.FAILED: "bold red"}
)
RELOADS: Final[Mapping[str, str]] = MappingProxyType(
    {ReloadVerdict.DONE: "green", ReloadVerdict.PENDING: "yellow", ReloadVerdict.FAILED: "bold red"}
)


def render(report: Report, options: Options) -> str:
    """The report as a table with one row a drift, and its summary beneath."""
    # Nothing about the output comes from the environment: a height keeps rich from asking the terminal.
    console = Console(
        width=max(options.width, LEAST),
        height=25,
        color_system="standard" if options.color else None,
        force_terminal=options.color,
        no_color=not options.color,
        highlight=False,
        legacy_windows=False,
        _environ={},
    )
    with console.capture() as capture:
        for part in _parts(report, options):
            # A line with a command in it is left for the terminal to wrap, so that it is copied in one piece.
            whole = isinstance(part, Text) and bool(part.no_wrap)
            console.print(part, soft_wrap=whole, overflow="ignore" if whole else "fold")
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def _parts(report: Report, options: Options) -> Iterator[RenderableType]:
    if options.verbose:
        for instance in report.instances:
            yield Text(text.instance_line(instance))
        yield Text()
    rows = [row for instance in report.instances for row in _rows(instance, report, options)]
    if rows:
        yield from _wide(rows, report, options) if options.width >= WIDE else _narrow(rows)
    yield from _footer(report, options)


def _wide(rows: list[_Row], report: Report, options: Options) -> Iterator[RenderableType]:
    """One table; each fact has its column, and only the reason gives way where it gets narrow."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    ends = [part for row in rows for part in (row.end, *row.failure)]
    table.add_column("Instance", overflow="fold", width=min(24, _widest("Instance", [row.name for row in rows])))
    table.add_column("Kind", overflow="fold", width=_widest("(warning)", [row.kind for row in rows]))
    longest = _widest("Path", [row.full_path for row in rows])
    table.add_column("Path", overflow="fold", width=min(longest, options.width * 2 // 5))
    table.add_column("Why", overflow="fold")
    head = "Outcome" if report.fixed else "Remedy"
    table.add_column(head, overflow="fold", width=min(_widest(head, ends), options.width // 6))
    for _, block in groupby(rows, key=lambda row: id(row.instance)):
        for row in block:
            why = _stack([row.reason, *row.details])
            table.add_row(
                row.name, _stack([row.kind, *row.severity]), row.full_path, why, _stack([row.end, *row.failure])
            )
        table.add_section()
    yield table


def _narrow(rows: list[_Row]) -> Iterator[RenderableType]:
    """A block for each instance: kind, path and outcome on one line, the rest beneath."""
    kinds = _widest("", [part for row in rows for part in (row.kind, *row.severity)])
    ends = _widest("", [row.end for row in rows])
    for _, block in groupby(rows, key=lambda row: id(row.instance)):
        group = list(block)
        yield group[0].heading
        table = Table.grid(padding=(0, 2, 0, 0), expand=True, pad_edge=False)
        table.add_column(width=kinds, overflow="fold")
        table.add_column(ratio=1, overflow="fold")
        table.add_column(width=ends, overflow="fold")
        for row in group:
            what = _stack([row.path, *row.failure, row.reason, *row.details])
            table.add_row(_stack([row.kind, *row.severity]), what, row.end)
        yield Padding(table, (0, 0, 1, 2))


def _widest(least: str, cells: list[Text]) -> int:
    return max(map(cell_len, (least, *(cell.plain for cell in cells))))


def _rows(instance: InstanceReport, report: Report, options: Options) -> Iterator[_Row]:
    """The rows of an instance; a bundle of many that are alike is shown by its first ones, unless all are asked for."""
    found = text.shown(instance, options)
    more = {} if options.verbose else _more(found)
    hidden = {index + step for index, count in more.items() for step in range(1, count + 1)}
    for index, (finding, news) in enumerate(_with_news(found)):
        if index not in hidden:
            yield _row(instance, finding, report, options, news=news, more=more.get(index, 0))


def _more(found: list[Finding]) -> dict[int, int]:
    """How many findings behind one are told by it alone: in a bundle of alike ones, all behind the first ones."""
    more: dict[int, int] = {}
    start = 0
    for _, group in groupby(found, key=text.likeness):
        size = len(list(group))
        if size > text.BUNDLE:
            more[start + SAMPLE - 1] = size - SAMPLE
        start += size
    return more


def _with_news(found: list[Finding]) -> Iterator[tuple[Finding, bool]]:
    """Each finding, and whether it is the first of its rule: what the rule is for is told once."""
    told = set()
    for finding in found:
        rule = finding.drift.entry.rule.id
        yield finding, rule not in told
        told.add(rule)


@frozen
class _Row:
    """The cells of a drift, before they are laid out."""

    instance: InstanceReport
    name: Text
    kind: Text
    severity: list[Text]
    chroot: str
    inside: str
    reason: Text
    end: Text
    failure: list[Text]
    details: list[Text]

    @property
    def heading(self) -> Text:
        chroot = text.clean(self.instance.instance.chroot)
        return Text.assemble((self.name.plain, "bold"), (f"  {chroot}", "dim"))

    @property
    def path(self) -> Text:
        return Text(self.inside, style="bold")

    @property
    def full_path(self) -> Text:
        return Text.assemble((self.chroot, "dim"), (self.inside, "bold"))


def _row(
    instance: InstanceReport, finding: Finding, report: Report, options: Options, *, news: bool, more: int
) -> _Row:
    drift = finding.drift
    chroot, inside = text.location(drift)
    end = _end(finding, report)
    failure = text.clean(finding.outcome.reason) if finding.outcome else ""
    return _Row(
        instance=instance,
        name=Text(text.clean(instance.instance.name)),
        kind=Text(str(drift.kind), style=SEVERITIES[drift.severity]),
        # Colours are not for everybody, so that a warning says that it is one.
        severity=[] if drift.severity is Severity.ERROR else [Text(f"({drift.severity})", style="dim")],
        chroot=chroot,
        inside=inside,
        reason=Text(text.reason(drift)),
        end=end,
        failure=[Text(failure, style=end.style)] if failure else [],
        details=[*_details(finding, report, options, news=news), *_rest(drift, more)],
    )


def _rest(drift: Drift, more: int) -> list[Text]:
    if not more:
        return []
    directory = text.clean(drift.entry.path.rpartition("/")[0] or "/")
    return [Text(f"and {more} more in {directory}, the same with each (-v shows them)", style="bold")]


def _stack(parts: list[Text]) -> Text:
    return Text("\n", overflow="fold").join(parts)


def _end(finding: Finding, report: Report) -> Text:
    """What became of the finding or, where nothing was tried, what a repair would do."""
    if finding.outcome is not None:
        style = STATUSES[finding.outcome.status]
    elif text.needs_hand(finding):
        style = "yellow"
    else:
        style = "dim" if finding.drift.remedy is Remedy.NONE else ""
    return Text(text.end(finding, report), style=style)


def _details(finding: Finding, report: Report, options: Options, *, news: bool) -> Iterator[Text]:
    if news and finding.drift.entry.rule.why:
        yield Text(text.clean(finding.drift.entry.rule.why), style="dim")
    for label, value in text.details(finding, report, options):
        yield Text.assemble((f"{label} ", "dim"), value)
    for line in text.difference(finding, options):
        style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
        yield Text(line, style=style)


def _footer(report: Report, options: Options) -> Iterator[Text]:
    for instance in report.instances:
        line = text.reload_line(instance, report)
        if line is not None:
            yield Text(line, style=RELOADS.get(reload_verdict(instance.reload), ""), no_wrap=True)
            yield from (Text(f"    {printed}", no_wrap=True) for printed in text.reload_output(instance, options))
        style = "bold red" if probe_failed(instance.probe) else ""
        yield from (Text(said, style=style, no_wrap=True) for said in sentences(instance))
        retried = text.retry_line(instance)
        if retried is not None:
            yield Text(retried, no_wrap=True)
    for note in report.notes:
        yield Text.assemble(("note: ", "bold"), text.clean(note))
    yield Text(summary(report, strict=options.strict), style=_summary_style(report, options))
    if (said := hint(report)) is not None:
        yield Text(said, style="dim")


def _summary_style(report: Report, options: Options) -> str:
    if exit_code(report, strict=options.strict) == Code.RELOAD:
        return "bold yellow"
    if any(probe_failed(instance.probe) for instance in report.instances):
        return "bold red"
    return f"bold {VERDICTS[verdict(findings(report), strict=options.strict)]}"
