"""One pass of the watcher, which starts it and hears from it what to watch from then on."""

from __future__ import annotations

import functools
import os
import select
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress

from chrootsync import __version__, transactions
from chrootsync.cli import lastgood, output
from chrootsync.cli.check import look_once, task_of
from chrootsync.cli.compare import Wishes, open_memory
from chrootsync.cli.guard import stoppable
from chrootsync.cli.looked import Looked, look_ahead
from chrootsync.cli.progress import Progress, progress
from chrootsync.cli.setup import (
    CONFIG,
    LOCAL_RULES,
    STATE,
    Places,
    Scene,
    scene,
)
from chrootsync.model import ChrootsyncError, Code, Config, ConfigError, Kind, Reload, Report
from chrootsync.model.frozen import frozen, replace
from chrootsync.report.text import clean, plural
from chrootsync.report.verdict import counts, exit_code, failed, findings, repaired, waiting, waits
from chrootsync.root.noting import NotingRoot
from chrootsync.watch import passes
from chrootsync.watch import places as watching

TRIGGER = "watch"
LOCK_WAIT = 60.0  # seconds that another repair may take
STEADY = (
    *("/proc", "/sys", "/dev"),
    *("/var/lib/dpkg", "/var/lib/rpm", "/usr/lib/sysimage/rpm", "/var/lib/pacman", "/lib/apk", "/usr/lib/apk"),
)
"""Where nothing is heard of, or package managers write all the time; only while something waits, their locks matter."""
_BENEATH_STEADY = tuple(f"{directory}/" for directory in STEADY)
WISHES = Wishes(trigger=TRIGGER, wait=LOCK_WAIT)
LINE = 4096  # bytes of the watcher's word, more than it ever has
DAY = 86400.0  # seconds after which is said again what is the matter for longer


@frozen
class _Done:
    """A pass that came to its end."""

    report: Report
    config: Config
    chroots: tuple[str, ...]
    logs: frozenset[str]
    repair: str | None
    reload_in: float | None


@frozen
class _Ahead:
    """What was looked at while the changes settled; it is as true as ever if none is heard of since it ``began``."""

    began: float
    stage: Scene
    root: NotingRoot
    looked: Looked


@frozen
class _Word:
    """What the watcher says: what it was told that is logged already, and when it last heard of a change.

    That is None where it has other reasons to look at everything now.
    """

    logged: str
    heard: float | None


def run(where: Places, word: int, report: int) -> int:
    """Do one pass as soon as the word comes, report it, and give its exit status."""
    for fd in (word, report):
        os.set_inheritable(fd, False)  # noqa: FBT003 -- takes it in no other way
    with ExitStack() as undo:
        try:
            with stoppable():
                ahead = _prepared(where, word, undo)
                said = _hear(word)
        except KeyboardInterrupt:
            return Code.INTERRUPTED  # without a sound, for nothing was done
        if said is None:
            return Code.INTERRUPTED
        if ahead is not None and (said.heard is None or said.heard >= ahead.began):
            ahead = None
        return _run(where, report, said.logged, ahead)


def _run(where: Places, report: int, before: str, ahead: _Ahead | None) -> int:
    with progress(quiet=True) as shown, stoppable():
        roots: list[NotingRoot] = []
        done, problems, code = _pass(where, shown, roots, ahead)
        if done is not None and "INVOCATION_ID" in os.environ:
            problems += _shut_out(where.state or STATE, done)
        logged = before if done is None else _matters(done.report)
        told = replace(_told(where, done, problems, roots), logged=logged, version=__version__)
    _write(report, passes.written(told))
    if done is not None and (_did_something(done.report) or logged != before):
        output.log(done.report, TRIGGER, code)
    return code


def _prepared(where: Places, word: int, undo: ExitStack) -> _Ahead | None:
    """Load what a repair needs, and look at everything while the changes settle: it is to be repaired at the word.

    Where the word is there already, a package manager is at work, or something is wrong, nothing is looked at ahead.
    """
    import hashlib  # noqa: F401 -- by importing it
    import tempfile  # noqa: F401 -- likewise

    import chrootsync.cli.fix
    import chrootsync.packages
    import chrootsync.probe.looking
    import chrootsync.reload
    import chrootsync.repair
    import chrootsync.report.journal
    import chrootsync.root.write
    import chrootsync.state.database  # noqa: F401 -- likewise

    if select.select([word], [], [], 0)[0]:
        return None
    roots: list[NotingRoot] = []
    began = time.monotonic()
    shown = Progress()
    try:
        stage = undo.enter_context(scene(where, (), _opening(roots)))
        looked = look_ahead(stage, task_of(stage, WISHES, shown), WISHES, time.time(), shown)
    except ChrootsyncError:
        return None  # the pass itself will tell
    if looked is None:
        return None
    undo.callback(looked.close)
    return _Ahead(began=began, stage=stage, root=roots[-1], looked=looked)


