"""The table of ``status``: a line for each instance where the terminal is wide, else two.

It is drawn again and again by ``--watch``, so that its layout depends on the width and on what is in the cells alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from rich.cells import cell_len
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from chrootsync.model import Severity
from chrootsync.model.frozen import frozen
from chrootsync.report import status as words
from chrootsync.report.text import clean

if TYPE_CHECKING:
    from rich.console import RenderableType

    from chrootsync.model.queues import InstanceStatus
    from chrootsync.report.status import Overview

LEAST: Final = 60
"""A narrower terminal gets lines of this length, and wraps them."""

WIDE: Final = 120
"""From this many columns on, an instance has one line."""

GAP: Final = 2
STATE_LEAST: Final = 9

LONG: Final = ("ACTIVE", "DEFERRED", "OLDEST", "HOLD", "INCOMING", "NAME ERRORS")
MIDDLE: Final = (*LONG[:-1], "NAME ERR")
SHORT: Final = ("ACT", "DEFER", "AGE", "HOLD", "INC", "NAME ERR")
"""The heads of the columns that tell of queues."""

STATES: Final[Mapping[Severity | None, str]] = MappingProxyType(
    {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow", Severity.INFO: "", None: "green"}
)
HEAD: Final = "dim"


@frozen
class _Row:
    """The cells of one instance, or the heads of the columns."""

    name: Text
    role: Text
    chroot: Text
    up: Text
    state: Text
    queues: tuple[Text, ...]
    repair: Text


def render(overview: Overview, *, width: int, color: bool) -> str:
    """The table as text."""
    # Nothing about the output comes from the environment: a height keeps rich from asking the terminal.
    console = Console(
        width=max(width, LEAST),
        height=25,
        color_system="standard" if color else None,
        force_terminal=color,
        no_color=not color,
        highlight=False,
        legacy_windows=False,
        _environ={},
    )
    with console.capture() as capture:
        console.print(table(overview, max(width, LEAST)))
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def table(overview: Overview, width: int) -> Group:
    """The table, the notes beneath it, and the line that sums it up."""
    parts: list[RenderableType] = []
    if overview.instances:
        rows = [_row(status, overview) for status in overview.instances]
        parts = [*(_wide(rows, width) or _narrow(rows, width)), Text()]
    parts += [Text(note, overflow="fold") for note in words.notes(overview)]
    return Group(*parts, Text(words.total(overview), style="bold", overflow="fold"))


# --- Cells --------------------------------------------------------------------------------------------------------


def _row(status: InstanceStatus, overview: Overview) -> _Row:
    instance, now = status.report.instance, overview.report.generated
    up = words.up(status, now)
    return _Row(
        name=Text(clean(instance.name), style="bold"),
        role=Text(status.role),
        chroot=Text(clean(instance.chroot), style="dim"),
        up=Text(up, style="bold red" if up == words.DOWN else ""),
        state=Text(", ").join(Text(said, style=STATES[weight]) for said, weight in words.state(status.report)),
        queues=tuple(_queues(status, now)),
        repair=Text(words.repair(status, overview)),
    )


def _queues(status: InstanceStatus, now: float) -> Iterator[Text]:
    queues = status.queues
    yield _number(words.count(queues, "active"), "")
    yield _number(words.count(queues, "deferred"), "yellow")
    yield Text(words.oldest(queues, now))
    yield _number(words.count(queues, "hold"), "yellow")
    yield _number(words.count(queues, "incoming"), "")
    yield _number(words.name_errors(queues), "bold red")


def _number(shown: str, style: str) -> Text:
    """A count; nothing is nothing to worry about."""
    return Text(shown, style="dim" if shown == "0" else style)


def _heads(names: Sequence[str]) -> _Row:
    return _Row(
        name=Text("INSTANCE", style=HEAD),
        role=Text("ROLE", style=HEAD),
        chroot=Text("CHROOT", style=HEAD),
        up=Text("UP", style=HEAD),
        state=Text("STATE", style=HEAD),
        queues=tuple(Text(name, style=HEAD) for name in names),
        repair=Text("LAST REPAIR", style=HEAD),
    )


# --- Layout -------------------------------------------------------------------------------------------------------


def _wide(rows: Sequence[_Row], width: int) -> list[RenderableType]:
    """One line an instance; nothing where that would not fit."""
    if width < WIDE:
        return []
    for names in (LONG, SHORT):
        lines = [_one_line(row) for row in (_heads(names), *rows)]
        widths = [_widest(column) for column in zip(*lines, strict=True)]
        too_wide = max(0, _total(widths) - width)
        widths[4] = max(STATE_LEAST, widths[4] - too_wide)
        if _total(widths) <= width and (names is SHORT or not too_wide):
            return [_line(line, widths, numbers=range(5, 11)) for line in lines]
    return []


def _one_line(row: _Row) -> list[Text]:
    return [row.name, row.role, row.chroot, row.up, row.state, *row.queues, row.repair]


def _narrow(rows: Sequence[_Row], width: int) -> list[RenderableType]:
    """Two lines an instance: what it is and how it is, and beneath what is in its queues."""
    pairs = [_two_lines(row) for row in (_heads(MIDDLE), *rows)]
    upper = [_widest(column) for column in zip(*(above for above, _ in pairs), strict=True)]
    lower = [_widest(column) for column in zip(*(below for _, below in pairs), strict=True)]
    width = min(width, max(map(_total, (upper, lower))))
    # What fills the line, or gives way where it gets narrow: above the state, which is wrapped, and below the chroot.
    upper[3] = max(STATE_LEAST, upper[3] + width - _total(upper))
    lower[1] = max(STATE_LEAST, lower[1] + width - _total(lower))
    shown: list[RenderableType] = []
    for above, below in pairs:
        shown += [_line(above, upper, numbers=()), _line(below, lower, numbers=range(2, 8))]
    return shown


def _two_lines(row: _Row) -> tuple[list[Text], list[Text]]:
    return [row.name, row.role, row.up, row.state, row.repair], [Text(), row.chroot, *row.queues]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _widest(cells: Sequence[Text]) -> int:
    return max(cell_len(cell.plain) for cell in cells)


def _line(cells: Sequence[Text], widths: Sequence[int], *, numbers: Sequence[int]) -> Table:
    """One line, or several where a cell is wrapped."""
    grid = Table.grid(padding=(0, GAP, 0, 0), pad_edge=False)
    for index, width in enumerate(widths):
        grid.add_column(width=width, overflow="fold", justify="right" if index in numbers else "left")
    grid.add_row(*cells)
    return grid
