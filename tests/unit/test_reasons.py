"""Reasons that only an accident makes a report give, word for word: races, full disks, what is not there any more."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from chrootsync import pipeline, reload, stale
from chrootsync.cli import rollback as taking_back
from chrootsync.inventory import files as looking
from chrootsync.inventory.naming import Naming
from chrootsync.maillog import Line
from chrootsync.model import (
    AbsentError,
    Answer,
    Completed,
    Control,
    Drift,
    Entry,
    FileType,
    Finding,
    InstanceReport,
    Kind,
    Lookup,
    Outcome,
    PathError,
    Probe,
    Record,
    Reload,
    Remedy,
    RepairError,
    Severity,
    State,
    Status,
    clause,
)
from chrootsync.model.memory import Change, Step, Unfinished
from chrootsync.pipeline import asides
from chrootsync.pipeline import rollback as going_back
from chrootsync.pipeline.reloads import tell_pending
from chrootsync.probe import child
from chrootsync.probe.needs import Need
from chrootsync.probe.plan import plan
from chrootsync.reload import Steps
from chrootsync.repair import recover, story
from chrootsync.repair import transaction as repairing
from chrootsync.report import history
from chrootsync.report import probe as words
from chrootsync.report.instances import _chrooted as chrooted_services
from chrootsync.report.rules import what as rules_in_words
from chrootsync.root import Root, write
from chrootsync.root.leftovers import Leftover
from chrootsync.root.pool import Directory
from chrootsync.root.settings import Settings
from chrootsync.root.steps import LeftoverError
from chrootsync.root.walk import Walker
from chrootsync.root.write import ChrootWriter, Writer
from chrootsync.rules.ruleset import parse
from tests.unit.report.report_samples import REPORTS
from tests.unit.scenery import daemon, fixed, grow, instance, repair, rule, task
from tests.unit.test_cli import image, plain_environment, run

__all__ = ["image", "plain_environment"]  # fixtures

FILES = rule(files=("/etc/hosts", "/etc/services"))
DEVICE = State(type=FileType.CHARACTER_DEVICE, mode=0o666, uid=0, gid=0, device=(1, 3))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A host, and a chroot with a stale copy."""
    grow(tmp_path, {"/etc/hosts": b"new\n", "/etc/services": b"smtp 25/tcp\n", "/jail/one/etc/hosts": b"old\n"})
    return tmp_path


@pytest.fixture
def chroot(tree: Path) -> Iterator[ChrootWriter]:
    with closing(Root(str(tree))) as root, closing(Writer(root).chroot("/jail/one")) as writer:
        yield writer


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def drift() -> Drift:
    entry = Entry(instance=instance(), rule=rule(), path="/etc/hosts", source="/etc/hosts", because="by the test")
    return Drift(kind=Kind.DIFFERS, severity=Severity.ERROR, remedy=Remedy.COPY, reason="differs", entry=entry)


def outcomes(reports: tuple[InstanceReport, ...]) -> dict[str, Outcome]:
    return {one.drift.entry.path: one.outcome for report in reports for one in report.findings if one.outcome}


