"""Who runs the tests, and what the machine can do to them: time, descriptors, mounts, ACLs."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

from chrootsync.root import Root
from chrootsync.root.read import WalkedChroot

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away, make devices and mount")
needs_user = pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")

STRANGER = 1234
NEWNS = 0x0002_0000
SKIPPED = 77


@contextlib.contextmanager
def entered(root: str | os.PathLike[str], chroot: str = "/jail") -> Iterator[WalkedChroot]:
    """A chroot below a root that is an image."""
    image = Root(os.fspath(root))
    try:
        with contextlib.closing(image.chroot(chroot)) as found:
            yield found
    finally:
        image.close()


@contextlib.contextmanager
def promptly(seconds: int = 5) -> Iterator[None]:
    """Fail where something blocks."""

    def give_up(_signal: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"blocked for {seconds} seconds")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def descriptors() -> set[str]:
    """The open descriptors of this process, and what they stand for."""
    found: set[str] = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that lists
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
    return found


@contextlib.contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Let this process open ``count`` more descriptors only."""
    free = [os.open("/", os.O_PATH) for _ in range(count + 1)]
    for fd in free:
        os.close(fd)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(free), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def with_private_mounts(check: Callable[[], None]) -> None:
    """Run a check in a child process whose mounts nobody else sees, and which end with it."""
    sys.stdout.flush()
    output, report = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the threads of a test runner hold no locks of ours
        child = os.fork()
    if child == 0:
        os.close(output)
        os._exit(_in_child(check, report))
    os.close(report)
    with open(output, encoding="utf-8", errors="replace") as file:
        said = file.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == SKIPPED:
        pytest.skip(said)
    if code != 0:
        pytest.fail(f"with private mounts:\n{said}")


def _in_child(check: Callable[[], None], report: int) -> int:
    def say(text: str) -> None:
        os.write(report, text.encode("utf-8", "backslashreplace"))

    try:
        if ctypes.CDLL(None, use_errno=True).unshare(NEWNS) != 0:
            say(f"no mount namespace: {os.strerror(ctypes.get_errno())}")
            return SKIPPED
        mount("--make-rprivate", "/")
        check()
    except pytest.skip.Exception as skipped:
        say(str(skipped))
        return SKIPPED
    except BaseException:  # noqa: BLE001 -- the parent fails with it
        say(traceback.format_exc())
        return 1
    return 0


def mount(*arguments: str | os.PathLike[str]) -> None:
    """Mount something; without the right to, the test is skipped."""
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"mount: {done.stderr.strip()}")


def set_acl(path: Path, *arguments: str) -> None:
    """Change an ACL by setfacl(1); where there is none, the test is skipped."""
    try:
        subprocess.run(["setfacl", *arguments, path], capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no ACLs here: {error}")
