"""A host on which the watcher, the path unit or the timer starts chrootsync, and how to wait for what it does.

Nothing here asserts on time: what is to happen is waited for with a generous deadline.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from watchdog.events import FileDeletedEvent, FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from .container import Container
from .mail import INSTANCES, RESOLVER, Mail, Postfix
from .test_main_job import check, reloads

DEADLINE = 30.0  # seconds
QUIET = 1.2  # seconds at rest, after which nothing is expected any more
LOCKS = "/run/chrootsync"
CONFIG = "/etc/chrootsync/chrootsync.toml"

MODES = ("watch", "path", "timer")

# So often that a test can wait for it; everything else is as shipped.
OFTEN = """[Timer]
OnBootSec=
OnCalendar=
OnActiveSec=500ms
OnUnitInactiveSec=500ms
RandomizedDelaySec=0
AccuracySec=1ms
"""

# What a reload that had to wait is done by, where there is no watcher.
SOON = """[Timer]
OnActiveSec=
OnActiveSec=2s
AccuracySec=1ms
"""

# What is started anew after a failure, is so without a pause.
AGAIN = """[Service]
RestartSec=0
"""

# Whether nobody asks for the service, and it does not run.
AT_REST = """
test ! -e /run/chrootsync/requested
for unit in chrootsync-request.service chrootsync.service; do
    case $(systemctl show -P ActiveState $unit) in inactive|failed) ;; *) exit 1 ;; esac
done
"""


def wait_until(condition: Callable[[], bool], what: str, *, deadline: float = DEADLINE) -> None:
    """Wait until something is true; where it never is, the failure says ``what`` was waited for."""
    end = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < end, f"not within {deadline:.0f} s: {what}"
        time.sleep(0.1)


@dataclass(slots=True)
class Automatic:
    """A host that chrootsync keeps in sync by itself, in one of the modes."""

    mode: str
    mail: Mail
    interval: int | None = None

    @property
    def container(self) -> Container:
        return self.mail.container

    @property
    def unit(self) -> str:
        """The unit in which repairs are made."""
        return "chrootsync-watch.service" if self.mode == "watch" else "chrootsync.service"

    @property
    def starter(self) -> str:
        """The unit that has to be active."""
        return {"watch": self.unit, "path": "chrootsync.path", "timer": "chrootsync.timer"}[self.mode]

    def install(self) -> None:
        """Install the units as an administrator does, and begin in sync."""
        container = self.container
        self.configure(interval=0)
        check(container, "--fix", code=0)
        container.run(["chrootsync", "install", "systemd", "--mode", self.mode])
        if self.mode == "watch":
            self.drop_in("again", AGAIN)
        else:
            self.drop_in("soon", SOON, unit="chrootsync-later.timer")
        if self.mode == "timer":
            self.drop_in("often", OFTEN)
            container.run(["systemctl", "restart", "chrootsync.timer"])
        self.wait_until(lambda: self.show("ActiveState") == "active", f"{self.starter} is active")

    def drop_in(self, name: str, text: str, *, unit: str = "") -> None:
        """Add settings to a unit, or to that which has to be active."""
        self.container.write(f"/etc/systemd/system/{unit or self.starter}.d/{name}.conf", text)
        self.container.run(["systemctl", "daemon-reload"])

    def remove_drop_in(self, name: str) -> None:
        """Take such settings away."""
        self.container.run(["rm", f"/etc/systemd/system/{self.starter}.d/{name}.conf"])
        self.container.run(["systemctl", "daemon-reload"])

    def show(self, name: str) -> str:
        """A property of the unit that has to be active."""
        return self.container.run(["systemctl", "show", "-P", name, self.starter]).stdout.strip()

    def configure(self, *, interval: int) -> None:
        """Write the configuration file; ``interval`` is the least distance of two automatic reloads, in seconds."""
        self.container.write(CONFIG, f"[reload]\ninterval = {interval}\n")
        self.interval = interval

    # --- What is waited for ------------------------------------------------------------------------------------------

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until something is true; a failure shows what the unit logged last."""
        try:
            wait_until(condition, what)
        except AssertionError as error:
            message = f"{error}\n{self.journal()[-4000:]}"
            raise AssertionError(message) from None

    def wait_synced(self, path: str, *, without: Postfix | None = None) -> None:
        """Wait until a file's copies are what the file is, in each chroot but that of one instance."""
        awaited = [instance for instance in INSTANCES if instance is not without]
        self.wait_until(lambda: all(same(self.container, each, path) for each in awaited), f"{path} is in sync")

    def wait_reloaded(self, start: int, *instances: Postfix) -> None:
        """Wait until each of some instances was reloaded behind a mark in the log of mail."""
        names = {instance.log for instance in instances}
        self.wait_until(lambda: names <= set(self.mail.reloads(start)), f"reloads of {sorted(names)}")

    def rests(self) -> bool:
        """Whether neither the watcher nor the service has anything to do; a timer gives it something again soon."""
        if self.container.run(["sh", "-euc", AT_REST], check=False).returncode != 0:
            return False
        return self.mode != "watch" or is_idle(self, int(self.show("MainPID")))

    def wait_at_rest(self) -> None:
        """Wait until there is nothing to do any more."""
        # What starts next may not have been started yet.
        self.wait_until(lambda: all(self.rests() for _ in range(3)), "nothing is under way")

    def wait_said(self, pattern: str, since: int) -> str:
        """Wait until the unit has logged something behind a place, and give the line."""

        def found() -> re.Match[str] | None:
            return re.search(f"^.*(?:{pattern}).*$", self.journal(since), re.MULTILINE | re.IGNORECASE)

        self.wait_until(lambda: found() is not None, f"{pattern!r} in the log")
        match = found()
        assert match is not None
        return match[0]

    # --- The log -----------------------------------------------------------------------------------------------------

    def logged(self) -> int:
        """The place in the log of the units from which on a test looks at it."""
        return len(self.journal())

    def journal(self, since: int = 0) -> str:
        """What the units have logged, or systemd about them, behind a place."""
        units = [f"--unit={unit}" for unit in sorted({self.unit, "chrootsync.service"})]
        return self.container.run(["journalctl", "--no-pager", "-o", "short-precise", *units]).stdout[since:]

    @contextmanager
    def passes(self) -> Iterator[Passes]:
        """Count the passes that end meanwhile, whoever makes them: each holds the lock of the root once."""
        counter = Passes(self)
        self.container.run(["mkdir", "-p", "-m", "700", LOCKS])
        observer = Observer()
        observer.schedule(counter, str(self.container.root / LOCKS.lstrip("/")), event_filter=[FileDeletedEvent])
        observer.start()
        try:
            yield counter
        finally:
            observer.stop()
            observer.join()


