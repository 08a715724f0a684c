"""``chrootsync demo``: three instances in a throw-away root, through the same code as on a live host."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated

import typer

from chrootsync import libraries
from chrootsync.cli import streams
from chrootsync.cli.check import check
from chrootsync.cli.guard import guarded
from chrootsync.cli.history import history
from chrootsync.model import ChrootsyncError, Code, PathError
from chrootsync.root import Root
from chrootsync.state import Store

STATE = "/var/lib/chrootsync"
CHROOTS = {"submission": "postfix", "in": "postfix-in", "out": "postfix-out"}
FILES = ("hosts", "host.conf", "gai.conf", "services", "passwd", "group", "os-release", "ld.so.cache")
RESOLVER = "# written for the demonstration\nnameserver 192.0.2.53\n"
NEW_RESOLVER = (
    "# written for the demonstration, after a change of network\nnameserver 198.51.100.53\noptions trust-ad\n"
)

MAIN_CF = """\
compatibility_level = 3.6
multi_instance_enable = yes
multi_instance_name = postfix-{name}
queue_directory = /var/spool/{directory}
data_directory = /var/lib/{directory}
mail_owner = postfix
{extra}"""

MASTER_CF = """\
# service type  private unpriv  chroot  wakeup  maxproc command
smtp      inet  n       -       y       -       -       smtpd
cleanup   unix  n       -       y       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
smtp      unix  -       -       y       -       -       smtp
local     unix  -       n       n       -       -       local
"""


@guarded
def demo(
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the root there to play with.")] = False,
) -> None:
    """See it work: three Postfix instances in a throw-away root drift, are checked, repaired and checked again.

    Needs neither root nor Postfix, and touches nothing but a temporary directory.
    """
    directory = tempfile.mkdtemp(prefix="chrootsync-demo-")
    try:
        _story(directory)
    finally:
        if keep:
            _say(f"The root is left in {directory}. Play with it, for instance:")
            _say(f"  echo stale > {directory}/var/spool/postfix-out/etc/services")
            _say(f"  chrootsync check --root {directory} --state {directory}{STATE}")
            _say(f"  chrootsync rollback --root {directory} --state {directory}{STATE}")
        else:
            shutil.rmtree(directory)


def _story(root: str) -> None:
    _say("A host with three Postfix instances: submission, in and out, each with a chroot of its own.")
    _say("Their chroots are empty, as after 'postmulti -e create'. The first repair fills them:")
    _build(root)
    _run(root, Code.OK, fix=True, quiet=True)
    _run(root, Code.OK)
    _say("\nNow life goes on:")
    for what, drift in DRIFTS.items():
        _say(f"  - {what}")
        drift(root)
    _say("\nEvery daemon in the chroots works with what was true yesterday. What would it see?")
    _run(root, Code.DRIFT)
    _say("\nOne command makes it right. On a live host it also reloads the instances that changed, once each:")
    _run(root, Code.OK, fix=True)
    _say("\nAnd it is right:")
    _run(root, Code.OK)
    _say("\nWhat was done is remembered, and 'chrootsync rollback' would take it back:")
    _say(f"\n$ chrootsync history {_options(root)}")
    _expect(Code.OK, lambda: history(root=root, state=root + STATE))


def _say(text: str) -> None:
    streams.write(f"{text}\n")


def _run(root: str, expected: int, *, fix: bool = False, quiet: bool = False) -> None:
    """Run ``check`` as the command line does, and hold it to its exit status."""
    _say(f"\n$ chrootsync check{' --fix' if fix else ''}{' --quiet' if quiet else ''} {_options(root)}")
    _expect(expected, lambda: check(fix=fix, quiet=quiet, root=root, state=root + STATE))


def _options(root: str) -> str:
    return f"--root {root} --state {root}{STATE}"


def _expect(expected: int, verb: Callable[[], int]) -> None:
    """Run a verb, and hold it to its exit status."""
    status = verb()
    if status != expected:
        raise ChrootsyncError(f"the demonstration went wrong: exit status {status}, not {expected}")


# --- The root -----------------------------------------------------------------------------------------------------


def _build(root: str) -> None:
    """A small host made of this machine's own files, and three instances on it."""
    for name in FILES:
        _take(root, f"/etc/{name}")
    _write(root, "/etc/resolv.conf", RESOLVER)
    _write(root, "/etc/nsswitch.conf", "passwd: files\nhosts: files dns hesiod\nservices: files\n")
    if not os.path.exists(f"{root}/etc/services"):
        _write(root, "/etc/services", "smtp 25/tcp mail\nsubmission 587/tcp\n")
    for path in _libraries():
        _take(root, path)
    others = "multi_instance_directories = /etc/postfix-in, /etc/postfix-out\n"
    for name, place in CHROOTS.items():
        extra = others if name == "submission" else ""
        _write(root, f"/etc/{place}/main.cf", MAIN_CF.format(name=name, directory=place, extra=extra))
        _write(root, f"/etc/{place}/master.cf", MASTER_CF)
        _make_directory(root, f"/var/spool/{place}")


