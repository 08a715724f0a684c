"""``chrootsync check`` as typer reads it: its options, and what --help says of them."""

# Annotations are no text here: typer would evaluate each of them twice, 3 % of a clean check.
from typing import Annotated

import typer

from chrootsync.cli.check import check as run
from chrootsync.cli.compare import MANUAL
from chrootsync.cli.options import ConfigOption, Names, RootOption, RulesOption, StateOption
from chrootsync.report import FORMATS


def check(
    names: Names = None,
    *,
    fix: Annotated[bool, typer.Option("--fix", help="Repair what drifted, then reload what was changed.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Show differences of text that everybody may read.")] = False,
    no_reload: Annotated[bool, typer.Option("--no-reload", help="With --fix: leave reloading to me.")] = False,
    flush: Annotated[
        bool,
        typer.Option("--flush", help="With --fix: retry mail that was deferred because names could not be looked up."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="With --fix: repair also what is held or contested.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Let warnings count as drift.")] = False,
    probe: Annotated[
        bool, typer.Option("--probe", help="Look things up inside the chroots too, as daemons do.")
    ] = False,
    no_dns: Annotated[bool, typer.Option("--no-dns", help="With --probe or --fix: ask no name server.")] = False,
    trust_stat: Annotated[
        bool,
        typer.Option(
            "--trust-stat",
            help="Do not read again what only root can write and whose inode, size and times are still those that an "
            "earlier check --trust-stat compared; for very large chroots.",
        ),
    ] = False,
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
            "--format",
            metavar="FORMAT",
            help=f"table (default on a terminal), {', '.join([*FORMATS][1:])}.",
            show_default=False,
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
) -> int:
    """Compare every chroot with what it must hold; with --fix repair it.

    Without --fix nothing is changed anywhere. Exit status 0: in sync, or all repaired; 1: drift; chrootsync --help
    has the others.

    \b
      chrootsync check                is anything stale?
      chrootsync check out --diff     what exactly, in the instance postfix-out?
      chrootsync check --fix          repair, and reload what was changed
      chrootsync check --root /image  is anything stale in an unpacked image?
    """
    return run(**locals())
