"""The command line: one small module for each verb; they parse, build, call, print and exit.

Only here are typer, the clock, the streams, the environment and the exit status known.
"""

from __future__ import annotations

import gc
import sys

from chrootsync.cli import direct, streams


def main() -> None:
    """Run the command line."""
    streams.prepare()
    asked = direct.parse(sys.argv[1:])
    if asked is None:
        from chrootsync.cli import application

        status = application.run(sys.argv[1:])
    else:
        from chrootsync.cli.check import check

        look_for_garbage()
        status = check(**asked)
    sys.exit(status)


def look_for_garbage() -> None:
    """Begin to, now that all is loaded; __main__ says why it was not done before."""
    gc.freeze()
    gc.set_threshold(50_000)  # a hundred thousand needs are no garbage; to look at them anew costs a twentieth
    gc.enable()
