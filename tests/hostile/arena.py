"""A host with secrets, a chroot that an attacker has prepared, and the trial that every such case goes through."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import io
import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from hypothesis import settings
from typer.main import get_command

from chrootsync import shipped
from chrootsync.cli.application import application
from tests.unit.scenery import Tree, grow

ATTACKER = 1234
SECRET = b"postmaster:$y$j9T$never-to-be-seen-outside:20000::::::\n"
DIGEST = hashlib.sha256(SECRET).hexdigest()
NEW, OLD = b"what the host has\n", b"stale\n"
PATIENCE = 20  # seconds that a run may take, on a machine that does other things too
HASHED = 1 << 20  # bytes of a file that a snapshot looks at; what is sparse and huge is told by its blocks
CROWD = 1000  # names in a directory that are too many to be remembered one by one
LONG = 3000  # examples of the hypothesis profile "long"

Snapshot = dict[str, object]


def thorough() -> bool:
    """Whether this is the long run, for which ``--hypothesis-profile=long`` asks."""
    return settings().max_examples >= LONG


class HungError(BaseException):
    """A run took longer than anybody would wait; nothing on the way may take this for an error of its own."""


class Tally:
    """Counts across the processes of a test run: one line for each event, appended to one file."""

    def __init__(self, path: Path) -> None:
        """Count in ``path``."""
        self._path = path

    def add(self, event: str, times: int = 1) -> None:
        """Note an event."""
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(fd, f"{event} {times}\n".encode())
        os.close(fd)

    def counts(self) -> dict[str, int]:
        """The events noted so far."""
        found: dict[str, int] = {}
        if self._path.exists():
            for line in self._path.read_text(encoding="ascii").splitlines():
                event, times = line.split()
                found[event] = found.get(event, 0) + int(times)
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What a run of the command line said."""

    code: int
    report: dict[str, Any]
    text: str

    def drifts(self, name: str | None = None) -> list[dict[str, Any]]:
        """The drifts of one instance, or of all."""
        instances = self.report.get("instances", ())
        return [drift for one in instances if name in (None, one["name"]) for drift in one["drift"]]

    @property
    def kinds(self) -> dict[str, str]:
        """Paths with the kind of their drift."""
        return {_path(drift): drift["kind"] for drift in self.drifts()}

    @property
    def outcomes(self) -> dict[str, str]:
        """Paths with what came of their repair."""
        return {_path(drift): drift["outcome"]["status"] for drift in self.drifts() if drift["outcome"]}

    @property
    def messages(self) -> str:
        """Every sentence that tells what is wrong, one a line."""
        said = [drift["reason"] for drift in self.drifts()]
        said += [drift["outcome"]["reason"] for drift in self.drifts() if drift["outcome"]]
        return "\n".join([*said, *self.report.get("error", {}).get("messages", ())])