# --- The steps of a repair ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["device", "file"])
def test_a_staged_inode_that_is_another_one_by_now(
    chroot: ChrootWriter, tree: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    """Nobody can guess the name; where somebody does all the same, nothing of his is given away."""
    if which == "device":
        monkeypatch.setattr(os, "mknod", lambda name, *_, dir_fd: os.close(_new(name, dir_fd)))
        with pytest.raises(RepairError) as caught:
            chroot.stage_device("/etc/null", DEVICE, None, temporary=".chrootsync-x")
    else:
        monkeypatch.setattr(write, "is_inode", lambda *_: False)
        with (
            closing(Root(str(tree))) as root,
            closing(root.source("/etc/hosts")) as source,
            pytest.raises(RepairError) as caught,
        ):
            chroot.stage_file("/etc/null", source, State(type=FileType.FILE), None, temporary=".chrootsync-x")
    assert str(caught.value) == "/etc/null: something else took the place of .chrootsync-x"


def _new(name: str, directory: int) -> int:
    return os.open(name, os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory)


def test_a_failed_staging_that_cannot_be_removed_again(chroot: ChrootWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(_target: str, name: str, *, dir_fd: int) -> None:
        os.close(_new(name, dir_fd))
        full()

    monkeypatch.setattr(os, "symlink", link)
    monkeypatch.setattr(os, "unlink", full)
    with pytest.raises(LeftoverError) as caught:
        chroot.stage_link("/etc/x", "hosts", None, temporary=".chrootsync-x")
    failed = "staging the new copy failed: no space left on device (make room there)"
    again = "removing .chrootsync-x again failed too: no space left on device (make room there)"
    assert str(caught.value) == f"/etc/x: {failed}; {again}"


def test_getting_ready_to_remove_something(chroot: ChrootWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "refuse_append_only", full)
    with pytest.raises(RepairError) as caught:
        chroot.stage_removal("/etc/hosts", State(type=FileType.FILE))
    assert (
        str(caught.value) == "/etc/hosts: getting ready to remove it failed: no space left on device (make room there)"
    )


def test_removing_a_directory_again(chroot: ChrootWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    made = chroot.make_directory("/new", State(type=FileType.DIRECTORY, mode=0o755))
    monkeypatch.setattr(os, "rmdir", full)
    with pytest.raises(RepairError) as caught:
        chroot.undo_directory(made)
    assert str(caught.value) == "/new: removing the directory again failed: no space left on device (make room there)"


def test_clearing_up(chroot: ChrootWriter, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / "jail/one/etc/.chrootsync-x").write_bytes(b"half")
    monkeypatch.setattr(os, "unlink", full)
    leftover = Leftover(path="/etc/hosts", temporary=".chrootsync-x", staged=None, old=None)
    with pytest.raises(RepairError) as caught:
        chroot.clear(leftover, lambda _copy: None)
    reason = "clearing up after an interrupted repair failed: no space left on device (make room there)"
    assert str(caught.value) == f"/etc/hosts: {reason}"


def test_what_was_swapped_out_and_cannot_be_removed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def left(*_: object) -> None:
        raise RepairError("/etc/hosts", "removing the old copy failed")

    monkeypatch.setattr(ChrootWriter, "finish", left)
    found = outcomes(fixed(tree, [FILES]))["/etc/hosts"]
    reason = "the old one is left over: removing the old copy failed"
    assert (found.status, found.reason) == (Status.REPAIRED, reason)


def test_what_is_gone_before_it_is_removed(tree: Path) -> None:
    gone = replace(drift(), remedy=Remedy.REMOVE)
    with task(tree, [FILES]) as (work, writer):
        found = (InstanceReport(instance=instance(), entries=1, findings=(Finding(drift=gone),)),)
        (outcome,) = outcomes(repair(work, writer, found)).values()
    assert (outcome.status, outcome.reason) == (Status.FAILED, "nothing is there to be removed")


def test_a_bug_amid_a_repair_tells_what_could_not_be_taken_back(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in the trace: the error ends the run."""

    def broken(*_: object) -> None:
        monkeypatch.setattr(os, "unlink", full)
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(repairing, "_check_source", broken)
    with pytest.raises(ZeroDivisionError) as caught:
        fixed(tree, [FILES])
    (name, _) = sorted(name for name in os.listdir(tree / "jail/one/etc") if name.startswith(".chrootsync"))
    lost = f"/jail/one/etc/hosts: removing {name} failed: no space left on device (make room there)"
    assert f"taking the repair back failed: {lost}" in caught.value.__notes__


def test_a_chroot_that_is_another_directory_when_it_is_repaired(tree: Path) -> None:
    with task(tree, [FILES]) as (work, writer):
        found = pipeline.check(work)
        (tree / "jail/one").rename(tree / "jail/moved")
        grow(tree, {"/jail/one": None})
        done = outcomes(repair(work, writer, found))
    reason = "another directory is there than when it was compared; run check --fix once more"
    assert {one.reason for one in done.values()} == {f"/jail/one: {reason}"}


def test_a_source_that_changed_says_what_to_do() -> None:
    told = repairing._changed("/etc/hosts")
    assert str(told) == "/etc/hosts: it changed after it was compared; run check --fix once more"
    assert story.PLANNED.reason == "it was planned"


# --- After a repair that was cut short ----------------------------------------------------------------------------


def unfinished(path: str = "/etc/hosts", **step: object) -> Unfinished:
    state = State(type=FileType.FILE, mode=0o644)
    change = Change(
        instance="one",
        chroot="/jail/one",
        path=path,
        source=path,
        rule="test.rule",
        kind=Kind.DIFFERS,
        package=None,
        before=state,
        after=state,
        outcome=story.PLANNED,
    )
    one = Step(change=change, temporary=".chrootsync-x", **step)  # type: ignore[arg-type]  # an inode
    return Unfinished(repair=1, began=0.0, instance="one", chroot="/jail/one", steps=(one,))


def test_what_a_repair_that_was_cut_short_had_done(tree: Path) -> None:
    status = (tree / "jail/one/etc/hosts").stat()
    with task(tree, [FILES]) as (_, writer):
        (change,) = recover(writer, unfinished(inode=(status.st_dev, status.st_ino)), lambda _copy: None).changes
    reason = "the run was cut short after this; a later one cleared up"
    assert change.outcome == Outcome(status=Status.REPAIRED, reason=reason)


def test_a_repair_that_cannot_be_cleared_up(tree: Path) -> None:
    (tree / "jail/one").chmod(0o777)
    with task(tree, [FILES]) as (_, writer):
        (problem,) = recover(writer, unfinished(), lambda _copy: None).problems
    reason = "others can write to this directory (mode 0777); take that away (chmod go-w)"
    assert problem == f"the interrupted repair of one cannot be cleared up: /jail/one: {reason}"


def test_a_reload_that_is_still_due(tree: Path) -> None:
    due = instance(control=Control(reload=("/bin/true",)))
    record = Record(pending=True, since=1.0)
    with task(tree, [FILES], [due]) as (work, _):
        host = replace(work.host, run=Running())
        (told,) = tell_pending(host, [InstanceReport(instance=due, entries=0, findings=())], {"one": record})
    assert told.reload.error == "still due after an earlier repair; check --fix does it"


class Running:
    """A runner that nothing is asked of."""

    def run(self, command: Sequence[str], *, timeout: float) -> Completed:
        raise AssertionError((command, timeout))

    def started(self, pid: int, child: str | None) -> float | None:
        raise AssertionError((pid, child))


# --- Files of chrootsync's own ------------------------------------------------------------------------------------


def test_settings_that_cannot_be_changed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(change: Callable[[], None]) -> str:
        with pytest.raises(PathError) as caught:
            change()
        return str(caught.value)

    with closing(Root(str(tree))) as root, Settings(root) as settings:
        settings.write("/etc/new/file", b"", 0o644)
        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", full)
            patch.setattr(os, "rmdir", full)
            failed = "failed: no space left on device (make room there)"
            assert told(lambda: settings.remove("/etc/new/file")) == f"/etc/new/file: removing it {failed}"
            removing = f"/etc/new: removing the directory {failed}"
            assert told(lambda: settings.remove_directory("/etc/new")) == removing
        with monkeypatch.context() as patch:
            patch.setattr(Walker, "directory", _absent_below_etc(Walker.directory))
            vanished = "/etc/gone: vanished as soon as it was made"
            assert told(lambda: settings.write("/etc/gone/file", b"", 0o644)) == vanished
            occupied = "/etc/gone: is no directory; move it away"
            assert told(lambda: settings.write("/etc/gone/file", b"", 0o644)) == occupied


def _absent_below_etc(real: Callable[[Walker, str], Directory]) -> Callable[[Walker, str], Directory]:
    def directory(self: Walker, path: str) -> Directory:
        if path.startswith("/etc/"):
            raise AbsentError(path, "does not exist")
        return real(self, path)

    return directory


def test_ways_out_that_are_the_same_anywhere() -> None:
    ways = {
        errno.ENOSPC: "make room there",
        errno.EDQUOT: "make room there, or raise the quota",
        errno.ELOOP: "one of them leads back to itself; mend it",
        errno.EMFILE: "raise the limit: ulimit -n, or LimitNOFILE= of the unit",
        errno.ENFILE: "raise fs.file-max, by sysctl",
    }
    for number, way in ways.items():
        assert clause(OSError(number, "It is so")) == f"it is so ({way})"
    assert clause(OSError(errno.EIO, "It is so")) == "it is so"
    assert clause(OSError("without a number")) == "without a number"


# --- Taking back --------------------------------------------------------------------------------------------------


def test_what_is_said_where_there_is_nothing_to_say() -> None:
    """A rollback of what was not tried, and one that is left alone for no path that is known."""
    change = taking_back._change(Finding(drift=drift()))
    assert change.outcome == Outcome(status=Status.SKIPPED, reason="nothing was tried")
    one = going_back._Return(drift=drift(), change=change)
    left = going_back._refused(instance(), one, [])
    assert left == Outcome(status=Status.SKIPPED, reason="left as it is, because another path cannot be taken back")


def test_what_goes_back_says_so() -> None:
    ground: Any = SimpleNamespace(rules={})
    change = taking_back._change(Finding(drift=drift()))
    assert going_back._plain_return(ground, instance(), change).drift.reason == "put back as it was before"


# --- What an inventory says ---------------------------------------------------------------------------------------


def test_a_copy_that_is_its_own_source() -> None:
    state = State(type=FileType.FILE, identity=(1, 2, 3, 4, 5))
    here: Any = SimpleNamespace(state=state, identity=state.identity, path="/etc/hosts")
    problem = looking._is_itself(here, here)
    assert problem is not None
    reason = "this is the source /etc/hosts itself, by a mount; unmount it, and check --fix makes a copy"
    assert (problem.kind, problem.reason) == (Kind.UNSAFE, reason)


def test_a_rule_that_holds_and_asks_for_nothing() -> None:
    place = asides.Place(host=cast("Any", None), there=None, source=None)
    (aside,) = asides._told(place, rule(), Naming.LOOSELY, [])
    assert aside.reason == "it holds, and asks for nothing here"


def test_what_is_kept_fresh_and_covered_otherwise() -> None:
    state = State(type=FileType.FILE, mode=0o644, uid=0)
    host: Any = SimpleNamespace(root=SimpleNamespace(owners={0}))
    assert asides._freshness(asides.Place(host=host, there=state, source=state)) == "it asks for nothing here"


def test_a_stale_process_that_no_reload_ends() -> None:
    _, _, way = stale._way_out(instance(), drift().entry, due=False)
    assert way == "no reload ends that: restart it by hand"


# --- What was made sure of after a reload -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "error", "seen"),
    [
        (None, None, "its log was not found"),
        ([], None, "its log has no fatal line since"),
        (["fatal: no"], "its log says since the reload: master[1]: fatal: no; look there for what follows", None),
        (
            ["fatal: no", "fatal: again", "fatal: still"],
            "its log says since the reload: master[1]: fatal: no (and 2 more lines); look there for what follows",
            None,
        ),
    ],
)
def test_what_a_log_says_after_a_reload(
    monkeypatch: pytest.MonkeyPatch, lines: list[str] | None, error: str | None, seen: str | None
) -> None:
    def ended(*_: object) -> Steps[list[Any]]:
        yield
        return []

    monkeypatch.setattr(reload, "_wait", ended)
    told = None if lines is None else [Line("master[1]", message) for message in lines]
    log: Any = SimpleNamespace(lines=lambda: told)
    host: Any = None
    process: Any = SimpleNamespace(label="smtp[2]")
    before = reload._Before(processes=[process], reborn=None, log=log)
    [(wrong, clauses)] = reload.together([reload._made_sure(host, instance(), before)])
    assert wrong == error
    assert clauses == ("the master runs", "what ran inside the chroot has ended", *((seen,) if seen else ()))


# --- What a probe says --------------------------------------------------------------------------------------------


def libraries(size: int = -1, error: int = 0) -> Any:
    return SimpleNamespace(res_query=lambda *_: size, h_errno=lambda: error, crypto=None, libc=None)


def test_answers_of_name_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(of: Any) -> str:
        return str(child.look_up_dns(of, ".", "NS")["text"])

    monkeypatch.setattr(child, "name_servers", list)
    assert answer(libraries(5)) == "an answer (name servers: none in /etc/resolv.conf)"
    monkeypatch.setattr(child, "name_servers", lambda: ["192.0.2.1"])
    assert answer(libraries(5)) == "an answer (name servers: 192.0.2.1)"
    none = "the answer that there is none (name servers: 192.0.2.1)"
    assert answer(libraries(error=child.HOST_NOT_FOUND)) == none
    assert answer(libraries(error=child.NO_RECOVERY)) == "refused (name servers: 192.0.2.1)"
    assert answer(SimpleNamespace(res_query=None)) == "libc has no res_query"


def test_lookups_that_come_to_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "0a775a30.0").write_bytes(b"a certificate")
    unchecked = child.look_up_certificates(libraries(), str(tmp_path))
    assert unchecked["text"] == "1 hashed names, which nothing on this host can check"
    monkeypatch.setitem(child.KINDS, "odd", lambda *_: int("x" * 3))
    odd = child.look_up(libraries(), ("odd",))
    assert odd["text"] == "cannot be looked up: invalid literal for int() with base 10: 'xxx'"
    with socket.socket(socket.AF_UNIX) as server, monkeypatch.context() as patch:
        server.bind(str(tmp_path / "socket"))
        patch.setattr(child, "socket", OddSockets())
        assert child.look_up_socket(libraries(), str(tmp_path / "socket"))["text"] == "is a socket of an unknown kind"
    assert child.answer_of(0, b"", "late")["text"] == "ended without an answer"
    monkeypatch.setattr(child, "start", full)
    (answer,) = child.look_up_all(libraries(), [("user", "root")], time.monotonic() + 30)
    assert answer["text"] == "was not tried: no process could be started"


class OddSockets:
    """The module socket of a kernel that knows one more kind."""

    AF_UNIX, SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET = range(4)

    @contextmanager
    def socket(self, *_: object) -> Iterator[Any]:
        def connect(_path: str) -> None:
            raise OSError(errno.EPROTOTYPE, os.strerror(errno.EPROTOTYPE))

        yield SimpleNamespace(settimeout=lambda _seconds: None, connect=connect)


@pytest.mark.parametrize(
    ("accident", "error"),
    [
        ("raise OSError(12, 'Cannot allocate memory')", "could not be begun: cannot allocate memory"),
        ("child.leave()", "the rights of root could not be given away"),
    ],
)
def test_a_probe_that_cannot_be_begun(accident: str, error: str) -> None:
    program = (
        "import os, pwd, sys; sys.path.insert(0, sys.argv[1]); import child\n"
        "def leave():\n"
        "    for name in ('initgroups', 'setresgid', 'setresuid', 'setuid'): setattr(os, name, lambda *_: None)\n"
        "    child.enter(None, pwd.getpwuid(0))\n"
        "child.leave = leave\n"
        f"def carry_out(_, plan): {accident}\n"
        "child.carry_out = carry_out\nchild.main()\n"
    )
    command = [sys.executable, "-I", "-S", "-c", program, os.path.dirname(child.__file__)]
    plans = json.dumps([{"seconds": 5, "lookups": []}])
    done = subprocess.run(command, input=plans, capture_output=True, text=True, check=True, timeout=60)
    [(number, said)] = json.loads(done.stdout)
    assert (number, json.loads(said)) == (0, {"error": error})


def test_what_to_do_about_a_lookup() -> None:
    smtpd = daemon("smtpd", smtpd_milters="unix:milter/socket", mail_owner="postfix")
    made = plan(instance(daemons=(smtpd,), chroot="/q"), Need(files={"/etc/hosts"}), "", now=1.0, dns=False)
    advice = {item.what: item.advice for item in made.items}
    tells = "chrootsync check one tells which copy is missing, stale or unreadable"
    assert advice["getaddrinfo localhost"] == tells
    assert advice["socket milter/socket"] == "see whether its service runs, and who may connect to it"


# --- Words of reports ---------------------------------------------------------------------------------------------


def test_what_has_no_reload_says_so() -> None:
    (line,) = history._reload(Reload(needed=False))
    assert line.strip() == "reload: none was needed"


def test_rules_in_words() -> None:
    assert rules_in_words(rule(filtered=("/etc/passwd",))) == "without password fields: /etc/passwd"
    assert rules_in_words(rule(nss=("hosts", "services"))) == "name service modules for hosts, services"


def test_an_explanation_says_what_a_repair_would_do(image: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    own = tmp_path_factory.mktemp("rules") / "local.toml"
    own.write_text(
        '[ruleset]\nservice = "postfix"\ndescription = "d"\n[[rule]]\nid = "a"\nwhy = "w"\nfiltered = ["/etc/passwd"]\n'
    )
    own.chmod(0o644)
    own.parent.chmod(0o755)
    grow(image, {"/etc/passwd": b"root:x:0:0::/:/bin/sh\n", "/var/spool/postfix/etc/hosts": "services"})

    def explained(path: str) -> str:
        return run("explain", path, "--root", str(image), "--rules", str(own.parent)).stdout

    assert "check --fix makes it" in explained("/etc")
    assert "check --fix replaces it" in explained("/etc/hosts")
    assert "/etc/passwd, without its password fields" in " ".join(explained("/etc/passwd").split())


def test_a_service_that_is_chrooted_as_a_whole() -> None:
    assert chrooted_services(instance()) == "the service as a whole"


def test_a_probe_in_words() -> None:
    empty = replace(REPORTS["in-sync"], instances=(InstanceReport(instance=instance(), entries=0, findings=()),))
    assert words.summary(empty) == "1 instance, 0 lookups: nothing to look up"
    fails = Lookup(
        what="x",
        answer=Answer.FAILS_INSIDE,
        inside="no answer",
        outside="192.0.2.1",
        worked_inside=False,
        worked_outside=True,
    )
    said = words._sentence(fails, Probe(lookups=(fails,), asked=True))
    assert said == "x fails inside the chroot: no answer; outside: 192.0.2.1"


# --- Rules --------------------------------------------------------------------------------------------------------


def test_a_rule_file_that_is_nested_too_deeply() -> None:
    with pytest.raises(Exception, match=r"^/etc/a\.toml: is not TOML: nested too deeply$"):
        parse([], [("/etc/a.toml", b"a = " + b"[" * 100_000)])
