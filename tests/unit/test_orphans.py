"""What is not needed any more goes: only what chrootsync put there, or what a mirrored directory must not hold."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from chrootsync import pipeline
from chrootsync.cli.application import application
from chrootsync.model import (
    FileCondition,
    Instance,
    InstanceReport,
    Kind,
    Link,
    OnConflict,
    Presence,
    Remedy,
    RepairError,
    Rule,
    Severity,
    Status,
    When,
)
from chrootsync.model.memory import Memories, Placed, Repair
from chrootsync.pipeline import Task
from chrootsync.pipeline.reloads import wanted_reload
from chrootsync.pipeline.rollback import rollback
from chrootsync.repair import recover
from chrootsync.root import Root
from chrootsync.root.steps import Staged
from chrootsync.root.write import ChrootWriter, Writer
from chrootsync.state import Store, places
from chrootsync.state.database import Database, open_database
from chrootsync.transactions import Transaction
from tests.unit.machine import STRANGER, needs_root
from tests.unit.scenery import drifts, grow, instance, kinds, rule, snapshot, task

NOW = 1_760_000_000.0
DAY = 86400.0
OLD, NEW = "/usr/lib/libcap.so.1", "/usr/lib/libcap.so.2"
CERTS = "/etc/ssl/certs"
KEEPING = rule(id="test.hosts", files=("/etc/hosts",))
BEFORE = rule(id="test.nss", files=(OLD,))
AFTER = rule(id="test.nss", files=(NEW,))
PRESENT = rule(id="test.present", directories=("/etc", "/usr"), presence=Presence.IF_PRESENT)
MIRROR = rule(id="test.capath", directories=(CERTS,), match=r"[0-9a-f]{8}\.[0-9]+", mirror=True)
ONE = [instance()]


class Outcome(NamedTuple):
    """What a run said of one path."""

    kind: Kind
    status: Status | None
    reason: str


class Machine:
    """A root with one chroot, and what is remembered of it."""

    def __init__(self, base: Path) -> None:
        self.base, self.root, self.state = base, base / "root", base / "state"
        self.quota = 1 << 20
        self.at_rest = True
        self.root.mkdir(mode=0o755)
        grow(self.root, {"/etc/hosts": b"hosts\n", OLD: b"old library", NEW: b"new library", "/jail/one": None})

    def path(self, name: str) -> Path:
        return self.root / "jail/one" / name.lstrip("/")

    @contextmanager
    def at_work(
        self, rules: Sequence[Rule], instances: Sequence[Instance], now: float, *, state: bool = True
    ) -> Iterator[tuple[Task, Writer, Database]]:
        place = str(self.state) if state else None
        with (
            task(self.root, rules, instances) as (work, writer),
            closing(open_database(place, str(self.root), write=True, now=now, quota=self.quota)) as memory,
        ):
            yield replace(work, memory=memory), writer, memory

    def fixed(
        self,
        *rules: Rule,
        instances: Sequence[Instance] = ONE,
        now: float = NOW,
        state: bool = True,
        working: Sequence[Transaction] = (),
    ) -> tuple[InstanceReport, ...]:
        self.rest()
        with self.at_work(rules, instances, now, state=state) as (work, writer, memory):
            for unfinished in memory.unfinished():
                memory.recovered(unfinished, recover(writer, unfinished, memory.keep).changes)
            journal = memory.begin(began=now, trigger="test", version="0")
            found = pipeline.check(work)
            return pipeline.repair(replace(work, transactions=working), writer, found, journal)

    def rest(self) -> None:
        """Let the host's certificates have been left as they are for a long time."""
        certificates = self.root / CERTS[1:]
        if self.at_rest and certificates.exists():
            os.utime(certificates, (NOW, NOW))

    def fix(self, *rules: Rule, instances: Sequence[Instance] = ONE, now: float = NOW) -> dict[str, Outcome]:
        return outcomes(self.fixed(*rules, instances=instances, now=now))

    def check(self, *rules: Rule, instances: Sequence[Instance] = ONE, now: float = NOW) -> dict[str, str]:
        """What a check finds that reads everything from the database."""
        with self.at_work(rules, instances, now) as (work, _, _memory):
            return kinds(pipeline.check(work))

    def take_back(self, *rules: Rule, number: int | None = None) -> dict[str, str]:
        with self.at_work(rules, ONE, NOW) as (work, writer, memory):
            repair = memory.repairs(1)[0] if number is None else memory.repair(number)
            assert repair is not None
            journal = memory.begin(began=NOW, trigger="rollback", version="0", undoes=repair.id)
            done = outcomes(rollback(work, writer, memory, journal, repair, now=NOW))
            return {path: str(one.status) for path, one in done.items()}

    def placed(self, chroot: str = "/jail/one") -> list[Placed]:
        with self.at_work([], ONE, NOW) as (_work, _writer, memory):
            return memory.placed(chroot)

    def repairs(self) -> list[Repair]:
        with self.at_work([], ONE, NOW) as (_work, _writer, memory):
            return memory.repairs(100)


def outcomes(reports: Sequence[InstanceReport]) -> dict[str, Outcome]:
    return {
        one.drift.entry.path: Outcome(
            one.drift.kind,
            None if one.outcome is None else one.outcome.status,
            one.drift.reason if one.outcome is None else one.outcome.reason,
        )
        for report in reports
        for one in report.findings
    }


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def upgraded(machine: Machine) -> Machine:
    """An old library was put into the chroot, and the rule needs a new one by now."""
    machine.fix(KEEPING, BEFORE)
    (machine.root / OLD[1:]).unlink()
    return machine


# --- What was put there, and is needed no more ----------------------------------------------------------------------


def test_an_old_library_goes_after_an_upgrade(upgraded: Machine) -> None:
    assert upgraded.check(KEEPING, AFTER) == {NEW: "missing", OLD: "orphan"}
    found = upgraded.fix(KEEPING, AFTER)
    assert found[OLD] == (Kind.ORPHAN, Status.REPAIRED, "")
    assert os.listdir(upgraded.path("/usr/lib")) == ["libcap.so.2"]
    assert upgraded.check(KEEPING, AFTER) == {}
    before = snapshot(upgraded.root)
    assert upgraded.fix(KEEPING, AFTER) == {}
    assert snapshot(upgraded.root) == before


