"""The watcher's own process: beside ``cli`` the only place that knows the clock, the environment and the streams.

``chrootsync watch`` becomes it when it has looked at its options, and leaves the command line behind.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time

from chrootsync import __version__, process
from chrootsync.watch.ears import ears
from chrootsync.watch.loop import Watcher, World
from chrootsync.watch.notify import Notifier
from chrootsync.watch.passes import Command, Where
from chrootsync.watch.places import Places, places, read_link

HANDED_ON = ("JOURNAL_STREAM", "INVOCATION_ID", "TZ")
SPREAD = 0.1


def main() -> int:
    """Watch until SIGTERM or ^C comes; SIGHUP starts a pass. What was installed meanwhile takes its place."""
    where = Where(**dict(argument.split("=", 1) for argument in sys.argv[1:]))
    environment = {name: os.environ[name] for name in HANDED_ON if name in os.environ}
    command = Command(interpreter=sys.executable, where=where, environment=environment)
    watcher = Watcher(
        World(
            version=__version__,
            start=lambda: process.start(command.arguments, command.environment),
            listen=ears,
            tell=tell,
            notifier=Notifier(os.environ),
            clock=time.monotonic,
            spread=lambda: random.uniform(1 - SPREAD, 1 + SPREAD),  # noqa: S311 -- no secret
            first=lambda: first_places(where),
        )
    )
    signal.set_wakeup_fd(watcher.bell, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: watcher.stop())
    signal.signal(signal.SIGHUP, lambda *_: watcher.reload())
    code = watcher.run()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if watcher.outdated:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it would end who does not listen to it yet
        os.execv(sys.executable, [sys.executable, "-I", "-m", "chrootsync.watch", *sys.argv[1:]])  # noqa: S606
    return code


def first_places(where: Where) -> Places:
    """What is watched before the first pass has told what it depends on."""
    usual = ("/etc/resolv.conf", "/etc/postfix/main.cf", "/etc/postfix/master.cf")
    listed = (where.rules,) if where.rules is not None else ()
    config = (where.config,) if where.config is not None else ()
    return places((*usual, *config), listed, read_link)


def tell(level: int, sentence: str) -> None:
    """Say something to standard error, under systemd with its level; where that fails, nobody is listening."""
    try:
        status = os.fstat(2)
        journal = os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
        line = f"{f'<{level}>' if journal else ''}chrootsync: {sentence}\n".encode("utf-8", "backslashreplace")
        os.write(2, line)
    except OSError:
        pass


if __name__ == "__main__":
    sys.exit(main())
