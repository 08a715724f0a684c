"""A Debian whose own script fills the chroots of three instances, what they hold, and what docs/debian.md says of it.

Debian 12 has the script run by each instance's unit, before it starts; Debian 13 by Postfix itself, when it starts and
at every ``postfix check``.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from .container import Container
from .image import PROJECT
from .mail import INSTANCES, OUTPUT, Mail, Postfix
from .test_main_job import Run, check

HOSTS = "files mymachines resolve [!UNAVAIL=return] dns myhostname"

# Prints for each of the chroots what lies below the directories that services look into: type, mode, owner, contents,
# inode and time of each thing, but no sockets: those are made by who listens.
SNAPSHOT = """
import hashlib, json, os, stat, sys

def content(path, found):
    if stat.S_ISREG(found.st_mode):
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    return os.readlink(path) if stat.S_ISLNK(found.st_mode) else str(found.st_rdev)

result = {}
for chroot in sys.argv[1:]:
    result[chroot] = {}
    for top in ("bin", "dev", "etc", "lib", "lib32", "lib64", "libexec", "sbin", "usr"):
        for folder, folders, names in os.walk(os.path.join(chroot, top)):
            for path in (os.path.join(folder, name) for name in folders + names):
                found = os.lstat(path)
                if not stat.S_ISDIR(found.st_mode) and not stat.S_ISSOCK(found.st_mode):
                    result[chroot][path[len(chroot):]] = [
                        stat.S_IFMT(found.st_mode), stat.S_IMODE(found.st_mode), f"{found.st_uid}:{found.st_gid}",
                        content(path, found), found.st_ino, found.st_mtime_ns,
                    ]
print(json.dumps(result))
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Thing:
    """A file, link or device in a chroot; ``content`` is a checksum, a target or a number."""

    kind: int
    mode: int
    owner: str
    content: str

    inode: int
    mtime: int

    @property
    def shown(self) -> tuple[int, int, str, str]:
        """What a daemon sees of it."""
        return (self.kind, self.mode, self.owner, self.content)


class Snapshot:
    """What all chroots hold, by their directories and by path inside."""

    def __init__(self, things: Mapping[str, Mapping[str, Thing]]) -> None:
        self.things = things

    def paths(self, instance: Postfix) -> set[str]:
        """The paths in one chroot."""
        return set(self.things[instance.chroot])

    def shown(self, left_out: str | None = None) -> dict[str, tuple[int, int, str, str]]:
        """What the daemons see by full paths: all but inodes and times, and but for what lies in one directory."""
        return {
            f"{chroot}{path}": thing.shown
            for chroot, things in self.things.items()
            for path, thing in things.items()
            if left_out is None or not path.startswith(left_out)
        }

    def written(self, before: Snapshot) -> set[str]:
        """The full paths that are there now, or gone now, and were written in between, with whatever contents."""
        return {
            f"{chroot}{path}"
            for chroot in self.things
            for path in self.things[chroot].keys() | before.things[chroot].keys()
            if self.things[chroot].get(path) != before.things[chroot].get(path)
        }


