"""A throw-away host: one systemd in its own namespaces, its files an overlay that lives in memory.

Whatever is mounted for a container is mounted in a mount namespace that only the container has, so that it is gone when
the last process is. The container ends when the process that started it ends, however that happens.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from .image import PATH

BOOT_TIMEOUT = 60.0
STOP_TIMEOUT = 15.0
GROUP_PREFIX = "chrootsync-test-"

# $1 lower layers, $2 name, $3 notification socket, then the control groups to join, "--" and options of systemd-nspawn.
# - systemd-nspawn keeps its locks and mount points below /run: a tmpfs there leaves no trace on this machine.
# - redirect_dir: without it, renaming a directory of a lower layer gives EXDEV, which no real host does.
# - xino: without it, files and directories of an overlay report different devices.
BOOT = """
layers=$1 name=$2 notify=$3
shift 3
while [ "$1" != -- ]; do
    echo $$ > "$1/cgroup.procs"
    shift
done
shift
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/systemd/nspawn /run/up /run/wk /run/root
mount -t overlay overlay -o "lowerdir=$layers,upperdir=/run/up,workdir=/run/wk,redirect_dir=on,xino=on" /run/root
export NOTIFY_SOCKET="$notify"
exec systemd-nspawn --quiet --register=no --keep-unit --notify-ready=yes --machine="$name" --directory=/run/root \
    --boot --console=pipe --private-network --resolv-conf=off --timezone=off --link-journal=no "$@"
"""


class ContainerError(Exception):
    """A container did not start; the text ends with what it printed."""


class CommandError(Exception):
    """A command in a container failed; the text holds its output."""

    def __init__(self, argv: Sequence[str], done: subprocess.CompletedProcess[str]) -> None:
        super().__init__(f"{' '.join(argv)} ended with {done.returncode}\n{done.stdout}{done.stderr}")


def control_groups() -> list[Path]:
    """Where systemd needs a control group of its own: this process's places in the unified and the named hierarchy."""
    mounts = [line.split(" ") for line in Path("/proc/self/mounts").read_text().splitlines()]
    places = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for _, mounted, kind, options, *_ in mounts:
            unified = controllers == "" and kind == "cgroup2"
            named = controllers == "name=systemd" and kind == "cgroup" and controllers in options.split(",")
            if unified or named:
                places.append(Path(mounted + path))
                break
    return places


def remove_group(group: Path) -> None:
    """Remove a control group with those below it; what is still in use stays."""
    deadline = time.monotonic() + 2
    while group.exists() and time.monotonic() < deadline:
        for folder, _, _ in os.walk(group, topdown=False):
            with suppress(OSError):
                Path(folder).rmdir()
        time.sleep(0.01)


def remove_stale_groups() -> None:
    """Remove the control groups of test processes that were killed; they hold no process any more."""
    for place in control_groups():
        for group in place.glob(f"{GROUP_PREFIX}*"):
            owner = group.name.removeprefix(GROUP_PREFIX).partition("-")[0]
            if not Path("/proc", owner).exists():
                remove_group(group)