def _hear(word: int) -> _Word | None:
    """Wait for the word; None where nobody is left to say it."""
    said = os.read(word, LINE)  # written at once, and so read at once
    if not said:
        return None
    logged, _, heard = said.decode("utf-8", "replace").rstrip("\n").partition(" ")
    try:
        return _Word(logged=logged, heard=float(heard))
    except ValueError:
        return _Word(logged=logged, heard=None)


def _pass(
    where: Places, shown: Progress, roots: list[NotingRoot], ahead: _Ahead | None
) -> tuple[_Done | None, list[str], int]:
    """Do a pass, with the last good configuration where the present one is broken; with it, all that went wrong."""
    problems: list[str] = []
    try:
        if ahead is not None:
            roots.append(ahead.root)
            return _done(where, where, ahead.stage, ahead.root, shown, ahead.looked), problems, Code.OK
        return _look(where, where, shown, roots), problems, Code.OK
    except ConfigError as error:
        problems += error.problems
        code = error.code
    except ChrootsyncError as error:
        return None, [str(error)], error.code
    good = lastgood.find(where.state or STATE)
    if good is None:
        return None, problems, code
    try:
        instead = replace(where, config=good.config, rules=good.rules)
        done = _look(where, instead, shown, roots)
    except ChrootsyncError as error:
        return None, [*problems, str(error)], error.code
    return done, ["working with the last good rules and configuration", *problems], code


def _opening(roots: list[NotingRoot]) -> Callable[[str], NotingRoot]:
    """Opens roots, and keeps them in mind."""

    def opening(path: str) -> NotingRoot:
        roots.append(NotingRoot(path))
        return roots[-1]

    return opening


def _look(where: Places, used: Places, shown: Progress, roots: list[NotingRoot]) -> _Done:
    """Check, repair and reload by the rules and the configuration ``used``. Raises ChrootsyncError."""
    with scene(used, (), _opening(roots)) as stage:
        return _done(where, used, stage, roots[-1], shown)


def _done(
    where: Places, used: Places, stage: Scene, root: NotingRoot, shown: Progress, ahead: Looked | None = None
) -> _Done:
    clock = time.monotonic()
    if used is where:
        config, rules = where.config or CONFIG, where.rules or LOCAL_RULES
        lastgood.keep(where.state or STATE, config, rules, root.texts)
    report, _ = look_once(used, stage, WISHES, shown, fix=True, ahead=ahead)
    report = replace(report, duration=time.monotonic() - clock)
    repair, reload_in = _recall(stage, report)
    return _Done(
        report=report,
        config=stage.config,
        chroots=tuple(instance.chroot for instance in stage.instances),
        logs=frozenset(path for instance in stage.instances for path in instance.control.logs),
        repair=repair,
        reload_in=reload_in,
    )


def _recall(stage: Scene, report: Report) -> tuple[str | None, float | None]:
    """When the last repair was, and in how many seconds a pending reload may be tried again."""
    from chrootsync.reload import next_try

    now = time.time()
    with closing(open_memory(stage, now, write=False)) as memory:
        newest = next(iter(memory.repairs(1)), None)
        records = memory.reloads()
    tries = [
        next_try(records[one.instance.name], stage.config)
        for one in report.instances
        if one.reload.pending and one.instance.name in records
    ]
    # What was due when the pass began is pending for another reason; what came due since is still to be done.
    due = min((when for when in tries if when > report.generated), default=None)
    repair = None
    if newest is not None:
        repair = f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(newest.began))} by {newest.trigger}"
    return repair, None if due is None else max(0.0, due - now)


def _shut_out(state: str, done: _Done) -> list[str]:
    """Sentences on what this service cannot write to: its unit lets it write to what that names, and nowhere else."""
    closed = not os.path.isdir(state) or _is_read_only(state)
    # What is removed and made again is another directory than the one that was there when the service was started.
    lost = [f"{state} cannot be written to by this service, as where it was removed meanwhile; restart it"]
    broken = {one.instance.chroot for one in done.report.instances if any(map(failed, one.findings))}
    return (lost if closed else []) + [
        f"{chroot} is read-only for this service; where it is not so for others, run chrootsync install systemd"
        for chroot in sorted(broken)
        if _is_read_only(chroot)
    ]


