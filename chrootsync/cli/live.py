"""Shows how instances are again and again, on a screen of its own, until somebody ends it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console
from rich.live import Live
from rich.segment import Segment, Segments
from rich.text import Text

from chrootsync.cli import streams
from chrootsync.cli.streams import Ended
from chrootsync.model import ChrootsyncError, Code
from chrootsync.report import status_table

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderResult

    from chrootsync.model.queues import InstanceStatus
    from chrootsync.report.status import Overview

RESIZE = 0.1  # seconds between two looks at the size of the terminal

Look = Callable[[Mapping[str, "InstanceStatus"]], "Overview"]
"""Looks at everything; told how the instances were before."""


@dataclass(frozen=True, slots=True)
class _Screen:
    """What fits on the terminal, whatever its size is when it is drawn."""

    overview: Overview
    interval: float

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        when = self.overview.local(self.overview.report.generated)
        head = Text(f"chrootsync status, every {self.interval:g} s, {when}; ^C ends it\n", style="dim", overflow="fold")
        body = status_table.table(self.overview, max(options.max_width, status_table.LEAST))
        lines = [
            line for part in (head, body) for line in console.render_lines(part, options.update(height=None), pad=False)
        ]
        room = max(2, console.size.height)
        if len(lines) > room:
            left = Text(f"and {len(lines) - room + 1} lines more; make the terminal higher", style="bold")
            lines[room - 1 :] = console.render_lines(left, options.update(height=1), pad=False)
        for index, line in enumerate(lines):
            yield Segments(line if index == 0 else [Segment.line(), *line])


def show(look: Look, interval: float) -> NoReturn:
    """Look and show until ^C, which leaves the last look behind. Raises ChrootsyncError where the first look does."""
    overview = look({})
    console = Console(file=sys.stdout, no_color=not streams.in_color(), highlight=False)
    try:
        with Live(_Screen(overview, interval), console=console, screen=True, auto_refresh=False) as live:
            live.refresh()
            while True:
                _wait(live, console, interval)
                overview = _again(look, overview)
                live.update(_Screen(overview, interval), refresh=True)
    except KeyboardInterrupt:
        last = status_table.render(overview, width=console.size.width, color=streams.in_color())
        streams.write(last, Code.INTERRUPTED)
        raise Ended(Code.INTERRUPTED) from None


def _wait(live: Live, console: Console, interval: float) -> None:
    """Wait; where the terminal changes its size meanwhile, draw anew."""
    deadline, size = time.monotonic() + interval, console.size
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(RESIZE, left))
        if console.size != size:
            size = console.size
            live.refresh()


def _again(look: Look, overview: Overview) -> Overview:
    """Look again. Where that fails, as while somebody edits a file, the last look stays, with the reason."""
    try:
        return look({status.report.instance.name: status for status in overview.instances})
    except ChrootsyncError as error:
        reasons = tuple(f"this is how it was before: {line}" for line in str(error).splitlines())
        return replace(overview, report=replace(overview.report, notes=reasons))
