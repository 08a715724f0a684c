"""The child, run for real: inside chroots whose owner means no good it gives its rights away, and always ends."""

from __future__ import annotations

import errno
import glob
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from chrootsync import process
from chrootsync.probe import child
from chrootsync.probe.asking import PROGRAM
from tests.unit.scenery import Tree, grow

LONG = 30.0
HOSTS = b"127.0.0.1 localhost\n192.0.2.1 mx.example alias\n"
SERVICES = b"smtp 25/tcp mail\n"
CERTIFICATES = "/etc/ssl/certs"
UNANSWERED = "127.53.53.53"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: chroot(2)")


def plan(
    chroot: Path | None,
    *lookups: Sequence[object],
    users: Sequence[str] = ("nobody",),
    seconds: float = LONG,
    names: int = 0,
) -> dict[str, Any]:
    return {
        "chroot": None if chroot is None else str(chroot),
        "users": users,
        "seconds": seconds,
        "names": names,
        "lookups": lookups,
    }


def ends(*plans: dict[str, Any]) -> list[tuple[int, str]]:
    """How the processes that carry out some plans end, and what they say."""
    command = (sys.executable, "-I", "-S", "-c", PROGRAM, os.path.dirname(child.__file__))
    with closing(process.answering(command)) as asked:
        asked.give(json.dumps(plans).encode(), timeout=LONG)
        done = asked.answer(timeout=2 * LONG)
    assert done.code == 0, done
    return [(number, text) for number, text in json.loads(done.output)]


def ask(*arguments: Any, **options: Any) -> dict[str, Any]:
    """What the child says to a plan."""
    [(number, text)] = ends(plan(*arguments, **options))
    assert number == 0
    said = json.loads(text)
    assert isinstance(said, dict)
    return said


def answers(*arguments: Any, **options: Any) -> list[tuple[bool, str]]:
    return [(one["worked"], one["text"]) for one in ask(*arguments, **options)["answers"]]


def jail(place: Path, tree: Tree | None = None) -> Path:
    """A chroot that libc can look things up in."""
    modules = {found: Path(found).read_bytes() for found in glob.glob("/lib/*/libnss_[fd][in][ls]*.so.2")}
    defaults: Tree = {"/etc/hosts": HOSTS, "/etc/services": SERVICES, "/etc/resolv.conf": b"", **modules}
    chroot = place / "jail"
    chroot.mkdir()
    chroot.chmod(0o755)
    grow(chroot, {**defaults, **(tree or {})})
    return chroot


def children() -> list[str]:
    """The processes of a child that still live."""
    found = []
    for name in os.listdir("/proc"):
        try:
            command = Path("/proc", name, "cmdline").read_bytes()
        except OSError:
            continue
        if name.isdigit() and os.fsencode(child.__file__) in command:
            found.append(name)
    return found


def left_behind() -> list[str]:
    """Those of them that do not end: tests beside this one have children of their own, which do."""
    found, deadline = children(), time.monotonic() + LONG
    while found and time.monotonic() < deadline:
        time.sleep(0.05)
        found = [one for one in children() if one in found]
    return found