class Passes(FileSystemEventHandler):
    """How many passes have ended: the file of a lock goes when its holder does."""

    def __init__(self, host: Automatic) -> None:
        self.host = host
        self.count = 0

    def on_deleted(self, event: FileSystemEvent) -> None:
        if str(event.src_path).endswith(".lock"):
            self.count += 1

    def wait_quiet(self) -> int:
        """Wait until passes have come to an end, and give how many there were; with a timer they never do."""
        seen, since, end = -1, 0.0, time.monotonic() + DEADLINE
        while seen != self.count or time.monotonic() - since < QUIET:
            assert time.monotonic() < end, f"{self.count} passes, and no end"
            if seen != self.count or not self.host.rests():
                seen, since = self.count, time.monotonic()
            time.sleep(0.1)
        return seen


def same(container: Container, instance: Postfix, path: str) -> bool:
    """As ``synced``, but without a process, as it is asked for often; of links, the file may only be a relative one."""
    try:
        return (container.root / path.lstrip("/")).read_bytes() == (
            container.root / f"{instance.chroot}{path}".lstrip("/")
        ).read_bytes()
    except FileNotFoundError:
        return False


def resolver(comment: object) -> str:
    """A resolv.conf that works, and that no other comment makes."""
    return f"{RESOLVER}# {comment}\n"


def replace(container: Container, path: str, text: str) -> None:
    """Replace a file by rename, as careful programs do."""
    container.write(f"{path}.new", text)
    container.run(["mv", f"{path}.new", path])


def begin(host: Automatic) -> int:
    """Bring everything in sync by hand, whatever was left behind, and give the place in the log of mail behind that."""
    if host.interval != 0:
        host.configure(interval=0)
    check(host.container, "--fix", "--force", "--wait", f"{DEADLINE:.0f}", code=0)
    reloads(host.mail, 0)
    return host.mail.mark()


@contextmanager
def slow_swaps(host: Automatic, pid: int) -> Iterator[None]:
    """Let each swap of a copy that ``pid`` and its children make last: so there is time to do something meanwhile."""
    mail = host.container
    log = "/var/tmp/slow-swaps"
    mail.run(["rm", "-f", log])
    # A pass that has been started already would not be traced; after a start of the watcher two follow each other.
    wait_until(lambda: all(is_idle(host, pid) for _ in range(3)), "the watcher is idle")
    inject = "inject=renameat2:delay_enter=5000000"
    mail.run(
        [
            *("systemd-run", "--quiet", "--collect", "--unit=slow-swaps"),
            *("strace", "-f", "-qq", "-o", log, "-e", "trace=renameat2", "-e", inject, "-p", str(pid)),
        ]
    )
    wait_until(lambda: tracer(host, pid) != 0, f"strace has attached to {pid}")
    try:
        yield
    finally:
        with suppress(Exception):
            mail.run(["systemctl", "stop", "slow-swaps.service"])


def is_idle(host: Automatic, pid: int) -> bool:
    """Whether the watcher has looked at everything once, and no pass is under way."""
    first = "the first check" in host.show("StatusText")
    return not first and host.container.run(["cat", f"/proc/{pid}/task/{pid}/children"]).stdout.strip() == ""


def in_a_swap(host: Automatic) -> bool:
    """Whether :func:`slow_swaps` has one under way."""
    return host.container.run(["grep", "-q", "renameat2(", "/var/tmp/slow-swaps"], check=False).returncode == 0


def tracer(host: Automatic, pid: int) -> int:
    """The process number of who traces a process; 0 where nobody does."""
    found = re.search(r"^TracerPid:\s+(\d+)", host.container.read(f"/proc/{pid}/status"), re.MULTILINE)
    assert found is not None
    return int(found[1])
