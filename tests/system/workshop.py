"""A Debian that nothing boots, with images to be looked at in its /srv: chrootsync runs there as installed on a host.

All mounts are in a mount namespace of one process, and gone with it. What is written lives in memory.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from .container import CommandError
from .image import PATH

# $1 an empty folder, $2 the layers of the host, then pairs of a name below /srv and the layers of that image.
# redirect_dir and xino: an overlay is to behave as other file systems do, see container.py.
MOUNT = """
work=$1 layers=$2
shift 2
mount -t tmpfs -o mode=755 tmpfs "$work"
stack() {
    mkdir -p "$work/up-$1" "$work/wk-$1" "$3"
    mount -t overlay overlay -o "lowerdir=$2,upperdir=$work/up-$1,workdir=$work/wk-$1,redirect_dir=on,xino=on" "$3"
}
stack host "$layers" "$work/host"
mount -t proc proc "$work/host/proc"
mount --rbind /dev "$work/host/dev"
mount -t tmpfs -o mode=755 tmpfs "$work/host/run"
while [ $# -gt 0 ]; do
    stack "$1" "$2" "$work/host/srv/$1"
    shift 2
done
exec chroot "$work/host" /bin/sh -c "echo ready; exec sleep infinity"
"""

# Loads libraries inside the chroot $1 as nobody, each in its own process, and prints what hindered each. No account is
# looked up before: that would map the modules from outside.
LOAD = """
import ctypes, os, sys

chroot, *libraries = sys.argv[1:]
for library in libraries:
    sys.stdout.flush()
    if os.fork() == 0:
        os.chroot(chroot)
        os.chdir("/")
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            ctypes.CDLL(library)
        except OSError as error:
            print(f"{library}: {error}")
        sys.stdout.flush()
        os._exit(0)
    os.wait()
"""

# Every name below a directory with all that a change could not hide: the change time is the kernel's.
MOUNTED = ("(", "-path", "/proc", "-o", "-path", "/dev", "-o", "-path", "/run", ")", "-prune", "-o")
LISTING = ("-xdev", *MOUNTED, "-printf", r"%P %y %m %U %G %s %n %i %T@ %C@ %l\n")


class Workshop:
    """A host made of read-only ``layers`` (uppermost first), and ``images`` of that kind in its /srv, by name."""

    def __init__(self, layers: Sequence[Path], images: Mapping[str, Sequence[Path]]) -> None:
        self.layers = tuple(layers)
        self.images = dict(images)
        self._process: subprocess.Popen[str] | None = None
        self._work = tempfile.TemporaryDirectory(prefix="chrootsync-")

    def __enter__(self) -> Self:
        stacks = [name_or_stack for name, layers in self.images.items() for name_or_stack in (name, _stack(layers))]
        self._process = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private"),
                *("sh", "-euc", MOUNT, "mount", self._work.name, _stack(self.layers), *stacks),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={"PATH": PATH, "LC_ALL": "C.UTF-8"},
            start_new_session=True,
        )
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        if said != "ready\n" or os.path.samestat(self.root.stat(), os.stat("/")):
            self._process.kill()
            message = f"the images could not be mounted:\n{said}{self._process.stdout.read()}"
            self.__exit__()
            raise RuntimeError(message)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
        self._work.cleanup()

    @property
    def root(self) -> Path:
        """The host's files as this machine sees them; absolute links in them lead astray."""
        assert self._process is not None
        return Path(f"/proc/{self._process.pid}/root")

    def run(
        self, argv: Sequence[str], *, check: bool = True, timeout: float = 120, user: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the host, as root or as ``user``.

        Raises CommandError where it fails and ``check`` is set.
        """
        assert self._process is not None
        enter = ["nsenter", f"--target={self._process.pid}", "--mount", "--root", "--wd", "--"]
        drop = (
            ["setpriv", f"--reuid={user}", "--regid=nogroup", "--clear-groups", "--inh-caps=-all", "--"] if user else []
        )
        done = subprocess.run(
            [*enter, *drop, *argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=timeout,
            env={"PATH": PATH, "HOME": "/", "LC_ALL": "C.UTF-8"},
            check=False,
        )
        if check and done.returncode:
            raise CommandError(argv, done)
        return done

    def shell(self, script: str, *arguments: str, root: str = "/") -> str:
        """Run a shell script on the host, or below a ``root`` of it, and give what it printed."""
        command = ["sh", "-euc", script, "sh", *arguments]
        return self.run(command if root == "/" else ["chroot", root, *command]).stdout

    def chrootsync(self, *arguments: str, user: str = "") -> subprocess.CompletedProcess[str]:
        """Run chrootsync on the host."""
        return self.run(["/opt/chrootsync/bin/chrootsync", *arguments], check=False, user=user)

    def listing(self, directory: str) -> list[str]:
        """Everything below a directory, mounts left out: what is equal before and after, nobody has touched."""
        return sorted(self.run(["find", directory, *LISTING]).stdout.splitlines())

    @contextmanager
    def untouched(self, *directories: str) -> Iterator[None]:
        """Assert that nothing below some directories changes meanwhile."""
        before = {directory: self.listing(directory) for directory in directories}
        yield
        for directory, lines in before.items():
            changed = set(self.listing(directory)) ^ set(lines)
            assert not changed, f"changed below {directory}: {shlex.join(sorted(changed)[:5])}"

    def write(self, path: str, text: str | bytes) -> None:
        """Write a file of the host, and create the directories on the way."""
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(text if isinstance(text, bytes) else text.encode())
        place.chmod(0o644)


def _stack(layers: Sequence[Path]) -> str:
    return ":".join(os.fspath(layer) for layer in layers)
