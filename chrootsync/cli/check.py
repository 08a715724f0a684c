"""``chrootsync check``: compare, and with --fix repair and reload. What typer needs to know of it is in checking."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from chrootsync import __version__, pipeline
from chrootsync.cli import output, streams
from chrootsync.cli.compare import MANUAL, Compared, Pass, Wishes, both, compare
from chrootsync.cli.guard import guarded, stoppable
from chrootsync.cli.progress import Progress, progress
from chrootsync.cli.setup import Places, Scene, keep_out, places, scene, sought
from chrootsync.cli.streams import Ended
from chrootsync.inventory import NO_TRUST
from chrootsync.model import ChrootsyncError, Code, ConfigError, Report, Trust
from chrootsync.model.frozen import replace
from chrootsync.pipeline import Task
from chrootsync.report import FORMATS, LISTING, RETROSPECTIVE, Options
from chrootsync.report.verdict import exit_code, waits

if TYPE_CHECKING:
    from chrootsync.cli.looked import Looked
    from chrootsync.report.history import History
    from chrootsync.state.trust import Pairs


@guarded
def check(
    names: Sequence[str] | None = None,
    *,
    fix: bool = False,
    diff: bool = False,
    no_reload: bool = False,
    flush: bool = False,
    force: bool = False,
    strict: bool = False,
    probe: bool = False,
    no_dns: bool = False,
    trust_stat: bool = False,
    root: str = "/",
    config: str | None = None,
    rules: str | None = None,
    state: str | None = None,
    wait: float = 0,
    trigger: str = MANUAL,
    format: str | None = None,  # noqa: A002 -- the name of the option
    report: list[str] | None = None,
    quiet: bool = False,
    verbose: int = 0,
) -> None:
    """Compare every chroot with what it must hold; with ``fix`` repair it. Arguments are the options of the verb."""
    logged = format is None and trigger != MANUAL and output.to_log()
    shown_as = output.choose(format, FORMATS)
    files = output.targets(report or [])
    where = places(root=root, config=config, rules=rules, state=state)
    if not fix:
        _refuse_without_fix({"--no-reload": no_reload, "--flush": flush, "--force": force, "--wait": bool(wait)})
    if no_dns and not (fix or probe):
        raise ConfigError("--no-dns: goes with --probe or --fix; add one of them, or leave it out")
    if re.fullmatch(r"[\w.@:-]{1,64}", trigger, re.ASCII) is None:
        raise ConfigError("--trigger: must be a name of at most 64 letters, digits and any of . _ @ : -")
    if math.isnan(wait):
        raise ConfigError("--wait nan: must be a number of seconds")
    formats = {shown_as, *(target.format for target in files)}
    compared = Compared()
    wishes = Wishes(
        trigger=trigger,
        reload=not no_reload,
        flush=flush,
        force=force,
        diff=diff,
        wait=wait,
        probe=probe,
        dns=not no_dns,
        trust_stat=trust_stat,
        seen=None if LISTING.isdisjoint(formats) else compared.see,
    )
    with progress(quiet=quiet) as shown, stoppable():
        whole, diffs = _look(where, names or (), wishes, shown, fix=fix)
    history = _history(where, formats)
    options = Options(verbose=verbose, strict=strict, diffs=diffs, compared=compared.paths, history=history)
    # What is printed last may find nobody listening; that changes neither the files nor how the run ends.
    failures = _save(whole, files, options)
    status = Code.FAILED if failures else output.ending(shown_as, whole, exit_code(whole, strict=strict), strict=strict)
    try:
        if logged and not quiet:
            output.log(whole, trigger, status)
        elif not quiet:
            output.show(whole, shown_as, options, status)
    finally:
        streams.tell(failures)
    raise Ended(status)


def _refuse_without_fix(given: Mapping[str, bool]) -> None:
    """Refuse options that only a repair has a use for: whoever gives them expects one. Raises ConfigError."""
    alone = [option for option, is_given in given.items() if is_given]
    if alone:
        raise ConfigError(*(f"{option}: goes with --fix alone; add --fix, or leave it out" for option in alone))


def _history(where: Places, formats: set[str]) -> History | None:
    """The last repairs, where a format tells of them."""
    if RETROSPECTIVE.isdisjoint(formats):
        return None
    from chrootsync.cli.history import lately

    return lately(where)


def _save(whole: Report, files: list[output.Target], options: Options) -> list[str]:
    """Write the reports of --report; a sentence for each that could not be."""
    failures = []
    for target in files:
        try:
            output.save(whole, target, options)
        except ChrootsyncError as error:
            failures.append(str(error))
    return failures


def _look(
    where: Places, names: Sequence[str], wishes: Wishes, shown: Progress, *, fix: bool
) -> tuple[Report, Mapping[tuple[str, str], str]]:
    """Compare, and with ``fix`` repair; once more after what something had to wait for."""
    began, clock = time.time(), time.monotonic()
    whole, diffs, patience = _pass(where, names, wishes, shown, fix=fix)
    if waits(whole):
        whole = _look_again(where, names, wishes, shown, whole, clock + patience)
    return replace(whole, generated=began, duration=time.monotonic() - clock), diffs


def _look_again(
    where: Places, names: Sequence[str], wishes: Wishes, shown: Progress, whole: Report, deadline: float
) -> Report:
    """The report, completed by what could be repaired once nothing had to wait any more.

    What keeps a later pass from being made is a note: what the first one did has to be told all the same.
    """
    from chrootsync.cli.fix import POLL, merged, wait_for_packages

    while waits(whole) and wait_for_packages(deadline, shown):
        left = deadline - time.monotonic()
        time.sleep(max(0.0, min(POLL, left)))  # some wait for other things than package managers
        try:
            again, _, _ = _pass(where, names, replace(wishes, wait=max(wishes.wait, left)), shown, fix=True)
        except ChrootsyncError as error:
            return replace(whole, notes=(*whole.notes, f"what waits was not repaired: {error}"))
        whole = merged(whole, again)
        if left <= 0:
            break
    return whole


def _pass(
    where: Places, names: Sequence[str], wishes: Wishes, shown: Progress, *, fix: bool
) -> tuple[Report, Mapping[tuple[str, str], str], float]:
    """One look at everything; its report, what differed, and the seconds to wait for package managers at most."""
    with scene(where, names) as stage:
        pairs = _pairs(stage) if wishes.trust_stat else None
        report, differences = look_once(where, stage, wishes, shown, fix=fix, trust=pairs or NO_TRUST)
        if pairs is not None:
            pairs.save(whole=not names)
        return report, differences, stage.config.package_wait


def _pairs(stage: Scene) -> Pairs:
    """What earlier runs found in sync. Raises ConfigError where nothing can be kept.

    In an image, only what lies beside this machine's own root or the state is noted: another image, mounted in its
    place, may have the same numbers and times.
    """
    from chrootsync.state.trust import Pairs

    directory = stage.store.directory
    if directory is None:
        raise ConfigError("--trust-stat: needs a place to remember what was compared; name one with --state")
    places = () if stage.root.live else ("/", directory)
    devices = frozenset(os.stat(path).st_dev for path in places if os.path.isdir(path))
    return Pairs(directory, os.path.realpath(stage.root.path), stage.root.owners, time.time(), devices)


def look_once(
    where: Places,
    stage: Scene,
    wishes: Wishes,
    shown: Progress,
    *,
    fix: bool,
    ahead: Looked | None = None,
    trust: Trust = NO_TRUST,
) -> tuple[Report, Mapping[tuple[str, str], str]]:
    """Compare a scene, and with ``fix`` repair and reload; its report, and what differed.

    ``ahead`` is what a repair of this scene has found already. What ``trust`` knows to be in sync is not read.
    """
    if wishes.probe:
        from chrootsync.cli.probing import refuse_elsewhere

        refuse_elsewhere(stage, "--probe")
    now = time.time()
    task = replace(task_of(stage, wishes, shown), trust=trust)
    result = _fix(stage, task, wishes, now, shown, ahead) if fix else compare(stage, task, wishes, now, shown)
    report = Report(
        generated=now,
        duration=0.0,
        version=__version__,
        root=stage.root.path,
        instances=result.instances,
        fixed=fix,
        owners=pipeline.names(stage.root, "/etc/passwd"),
        groups=pipeline.names(stage.root, "/etc/group"),
        notes=result.notes if stage.instances else (*result.notes, sought(where, stage)),
    )
    return report, result.differences


def task_of(stage: Scene, wishes: Wishes, shown: Progress) -> Task:
    """What is compared in a scene, and who is told of it."""
    return Task(
        host=stage.host,
        instances=stage.instances,
        rule_sets=stage.rule_sets,
        keep_out=keep_out(stage),
        seen=shown.seen if wishes.seen is None else both(shown.seen, wishes.seen),
    )


def _fix(stage: Scene, task: Task, wishes: Wishes, now: float, shown: Progress, ahead: Looked | None) -> Pass:
    from chrootsync.cli.fix import fix

    return fix(stage, task, wishes, now, shown, ahead)
