"""The whole command line: verbs, options and help, read by typer."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, cast

import typer

from chrootsync import __version__
from chrootsync.cli import look_for_garbage, streams
from chrootsync.cli.guard import tell_usage
from chrootsync.model import Code

VERBS = {
    "check": "checking",
    "status": "status",
    "explain": "explain",
    "probe": "probe",
    "watch": "watch",
    "watch-pass": "watch",
    "instances": "instances",
    "history": "history",
    "rollback": "rollback",
    "install": "install",
    "uninstall": "install",
    "demo": "demo",
    "rules": "rules",
}
"""In which module of this package each is: a function or a group of commands that has the verb's name."""
HIDDEN = ("watch-pass",)
"""What nobody calls by hand."""
ENDINGS = {
    Code.OK: "in sync or repaired",
    Code.DRIFT: "drift",
    Code.USAGE: "usage or configuration",
    Code.FAILED: "a repair or probe failed",
    Code.RELOAD: "a reload failed or is pending",
    Code.LOCKED: "another repair is under way",
    Code.BUG: "a bug",
}
"""What each exit status says, for the help and the manual page."""


def application(arguments: Sequence[str] = ()) -> typer.Typer:
    """The command line; where ``arguments`` begin with a verb that one alone, since each more costs a millisecond.

    The options that install completions stand before any verb.
    """
    verbs = [verb for verb in VERBS if verb in arguments[:1]]
    app = typer.Typer(
        name="chrootsync",
        add_completion=not verbs,
        no_args_is_help=True,
        result_callback=_end,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog=f"Exit status: {', '.join(f'{code} {what}' for code, what in ENDINGS.items())}.",
    )
    app.callback()(chrootsync)
    for verb in verbs or VERBS:
        found = getattr(import_module(f"chrootsync.cli.{VERBS[verb]}"), verb.replace("-", "_"))
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=verb)
        else:
            app.command(hidden=verb in HIDDEN)(found)
    return app


def _end(status: int, **_options: object) -> None:
    """End as the verb says."""
    raise typer.Exit(status)


def _version(*, wanted: bool) -> None:
    if wanted:
        typer.echo(f"chrootsync {__version__}")
        raise typer.Exit


def chrootsync(
    *,
    _: Annotated[
        bool,
        typer.Option("--version", help="Print the version and end.", callback=lambda value: _version(wanted=value)),
    ] = False,
) -> None:
    """Keep chroots in sync with their host: find stale copies, repair them, reload what needs it.

    Daemons that run in a chroot see copies of host files: resolv.conf, services, name service modules, certificates.
    Updates touch the originals, and the copies go stale. Start with: chrootsync check
    """


# What click raises for wrong usage; newer versions of typer carry a click of their own.
UsageError = cast("type[Exception]", typer.BadParameter.__bases__[0])


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments ask for; what is wrong with them is one sentence, as every other error. The exit status."""
    try:
        app = application(arguments)
        look_for_garbage()
        status: int = app(args=[*arguments], standalone_mode=False, prog_name="chrootsync")
        sys.stdout.flush()
    except UsageError as error:
        return tell_usage(error, arguments)
    except typer.Abort:
        return Code.INTERRUPTED
    except OSError as error:
        # Only what typer prints by itself comes here, --help and --version: every verb is guarded.
        streams.silence(sys.stdout)
        if isinstance(error, BrokenPipeError):
            return Code.OK
        streams.tell([str(streams.OutputError("the help", error))])
        return Code.FAILED
    except SystemExit:
        # So click and rich end where whoever read the help went away.
        streams.silence(sys.stdout)
        return Code.OK
    return status
