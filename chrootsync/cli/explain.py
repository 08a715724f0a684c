"""``chrootsync explain``: why a file is needed or not, and what a chroot must hold."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from chrootsync import pipeline
from chrootsync.cli import output, streams
from chrootsync.cli.compare import Recollection
from chrootsync.cli.guard import guarded
from chrootsync.cli.options import ConfigOption, FormatOption, RootOption, RulesOption, StateOption
from chrootsync.cli.setup import Scene, keep_out, places, scene, select, sought
from chrootsync.model import ConfigError, Instance
from chrootsync.model.frozen import replace
from chrootsync.pipeline import Task

if TYPE_CHECKING:
    from chrootsync.model.explanation import Explanation

# What is drawn and the letters for it where the output's encoding has none.
DRAWN = str.maketrans({"├": "|", "└": "`", "│": "|", "─": "-", "←": "<", "…": "~"})


@guarded
def explain(
    asked: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[WHAT]...",
            help="A path on the host, one inside a chroot as seen from the root, or a bare file name; or an instance. "
            "Without any: all instances.",
            show_default=False,
        ),
    ] = None,
    *,
    root: RootOption = "/",
    config: ConfigOption = None,
    rules: RulesOption = None,
    state: StateOption = None,
    format: FormatOption = None,  # noqa: A002 -- the name of the option
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show all that is alike, states, and where rules are written.")
    ] = False,
) -> None:
    """Say for every instance whether a file is needed, and why; or show all that an instance's chroot must hold.

    Nothing is changed anywhere. Exit status 0: it is explained, needed or not; 2: no instance or path can be meant.

    \b
      chrootsync explain /etc/resolv.conf  by which rule and which daemons?
      chrootsync explain libcap.so.2       which module needs it?
      chrootsync explain /etc/ssl/certs    what of it is needed, and why?
      chrootsync explain out               all that postfix-out needs: a tree
    """
    shown_as = output.choose(format)
    where = places(root=root, config=config, rules=rules, state=state)
    with scene(where) as stage:
        subjects = list(stage.instances) if not asked else _subjects(stage, asked)
        with closing(Recollection(stage, time.time())) as memory:
            made = _explained(stage, memory, subjects)
        if not stage.instances:
            made = replace(made, notes=(*made.notes, sought(where, stage)))
    said = _shown(made, shown_as, verbose=verbose)
    streams.write(said)


def _subjects(stage: Scene, asked: Sequence[str]) -> list[Instance | str]:
    """The instances, paths and names that are meant. Raises ConfigError with every mistake."""
    found: list[Instance | str] = []
    problems: list[str] = []
    for text in asked:
        try:
            found += select(stage.instances, [text])
        except ConfigError:
            try:
                found.append(_path(stage, text))
            except ConfigError as error:
                problems += error.problems
    if problems:
        raise ConfigError(*problems)
    return found


def _path(stage: Scene, text: str) -> str:
    """A path or a bare name, written plainly. Raises ConfigError."""
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if text.startswith("/") and ".." not in parts:
        return "/" + "/".join(parts)
    if "/" not in text and parts and ".." not in parts:
        return text
    there = ", ".join(sorted(instance.name for instance in stage.instances)) or "none at all"
    wanted = "name an absolute path without .., a bare file name, or an instance"
    raise ConfigError(f"{text!r} can be neither a path nor an instance: {wanted} (there is: {there})")


def _explained(stage: Scene, memory: Recollection, subjects: Sequence[Instance | str]) -> Explanation:
    from chrootsync.pipeline.explain import explain as explanation_of

    task = Task(
        host=stage.host,
        instances=stage.instances,
        rule_sets=stage.rule_sets,
        keep_out=keep_out(stage),
        memory=memory,
    )
    return replace(
        explanation_of(task, subjects),
        owners=pipeline.names(stage.root, "/etc/passwd"),
        groups=pipeline.names(stage.root, "/etc/group"),
        notes=memory.notes(),
    )


def _shown(made: Explanation, shown_as: str, *, verbose: bool) -> str:
    if shown_as == "json":
        from chrootsync.report import explain_json

        return explain_json.render(made)
    from chrootsync.report import explain as explaining

    return _drawable(explaining.render(made, width=shutil.get_terminal_size().columns, verbose=verbose))


def _drawable(text: str) -> str:
    """The text with simpler lines where standard output has no others."""
    try:
        "├─←…".encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return text.translate(DRAWN)
    return text
