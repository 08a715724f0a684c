"""``chrootsync check``: compare, and with --fix repair and reload."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Annotated

import typer

from chrootsync import __version__, pipeline
from chrootsync.cli import output
from chrootsync.cli.guard import guarded, stoppable
from chrootsync.cli.progress import progress
from chrootsync.cli.setup import (
    ConfigOption,
    Names,
    Places,
    RootOption,
    RulesOption,
    Scene,
    StateOption,
    scene,
)
from chrootsync.model import ChrootsyncError, InstanceReport, Record, Report
from chrootsync.pipeline import Task
from chrootsync.report import Options
from chrootsync.report.verdict import exit_code

MANUAL = "manual"


@guarded
def check(
    names: Names = None,
    *,
    fix: Annotated[bool, typer.Option("--fix", help="Repair what drifted, then reload what was changed.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Show differences of text that everybody may read.")] = False,
    no_reload: Annotated[bool, typer.Option("--no-reload", help="With --fix: leave reloading to me.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Let warnings count as drift.")] = False,
    root: RootOption = "/",
    config: ConfigOption = None,
    rules: RulesOption = None,
    state: StateOption = None,
    wait: Annotated[
        float, typer.Option("--wait", min=0, metavar="SECONDS", help="With --fix: wait for another repair to end.")
    ] = 0,
    trigger: Annotated[
        str,
        typer.Option("--trigger", metavar="NAME", help="Who calls: 'manual', or what automation calls itself."),
    ] = MANUAL,
    format: Annotated[  # noqa: A002 -- the name of the option
        str | None,
        typer.Option(
            "--format", metavar="FORMAT", help="table (default on a terminal), plain or json.", show_default=False
        ),
    ] = None,
    report: Annotated[
        list[str] | None,
        typer.Option(
            "--report", metavar="FORMAT=FILE", help="Write this report too; may be repeated.", show_default=False
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    verbose: Annotated[int, typer.Option("--verbose", "-v", count=True, help="Say more: rules, states.")] = 0,
) -> None:
    """Compare every chroot with what it must hold; with --fix repair it.

    Without --fix nothing is changed anywhere. Exit status 0: in sync, or all repaired; 1: drift; chrootsync --help
    has the others.

    \b
      chrootsync check                is anything stale?
      chrootsync check out --diff     what exactly, in the instance postfix-out?
      chrootsync check --fix          repair, and reload what was changed
      chrootsync check --root /image  is anything stale in an unpacked image?
    """
    shown_as = output.choose(format)
    files = output.targets(report or [])
    places = Places(root=root, config=config, rules=rules, state=state)
    began, clock = time.time(), time.monotonic()
    with progress(quiet=quiet) as shown, scene(places, names or ()) as stage:
        task = Task(
            host=stage.host,
            instances=stage.instances,
            rule_sets=stage.rule_sets,
            keep_out=_keep_out(stage),
        )
        if shown is not None:
            task = replace(task, seen=shown.seen)
        with stoppable(), _lock(stage, wait) if fix else nullcontext():
            found = pipeline.check(task)
            diffs = pipeline.differences(task.host, found) if diff else {}
            notes: list[str] = []
            if fix:
                found, notes = _fix(stage, task, found, began, trigger, no_reload=no_reload)
            elif stage.host.run is not None and (records := stage.store.reloads()):
                found = pipeline.tell_pending(stage.host, found, records)
        whole = Report(
            generated=began,
            duration=time.monotonic() - clock,
            version=__version__,
            root=stage.root.path,
            instances=found,
            fixed=fix,
            owners=pipeline.names(stage.root, "/etc/passwd"),
            groups=pipeline.names(stage.root, "/etc/group"),
            notes=tuple(notes),
        )
    options = Options(verbose=verbose, strict=strict, diffs=diffs)
    if not quiet:
        output.show(whole, shown_as, options)
    for name, path in files:
        output.save(whole, name, path, options)
    raise typer.Exit(exit_code(whole, strict=strict))


def _fix(
    stage: Scene, task: Task, found: tuple[InstanceReport, ...], now: float, trigger: str, *, no_reload: bool
) -> tuple[tuple[InstanceReport, ...], list[str]]:
    """Repair and reload what was found; what came of it, and sentences on the run as a whole."""
    from chrootsync.reload import Occasion
    from chrootsync.root.write import Writer

    writer = Writer(stage.root)
    if stage.host.run is None:
        image = "this is an image: nothing runs in it, so nothing was reloaded"
        return pipeline.repair(task, writer, found), [image] if stage.instances else []
    records = stage.store.reloads()
    _remember(stage, pipeline.foresee(found, records, now))
    found = pipeline.repair(task, writer, found)
    if no_reload:
        found, records = pipeline.postpone(found, records, now)
    else:
        occasion = Occasion(now=now, automatic=trigger != MANUAL, config=stage.config)
        found, records = pipeline.reload(stage.host, found, records, occasion)
    return found, _remember(stage, records)


def _remember(stage: Scene, records: Mapping[str, Record]) -> list[str]:
    """Keep in mind which reloads are due; where that fails, a sentence says so: it must not keep a repair back."""
    try:
        stage.store.remember(records)
    except ChrootsyncError as error:
        return [str(error)]
    return []


def _keep_out(stage: Scene) -> list[str]:
    """The state directory, where it is in the root that is worked on: no chroot may overlap with it."""
    directory = stage.store.directory
    return [os.path.realpath(directory)] if directory is not None and stage.root.live else []


def _lock(stage: Scene, wait: float) -> AbstractContextManager[None]:
    """The lock of this root, named by its device and inode."""
    from chrootsync.state import lock

    status = os.stat(stage.root.path)
    return lock(_lock_directory(), f"{status.st_dev}-{status.st_ino}.lock", wait)


def _lock_directory() -> str:
    """/run/chrootsync for root; whoever else repairs an image of his own has his own place."""
    if os.geteuid() == 0:
        return "/run/chrootsync"
    base = os.environ.get("XDG_RUNTIME_DIR")
    return (
        os.path.join(base, "chrootsync") if base else os.path.join(tempfile.gettempdir(), f"chrootsync-{os.geteuid()}")
    )
