"""``chrootsync check``: compare, and with --fix repair and reload."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from chrootsync import __version__, pipeline
from chrootsync.cli import output, streams
from chrootsync.cli.guard import guarded, stoppable
from chrootsync.cli.progress import Progress, progress
from chrootsync.cli.setup import (
    ConfigOption,
    Names,
    RootOption,
    RulesOption,
    Scene,
    StateOption,
    places,
    scene,
)
from chrootsync.model import ChrootsyncError, Code, ConfigError, InstanceReport, Record, Report
from chrootsync.pipeline import Task
from chrootsync.report import Options
from chrootsync.report.verdict import exit_code

if TYPE_CHECKING:
    from chrootsync.root.write import Writer

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
    where = places(root=root, config=config, rules=rules, state=state)
    if math.isnan(wait):
        raise ConfigError("--wait nan: must be a number of seconds")
    began, clock = time.time(), time.monotonic()
    with progress(quiet=quiet) as shown, scene(where, names or ()) as stage:
        task = Task(
            host=stage.host,
            instances=stage.instances,
            rule_sets=stage.rule_sets,
            keep_out=_keep_out(stage),
            seen=shown.seen,
        )
        shown.say("comparing")
        with stoppable(), _lock(stage, wait) if fix else nullcontext():
            found = pipeline.check(task)
            diffs = pipeline.differences(task.host, found) if diff else {}
            notes: list[str] = []
            if fix:
                found, notes = _fix(stage, task, found, began, trigger, shown, no_reload=no_reload)
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
    # What is printed last may find nobody listening; that changes neither the files nor how the run ends.
    failures = _save(whole, files, options)
    status = Code.FAILED if failures else exit_code(whole, strict=strict)
    try:
        if not quiet:
            output.show(whole, shown_as, options, status)
    finally:
        streams.tell(failures)
    raise typer.Exit(status)


def _save(whole: Report, files: list[output.Target], options: Options) -> list[str]:
    """Write the reports of --report; a sentence for each that could not be."""
    failures = []
    for target in files:
        try:
            output.save(whole, target, options)
        except ChrootsyncError as error:
            failures.append(str(error))
    return failures


def _fix(
    stage: Scene,
    task: Task,
    found: tuple[InstanceReport, ...],
    now: float,
    trigger: str,
    shown: Progress,
    *,
    no_reload: bool,
) -> tuple[tuple[InstanceReport, ...], list[str]]:
    """Repair and reload what was found; what came of it, and sentences on the run as a whole."""
    from chrootsync.reload import Occasion
    from chrootsync.root.write import Writer

    writer = Writer(stage.root)
    if stage.host.run is None:
        image = "this is an image: nothing runs in it, so nothing was reloaded"
        return _repair(task, writer, found, shown), [image] if stage.instances else []
    records = stage.store.reloads()
    _remember(stage, pipeline.foresee(found, records, now))
    found = _repair(task, writer, found, shown)
    if no_reload:
        found, records = pipeline.postpone(found, records, now)
    else:
        occasion = Occasion(now=now, automatic=trigger != MANUAL, config=stage.config)
        shown.say("reloading")
        found, records = pipeline.reload(stage.host, found, records, occasion)
    return found, _remember(stage, records)


def _repair(
    task: Task, writer: Writer, found: tuple[InstanceReport, ...], shown: Progress
) -> tuple[InstanceReport, ...]:
    """Repair one instance after the other, and say which."""
    done: list[InstanceReport] = []
    for one in found:
        shown.say(f"repairing {one.instance.name}")
        done += pipeline.repair(task, writer, [one])
    return tuple(done)


def _remember(stage: Scene, records: Mapping[str, Record]) -> list[str]:
    """Keep in mind which reloads are due; where that fails, a sentence says so: it must not keep a repair back."""
    try:
        stage.store.remember(records)
    except ChrootsyncError as error:
        return [str(error)]
    return []


def _keep_out(stage: Scene) -> list[str]:
    """The state directory as a path of the root that is worked on, where it is in it: no chroot may overlap with it."""
    if stage.store.directory is None:
        return []
    directory, root = os.path.realpath(stage.store.directory), os.path.realpath(stage.root.path).rstrip("/")
    return [directory.removeprefix(root) or "/"] if f"{directory}/".startswith(f"{root}/") else []


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
