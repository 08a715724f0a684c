"""``chrootsync status``: how the instances are, at a glance."""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from chrootsync import process
from chrootsync.cli import output, streams
from chrootsync.cli.check import look_once
from chrootsync.cli.compare import Wishes, open_memory
from chrootsync.cli.guard import guarded, stoppable
from chrootsync.cli.history import local
from chrootsync.cli.options import ConfigOption, FormatOption, Names, RootOption, RulesOption, StateOption
from chrootsync.cli.progress import Progress, progress
from chrootsync.cli.setup import Places, places, scene
from chrootsync.cli.streams import Ended
from chrootsync.model import ConfigError
from chrootsync.model.frozen import replace
from chrootsync.report.status import Overview
from chrootsync.report.verdict import exit_code

if TYPE_CHECKING:
    from chrootsync.model.queues import InstanceStatus

INTERVAL = 5.0
LEAST_INTERVAL = 0.5
DUMB = "dumb"
INSTEAD = "run status without it as often as you need it"


@guarded
def status(
    names: Names = None,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again and again on a terminal, until ^C.")] = False,
    interval: Annotated[
        float | None,
        typer.Option(
            "--interval", metavar="SECONDS", help="With --watch: how far apart; 5 where not told.", show_default=False
        ),
    ] = None,
    root: RootOption = "/",
    config: ConfigOption = None,
    rules: RulesOption = None,
    state: StateOption = None,
    format: FormatOption = None,  # noqa: A002 -- the name of the option
) -> None:
    """Tell how each instance is: role, chroot, whether it runs and is in sync, what waits in its queues.

    NAME ERRORS counts the deferred messages that wait because a name could not be looked up, OLDEST is the age of the
    oldest deferred one. Nothing is changed anywhere. Exit status 0: all in sync; 1: drift; 4: a reload is pending; 130:
    ^C ended --watch.

    \b
      chrootsync status          how is everything?
      chrootsync status out      and postfix-out?
      chrootsync status --watch  until ^C, every 5 seconds
    """
    shown_as = output.choose(format)
    pause = _interval(interval, watch=watch)
    where = places(root=root, config=config, rules=rules, state=state)
    if watch:
        _refuse_unseen(format)
        from chrootsync.cli import live

        with stoppable():
            live.show(lambda before: _look(where, names or (), Progress(), before), pause)
    with progress(quiet=False) as shown, stoppable():
        overview = _look(where, names or (), shown, {})
    code = exit_code(overview.report)
    streams.write(_rendered(overview, shown_as), code)
    raise Ended(code)


def _interval(seconds: float | None, *, watch: bool) -> float:
    if seconds is None:
        return INTERVAL
    if not watch:
        raise ConfigError("--interval: goes with --watch alone; add --watch, or leave it out")
    if math.isnan(seconds) or seconds < LEAST_INTERVAL:
        raise ConfigError(f"--interval {seconds:g}: must be a number of seconds from {LEAST_INTERVAL} on")
    return seconds


def _refuse_unseen(name: str | None) -> None:
    """Refuse to show again and again what nobody sees. Raises ConfigError."""
    if name not in (None, "table"):
        raise ConfigError(f"--watch: shows the table alone; leave out --format {name}")
    if not sys.stdout.isatty():
        raise ConfigError(f"--watch: standard output is not a terminal; {INSTEAD}")
    if os.environ.get("TERM", DUMB) in (DUMB, "unknown"):
        raise ConfigError(f"--watch: nothing can be drawn on this terminal (TERM); {INSTEAD}")


def _look(where: Places, names: Sequence[str], shown: Progress, before: Mapping[str, InstanceStatus]) -> Overview:
    """Look at everything once; ``before`` is how the instances were at the last look."""
    from chrootsync.pipeline.status import look

    clock = time.monotonic()
    with scene(where, names) as stage:
        report, _ = look_once(where, stage, Wishes(), shown, fix=False)
        with closing(open_memory(stage, time.time(), write=False)) as memory:
            repairs, notes = memory.last_repairs(), tuple(memory.notes)
        shown.say("asking for queues")
        instances = look(stage.host, report.instances, repairs, process.stream, before)
    notes = (*report.notes, *(note for note in notes if note not in report.notes))
    report = replace(report, notes=notes, duration=time.monotonic() - clock)
    return Overview(report=report, instances=instances, local=local, remembered=bool(repairs) or not memory.notes)


def _rendered(overview: Overview, shown_as: str) -> str:
    if shown_as == "json":
        from chrootsync.report import status_json

        return status_json.render(overview)
    if shown_as == "plain":
        from chrootsync.report.status import plain

        return plain(overview)
    from chrootsync.report import status_table

    return status_table.render(overview, width=shutil.get_terminal_size().columns, color=streams.in_color())