def test_an_orphan_says_who_put_it_there_and_when(upgraded: Machine) -> None:
    with upgraded.at_work([KEEPING, AFTER], ONE, NOW + DAY) as (work, _, _memory):
        (drift,) = (one for one in drifts(pipeline.check(work)) if one.kind is Kind.ORPHAN)
    day = time.strftime("%Y-%m-%d", time.localtime(NOW))
    assert drift.reason == f"test.nss put it here on {day}, and no rule needs it any more"
    assert (drift.severity, drift.remedy, drift.entry.rule.id) == (Severity.WARNING, Remedy.REMOVE, "test.nss")


def test_what_goes_is_kept_and_in_the_history(upgraded: Machine) -> None:
    upgraded.fix(KEEPING, AFTER)
    change = next(one for one in upgraded.repairs()[0].changes if one.path == OLD)
    assert (change.kind, change.after, change.kept, change.rule) == (Kind.ORPHAN, None, True, "test.nss")
    kept = [file.read_bytes() for file in (upgraded.state / "kept").rglob("*") if file.is_file()]
    assert kept == [b"old library"]


def test_what_goes_goes_last(upgraded: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then something may still need it: a module that is about to be replaced."""
    grow(upgraded.root, {"/etc/zzz": b"configuration"})
    order: list[str] = []
    whole = ChrootWriter.put

    def noting(self: ChrootWriter, staged: Staged) -> bool:
        order.append(staged.path)
        return whole(self, staged)

    monkeypatch.setattr(ChrootWriter, "put", noting)
    upgraded.fix(KEEPING, AFTER, rule(id="test.zzz", files=("/etc/zzz",)))
    assert order == [NEW, "/etc/zzz", OLD]


def test_what_goes_makes_no_reload_due(machine: Machine) -> None:
    machine.fix(KEEPING, BEFORE)
    (report,) = machine.fixed(KEEPING)
    assert outcomes([report])[OLD].status is Status.REPAIRED
    assert wanted_reload(report) == "nothing"


def test_a_rule_that_the_administrator_masks_takes_its_copies_along_and_no_others(machine: Machine) -> None:
    both = rule(id="test.nss", files=(OLD, NEW))
    grow(machine.root, {f"/jail/one{NEW}": b"stale library"})
    machine.fix(KEEPING, both)
    assert machine.path(NEW).read_bytes() == b"new library"
    assert machine.check(KEEPING) == {OLD: "orphan"}
    machine.fix(KEEPING)
    assert os.listdir(machine.path("/usr/lib")) == ["libcap.so.2"]


def test_a_link_goes_by_its_text(machine: Machine) -> None:
    links = rule(id="test.link", links=(Link(path="/lib64", target="usr/lib"), Link(path="/lib32", target="usr/lib")))
    machine.fix(KEEPING, links)
    machine.path("/lib32").unlink()
    grow(machine.root, {"/jail/one/lib32": "elsewhere"})
    assert machine.check(KEEPING) == {"/lib64": "orphan"}
    machine.fix(KEEPING)
    assert sorted(os.listdir(machine.path("/"))) == ["etc", "lib32"]


def test_directories_stay(upgraded: Machine) -> None:
    upgraded.fix(KEEPING)
    assert upgraded.path("/usr/lib").is_dir()
    assert upgraded.check(KEEPING) == {}


@needs_root
def test_device_nodes_stay(machine: Machine) -> None:
    from chrootsync.model import Device, FileType

    node = Device(path="/dev/null", kind=FileType.CHARACTER_DEVICE, major=1, minor=3)
    machine.fix(KEEPING, rule(id="test.device", devices=(node,)))
    assert machine.check(KEEPING) == {}
    assert machine.path("/dev/null").is_char_device()


def test_what_an_if_present_rule_covers_is_not_needed_by_it(machine: Machine) -> None:
    machine.fix(KEEPING, BEFORE, PRESENT)
    assert machine.check(KEEPING, PRESENT) == {OLD: "orphan"}
    (machine.root / OLD[1:]).write_bytes(b"newer still")
    with machine.at_work([KEEPING, PRESENT], ONE, NOW) as (work, _, _memory):
        assert [one.kind for one in drifts(pipeline.check(work))] == [Kind.ORPHAN], "one drift for each path"
    machine.fix(KEEPING, PRESENT)
    assert not machine.path(OLD).exists()


def test_what_is_needed_again_before_it_goes_stays(machine: Machine) -> None:
    machine.fix(KEEPING, BEFORE)
    assert machine.check(KEEPING) == {OLD: "orphan"}
    assert machine.check(KEEPING, BEFORE) == {}


# --- What is not chrootsync's ---------------------------------------------------------------------------------------


def test_what_was_only_refreshed_is_never_pruned(machine: Machine) -> None:
    grow(machine.root, {f"/jail/one{OLD}": b"of Debian's script"})
    assert machine.fix(KEEPING, BEFORE)[OLD].status is Status.REPAIRED
    assert machine.check(KEEPING) == {}
    assert [one.path for one in machine.placed()] == ["/etc/hosts"]


def test_what_was_refreshed_after_it_was_put_is_still_pruned(machine: Machine) -> None:
    machine.fix(KEEPING, BEFORE)
    (machine.root / OLD[1:]).write_bytes(b"second library")
    assert machine.fix(KEEPING, BEFORE, now=NOW + DAY)[OLD].kind is Kind.OUTDATED
    placed = next(one for one in machine.placed() if one.path == OLD)
    assert (placed.since, placed.rule, placed.instance) == (NOW, "test.nss", "one")
    assert machine.check(KEEPING) == {OLD: "orphan"}


def test_what_somebody_else_had_made_his_own_is_not_taken_over(machine: Machine) -> None:
    machine.fix(KEEPING, BEFORE)
    machine.path(OLD).write_bytes(b"an administrator's own")
    assert machine.fix(KEEPING, BEFORE)[OLD].kind is Kind.MODIFIED
    assert machine.check(KEEPING) == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"0ld library"),
        lambda path: path.chmod(0o600),
        lambda path: (path.unlink(), path.symlink_to("libcap.so.2")),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: os.link(path, path.with_name("another")),
        pytest.param(lambda path: os.chown(path, STRANGER, STRANGER), marks=needs_root),
    ],
    ids=["contents", "mode", "link", "directory", "hard-link", "owner"],
)
def test_what_was_changed_since_is_left_alone(upgraded: Machine, change: object) -> None:
    change(upgraded.path(OLD))  # type: ignore[operator]  # any function
    before = snapshot(upgraded.root)
    assert upgraded.fix(KEEPING) == {}
    assert snapshot(upgraded.root) == before


def test_what_was_changed_or_removed_is_chrootsyncs_no_more(machine: Machine) -> None:
    machine.fix(KEEPING, rule(id="test.nss", files=(OLD, NEW)))
    machine.path(OLD).unlink()
    machine.path(NEW).write_bytes(b"own")
    assert machine.fix(KEEPING) == {}
    assert [one.path for one in machine.placed()] == ["/etc/hosts"]
    grow(machine.root, {f"/jail/one{OLD}": b"old library"})
    assert machine.check(KEEPING) == {}, "the very same, but somebody else's"


def test_without_state_nothing_is_pruned(upgraded: Machine) -> None:
    found = outcomes(upgraded.fixed(KEEPING, state=False))
    assert found == {}
    (upgraded.state / "state.db").write_bytes(b"damaged" * 1000)
    assert upgraded.fix(KEEPING) == {}
    assert upgraded.path(OLD).exists()


def test_another_root_with_the_same_state(upgraded: Machine, tmp_path: Path) -> None:
    shutil.copytree(upgraded.root, tmp_path / "copy", symlinks=True)
    upgraded.root = tmp_path / "copy"
    assert upgraded.fix(KEEPING) == {}


# --- In doubt nothing goes ------------------------------------------------------------------------------------------


def test_an_instance_that_was_not_asked_for_keeps_what_it_has(machine: Machine) -> None:
    grow(machine.root, {"/jail/two": None})
    both = [instance(), instance("two")]
    machine.fix(KEEPING, BEFORE, instances=both)
    assert machine.fix(KEEPING, instances=ONE)[OLD].status is Status.REPAIRED
    assert (machine.root / f"jail/two{OLD}").exists()
    assert machine.check(KEEPING, instances=both) == {OLD: "orphan"}


def test_of_two_instances_in_one_chroot_each_keeps_its_own(machine: Machine) -> None:
    machine.fix(KEEPING, BEFORE)
    other = instance("other", chroot="/jail/one")
    assert machine.check(KEEPING, instances=[other]) == {}


def test_an_instance_with_a_problem_keeps_what_it_has(upgraded: Machine) -> None:
    broken = instance(problem="main.cf cannot be read")
    assert upgraded.check(KEEPING, instances=[broken]) == {"/": "bad-instance"}


def test_an_instance_whose_last_chrooted_service_was_switched_off_keeps_what_it_has(upgraded: Machine) -> None:
    assert upgraded.check(KEEPING, BEFORE, instances=[instance(chrooted=False)]) == {}


def test_a_chroot_that_moved_keeps_what_it_has(upgraded: Machine) -> None:
    grow(upgraded.root, {"/jail/new/etc/hosts": b"hosts\n"})
    assert upgraded.check(KEEPING, instances=[instance(chroot="/jail/new")]) == {}
    assert upgraded.path(OLD).exists()


def test_a_source_that_is_merely_missing_is_still_named(upgraded: Machine) -> None:
    assert upgraded.check(KEEPING, BEFORE) == {OLD: "bad-source"}


def test_a_directory_that_is_missing_on_the_host_keeps_what_was_put_from_it(machine: Machine) -> None:
    grow(machine.root, {"/etc/app/a": b"a"})
    app = rule(id="test.app", directories=("/etc/app",))
    machine.fix(KEEPING, app)
    shutil.rmtree(machine.root / "etc/app")
    assert machine.check(KEEPING, app) == {"/etc/app": "bad-source"}


def test_names_that_cannot_be_worked_out_keep_everything(machine: Machine) -> None:
    """In the middle of an upgrade nsswitch.conf may be anything."""
    nss = rule(id="test.nss", nss=("hosts",))
    machine.fix(KEEPING, BEFORE)
    grow(machine.root, {"/etc/nsswitch.conf": None, "/usr/lib/x86_64-linux-gnu": None})
    assert "orphan" not in machine.check(KEEPING, nss).values()
    assert "orphan" in machine.check(KEEPING).values()


def test_a_rule_that_cannot_be_decided_keeps_everything(machine: Machine) -> None:
    machine.fix(KEEPING, BEFORE)
    grow(machine.root, {"/etc/app.conf": None})
    condition = When(file=FileCondition(paths=("/etc/app.conf",), matches="library"))
    undecided = rule(id="test.nss", files=(OLD,), when=(condition,))
    assert machine.check(KEEPING, undecided) == {"/etc/app.conf": "unreadable"}
    refreshing = replace(undecided, presence=Presence.IF_PRESENT)
    assert machine.check(KEEPING, refreshing)[OLD] == "orphan", "what it would only refresh is not needed anyway"


def test_a_library_that_is_not_found_keeps_everything(machine: Machine) -> None:
    machine.fix(KEEPING, BEFORE)
    found = machine.check(KEEPING, rule(id="test.lib", libraries=("libmissing.so.9",)))
    assert found == {"/libmissing.so.9": "unresolved"}


def test_a_place_that_cannot_be_walked_is_left_alone(machine: Machine) -> None:
    machine.fix(KEEPING, BEFORE)
    machine.path("/usr").chmod(0o777)
    assert machine.check(KEEPING) == {}


def test_a_place_that_has_another_spelling_by_now_is_left_alone(machine: Machine) -> None:
    """After the merge of /lib and /usr/lib the old spelling leads to what the new one needs."""
    grow(machine.root, {"/lib/libc.so": b"the C library", "/usr/lib/libc.so": b"the C library"})
    machine.fix(KEEPING, rule(id="test.nss", files=("/lib/libc.so",)))
    machine.path("/usr").mkdir(mode=0o755)
    machine.path("/lib").rename(machine.path("/usr/lib"))
    grow(machine.root, {"/jail/one/lib": "usr/lib"})
    merged = rule(id="test.nss", files=("/usr/lib/libc.so",))
    assert machine.fix(KEEPING, merged) == {}
    assert machine.path("/usr/lib/libc.so").exists()


def test_what_a_needed_link_leads_to_is_needed(machine: Machine) -> None:
    grow(machine.root, {"/etc/ca.pem": b"ca", "/etc/0a775a30.0": b"ca"})
    machine.fix(rule(files=("/etc/ca.pem",)))
    grow(machine.root, {"/jail/one/etc/0a775a30.0": "ca.pem"})
    assert machine.fix(rule(files=("/etc/0a775a30.0",))) == {}
    assert machine.path("/etc/0a775a30.0").read_bytes() == b"ca"


def test_what_a_link_of_a_rule_leads_to_is_needed(machine: Machine) -> None:
    machine.fix(BEFORE)
    link = rule(id="test.link", links=(Link(path="/libcap.so", target="usr/lib/libcap.so.1"),))
    machine.fix(link)
    assert machine.path(OLD).exists()
    assert machine.check(link) == {}


def test_while_a_package_manager_is_at_work_nothing_goes(upgraded: Machine) -> None:
    working = (Transaction(manager="dpkg", lock="/var/lib/dpkg/lock", pid=4711, program="dpkg"),)
    found = outcomes(upgraded.fixed(KEEPING, working=working))
    assert found == {OLD: (Kind.ORPHAN, Status.WAITING, "until dpkg (process 4711) has ended")}
    assert upgraded.path(OLD).exists()


# --- Rollback -------------------------------------------------------------------------------------------------------


def test_what_was_pruned_can_be_put_back_and_is_held_then(upgraded: Machine) -> None:
    upgraded.fix(KEEPING)
    assert upgraded.take_back(KEEPING) == {OLD: "repaired"}
    assert upgraded.path(OLD).read_bytes() == b"old library"
    assert upgraded.check(KEEPING) == {OLD: "held"}
    assert upgraded.fix(KEEPING)[OLD].kind is Kind.HELD
    assert upgraded.path(OLD).exists()
    assert upgraded.check(KEEPING, now=NOW + 8 * DAY) == {OLD: "orphan"}


def test_a_rollback_that_removes_what_was_put_leaves_nothing_to_prune(machine: Machine) -> None:
    machine.fix(BEFORE)
    assert machine.take_back(BEFORE)[OLD] == "repaired"
    assert machine.placed() == []
    grow(machine.root, {f"/jail/one{OLD}": b"old library"})
    assert machine.check(KEEPING) == {"/etc": "missing", "/etc/hosts": "missing"}


def test_a_rollback_to_what_was_somebody_elses_is_never_pruned(machine: Machine) -> None:
    machine.fix(KEEPING, BEFORE)
    machine.path(OLD).write_bytes(b"an administrator's own")
    machine.fix(KEEPING, BEFORE)
    assert machine.take_back(KEEPING, BEFORE) == {OLD: "repaired"}
    assert machine.path(OLD).read_bytes() == b"an administrator's own"
    assert machine.fix(KEEPING) == {}


def test_a_rollback_to_an_older_copy_of_chrootsyncs_own_is_still_its_own(machine: Machine) -> None:
    machine.fix(KEEPING, BEFORE)
    (machine.root / OLD[1:]).write_bytes(b"second library")
    machine.fix(KEEPING, BEFORE)
    assert machine.take_back(KEEPING, BEFORE) == {OLD: "repaired"}
    assert [one.since for one in machine.placed() if one.path == OLD] == [NOW]
    assert machine.check(KEEPING) == {OLD: "held"}
    assert machine.check(KEEPING, now=NOW + 8 * DAY) == {OLD: "orphan"}


# --- In doubt nothing goes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", ["missing", "empty"])
@pytest.mark.parametrize("match", [None, "[a-z]"])
def test_an_optional_directory_without_files_on_the_host_keeps_what_was_put_from_it(
    machine: Machine, gone: str, match: str | None
) -> None:
    """It may be a mount that is missing for now; one file that is gone is gone."""
    grow(machine.root, {"/srv/app/a": b"a", "/srv/app/b": b"b"})
    app = rule(id="test.app", directories=("/srv/app",), match=match, optional=True)
    machine.fix(KEEPING, app)
    (machine.root / "srv/app/a").unlink()
    assert machine.fix(KEEPING, app)["/srv/app/a"].status is Status.REPAIRED
    shutil.rmtree(machine.root / "srv/app")
    if gone == "empty":
        (machine.root / "srv/app").mkdir(mode=0o755)
    found = machine.fix(KEEPING, app)["/srv/app/b"]
    assert (found.kind, found.status) == (Kind.ORPHAN, None)
    reason = "kept, since the host's /srv/app is missing or has nothing that the rule names"
    assert found.reason.endswith(f"{reason}: remove it by hand where that is meant")
    assert machine.path("/srv/app/b").exists()
    assert machine.fix(KEEPING)["/srv/app/b"].status is Status.REPAIRED, "without the rule it goes"


@pytest.mark.parametrize(
    "text", [None, b"", b"passwd: fi", b"passwd: files\n"], ids=["missing", "empty", "cut", "half"]
)
def test_a_module_stays_while_no_line_of_nsswitch_conf_says_otherwise(machine: Machine, text: bytes | None) -> None:
    """The copy inside the chroot, which is kept where the host's is empty, still names it."""
    nss = rule(id="test.nss", nss=("hosts", "services"))
    machine.fix(KEEPING, BEFORE)
    if text is not None:
        grow(machine.root, {"/etc/nsswitch.conf": text})
    assert machine.fix(KEEPING, nss) == {}
    assert machine.path(OLD).exists()
    grow(machine.root, {"/etc/nsswitch.conf": b"passwd: files\nhosts: files dns\n"})
    assert machine.fix(KEEPING, nss)[OLD].status is Status.REPAIRED


def test_a_library_stays_as_long_as_another_is_left_alone_that_may_need_it(machine: Machine) -> None:
    grow(machine.root, {"/usr/lib/libnss_x.so.2": b"needs libcap.so.1"})
    module = "/usr/lib/libnss_x.so.2"
    before = replace(BEFORE, files=(OLD, module))
    after = replace(AFTER, files=(NEW, module), on_conflict=OnConflict.KEEP)
    machine.fix(KEEPING, before)
    machine.path(module).write_bytes(b"the administrator's own, needs libcap.so.1")
    grow(machine.root, {"/etc/app.conf": b"app"})
    assert machine.fix(KEEPING, after)[OLD] == (
        Kind.ORPHAN,
        Status.SKIPPED,
        f"left there, because {module} is left as it is and may need it",
    )
    assert machine.path(OLD).exists()
    count = len(machine.repairs())
    assert machine.fix(KEEPING, after)[OLD].status is Status.SKIPPED
    assert len(machine.repairs()) == count, "what stays is no repair"
    machine.path(module).write_bytes(b"needs libcap.so.1")
    assert machine.fix(KEEPING, after)[OLD].status is Status.REPAIRED
    assert machine.path(NEW).exists()


# --- Mirrored directories -------------------------------------------------------------------------------------------


@pytest.fixture
def trusting(machine: Machine) -> Machine:
    """A chroot with the certificates that the host trusts."""
    grow(machine.root, {f"{CERTS}/0a775a30.0": b"good", f"{CERTS}/deadbeef.0": b"soon distrusted"})
    machine.fix(KEEPING, MIRROR)
    return machine


def test_a_certificate_that_the_host_distrusts_goes(trusting: Machine) -> None:
    (trusting.root / CERTS[1:] / "deadbeef.0").unlink()
    (report,) = trusting.fixed(KEEPING, MIRROR)
    assert outcomes([report]) == {f"{CERTS}/deadbeef.0": (Kind.ORPHAN, Status.REPAIRED, "")}
    assert wanted_reload(report) == MIRROR.on_change
    assert os.listdir(trusting.path(CERTS)) == ["0a775a30.0"]
    assert trusting.check(KEEPING, MIRROR) == {}


def test_whoever_put_it_there_it_goes_and_is_kept(trusting: Machine) -> None:
    grow(trusting.root, {f"/jail/one{CERTS}/deadbee0.0": b"another's", f"/jail/one{CERTS}/deadbee1.0": "ca.pem"})
    grow(trusting.root, {f"/jail/one{CERTS}/README": b"does not match"})
    found = trusting.fix(KEEPING, MIRROR)
    assert {path: one.status for path, one in found.items()} == {
        f"{CERTS}/deadbee0.0": Status.REPAIRED,
        f"{CERTS}/deadbee1.0": Status.REPAIRED,
    }
    assert sorted(os.listdir(trusting.path(CERTS))) == ["0a775a30.0", "README", "deadbeef.0"]
    assert set(trusting.take_back(KEEPING, MIRROR).values()) == {"repaired"}
    assert trusting.path(f"{CERTS}/deadbee0.0").read_bytes() == b"another's"
    assert os.readlink(trusting.path(f"{CERTS}/deadbee1.0")) == "ca.pem"
    held = {f"{CERTS}/deadbee0.0": "held", f"{CERTS}/deadbee1.0": "held"}
    assert trusting.check(KEEPING, MIRROR) == held
    assert not [one for one in trusting.placed() if "deadbee0" in one.path]


@pytest.mark.parametrize("quota", [None, 3], ids=["no state", "no room"])
def test_what_cannot_be_kept_is_not_moved_out(trusting: Machine, quota: int | None) -> None:
    grow(trusting.root, {f"/jail/one{CERTS}/deadbee0.0": b"another's", "/etc/hosts": b"changed\n"})
    grow(trusting.root, {f"/jail/one{CERTS}/deadbee1.0": "ca.pem"})
    trusting.quota = quota or trusting.quota
    found = outcomes(trusting.fixed(KEEPING, MIRROR, state=quota is not None))
    assert found["/etc/hosts"].status is Status.REPAIRED, "the rest is repaired all the same"
    left = found[f"{CERTS}/deadbee0.0"]
    assert (left.kind, left.status) == (Kind.ORPHAN, Status.SKIPPED)
    assert left.reason == (
        "left there, since it could not be kept for a rollback: give chrootsync a state directory and room in it "
        "(--state, history_size), or remove it by hand"
    )
    assert trusting.path(f"{CERTS}/deadbee0.0").read_bytes() == b"another's"
    by_its_text = Status.SKIPPED if quota is None else Status.REPAIRED
    assert found[f"{CERTS}/deadbee1.0"].status is by_its_text


def test_a_host_directory_in_which_nothing_matches_moves_nothing_out(trusting: Machine) -> None:
    for name in os.listdir(trusting.root / CERTS[1:]):
        (trusting.root / CERTS[1:] / name).unlink()
    before = snapshot(trusting.root)
    found = trusting.fix(KEEPING, MIRROR)
    assert {path: (one.kind, one.status) for path, one in found.items()} == {
        f"{CERTS}/0a775a30.0": (Kind.ORPHAN, None),
        f"{CERTS}/deadbeef.0": (Kind.ORPHAN, None),
    }
    reason = "the host has no such file any more; kept, since the host's directory has none at all that matches"
    assert all(reason in one.reason for one in found.values())
    shutil.rmtree(trusting.root / CERTS[1:])
    assert trusting.check(KEEPING, MIRROR) == {CERTS: "bad-source"}
    (trusting.root / CERTS[1:]).mkdir(mode=0o755)
    assert snapshot(trusting.root) == before


def test_what_is_no_file_in_a_mirrored_directory_is_told_and_never_touched(trusting: Machine) -> None:
    grow(trusting.root, {f"/jail/one{CERTS}/deadbee0.0": 0o600, f"/jail/one{CERTS}/deadbee1.0": None})
    found = trusting.fix(KEEPING, MIRROR)
    reason = "the host has no such file any more; a fifo is never removed: do it by hand"
    assert found == {f"{CERTS}/deadbee0.0": (Kind.ORPHAN, None, reason)}
    assert trusting.path(f"{CERTS}/deadbee1.0").is_dir()


def test_a_file_with_several_names_in_a_mirrored_directory_is_unsafe(trusting: Machine) -> None:
    grow(trusting.root, {f"/jail/one{CERTS}/deadbee0.0": b"another's"})
    os.link(trusting.path(f"{CERTS}/deadbee0.0"), trusting.path("/etc/second"))
    assert {path: (one.kind, one.status) for path, one in trusting.fix(KEEPING, MIRROR).items()} == {
        f"{CERTS}/deadbee0.0": (Kind.UNSAFE, None)
    }


def test_a_rule_that_keeps_keeps_what_is_beyond_too(trusting: Machine) -> None:
    grow(trusting.root, {f"/jail/one{CERTS}/deadbee0.0": b"another's"})
    found = trusting.fix(KEEPING, replace(MIRROR, on_conflict=OnConflict.KEEP))
    reason = "the host has no such file any more; kept as its rule says"
    assert found == {f"{CERTS}/deadbee0.0": (Kind.ORPHAN, None, reason)}


def test_what_another_rule_needs_in_a_mirrored_directory_stays_whichever_comes_first(trusting: Machine) -> None:
    link = rule(id="test.link", links=(Link(path=f"{CERTS}/deadbee0.0", target="0a775a30.0"),))
    for rules in ((KEEPING, MIRROR, link), (KEEPING, link, MIRROR)):
        trusting.fix(*rules)
        assert trusting.path(f"{CERTS}/deadbee0.0").is_symlink()
        assert trusting.check(*rules) == {}


def test_what_a_needed_link_of_a_mirrored_directory_leads_to_stays(trusting: Machine) -> None:
    """As Debian's own script puts certificates: the file, and a link to it by its hash."""
    trusting.path(f"{CERTS}/0a775a30.0").rename(trusting.path(f"{CERTS}/good.pem"))
    grow(trusting.root, {f"/jail/one{CERTS}/0a775a30.0": "good.pem"})
    everything = replace(MIRROR, match=None)
    assert trusting.fix(KEEPING, everything) == {}
    assert trusting.path(f"{CERTS}/0a775a30.0").read_bytes() == b"good"


def test_while_a_package_manager_is_at_work_nothing_is_moved_out(trusting: Machine) -> None:
    grow(trusting.root, {f"/jail/one{CERTS}/deadbee0.0": b"another's"})
    found = outcomes(trusting.fixed(KEEPING, MIRROR, working=(Transaction(manager="rpm", lock="/x"),)))
    assert [one.status for one in found.values()] == [Status.WAITING]


def test_what_somebody_puts_there_again_and_again_is_contested(trusting: Machine) -> None:
    for _ in range(3):
        grow(trusting.root, {f"/jail/one{CERTS}/deadbee0.0": b"another's"})
        assert trusting.fix(KEEPING, MIRROR)[f"{CERTS}/deadbee0.0"].status is Status.REPAIRED
    grow(trusting.root, {f"/jail/one{CERTS}/deadbee0.0": b"another's"})
    (found,) = trusting.fix(KEEPING, MIRROR).values()
    assert (found.kind, found.status) == (Kind.CONTESTED, None)
    assert found.reason.startswith("removed 3 times: something else keeps putting it there; find out what")


def test_while_the_hosts_directory_changes_nothing_is_moved_out(trusting: Machine) -> None:
    """As by update-ca-certificates --fresh, which takes seconds to link everything anew, and holds no lock."""
    (trusting.root / CERTS[1:] / "deadbeef.0").unlink()
    (trusting.root / "etc/hosts").write_bytes(b"changed\n")
    trusting.at_rest = False
    found = trusting.fix(KEEPING, MIRROR)
    assert found[f"{CERTS}/deadbeef.0"] == (
        Kind.ORPHAN,
        Status.WAITING,
        f"until the host's {CERTS} has been left as it is for 3 seconds",
    )
    assert found["/etc/hosts"].status is Status.REPAIRED, "the rest is repaired at once"
    assert trusting.path(f"{CERTS}/deadbeef.0").exists()
    trusting.at_rest = True
    assert trusting.fix(KEEPING, MIRROR)[f"{CERTS}/deadbeef.0"].status is Status.REPAIRED


def test_what_the_host_has_again_by_now_is_not_moved_out(trusting: Machine) -> None:
    """Between comparing and repairing many instances much can happen."""
    certificate = trusting.root / CERTS[1:] / "deadbeef.0"
    certificate.unlink()
    with trusting.at_work((KEEPING, MIRROR), ONE, NOW) as (work, writer, memory):
        found = pipeline.check(work)
        certificate.write_bytes(b"trusted again")
        trusting.rest()
        journal = memory.begin(began=NOW, trigger="test", version="0")
        done = outcomes(pipeline.repair(work, writer, found, journal))
    assert done[f"{CERTS}/deadbeef.0"].status is Status.SKIPPED
    reason = "left there, because the host has it again; run check --fix once more"
    assert done[f"{CERTS}/deadbeef.0"].reason == reason
    assert trusting.path(f"{CERTS}/deadbeef.0").exists()


def test_a_directory_from_the_future_is_no_reason_to_wait(trusting: Machine) -> None:
    (trusting.root / CERTS[1:] / "deadbeef.0").unlink()
    trusting.at_rest = False
    later = time.time() + DAY
    os.utime(trusting.root / CERTS[1:], (later, later))
    assert trusting.fix(KEEPING, MIRROR)[f"{CERTS}/deadbeef.0"].status is Status.REPAIRED


# --- Errors and kills -----------------------------------------------------------------------------------------------


class _Killed(BaseException):
    """As if by kill -9: nothing is taken back."""


STEPS = ("stage_removal", "put", "finish", "sync")


# A step that is put into place or removed either fails and has done nothing, or does not fail.
@pytest.mark.parametrize(
    ("step", "after"),
    [(step, False) for step in STEPS] + [("stage_removal", True), ("sync", True)],
)
def test_an_error_leaves_everything_or_nothing(
    upgraded: Machine, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    grow(upgraded.root, {f"/jail/one{CERTS}/deadbeef.0": b"distrusted", f"{CERTS}/0a775a30.0": b"good"})
    grow(upgraded.root, {f"/jail/one{CERTS}/0a775a30.0": b"good"})
    before = snapshot(upgraded.root)
    with monkeypatch.context() as patch:
        fail(patch, step, RepairError("/x", "an error of the test"), after=after)
        statuses = {one.status for one in upgraded.fix(KEEPING, MIRROR).values()}
    if step == "finish" or (step == "sync" and not statuses & {Status.FAILED}):
        assert statuses <= {Status.REPAIRED, Status.UNKNOWN}
    else:
        assert statuses == {Status.FAILED, Status.SKIPPED} or statuses == {Status.FAILED}
        assert snapshot(upgraded.root) == before
    again = upgraded.fix(KEEPING, MIRROR)
    assert {one.status for one in again.values()} <= {Status.REPAIRED}
    assert upgraded.check(KEEPING, MIRROR) == {}
    assert not upgraded.path(OLD).exists()
    assert not list(upgraded.root.rglob(".chrootsync-*"))


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_kill_is_rolled_forward(
    upgraded: Machine, monkeypatch: pytest.MonkeyPatch, step: str, *, after: bool
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("chrootsync.repair.transaction._take_back", lambda _work: (_ for _ in ()).throw(_Killed()))
        fail(patch, step, _Killed(), after=after)
        with pytest.raises(_Killed):
            upgraded.fix(KEEPING, AFTER)
    upgraded.fix(KEEPING, AFTER)
    assert upgraded.check(KEEPING, AFTER) == {}
    assert os.listdir(upgraded.path("/usr/lib")) == ["libcap.so.2"]
    assert [one.path for one in upgraded.placed()] == ["/etc/hosts", NEW]
    removals = [one for repair in upgraded.repairs() for one in repair.changes if one.path == OLD and one.after is None]
    assert [one.outcome.status for one in removals].count(Status.REPAIRED) == 1
    assert all(one.kept for one in removals if one.outcome.status is Status.REPAIRED)


def fail(patch: pytest.MonkeyPatch, step: str, error: BaseException, *, after: bool) -> None:
    """Let a step fail, before or after it has done its work."""
    whole = getattr(ChrootWriter, step)

    def broken(self: ChrootWriter, *arguments: object, **fields: object) -> object:
        result = whole(self, *arguments, **fields) if after else None
        if step in ("sync", "stage_removal") or arguments[0].inode is None:  # type: ignore[attr-defined]  # a Staged
            raise error
        return result if after else whole(self, *arguments, **fields)

    patch.setattr(ChrootWriter, step, broken)


def test_what_changes_between_the_look_and_the_swap_stays(upgraded: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ChrootWriter.stage_removal

    def and_meanwhile(self: ChrootWriter, path: str, *arguments: object, **fields: object) -> object:
        upgraded.path(path).write_bytes(b"another's")
        return whole(self, path, *arguments, **fields)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(ChrootWriter, "stage_removal", and_meanwhile)
    assert upgraded.fix(KEEPING)[OLD].status is Status.FAILED
    assert upgraded.path(OLD).read_bytes() == b"another's"


# --- The hint -------------------------------------------------------------------------------------------------------


class Hinted:
    """What a check without the database open remembers: the hint, and the database when it is asked."""

    def __init__(self, machine: Machine, memory: Database) -> None:
        self.asked = 0
        self._machine, self._memory = machine, memory

    def __getattr__(self, name: str) -> object:
        return getattr(self._memory, name)

    def places(self) -> dict[str, list[str]]:
        return places.read(Store(str(self._machine.state)), str(self._machine.root))

    def placed(self, chroot: str) -> list[Placed]:
        self.asked += 1
        return self._memory.placed(chroot)


def hinted(machine: Machine, *rules: Rule) -> tuple[dict[str, str], int]:
    """What a check finds by the hint, and how often it asked the database for what was put."""
    with (
        task(machine.root, rules) as (work, _),
        closing(open_database(str(machine.state), str(machine.root), write=False, now=NOW)) as memory,
    ):
        found = Hinted(machine, memory)
        remembered: Memories = found  # type: ignore[assignment]  # by __getattr__
        return kinds(pipeline.check(replace(work, memory=remembered))), found.asked


def test_a_check_in_sync_asks_the_hint_alone(machine: Machine) -> None:
    machine.fix(KEEPING, BEFORE)
    assert hinted(machine, KEEPING, BEFORE) == ({}, 0)
    assert hinted(machine, KEEPING) == ({OLD: "orphan"}, 1)
    machine.fix(KEEPING)
    assert hinted(machine, KEEPING) == ({}, 0)


def test_without_the_hint_a_check_tells_of_nothing_and_a_repair_finds_it(machine: Machine) -> None:
    machine.fix(KEEPING, BEFORE)
    (machine.state / "cache-places.json").unlink()
    assert hinted(machine, KEEPING) == ({}, 0)
    assert machine.fix(KEEPING)[OLD].status is Status.REPAIRED


@pytest.mark.parametrize("text", ["", "{", "[]", '{"fingerprint": "1", "value": {"ROOT": {"/jail/one": [7]}}}'])
def test_a_damaged_hint_is_none(machine: Machine, text: str) -> None:
    machine.fix(KEEPING, BEFORE)
    (machine.state / "cache-places.json").write_text(text.replace("ROOT", str(machine.root)), encoding="utf-8")
    assert hinted(machine, KEEPING) == ({}, 0)


def test_a_stale_hint_prunes_nothing(machine: Machine) -> None:
    grow(machine.root, {f"/jail/one{OLD}": b"old library"})
    machine.fix(KEEPING)
    claim = {str(machine.root): {"/jail/one": [OLD, "/etc/hosts", "/nowhere"]}}
    places.write(Store(str(machine.state)), claim)
    assert hinted(machine, KEEPING) == ({}, 1)


def test_one_hint_serves_all_roots(machine: Machine, tmp_path: Path) -> None:
    machine.fix(KEEPING)
    shutil.copytree(machine.root, tmp_path / "copy")
    (tmp_path / "copy/jail/one/etc/hosts").unlink()
    first, machine.root = machine.root, tmp_path / "copy"
    machine.fix(KEEPING)
    known = json.loads((machine.state / "cache-places.json").read_text())["value"]
    assert known == {str(one): {"/jail/one": ["/etc/hosts"]} for one in (first, machine.root)}


# --- The command line -----------------------------------------------------------------------------------------------


CONFIG = '[[instance]]\nname = "one"\nchroot = "/jail/one"\nrules = ["local"]\n'
LOCAL = """\
[ruleset]
service = "test"
description = "for tests"

[[rule]]
id = "local.some"
why = "a test wants them"
files = {files}
"""


@pytest.fixture
def command(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """A verb on the machine, as an image, with a rule that names some files."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(machine.base))
    (machine.base / "rules").mkdir(mode=0o755)
    (machine.base / "config.toml").write_text(CONFIG)
    (machine.base / "config.toml").chmod(0o644)

    def run(*arguments: str, files: Sequence[str] = ("/etc/hosts",)) -> Result:
        (machine.base / "rules/local.toml").write_text(LOCAL.format(files=json.dumps(files)))
        (machine.base / "rules/local.toml").chmod(0o644)
        options = {"root": machine.root, "state": machine.state}
        options |= {"config": machine.base / "config.toml", "rules": machine.base / "rules"}
        where = [f"--{name}={path}" for name, path in options.items()]
        return CliRunner().invoke(application(), [*arguments, *where], prog_name="chrootsync")

    return run


def test_from_the_first_word_to_the_last(machine: Machine, command: Callable[..., Result]) -> None:
    assert command("check", "--fix", files=["/etc/hosts", OLD]).exit_code == 0
    found = command("check", "--format", "table")
    assert found.exit_code == 0, "a warning"
    assert re.search(r"orphan +/usr/lib/libcap\.so\.1 .*remove", found.output, re.DOTALL), found.output
    assert "local.some put it here on" in " ".join(found.output.split())
    assert command("check", "--strict", "-q").exit_code == 1
    fixed = command("check", "--fix", "--format", "plain")
    assert fixed.exit_code == 0
    first, *_, last = fixed.output.splitlines()
    assert first.startswith(f"warning orphan one /jail/one{OLD}: local.some put it here on ")
    assert first.endswith(", and no rule needs it any more (local.some) -> repaired")
    assert last.endswith(": 1 repaired")
    assert not machine.path(OLD).exists()
    assert "in sync" in command("check", "--strict").output
    history = json.loads(command("history", "--format", "json").output)["repairs"][0]
    (change,) = history["instances"][0]["changes"]
    assert (change["kind"], change["path"], change["after"], change["kept"]) == ("orphan", OLD, None, True)
    back = command("rollback")
    assert back.exit_code == 0, back.output
    assert machine.path(OLD).read_bytes() == b"old library"
    told = json.loads(command("check", "--fix", "--format", "json").output)["instances"][0]["drift"]
    assert [(one["kind"], one["path"]) for one in told] == [("held", OLD)]
    assert command("check", "--fix", "--force").exit_code == 0
    assert not machine.path(OLD).exists()


# --- Databases of earlier versions ----------------------------------------------------------------------------------


def test_what_an_earlier_version_put_is_never_pruned(machine: Machine) -> None:
    machine.fix(KEEPING, BEFORE)
    with closing(sqlite3.connect(machine.state / "state.db", isolation_level=None)) as connection:
        for table in ("baselines", "changes"):
            connection.execute(f"ALTER TABLE {table} DROP COLUMN placed")
        connection.execute("PRAGMA user_version = 2")
    assert machine.fix(KEEPING) == {}
    (machine.root / OLD[1:]).write_bytes(b"second library")
    assert machine.fix(KEEPING, BEFORE)[OLD].status is Status.REPAIRED
    assert machine.fix(KEEPING) == {}, "it was only refreshed"
    machine.path("/etc/hosts").unlink()
    machine.fix(KEEPING, BEFORE)
    assert [one.path for one in machine.placed()] == ["/etc/hosts"]


# --- Properties -----------------------------------------------------------------------------------------------------

NAMES = ("a", "b", "c", "d")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    wanted=st.lists(st.sets(st.sampled_from(NAMES)), min_size=2, max_size=4),
    foreign=st.sets(st.sampled_from(NAMES)),
    meddled=st.sets(st.sampled_from(NAMES)),
)
def test_a_check_after_a_fix_is_clean_and_nothing_foreign_is_lost(
    tmp_path_factory: pytest.TempPathFactory, wanted: list[set[str]], foreign: set[str], meddled: set[str]
) -> None:
    """Whatever was needed in turn: what somebody else put or changed stays, and what was put goes in time."""
    machine = Machine(tmp_path_factory.mktemp("property"))
    grow(machine.root, {f"/etc/{name}": name.encode() for name in NAMES})
    grow(machine.root, {f"/jail/one/etc/{name}": name.encode() for name in foreign})
    for index, names in enumerate(wanted):
        rules = (KEEPING, rule(id="test.some", files=tuple(f"/etc/{name}" for name in sorted(names))))
        machine.fix(*rules)
        assert machine.check(*rules) == {}
        before = snapshot(machine.root)
        assert machine.fix(*rules) == {}
        assert snapshot(machine.root) == before
        expected = {"hosts", *names, *foreign, *(meddled if index else ())}
        assert set(os.listdir(machine.path("/etc"))) == expected
        if index == 0:
            for name in meddled:
                machine.path(f"/etc/{name}").unlink(missing_ok=True)
                grow(machine.root, {f"/jail/one/etc/{name}": b"of another"})


@pytest.mark.parametrize("when", [When(libc="glibc"), When(distribution=("debian",))])
def test_nothing_goes_where_a_damaged_root_does_not_tell_what_it_is(tmp_path: Path, when: When) -> None:
    machine = Machine(tmp_path)
    machine.fix(KEEPING, BEFORE)
    assert machine.fix(KEEPING, rule(id="test.nss", files=(OLD,), when=(when,))) == {}
    assert machine.path(OLD).read_bytes() == b"old library"
    machine.fix(KEEPING)
    assert not machine.path(OLD).exists()


def test_what_a_rule_asks_of_the_host_is_looked_up_once(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not for each of all the places where it once put something."""
    release = "/etc/os-release"
    grow(machine.root, {release: b"ID=debian\n", **{f"/etc/many/{number}": b"x" for number in range(20)}})
    many = rule(directories=("/etc/many",), when=(When(distribution=("debian",)),))
    machine.fix(KEEPING, many)
    shutil.rmtree(machine.root / "etc/many")
    (machine.root / "etc/many").mkdir(mode=0o755)
    reads: list[str] = []
    real = Root.read

    def read(self: Root, path: str, *, limit: int = 1 << 20) -> bytes:
        reads.append(path)
        return real(self, path, limit=limit)

    monkeypatch.setattr(Root, "read", read)
    found = machine.check(KEEPING, many)
    assert list(found.values()).count("orphan") == 20
    assert reads.count(release) <= 2  # whether the rule holds, and whether it could be decided
