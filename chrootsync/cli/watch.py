"""``chrootsync watch``: becomes the watcher, a program of its own, which calls ``chrootsync watch-pass``."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from chrootsync.cli.guard import guarded
from chrootsync.cli.options import ConfigOption, RulesOption, StateOption
from chrootsync.cli.setup import places
from chrootsync.cli.streams import Ended
from chrootsync.model import ChrootsyncError, ConfigError

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
HANDED_ON = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM", "INVOCATION_ID", "TZ")
"""What systemd tells a service; the watcher knows nothing else of where it was started."""


@guarded
def watch(*, config: ConfigOption = None, rules: RulesOption = None, state: StateOption = None) -> None:
    """Watch the host's files, and bring the chroots in sync as soon as one of them changes; needs root.

    Checks everything at the start, after each change once it has settled, and now and then. Runs until SIGTERM or ^C;
    SIGHUP starts a check. Under systemd it is a service of Type=notify.

    \b
      systemctl status chrootsync-watch    how is it?
      journalctl -t chrootsync             what did it do?
    """
    if os.geteuid() != 0:
        raise ConfigError("watch: needs root, for it repairs chroots and reloads their daemons; run it as root")
    if not sys.executable:
        raise ChrootsyncError(
            "watch: the Python that runs this does not know its own path; start it by an absolute one"
        )
    where = places(config=config, rules=rules, state=state)
    named = {"config": where.config, "rules": where.rules, "state": where.state}
    arguments = [f"{name}={path}" for name, path in named.items() if path is not None]
    environment = {name: os.environ[name] for name in HANDED_ON if name in os.environ}
    try:
        # The same process, so that whoever started it still knows it; what the command line has loaded is let go.
        os.execve(  # noqa: S606 -- no shell is wanted
            sys.executable,
            [sys.executable, "-I", "-m", "chrootsync.watch", *arguments],
            {**ENVIRONMENT, **environment},
        )
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ChrootsyncError(f"watch: {sys.executable} cannot be started: {reason}") from None


@guarded
def watch_pass(
    *,
    word: Annotated[int, typer.Option("--word", help="The descriptor to read the word from.")],
    report: Annotated[int, typer.Option("--report", help="The descriptor to write the report to.")],
    config: ConfigOption = None,
    rules: RulesOption = None,
    state: StateOption = None,
) -> None:
    """Do one pass of the watcher, which alone calls this."""
    from chrootsync.cli import onepass

    raise Ended(onepass.run(places(config=config, rules=rules, state=state), word, report))