@dataclass(frozen=True, slots=True)
class Debian:
    """A booted Debian of one suite with three instances, chrootsync, and systemd's modules in nsswitch.conf."""

    suite: str
    mail: Mail

    @property
    def container(self) -> Container:
        """The host."""
        return self.mail.container

    def start(self) -> None:
        """Restart all instances as an administrator does; their script runs for each."""
        units = [instance.unit_on(self.suite) for instance in INSTANCES]
        # systemd refuses more than five starts in ten seconds.
        self.container.run(["systemctl", "reset-failed", "postfix.service", *units])
        self.container.run(["systemctl", "restart", "postfix.service"])
        for instance in INSTANCES:
            assert self.mail.running(instance)

    def configure(self, *settings: str, instances: Sequence[Postfix] = (OUTPUT,)) -> None:
        """Change the configuration by postconf, and start again: an instance with a newer one is not reloaded."""
        for instance in instances:
            self.container.run(["postconf", "-c", instance.config, *settings])
        self.start()

    def script(self) -> None:
        """Let Debian's script run alone: as the unit does before a start, or with ``postfix check``."""
        for instance in INSTANCES:
            command = ["/usr/lib/postfix/configure-instance.sh", instance.multi]
            if self.suite != "bookworm":
                command = ["postfix", "-c", instance.config, "check"]
            self.container.run(command)

    def switch_script(self, *, on: bool) -> None:
        """Switch the script on or off by the setting that Debian has for it."""
        if on:
            self.container.run(["rm", "-f", "/etc/default/postfix"])
        else:
            self.container.write("/etc/default/postfix", "SYNC_CHROOT=\n")

    def empty(self) -> None:
        """Take everything out of the chroots that is not Postfix's own or a socket."""
        for instance in INSTANCES:
            self.container.shell(
                'cd "$1"; rm -rf bin etc lib lib32 lib64 libexec sbin usr dev/*random', instance.chroot
            )
            self.container.shell("rm -rf /var/lib/chrootsync")

    def snapshot(self) -> Snapshot:
        """What the chroots hold now."""
        chroots = [instance.chroot for instance in INSTANCES]
        program = ["/usr/bin/python3", "-I", "-c", SNAPSHOT, *chroots]
        fields = ("kind", "mode", "owner", "content", "inode", "mtime")
        return Snapshot(
            {
                chroot: {path: Thing(**dict(zip(fields, values, strict=True))) for path, values in things.items()}
                for chroot, things in json.loads(self.container.run(program).stdout).items()
            }
        )

    def check(self, *arguments: str, code: int | None = None) -> Run:
        """Run ``chrootsync check``; ``code`` is the exit status that it must have."""
        return check(self.container, *arguments, code=code)


def findings(run: Run, instance: Postfix) -> dict[str, str]:
    """The kind of each drift that counts, by its path; sockets that nobody offers inside are left to other tests."""
    return {
        each["path"]: each["kind"]
        for each in run.instance(instance)["drift"]
        if each["severity"] != "info" and each["kind"] != "unreachable"
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A line of a table of files in docs/debian.md: a pattern for paths, and who has them in a chroot."""

    pattern: str
    theirs: bool
    ours: str  # "requires", "keeps fresh", or "-"

    def matches(self, path: str) -> bool:
        """Whether the line is about a path."""
        return fnmatchcase(path, self.pattern)


def tables(suite: str, first: str) -> Iterator[list[str]]:
    """The cells of the lines that docs/debian.md has about ``suite`` in tables whose first heading is ``first``."""
    heading = {"bookworm": "Debian 12", "trixie": "Debian 13"}[suite]
    text = (PROJECT / "docs/debian.md").read_text()
    [section] = re.findall(rf"^## {heading}, file by file$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    wanted = False
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            wanted = False
        elif cells[0] == first:
            wanted = True
        elif wanted and not cells[0].startswith("---"):
            yield cells


def documented_files(suite: str) -> list[Row]:
    """Which files the document says are in a chroot."""
    rows = []
    for path, theirs, ours, *_ in tables(suite, "in the chroot"):
        pattern = "/" + path.strip("`").replace("<triplet>", f"{platform.machine()}-linux-gnu")
        assert theirs in {"yes", "-"}, path
        assert ours in {"requires", "keeps fresh", "-"}, path
        rows.append(Row(pattern=pattern, theirs=theirs == "yes", ours=ours))
    return rows


def documented_modules(suite: str) -> dict[str, str]:
    """Which modules the document says do not load with their copies alone: each with the library it lacks, or ""."""
    found = {}
    for module, theirs, ours in tables(suite, "module"):
        assert ours == "loads", module
        found[module.strip("`")] = theirs.removeprefix("lacks ").strip("`") if theirs != "loads" else ""
    return found


def forgotten(suite: str) -> dict[str, str]:
    """What the document says their script forgets: what a check finds after it ran."""
    return {row.pattern: "missing" for row in documented_files(suite) if row.ours == "requires" and not row.theirs}
