"""``chrootsync probe``: do lookups inside the chroots give what they give outside?"""

from __future__ import annotations

import shutil
import time
from contextlib import closing
from typing import Annotated

import typer

from chrootsync import __version__, pipeline
from chrootsync.cli import output, streams
from chrootsync.cli.guard import guarded, stoppable
from chrootsync.cli.options import ConfigOption, FormatOption, Names, RootOption, RulesOption, StateOption
from chrootsync.cli.probing import Prober, refuse_elsewhere
from chrootsync.cli.progress import Progress, progress
from chrootsync.cli.setup import Scene, keep_out, places, scene, sought
from chrootsync.cli.streams import Ended
from chrootsync.model import Code, Report
from chrootsync.pipeline import Task
from chrootsync.report import probe as listing
from chrootsync.report.verdict import probe_failed


@guarded
def probe(
    names: Names = None,
    *,
    no_dns: Annotated[
        bool,
        typer.Option("--no-dns", help="Ask no name server: this host has no network, or they are not to be asked."),
    ] = False,
    root: RootOption = "/",
    config: ConfigOption = None,
    rules: RulesOption = None,
    state: StateOption = None,
    format: FormatOption = None,  # noqa: A002 -- the name of the option
) -> None:
    """Look things up inside the chroots as their daemons do, and compare with the same outside.

    Host names, name servers, ports, users, the local time, sockets and certificates, as far as daemons need them, by a
    process that enters the chroot and gives the rights of root away first. Nothing is changed anywhere.

    Exit status 0: all is well; 3: a lookup fails inside, or gives something else there.

    \b
      chrootsync probe           will mail flow?
      chrootsync probe out       ... in the instance postfix-out?
      chrootsync probe --no-dns  on a host without network
    """
    shown_as = output.choose(format)
    where = places(root=root, config=config, rules=rules, state=state)
    with progress(quiet=False) as shown, stoppable(), scene(where, names or ()) as stage:
        refuse_elsewhere(stage, "probe")
        notes = () if stage.instances else (sought(where, stage),)
        report = _look(stage, shown, notes, dns=not no_dns)
    status = Code.FAILED if any(probe_failed(one.probe) for one in report.instances) else Code.OK
    streams.write(_said(report, shown_as), status)
    raise Ended(status)


def _look(stage: Scene, shown: Progress, notes: tuple[str, ...], *, dns: bool) -> Report:
    """Find out what the chroots are needed for, which a check tells by the way, and look that up."""
    began, clock = time.time(), time.monotonic()
    prober = Prober(stage=stage, now=began, dns=dns, shown=shown)
    shown.say("comparing")
    task = Task(
        host=stage.host,
        instances=stage.instances,
        rule_sets=stage.rule_sets,
        keep_out=keep_out(stage),
        seen=prober.needs.see,
    )
    with closing(prober):
        found = prober.all(pipeline.check(task))
    return Report(
        generated=began,
        duration=time.monotonic() - clock,
        version=__version__,
        root=stage.root.path,
        instances=found,
        fixed=False,
        notes=notes,
    )


def _said(report: Report, shown_as: str) -> str:
    if shown_as == "json":
        return listing.as_json(report)
    if shown_as == "plain":
        return listing.plain(report)
    return listing.table(report, shutil.get_terminal_size().columns)