class Arena:
    """An image with an instance ``one``, whose chroot is under attack, and ``two``, which is in sync.

    ``outside`` (in the image) and ``beyond`` (not even there) hold secrets under the names that a copy would have.
    """

    def __init__(self, top: Path, tally: Tally, *, there: bool = False) -> None:
        """Lay the arena out below ``top``, unless it is there already."""
        self.top = top
        self.tally = tally
        self.image = top / "image"
        self.jail = self.image / "jail/one"
        self.outside = self.image / "outside"
        self.beyond = top / "beyond"
        self.config = top / "chrootsync.toml"
        self.rules = top / "rules"
        self.chroots = {"one": "/jail/one", "two": "/jail/two"}
        self.extra = ""
        self._rules: list[Mapping[str, object]] = []
        self._subjects: list[Path] = [self.jail]
        self.separate = thorough()
        self.patience = PATIENCE
        if not there:
            self._lay_out()

    def _lay_out(self) -> None:
        grow(self.top, {"/image": None, "/beyond": None, "/rules": None})
        grow(self.image, {"/etc/conf": NEW, "/etc/calm": NEW, "/jail/one": None, "/jail/two/etc/calm": NEW})
        for name in os.listdir(shipped.directory("rules")):
            _save(self.rules / name, "")  # an empty file masks the shipped one, which takes longer to read
        for place in (self.outside, self.beyond):
            grow(place, dict.fromkeys(("/conf", "/shadow", "/etc/conf", "/app/conf"), SECRET))
            for secret in ("conf", "shadow", "etc/conf", "app/conf"):
                (place / secret).chmod(0o600)

    def host(self, tree: Tree) -> None:
        """Put things on the host's side."""
        grow(self.image, tree)

    def plant(self, tree: Tree) -> None:
        """Put things into the chroot."""
        grow(self.jail, tree)

    def rule(self, **keys: object) -> None:
        """Let the chroot hold something; without any rule it is a copy of /etc/conf."""
        number = len(self._rules)
        self._rules.append({"id": f"test.{number}", "why": "a test wants it", **keys})

    def give_away(self, *paths: str, owner: int = ATTACKER) -> None:
        """Give things in the chroot to the attacker, links themselves too."""
        for path in paths:
            os.chown(self.jail / path.lstrip("/"), owner, owner, follow_symlinks=False)

    def changes(self, path: Path) -> None:
        """Let ``path`` count as inside too: what a repair may change."""
        self._subjects.append(path)

    # --- Running ---

    def check(self) -> Found:
        """Compare."""
        return self.run("check", "--format", "json")

    def fix(self, *words: str) -> Found:
        """Compare and repair."""
        return self.run("check", "--fix", "--format", "json", *words)

    def run(self, verb: str, *words: str) -> Found:
        """Run the command line on the image."""
        self._write()
        places = ["--root", str(self.image), "--rules", str(self.rules), "--config", str(self.config)]
        arguments = [verb, *words, *places]
        code, text = (_as_process if self.separate else _in_process)(arguments, self.patience)
        as_json = "json" in words and text.startswith("{")
        return Found(code=code, report=json.loads(text[: text.rindex("}\n") + 2]) if as_json else {}, text=text)

    def _write(self) -> None:
        rules = self._rules or [{"id": "test.0", "why": "a test wants it", "files": ["/etc/conf"]}]
        calm = [{"id": "calm.0", "why": "nobody attacks it", "files": ["/etc/calm"]}]
        for name, tables in (("test", rules), ("calm", calm)):
            head = '[ruleset]\nservice = "test"\ndescription = "for tests"\n'
            _save(self.rules / f"{name}.toml", head + "".join(_table("rule", table) for table in tables))
        sets = {"one": ["test"], "two": ["calm"]}
        instances = [
            {"name": name, "chroot": path, "rules": sets.get(name, ["test"])} for name, path in self.chroots.items()
        ]
        _save(self.config, self.extra + "".join(_table("instance", one) for one in instances))

    # --- The trial ---

    def around(self) -> Snapshot:
        """Everything that is not the chroot's."""
        return snapshot(self.top, without=self._subjects)

    def leaks(self) -> dict[str, int]:
        """Files of the chroot that hold a secret, with their modes."""
        found: dict[str, int] = {}
        if self.jail.is_symlink() or not self.jail.is_dir():
            return found
        for folder, _, files, fd in os.fwalk(str(self.jail)):
            for name in files:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode) and status.st_size and SECRET in _read(fd, name):
                    found[f"{folder}/{name}"] = status.st_mode
        return found

    @contextlib.contextmanager
    def untouched(self, *, inside: bool = False) -> Iterator[None]:
        """What is not the chroot's is as before, and no secret has come in; with ``inside`` the chroot is as before."""
        self._write()
        around, whole, leaks = self.around(), snapshot(self.top) if inside else {}, self.leaks()
        yield
        changed, leaked = differing(around, self.around()), self.leaks().items() - leaks.items()
        if changed or leaked:
            self.tally.add("escaped")
        assert not changed, f"changed outside of the chroot: {changed}"
        assert not leaked, f"secrets came into the chroot: {leaked}"
        moved = differing(whole, snapshot(self.top)) if inside else {}
        assert not moved, f"changed in the chroot: {moved}"

    def said(self, found: Found) -> Found:
        """What a run said is no bug, and tells no secret."""
        assert found.code not in (2, 70), found.text
        told = DIGEST in found.text or SECRET.decode().strip() in found.text
        if told:
            self.tally.add("escaped")
        assert not told, f"a secret was told: {found.text}"
        return found

    def trial(
        self,
        finds: Mapping[str, str],
        *,
        says: str = "",
        mend: Callable[[], object] | None = None,
        left: Mapping[str, str] | None = None,
    ) -> Found:
        """Check, repair, mend as the message says, repair again; gives what the first repair said.

        ``finds`` are the paths with their drifts, ``says`` is an expression that a message must match. Without ``mend``
        the first repair makes everything right; with it, ``left`` is what the last check finds.
        """
        self.tally.add("case")
        before = {*temporaries(self.jail), *(os.path.basename(path) for path in finds if "/.chrootsync-" in path)}
        with self.untouched(inside=True):
            found = self.said(self.check())
            told = self.said(self.run("check", "--diff", "-v", "--format", "plain"))
        assert found.kinds == finds, found.messages
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", told.text)
        with self.untouched():
            repaired = self.said(self.fix())
        assert re.search(says, found.messages + repaired.messages), (found.messages, repaired.messages)
        assert set(temporaries(self.jail)) == before
        if mend is not None:
            assert repaired.code in (1, 3), repaired.messages
            mend()
            with self.untouched():
                self.said(self.fix())
        with self.untouched(inside=True):
            again = self.said(self.check())
            assert again.kinds == (left or {}), again.messages
            if not left:
                assert self.said(self.fix()).code == 0
        return repaired


