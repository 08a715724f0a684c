"""The table as text and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.goals import NOTES
from benchmarks.rows import Row

HEAD = ("work", "ours", "took", "peer", "took", "ratio", "quartiles", "goal", "")


def text(rows: Sequence[Row]) -> Iterator[str]:
    """Lines for a terminal; the work is named once."""
    table = [HEAD, *_cells(rows)]
    widths = [max(len(cells[column]) for cells in table) for column in range(len(HEAD))]
    for cells in table:
        yield "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
    yield ""
    yield from (f"[{number}] {NOTES[number]}" for number in _notes(rows))


def markdown(rows: Sequence[Row]) -> Iterator[str]:
    """The same for documentation."""
    yield f"| {' | '.join(HEAD)} |"
    yield "|---|---|---:|---|---:|---:|---|---:|---|"
    for cells in _cells(rows):
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield from (f"- [{number}] {NOTES[number]}" for number in _notes(rows))


def _notes(rows: Sequence[Row]) -> list[int]:
    return sorted({row.note for row in rows if row.note is not None})


def _cells(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    before = ""
    for row in rows:
        spread = "" if row.low is None or row.high is None else f"{number(row.low)}-{number(row.high)}"
        yield (
            row.work if row.work != before else "",
            row.ours,
            row.ours_took,
            row.peer + (f" [{row.note}]" if row.note else ""),
            row.peer_took,
            value(row) + (f" {row.unit}" if row.unit else ""),
            spread,
            "" if row.goal is None else f"<= {row.goal:g}",
            {None: "", True: "met", False: "NOT MET"}[row.met],
        )
        before = row.work


def value(row: Row) -> str:
    """What a row is about: a ratio, or what was counted."""
    counted = row.low is None and row.value == int(row.value)
    return f"{row.value:.0f}" if counted else number(row.value)


def number(value: float) -> str:
    """A number with three digits, as ratios are read."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"
