"""``chrootsync rules``: show and validate rule sets, print their JSON Schema."""

from __future__ import annotations

from typing import Annotated

import typer

from chrootsync.cli import output, streams
from chrootsync.cli.guard import guarded
from chrootsync.cli.options import RulesOption
from chrootsync.cli.setup import places, rule_texts
from chrootsync.model import RuleSet
from chrootsync.report import rules as listing
from chrootsync.report.text import plural
from chrootsync.root import Root
from chrootsync.rules.ruleset import parse

rules = typer.Typer(name="rules", help="Show and validate rule sets.", no_args_is_help=True)


def _read(directory: str | None) -> tuple[RuleSet, ...]:
    place = places(rules=directory)
    live = Root("/")
    try:
        return parse(*rule_texts(live, place, image=False))
    finally:
        live.close()


@rules.command("list")
@guarded
def list_rules(
    *,
    rules: RulesOption = None,
    format: Annotated[  # noqa: A002 -- the name of the option
        str | None,
        typer.Option("--format", metavar="FORMAT", help="plain or json.", show_default=False),
    ] = None,
) -> None:
    """List every rule in force: what it holds, when, and why."""
    shown_as = output.choose(format)
    streams.write(listing.render(_read(rules), as_json=shown_as == "json"))


@rules.command("check")
@guarded
def check_rules(*, rules: RulesOption = None) -> None:
    """Validate the shipped and the local rule sets; all mistakes are told at once.

    Exit status 2: there are mistakes.
    """
    found = _read(rules)
    count = sum(len(one.rules) for one in found)
    streams.write(f"{plural(len(found), 'rule set')}, {plural(count, 'rule')}: no mistakes\n")


@rules.command("schema")
@guarded
def print_schema() -> None:
    """Print the JSON Schema of rule files, for editors."""
    import json

    from chrootsync.rules.keys import schema

    streams.write(json.dumps(schema(), indent=2) + "\n")
