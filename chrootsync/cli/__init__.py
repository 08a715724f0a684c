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

        gc.freeze()
        gc.enable()  # __main__ says why it was not
        status = check(**asked)
    sys.exit(status)
