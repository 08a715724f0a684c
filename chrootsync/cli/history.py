"""``chrootsync history``: what was repaired, when and why."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from chrootsync import pipeline
from chrootsync.cli import output, streams
from chrootsync.cli.compare import open_memory
from chrootsync.cli.guard import guarded
from chrootsync.cli.options import ConfigOption, FormatOption, RootOption, RulesOption, StateOption
from chrootsync.cli.setup import Places, Scene, places, scene
from chrootsync.model import ChrootsyncError, ConfigError
from chrootsync.model.frozen import replace

if TYPE_CHECKING:
    from chrootsync.model.memory import Repair
    from chrootsync.report.history import History
    from chrootsync.state.database import Database

NEWEST = 20
ALL = sys.maxsize


@guarded
def history(
    number: Annotated[
        int | None, typer.Argument(metavar="[ID]", help="Tell all of this repair.", show_default=False)
    ] = None,
    *,
    limit: Annotated[
        int, typer.Option("--limit", min=0, metavar="N", help="List so many repairs, the newest first; 0: all.")
    ] = NEWEST,
    root: RootOption = "/",
    config: ConfigOption = None,
    rules: RulesOption = None,
    state: StateOption = None,
    format: FormatOption = None,  # noqa: A002 -- the name of the option
) -> None:
    """List what was repaired, when and by whose call; with ID tell all of one repair.

    Nothing is changed anywhere. Exit status 2: there is no such repair; 3: what is remembered cannot be read.

    \b
      chrootsync history            what was repaired lately?
      chrootsync history 12         what did repair 12 do, to which path, and why?
      chrootsync history --limit 0  everything that is remembered
    """
    shown_as = output.choose(format)
    where = places(root=root, config=config, rules=rules, state=state)
    with scene(where) as stage, closing(open_memory(stage, time.time(), write=False)) as memory:
        said = _list(stage, memory, limit, shown_as) if number is None else _tell(stage, memory, number, shown_as)
        notes = tuple(memory.notes)
    streams.tell(notes)
    streams.write(said)


def _list(stage: Scene, memory: Database, limit: int, shown_as: str) -> str:
    from chrootsync.report import history as histories
    from chrootsync.report import history_json

    found = memory.repairs(limit + 1 if limit else ALL)
    if not found:
        refuse_unreadable(stage, memory)
    shown = found[:limit] if limit else found
    told = told_of(stage, memory, shown)
    if shown_as == "json":
        return history_json.render(told, [with_contents(memory, one) for one in shown], notes=memory.notes)
    if shown_as == "plain":
        return histories.listing(told)
    return histories.listing(told, width=shutil.get_terminal_size().columns, more=len(found) > len(shown))


def _tell(stage: Scene, memory: Database, number: int, shown_as: str) -> str:
    from chrootsync.report import history as histories
    from chrootsync.report import history_json

    repair, since = find(stage, memory, number)
    repair = with_contents(memory, repair)
    told = told_of(stage, memory, since)
    if shown_as == "json":
        return history_json.render(told, [repair], notes=memory.notes)
    return histories.single(told, repair)


def lately(where: Places) -> History | None:
    """The newest repairs, for a report that tells of them; None where they cannot be remembered or read."""
    try:
        with scene(where) as stage, closing(open_memory(stage, time.time(), write=False)) as memory:
            found = memory.repairs(NEWEST)
            unreadable = stage.store.directory is None or (not found and memory.notes)
            return None if unreadable else told_of(stage, memory, found)
    except ChrootsyncError:  # whatever keeps it from being told has been told by the run itself
        return None


# --- For the other verb that looks back ---------------------------------------------------------------------------


def find(stage: Scene, memory: Database, number: int) -> tuple[Repair, list[Repair]]:
    """A repair, and all repairs since, the newest first and itself included. Raises ConfigError, ChrootsyncError."""
    newest = next(iter(memory.repairs(1)), None)
    if newest is None:
        refuse_unreadable(stage, memory)
        raise ConfigError(f"there is no repair {number} here; none is remembered yet")
    if number <= newest.id:
        # Numbers may have gaps: there are at most so many repairs since.
        since = [repair for repair in memory.repairs(newest.id - number + 1) if repair.id >= number]
        if since and since[-1].id == number:
            return since[-1], since
    raise ConfigError(f"there is no repair {number} here; the newest is {newest.id}")


def refuse_unreadable(stage: Scene, memory: Database) -> None:
    """Raise ChrootsyncError where nothing is remembered because it cannot be."""
    if stage.store.directory is None:
        raise ChrootsyncError("of an image nothing is remembered without --state; name the directory that repairs used")
    if memory.notes:
        raise ChrootsyncError(memory.notes[0])


def with_contents(memory: Database, repair: Repair) -> Repair:
    """The repair as it can be taken back now: contents that were kept may have been too old, or too many, since."""

    def kept(digest: str | None) -> bool:
        return digest is not None and memory.kept(digest) is not None

    changes = [
        replace(change, kept=change.kept and kept(None if change.before is None else change.before.sha256))
        for change in repair.changes
    ]
    return replace(repair, changes=tuple(changes))


def told_of(stage: Scene, memory: Database, repairs: Sequence[Repair]) -> History:
    """What is told of some repairs, with the names that the root gives to users and groups."""
    from chrootsync.report.history import History

    return History(
        root=stage.root.path,
        repairs=repairs,
        local=local,
        unfinished=frozenset(one.repair for one in memory.unfinished()),
        owners=pipeline.names(stage.root, "/etc/passwd"),
        groups=pipeline.names(stage.root, "/etc/group"),
    )


def local(seconds: float) -> str:
    """A time as the clock on the wall had it."""
    try:
        return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "unknown"