@pytest.fixture
def silent_server() -> Iterator[str]:
    """A name server that never answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((UNANSWERED, 53))
        yield UNANSWERED


@needs_root
def test_it_looks_up_what_the_chroot_holds(tmp_path: Path) -> None:
    chroot = jail(tmp_path)

    said = ask(chroot, ("host", "localhost"), ("service", "smtp", "tcp"), ("service", "imap", "tcp"), names=8)

    assert said["names"] == ["mx.example"]
    assert [(one["worked"], one["text"]) for one in said["answers"]] == [
        (True, "127.0.0.1"),
        (True, "port 25"),
        (False, "unknown service"),
        (True, "192.0.2.1"),
    ]


@needs_root
def test_it_looks_up_the_same_outside(tmp_path: Path) -> None:
    listener = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(listener))
        server.listen()
        path = f"/proc/{os.getpid()}/root{listener}"
        said = answers(
            None, ("user", "root"), ("user", "no-such-user"), ("time", 86_400 * 365, "early"), ("socket", path)
        )

    assert said[:2] == [(True, "uid 0, gid 0"), (False, "unknown user")]
    assert said[2] == (True, time.strftime("%H:%M:%S %z (%Z)", time.localtime(86_400 * 365)))
    assert not said[3][0], "nobody may pass the tests' directories: rights were given away"


@needs_root
def test_a_time_zone_is_the_hosts_or_where_it_is_read_late_that_of_the_chroot(tmp_path: Path) -> None:
    # A time zone without rules, tzfile(5) version 1: one type of local time, 5 hours and 30 minutes ahead.
    zone = b"TZif" + bytes(16) + struct.pack(">6l", 0, 0, 0, 0, 1, 4) + struct.pack(">lbB", 19_800, 0, 0) + b"IST\0"
    chroot = jail(tmp_path, {"/etc/localtime": zone})

    early, late = answers(chroot, ("time", 0, "early"), ("time", 0, "late"))

    assert early == (True, time.strftime("%H:%M:%S %z (%Z)", time.localtime(0)))
    assert late == (True, "05:30:00 +0530 (IST)")


@needs_root
def test_sockets_of_all_kinds_are_tried_and_what_is_none_is_told(tmp_path: Path) -> None:
    chroot = jail(tmp_path, {"/run/file": b""})
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as deaf,
    ):
        for server, name in ((stream, "stream"), (datagrams, "datagrams"), (deaf, "deaf")):
            server.bind(str(chroot / "run" / name))
            (chroot / "run" / name).chmod(0o777)
        stream.listen()
        names = ("stream", "datagrams", "deaf", "file", "nothing")
        said = answers(chroot, *(("socket", f"/run/{name}") for name in names))

    assert said == [
        (True, "somebody answers"),
        (True, "somebody answers"),
        (False, os.strerror(errno.ECONNREFUSED).lower()),
        (False, "is no socket"),
        (False, os.strerror(errno.ENOENT).lower()),
    ]


@needs_root
@pytest.mark.parametrize("hosts", ["fifo", "huge", "directory", "dead link"])
def test_a_hosts_file_of_any_kind_holds_nothing_up(tmp_path: Path, hosts: str) -> None:
    chroot = jail(tmp_path)
    path = chroot / "etc" / "hosts"
    path.unlink()
    if hosts == "fifo":
        os.mkfifo(path, 0o644)
    elif hosts == "huge":
        path.touch()
        os.truncate(path, 1 << 40)
        path.chmod(0o644)
    elif hosts == "directory":
        path.mkdir()
    else:
        path.symlink_to("/nowhere")

    began = time.monotonic()
    said = ask(chroot, ("host", "mx.example"), ("service", "smtp", "tcp"), seconds=2, names=8)

    assert said["names"] == []
    assert not said["answers"][0]["worked"]
    assert said["answers"][1]["text"] == "port 25", "one that hangs keeps no other back"
    if hosts == "fifo":
        assert said["answers"][0]["text"] == "no answer within 2 seconds"
    assert time.monotonic() - began < LONG
    assert left_behind() == []


@needs_root
def test_a_name_server_that_never_answers_is_given_up(tmp_path: Path, silent_server: str) -> None:
    chroot = jail(
        tmp_path, {"/etc/resolv.conf": f"nameserver {silent_server}\noptions timeout:30 attempts:5\n".encode()}
    )

    [(worked, text)] = answers(chroot, ("dns", ".", "NS"))

    assert (worked, text) == (False, f"no answer, or the server's own lookup failed (name servers: {silent_server})")
    assert left_behind() == []


@needs_root
def test_certificates_are_read_with_the_rights_of_the_user(tmp_path: Path) -> None:
    names = [name for name in sorted(os.listdir(CERTIFICATES)) if child.HASHED.fullmatch(name)][:2]
    if len(names) < 2:
        pytest.skip(f"needs certificates with hashed names in {CERTIFICATES}")
    chroot = jail(tmp_path, {"/certs": None, "/wrong": None, "/empty": None, "/shut": None})
    for name in names:
        shutil.copyfile(f"{CERTIFICATES}/{name}", chroot / "certs" / name)
    shutil.copyfile(f"{CERTIFICATES}/{names[0]}", chroot / "wrong" / "00000000.0")
    grow(chroot, {"/wrong/11111111.0": b"no certificate", "/wrong/22222222.0": 0o644, "/wrong/33333333.0": b"secret"})
    (chroot / "wrong" / "33333333.0").chmod(0o600)
    (chroot / "shut").chmod(0o700)

    said = answers(chroot, *(("certificates", f"/{name}") for name in ("certs", "wrong", "empty", "shut")))

    assert said == [
        (True, "2 hashed names"),
        (
            False,
            (
                f"4 of 4 hashed names are of no use: 00000000.0 (its hash is {names[0][:8]}), "
                "11111111.0 (not a certificate), 22222222.0 (not a regular file) and 1 more"
            ),
        ),
        (False, "no hashed name is in it"),
        (False, "permission denied"),
    ]


@needs_root
def test_it_refuses_to_stay_root(tmp_path: Path) -> None:
    chroot = jail(tmp_path)

    assert ask(chroot, users=["root"]) == {
        "error": "the user root is root or in root's group, whose rights cannot be given away"
    }
    assert ask(chroot, users=["no-such-user", "nor-this"]) == {
        "error": "there is no user no-such-user or nor-this on the host"
    }
    assert ask(tmp_path / "nowhere") == {"error": "the chroot cannot be entered: no such file or directory"}


@needs_root
def test_what_is_left_of_its_rights_is_nothing() -> None:
    program = (
        "import ctypes, sys; sys.path.insert(0, sys.argv[1]); import child\n"
        "status = open('/proc/self/status')\n"
        "child.enter('/usr', child.account(['nobody'])); child.confine(ctypes.CDLL(None))\n"
        "print(status.read())\n"
        "try:\n    import unicodedata\nexcept ImportError:\n    print('Import:\tno')\n"
    )
    folder = os.path.dirname(child.__file__)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, folder], capture_output=True, text=True, check=True, timeout=LONG
    )
    status = dict(line.split(":\t", 1) for line in done.stdout.splitlines() if ":\t" in line)

    nobody = str(os.stat("/proc/self").st_uid if os.geteuid() else 65534)
    assert status["Uid"].split() == [nobody] * 4
    assert "0" not in status["Gid"].split()
    assert "0" not in status["Groups"].split()
    assert {status[name] for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    assert status["Import"] == "no"


@needs_root
def test_python_files_in_the_chroot_are_never_run(tmp_path: Path) -> None:
    chroot = jail(tmp_path, {"/mark": None})
    (chroot / "mark").chmod(0o1777)
    paths = subprocess.run(
        [sys.executable, "-I", "-S", "-c", "import sys; print(*sys.path, sep='\\n')"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    trap = b"open('/mark/run', 'w')"
    modules = ("encodings/idna", "encodings/latin_1", "stringprep", "unicodedata", "traceback", "linecache")
    grow(chroot, {f"{path}/{module}.py": trap for path in paths for module in modules})

    said = answers(
        chroot, ("host", "mx.example"), ("host", "b\u00fccher.example"), ("dns", "x" * 300, "A"), ("no", "kind")
    )

    assert said[0] == (True, "192.0.2.1")
    assert not any(worked for worked, _ in said[1:])
    assert os.listdir(chroot / "mark") == []


def test_a_crash_is_told_by_its_signal_and_keeps_no_other_back() -> None:
    program = (
        "import os, json, sys, time; sys.path.insert(0, sys.argv[1]); import child\n"
        "def crash(_, number): os.kill(os.getpid(), number)\n"
        "def fine(_): return child.worked('fine')\n"
        "def flood(_): return child.worked('', 'x' * 100_000)\n"
        "child.KINDS = {'crash': crash, 'fine': fine, 'flood': flood}\n"
        "lookups = [('crash', 7), ('fine',), ('crash', 11), ('flood',)]\n"
        "libraries = child.Libraries(certificates=False)\n"
        "print(json.dumps(child.look_up_all(libraries, lookups, time.monotonic() + 20)))\n"
    )
    folder = os.path.dirname(child.__file__)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, folder], capture_output=True, text=True, check=True, timeout=LONG
    )

    assert [one["text"] for one in json.loads(done.stdout)] == [
        "crashed: killed by signal 7 (Bus error)",
        "fine",
        "crashed: killed by signal 11 (Segmentation fault)",
        "crashed: killed by signal 9 (Killed)",
    ]


@needs_root
def test_several_plans_are_carried_out_at_the_same_time_each_with_its_own_chroot(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for place, port in ((one, b"25"), (other, b"2525")):
        place.mkdir()
        place.chmod(0o755)
        grow(jail(place), {"/etc/services": b"smtp %s/tcp\n" % port})
    lookup = ("service", "smtp", "tcp")

    said = ends(plan(one / "jail", lookup), plan(tmp_path / "none", lookup), plan(other / "jail", lookup))

    told = [json.loads(text) for _, text in said]
    assert [one["answers"][0]["text"] for one in (told[0], told[2])] == ["port 25", "port 2525"]
    assert told[1] == {"error": "the chroot cannot be entered: no such file or directory"}


def gathered(works: str, seconds: float = LONG) -> list[tuple[int, str]]:
    """What becomes of some work, whose functions are given as Python."""
    program = (
        "import ctypes, json, os, sys, time; sys.path.insert(0, sys.argv[1]); import child\n"
        f"works = [{works}]\n"
        f"said = child.gather(ctypes.CDLL(None), works, time.monotonic() + {seconds}, 1000)\n"
        "print(json.dumps([[number, child.readable(text)] for number, text in said]))\n"
    )
    command = [sys.executable, "-I", "-S", "-c", program, os.path.dirname(child.__file__)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LONG)
    return [(number, text) for number, text in json.loads(done.stdout)]


def test_what_crashes_hangs_floods_or_says_what_is_no_text_keeps_nothing_else_back() -> None:
    works = (
        "lambda: b'first', lambda: os.kill(os.getpid(), 11), lambda: time.sleep(1000), lambda: b'x' * 2000,"
        " lambda: b'\\xff', lambda: b'\\0' * 9, lambda: b'last'"
    )
    assert gathered(works, seconds=2) == [
        (0, "first"),
        (11, ""),
        (child.LATE, ""),
        (9, ""),
        (0, ""),
        (0, ""),
        (0, "last"),
    ]


def test_none_can_read_or_say_what_others_say() -> None:
    listing = "lambda: repr([fd for fd in map(int, os.listdir('/proc/self/fd')) if fd > 2]).encode()"
    # The second one is the listing's own, of the directory.
    assert gathered(", ".join([listing] * 3)) == [(0, "[3, 4]")] * 3


def test_names_of_a_hosts_file_are_such_as_can_be_looked_up() -> None:
    text = (
        "127.0.0.1 localhost\n::1 ip6-localhost\n192.0.2.1 one.example two\n# 192.0.2.2 comment.example\n"
        "192.0.2.3 one.example\n192.0.2.4 -bad\n192.0.2.5 10.1.1.1\n192.0.2.6\n192.0.2.7 last_one\n"
    )

    assert child.names_of_hosts(text, 8) == ["one.example", "last_one"]
    assert child.names_of_hosts(text, 1) == ["one.example"]