def _libraries() -> list[str]:
    """This machine's libraries that a chroot with the demonstration's nsswitch.conf would need, and the C library."""
    live = Root("/")
    try:
        found = libraries.needs_libraries(live, Store(None), ("libgcc_s.so.1", "libnss_hesiod.so.2")).libraries
        directories = {os.path.dirname(library.source) for library in found}
        candidates = [library.source for library in found]
        candidates += [f"{place}/{name}" for place in directories for name in ("libc.so.6", "libresolv.so.2")]
        return [path for path in candidates if os.path.exists(path)]
    except PathError:
        return []
    finally:
        live.close()


def _make_directory(root: str, path: str) -> None:
    """Make a directory and its parents with the mode that a host's have, whatever the umask is."""
    made = root
    for name in path.strip("/").split("/"):
        made = f"{made}/{name}"
        if not os.path.isdir(made):
            os.mkdir(made)
            os.chmod(made, 0o755)  # noqa: S103 -- as every directory of a host


def _write(root: str, path: str, text: str) -> None:
    _make_directory(root, os.path.dirname(path))
    with open(root + path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(root + path, 0o644)


def _take(root: str, path: str) -> None:
    """Copy one of this machine's files, where it has it."""
    with suppress(OSError):
        _make_directory(root, os.path.dirname(path))
        shutil.copyfile(path, root + path)
        os.chmod(root + path, 0o644)


# --- What happens to it -------------------------------------------------------------------------------------------


def _update_libraries(root: str) -> None:
    """Change every library as an update would: a new inode with other contents under the old name."""
    for folder, _, names in os.walk(root):
        for name in names:
            if name.startswith(("libnss_", "libresolv")) and "/spool/" not in folder:
                path = os.path.join(folder, name)
                with open(path, "rb") as file:
                    contents = file.read()
                with open(f"{path}.new", "wb") as file:
                    file.write(contents + b"a newer build\n")
                os.chmod(f"{path}.new", 0o644)
                os.replace(f"{path}.new", path)


def _change_network(root: str) -> None:
    _write(root, "/etc/resolv.conf", NEW_RESOLVER)


def _lose_services(root: str) -> None:
    os.unlink(f"{root}/var/spool/postfix-in/etc/services")


def _close_hosts(root: str) -> None:
    os.chmod(f"{root}/var/spool/postfix-out/etc/hosts", 0o600)


DRIFTS: dict[str, Callable[[str], None]] = {
    "a package update brings new name service libraries;": _update_libraries,
    "the network changes, and with it /etc/resolv.conf;": _change_network,
    "somebody tidies up and deletes etc/services in the chroot of in;": _lose_services,
    "somebody's umask was 077 when he copied etc/hosts to the chroot of out.": _close_hosts,
}