class Container:
    """One booted host on top of read-only ``layers`` (uppermost first), for use in a ``with`` statement.

    ``binds`` are folders of this machine that it shall have as well, by where it has them.
    """

    _numbers: Iterator[int] = itertools.count(1)

    def __init__(self, layers: Sequence[Path], binds: Mapping[str, Path] | None = None) -> None:
        self.layers = tuple(layers)
        self.binds = dict(binds or {})
        self.name = f"{GROUP_PREFIX}{os.getpid()}-{next(self._numbers)}"
        self.leader: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._groups: list[Path] = []

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> None:
        for place in control_groups():
            group = place / self.name
            group.mkdir()
            self._groups.append(group)
        with (
            tempfile.TemporaryDirectory(prefix="chrootsync-") as work,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify,
            Path(work, "console").open("w+b") as console,
        ):
            address = f"{work}/notify"
            notify.bind(address)
            stack = ":".join(str(path) for path in self.layers)
            binds = [f"--bind={path}:{inside}" for inside, path in self.binds.items()]
            # A session of its own keeps ^C from reaching the container before the tests have ended; the death signal
            # ends it in good order when they end without a word.
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "TERM", "unshare", "--mount", "--propagation", "private"),
                    *("sh", "-euc", BOOT, "boot", stack, self.name, address, *map(str, self._groups)),
                    *("--", *binds),
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env={"PATH": PATH, "LC_ALL": "C.UTF-8"},
                start_new_session=True,
            )
            try:
                self._wait_until_ready(notify)
            except ContainerError as error:
                console.seek(0)
                raise ContainerError(f"{error}:\n{console.read().decode(errors='replace')[-4000:]}") from None

    def _wait_until_ready(self, notify: socket.socket) -> None:
        assert self._process is not None
        notify.settimeout(0.5)
        deadline = time.monotonic() + BOOT_TIMEOUT
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise ContainerError(f"{self.name} ended with {self._process.returncode} while it booted")
            try:
                lines = notify.recv(1 << 16).decode().splitlines()
            except TimeoutError:
                continue
            for line in lines:
                if line.startswith("X_NSPAWN_LEADER_PID="):
                    self.leader = int(line.partition("=")[2])
            if "READY=1" in lines and self.leader is not None:
                self._make_sure_of_the_root()
                return
        raise ContainerError(f"{self.name} did not boot within {BOOT_TIMEOUT:.0f} seconds")

    def _make_sure_of_the_root(self) -> None:
        """Refuse to go on where commands would run on this machine instead of in the container."""
        status = self.root.stat()
        entered = self.run(["stat", "-c", "%d %i", "/"]).stdout.split()
        if entered != [str(status.st_dev), str(status.st_ino)] or os.path.samestat(status, os.stat("/")):
            raise ContainerError(f"{self.name} cannot be entered from here")

    def stop(self) -> None:
        """End the container, in good order if it obeys, and remove all that belongs to it."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                # The first process takes its whole namespace along; systemd-nspawn alone would leave it behind.
                if self.leader is not None:
                    with suppress(ProcessLookupError):
                        os.kill(self.leader, signal.SIGKILL)
                self._process.kill()
                self._process.wait()
            self._process = None
        self.leader = None
        for group in self._groups:
            remove_group(group)
        self._groups = []

    @property
    def root(self) -> Path:
        """The container's files as this machine sees them; absolute links in them lead astray."""
        return Path(f"/proc/{self.leader}/root")

    def _enter(self) -> list[str]:
        # Entering the mount namespace is not enough: its root is the container's only where this process's own root is
        # the machine's.
        return ["nsenter", f"--target={self.leader}", "--all", "--root", "--wd", "--"]

    def run(
        self,
        argv: Sequence[str],
        *,
        input: str | None = None,  # noqa: A002 - named as subprocess.run names it
        check: bool = True,
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root in the container, with a small environment.

        Raises CommandError where it fails and ``check`` is set.
        """
        variables = {"PATH": PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", **(env or {})}
        done = subprocess.run(
            [*self._enter(), *argv],
            input=input or "",
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=timeout,
            env=variables,
            check=False,
        )
        if check and done.returncode:
            raise CommandError(argv, done)
        return done

    def shell(self, script: str, *arguments: str, check: bool = True, timeout: float = 60) -> str:
        """Run a shell script that stops at its first failure, and give what it printed."""
        return self.run(["sh", "-euc", script, "sh", *arguments], check=check, timeout=timeout).stdout

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file, in place where it exists, and create the directories on the way."""
        script = 'mkdir -p "${1%/*}"; cat > "$1"; chmod "$2" "$1"'
        self.run(["sh", "-euc", script, "sh", path, f"{mode:o}"], input=text)

    def read(self, path: str) -> str:
        """The text of a file, links followed as the container follows them."""
        return self.run(["cat", "--", path]).stdout

    def exists(self, path: str) -> bool:
        """Whether anything is at the path that is not a dangling link."""
        return self.run(["test", "-e", path], check=False).returncode == 0

    def wait_for(self, pattern: str, path: str, *, start: int = 0, timeout: float = 20) -> str:
        """Wait until ``pattern`` is found in a growing file behind byte ``start``, and give the line it is in."""
        deadline = time.monotonic() + timeout
        text = ""
        while time.monotonic() < deadline:
            with suppress(FileNotFoundError):
                text = (self.root / path.lstrip("/")).read_bytes()[start:].decode(errors="replace")
            if found := re.search(f"^.*(?:{pattern}).*$", text, re.MULTILINE):
                return found[0]
            time.sleep(0.05)
        raise TimeoutError(f"{pattern!r} did not appear in {path} within {timeout:.0f} s; it holds:\n{text[-4000:]}")