def _path(drift: Mapping[str, Any]) -> str:
    """The path of a drift, the bytes that a report cannot show included."""
    raw = drift.get("path_b64")
    return str(drift["path"]) if raw is None else os.fsdecode(base64.b64decode(raw))


def differing(before: Snapshot, after: Snapshot) -> dict[str, tuple[object, object]]:
    """The paths that are not the same in two snapshots, with what they were and are."""
    return {
        path: (before.get(path), after.get(path))
        for path in before.keys() | after.keys()
        if before.get(path) != after.get(path)
    }


@contextlib.contextmanager
def as_a_user(number: int = ATTACKER) -> Iterator[None]:
    """Do without root's rights for a while; whatever has to be imported must have been."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(number)
    os.seteuid(number)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def temporaries(root: Path) -> list[str]:
    """What a repair may have left behind."""
    found = [name for _, folders, files in os.walk(root) for name in folders + files]
    return sorted(name for name in found if name.startswith(".chrootsync-"))


def snapshot(top: Path, without: Sequence[Path] = ()) -> Snapshot:
    """Everything that can be told about a tree, but for access times; ``without`` are places to leave out.

    It is walked by descriptors, since a path may be longer than the kernel takes.
    """
    found: Snapshot = {}
    skipped = {str(path) for path in without}
    parent = os.open(top.parent, os.O_PATH)
    found[str(top)] = _facts(parent, top.name)
    os.close(parent)
    for folder, folders, files, fd in os.fwalk(str(top)):
        folders[:] = [name for name in folders if f"{folder}/{name}" not in skipped]
        names = [name for name in folders + files if f"{folder}/{name}" not in skipped]
        if len(names) > CROWD:
            facts = hashlib.sha256()
            for name in sorted(names):
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                facts.update(
                    repr((name, status[:7], status.st_mtime_ns, status.st_ctime_ns)).encode("utf-8", "surrogateescape")
                )
            found[f"{folder}/*"] = facts.hexdigest()
        else:
            found |= {f"{folder}/{name}": _facts(fd, name) for name in names}
    return found


def _facts(directory: int, name: str) -> object:
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    path = f"/proc/self/fd/{directory}/{name}"
    attributes = os.listxattr(path, follow_symlinks=False)
    contents: str | None = None
    if stat.S_ISLNK(status.st_mode):
        contents = os.readlink(name, dir_fd=directory)
    elif stat.S_ISREG(status.st_mode) and status.st_size:
        contents = hashlib.sha256(_read(directory, name)).hexdigest()
    return (
        status.st_dev,
        status.st_ino,
        oct(status.st_mode),
        status.st_nlink,
        status.st_uid,
        status.st_gid,
        status.st_rdev,
        status.st_size,
        status.st_blocks,
        status.st_mtime_ns,
        status.st_ctime_ns,
        {one: os.getxattr(path, one, follow_symlinks=False) for one in attributes},
        contents,
    )


def _read(directory: int, name: str) -> bytes:
    """The beginning of a file, as much of it as counts; nothing where a racer has put a link there by now."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW, dir_fd=directory)
    except OSError:
        return b""
    try:
        return os.read(fd, HASHED)
    finally:
        os.close(fd)


def _as_process(arguments: list[str], seconds: int) -> tuple[int, str]:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "chrootsync", *arguments],
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise HungError(f"{arguments} took longer than {seconds} seconds") from None
    return done.returncode, done.stdout.decode()


def _in_process(arguments: list[str], seconds: int) -> tuple[int, str]:
    """The same without the time that a start takes; what wants a terminal or the descriptors themselves is not here."""
    said, errors = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.StringIO()
    with patience(seconds), contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors):
        code = _command()(args=arguments, prog_name="chrootsync", standalone_mode=False)
    said.seek(0)
    return int(code), said.read()


@functools.cache
def _command() -> Callable[..., Any]:
    return get_command(application())


@contextlib.contextmanager
def patience(seconds: int) -> Iterator[None]:
    """Raise HungError where something takes longer."""

    def give_up(_signal: int, _frame: FrameType | None) -> None:
        raise HungError(f"blocked for {seconds} seconds")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _save(path: Path, text: str) -> None:
    """Write a file, unless that is what it holds."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
        path.chmod(0o644)


def _table(name: str, values: Mapping[str, object]) -> str:
    return "\n".join([f"[[{name}]]", *(f"{key} = {_toml(value)}" for key, value in values.items())]) + "\n\n"


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)
