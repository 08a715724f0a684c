"""Options that several verbs share, as typer wants them."""

from __future__ import annotations

from typing import Annotated

import typer

from chrootsync.cli.setup import CONFIG, LOCAL_RULES, STATE

Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[INSTANCE]...",
        help="Only these: a name, a name without its 'postfix-' prefix, or a configuration directory.",
        show_default=False,
    ),
]
RootOption = Annotated[
    str, typer.Option("--root", metavar="DIR", help="Work on an unpacked image instead of this machine.")
]
ConfigOption = Annotated[
    str | None,
    typer.Option("--config", metavar="FILE", help=f"Configuration file instead of {CONFIG}.", show_default=False),
]
RulesOption = Annotated[
    str | None,
    typer.Option("--rules", metavar="DIR", help=f"Local rules instead of {LOCAL_RULES}.", show_default=False),
]
StateOption = Annotated[
    str | None,
    typer.Option("--state", metavar="DIR", help=f"Where to remember things instead of {STATE}.", show_default=False),
]
FormatOption = Annotated[
    str | None, typer.Option("--format", metavar="FORMAT", help="table, plain or json.", show_default=False)
]
