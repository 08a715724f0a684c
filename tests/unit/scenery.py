"""Roots with instances in them, for tests of everything above the root module."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager

from chrootsync import pipeline
from chrootsync.model import Control, Daemon, Drift, Host, Instance, InstanceReport, Rule, RuleSet
from chrootsync.pipeline import Task, check
from chrootsync.root import Root
from chrootsync.root.write import Writer
from chrootsync.state import Store
from chrootsync.state.database import open_database

Tree = Mapping[str, "bytes | str | int | None"]
"""Paths: bytes are a file, a text is a link, None a directory, a number a FIFO of that mode."""


def grow(root: str | os.PathLike[str], tree: Tree) -> None:
    """Make a tree with the modes that a host's has, whatever the umask is."""
    for path, what in tree.items():
        place = os.path.join(root, path.lstrip("/"))
        make_directory(place if what is None else os.path.dirname(place))
        if isinstance(what, bytes):
            with open(place, "wb") as file:
                file.write(what)
            os.chmod(place, 0o644)
        elif isinstance(what, str):
            os.symlink(what, place)
        elif isinstance(what, int):
            os.mkfifo(place, what)


def make_directory(path: str) -> None:
    """Make a directory and its parents, 0755 each."""
    if not os.path.isdir(path):
        make_directory(os.path.dirname(path))
        os.mkdir(path)
        os.chmod(path, 0o755)


def rule(**fields: object) -> Rule:
    """A rule; what is not given is as plain as can be."""
    return Rule(**{"id": "test.rule", "why": "a test wants it", "origin": "test.toml", **fields})  # type: ignore[arg-type]  # fields of any type


def rule_set(*rules: Rule) -> RuleSet:
    """The rule set that the instances of ``instance`` use."""
    return RuleSet(name="test", service="test", description="for tests", origin="test.toml", rules=rules)


def instance(name: str = "one", **fields: object) -> Instance:
    """An instance whose chroot is /jail/NAME."""
    default = {
        "name": name,
        "service": "test",
        "provider": "static",
        "chroot": f"/jail/{name}",
        "found": "by the test",
        "rule_sets": ("test",),
    }
    return Instance(**{**default, **fields})  # type: ignore[arg-type]  # fields of any type


def daemon(program: str, *, chrooted: bool = True, **parameters: str) -> Daemon:
    """A daemon with its parameters."""
    return Daemon(name=f"{program}/unix", program=program, chrooted=chrooted, parameters=parameters)


@contextmanager
def task(
    root: str | os.PathLike[str], rules: Sequence[Rule], instances: Sequence[Instance] | None = None
) -> Iterator[tuple[Task, Writer]]:
    """A task on a root, and the writer for its repair."""
    reader = Root(os.fspath(root))
    try:
        host = Host(root=reader, run=None, cache=Store(None))
        yield (
            Task(host=host, instances=instances or [instance()], rule_sets=[rule_set(*rules)]),
            Writer(reader),
        )
    finally:
        reader.close()


def repair(work: Task, writer: Writer, found: Sequence[InstanceReport]) -> tuple[InstanceReport, ...]:
    """Repair what was found, and remember nothing of it."""
    with closing(open_database(None, "/", write=True, now=0.0)) as memory:
        return pipeline.repair(work, writer, found, memory.begin(began=0.0, trigger="test", version="0"))


def checked(
    root: str | os.PathLike[str], rules: Sequence[Rule], instances: Sequence[Instance] | None = None
) -> tuple[InstanceReport, ...]:
    """What a check finds."""
    with task(root, rules, instances) as (work, _):
        return check(work)


def fixed(
    root: str | os.PathLike[str], rules: Sequence[Rule], instances: Sequence[Instance] | None = None
) -> tuple[InstanceReport, ...]:
    """What a check finds and a repair makes of it."""
    with task(root, rules, instances) as (work, writer):
        return repair(work, writer, check(work))


def drifts(reports: Sequence[InstanceReport]) -> list[Drift]:
    """All drifts of some reports."""
    return [finding.drift for report in reports for finding in report.findings]


def kinds(reports: Sequence[InstanceReport]) -> dict[str, str]:
    """Paths with the kind of their drift."""
    return {drift.entry.path: str(drift.kind) for drift in drifts(reports)}


def snapshot(root: str | os.PathLike[str]) -> dict[str, object]:
    """Everything about a tree that a repair could spoil: names, types, modes, owners, contents, link texts, times."""
    found: dict[str, object] = {}
    for folder, names, files in os.walk(os.fsencode(root)):
        for name in [*names, *files]:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            contents: object = None
            if os.path.islink(path):
                contents = os.readlink(path)
            elif os.path.isfile(path):
                with open(path, "rb") as file:
                    contents = file.read()
            times = None if os.path.isdir(path) else status.st_mtime_ns
            found[os.fsdecode(path)] = (status.st_mode, status.st_uid, status.st_gid, status.st_nlink, times, contents)
    return found


CONTROL = Control(reload=("/bin/true",))