def _is_read_only(path: str) -> bool:
    with suppress(OSError):
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    return False


# --- What the watcher is told -------------------------------------------------------------------------------------


def _told(where: Places, done: _Done | None, problems: Sequence[str], roots: Sequence[NotingRoot]) -> passes.Told:
    told = passes.Told(
        status="nothing could be checked",
        places=_places(where, done, roots),
        problems=tuple(map(clean, problems)),
        retry=done is None,
    )
    if done is None:
        return told
    return replace(
        told,
        status=_status(done),
        retry=_ought_to_try_again(done.report),
        reload_in=done.reload_in,
        settle=done.config.watch_settle,
        maximum=done.config.watch_maximum,
        interval=done.config.watch_interval,
    )


def _status(done: _Done) -> str:
    """How things are, in one clause."""
    report = done.report
    if not report.instances:
        return "no instance found"
    drifted = {
        finding.drift.entry.instance.name for finding in findings(report) if counts(finding) and not repaired(finding)
    }
    pending = [one for one in report.instances if one.reload.pending]
    count = plural(len(report.instances), "instance")
    parts = [f"drift in {len(drifted)} of {count}" if drifted else f"{count} in sync"]
    late = next(filter(waiting, findings(report)), None)
    if late is not None and late.outcome is not None:
        parts.append(f"waiting {late.outcome.reason}")
    if pending:
        parts.append(f"{plural(len(pending), 'reload')} pending")
    if done.repair is not None:
        parts.append(f"last repair {done.repair}")
    return clean(", ".join(parts))


def _ought_to_try_again(report: Report) -> bool:
    """Whether another pass might do better though nothing that is watched changes."""
    absent = any(finding.drift.kind is Kind.BAD_INSTANCE for finding in findings(report))
    return absent or waits(report) or exit_code(report) == Code.FAILED


def _places(where: Places, done: _Done | None, roots: Sequence[NotingRoot]) -> watching.Places:
    """What to watch: everything that was looked up or listed, the rules and configuration, the chroots themselves.

    Not what is in the chroots, nor our own state: what a pass writes must wake nobody.
    """
    looked = {where.config or CONFIG}
    listed = {where.rules or LOCAL_RULES}
    for root in roots:
        # Only a pass that repairs something asks package managers: what that looks up would be new each time.
        looked |= {path for path in root.looked if not f"{path}/".startswith(_BENEATH_STEADY)}
        listed |= {path for path in root.listed if not f"{path}/".startswith(_BENEATH_STEADY)}
    locks = {lock.path for lock in transactions.LOCKS}
    looked -= locks
    # After a reload the log is read, which daemons write to all the time.
    looked -= set() if done is None else done.logs
    read_link = functools.cache(watching.read_link)
    chroots = () if done is None else done.chroots
    ends = watching.places(locks, (), read_link) if done is not None and waits(done.report) else {}
    own = [*chroots, where.state or STATE]
    ours = [*STEADY, *own, *(watching.end(path, read_link) for path in own)]
    return watching.merged(watching.places((*looked, *chroots), listed, read_link, ours), ends)


# --- What is logged -----------------------------------------------------------------------------------------------


def _did_something(report: Report) -> bool:
    """Whether anything was repaired or reloaded, which is always logged."""
    return any(map(repaired, findings(report))) or any(one.reload.done for one in report.instances)


def _matters(report: Report) -> str:
    """What stands for all that is the matter and still will be when nothing changes; empty where nothing is.

    While it stays the same, it is logged once a day: who looks at the status sees it at any time.
    """
    import hashlib

    from chrootsync.report import journal

    left = tuple(
        replace(
            one,
            findings=tuple(finding for finding in one.findings if not repaired(finding)),
            reload=Reload(needed=False) if one.reload.done else one.reload,
        )
        for one in report.instances
    )
    lines = journal.lines(replace(report, instances=left), TRIGGER)
    texts = [line.text for line in lines if line.level is not journal.Level.INFO]
    if not texts:
        return ""
    return hashlib.sha256("\n".join([f"{report.generated // DAY}", *texts]).encode()).hexdigest()


def _write(fd: int, data: bytes) -> None:
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
