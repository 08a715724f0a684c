"""``chrootsync install`` and ``uninstall``: units and hooks that make it run by itself."""

from __future__ import annotations

from typing import Annotated

import typer

from chrootsync.cli.guard import guarded
from chrootsync.cli.options import ConfigOption, RulesOption
from chrootsync.cli.setup import places
from chrootsync.hooks.items import NAMES, Mode

Targets = Annotated[
    list[str],
    typer.Argument(metavar="TARGET...", help=f"Any of {', '.join(NAMES)}; or auto: all that there is."),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show paths and contents, and change nothing.")]
ImageOption = Annotated[
    str, typer.Option("--root", metavar="DIR", help="Work on an unpacked image instead of this machine.")
]


@guarded
def install(
    targets: Targets,
    *,
    mode: Annotated[
        Mode | None,
        typer.Option(
            "--mode",
            help="With systemd: what notices changes. A daily timer comes with each. Without this, it is as it was "
            "installed, else watch.",
        ),
    ] = None,
    dry_run: DryRunOption = False,
    root: ImageOption = "/",
    config: ConfigOption = None,
    rules: RulesOption = None,
) -> None:
    """Install units and hooks that make chrootsync run by itself.

    What is there already is not written again. Files that are not ours, or that somebody has edited, are never
    overwritten: then nothing is written at all, and the exit status is 3.

    \b
      chrootsync install auto                 all that this host has a use for
      chrootsync install systemd apt          a watcher, and a hook of apt
      chrootsync install systemd --mode path  a path unit instead of the watcher
      chrootsync install auto --dry-run       what would be written?
    """
    from chrootsync.cli import installing

    where = places(root=root, config=config, rules=rules)
    installing.install(where, targets, mode, dry_run=dry_run)


@guarded
def uninstall(targets: Targets, *, dry_run: DryRunOption = False, root: ImageOption = "/") -> None:
    """Remove exactly what install has written.

    What somebody has edited since stays, and the exit status is 3.

    \b
      chrootsync uninstall auto           all of it
      chrootsync uninstall auto --dry-run what would be removed?
    """
    from chrootsync.cli import installing

    installing.uninstall(places(root=root), targets, dry_run=dry_run)
