"""``chrootsync instances``: what was discovered, and how."""

from __future__ import annotations

from chrootsync.cli import output, streams
from chrootsync.cli.guard import guarded
from chrootsync.cli.options import ConfigOption, FormatOption, RootOption, RulesOption, StateOption
from chrootsync.cli.setup import places, scene, sought
from chrootsync.cli.streams import Ended
from chrootsync.model import Code
from chrootsync.report import instances as listing


@guarded
def instances(
    *,
    root: RootOption = "/",
    config: ConfigOption = None,
    rules: RulesOption = None,
    state: StateOption = None,
    format: FormatOption = None,  # noqa: A002 -- the name of the option
) -> None:
    """List the instances that were discovered, how, and which of their services run chrooted.

    Exit status 1: one of them cannot be served.
    """
    shown_as = output.choose(format)
    where = places(root=root, config=config, rules=rules, state=state)
    with scene(where) as stage:
        found, nothing = stage.instances, sought(where, stage)
    status = Code.DRIFT if any(one.problem is not None for one in found) else Code.OK
    streams.write(listing.render(found, as_json=shown_as == "json", sought=nothing), status)
    raise Ended(status)
