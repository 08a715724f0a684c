"""Repairs that are taken back: what is put back, what is refused, and what is held afterwards."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from chrootsync import pipeline
from chrootsync.model import InstanceReport, Link, Rule
from chrootsync.model.memory import Repair
from chrootsync.pipeline import Task
from chrootsync.pipeline.rollback import FORCE, rollback
from chrootsync.repair import SourceChangedError, transaction
from chrootsync.root.write import Writer
from chrootsync.state.database import Database, open_database
from tests.unit.machine import STRANGER, needs_root
from tests.unit.scenery import grow, instance, kinds, rule, snapshot, task

NOW = 1_760_000_000.0
DAY = 86400.0
FILES = rule(files=("/etc/hosts", "/etc/services"))


class Host:
    """A root with one chroot, and what is remembered of it."""

    def __init__(self, base: Path) -> None:
        self.root = base / "root"
        self.state = base / "state"
        self.quota = 1 << 20
        self.root.mkdir(mode=0o755)
        grow(self.root, {"/etc/hosts": b"new\n", "/etc/services": b"new services\n", "/jail/one": None})

    @contextmanager
    def at_work(self, rules: Sequence[Rule], now: float) -> Iterator[tuple[Task, Writer, Database]]:
        """A task with its memory."""
        with (
            task(self.root, rules) as (work, writer),
            closing(open_database(str(self.state), str(self.root), write=True, now=now, quota=self.quota)) as memory,
        ):
            yield replace(work, memory=memory), writer, memory

    def fix(self, *rules: Rule, now: float = NOW) -> tuple[InstanceReport, ...]:
        with self.at_work(rules or [FILES], now) as (work, writer, memory):
            journal = memory.begin(began=now, trigger="test", version="0")
            return pipeline.repair(work, writer, pipeline.check(work), journal)

    def check(self, *rules: Rule, now: float = NOW, force: bool = False) -> dict[str, str]:
        with self.at_work(rules or [FILES], now) as (work, _, _memory):
            return kinds(pipeline.check(replace(work, force=force)))

    def take_back(self, *rules: Rule, number: int | None = None, force: bool = False) -> dict[str, str]:
        """The outcomes by path, each with its reason."""
        with self.at_work(rules or [FILES], NOW) as (work, writer, memory):
            repair = memory.repairs(1)[0] if number is None else memory.repair(number)
            assert repair is not None
            journal = memory.begin(began=NOW, trigger="rollback", version="0", undoes=repair.id)
            done = rollback(replace(work, force=force), writer, memory, journal, repair, now=NOW)
            return {
                one.drift.entry.path: f"{one.outcome.status}: {one.outcome.reason}".rstrip(": ")
                for report in done
                for one in report.findings
                if one.outcome is not None
            }

    def repairs(self) -> list[Repair]:
        with self.at_work([FILES], NOW) as (_work, _writer, memory):
            return memory.repairs(100)

    def path(self, name: str) -> Path:
        return self.root / "jail/one" / name.lstrip("/")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def stale(host: Host) -> Host:
    """A chroot that is repaired: one file was stale, the other was missing."""
    grow(host.root, {"/jail/one/etc/hosts": b"an older one\n"})
    os.utime(host.path("/etc/hosts"), (1_500_000_000, 1_500_000_000))
    host.fix()
    return host


def test_a_rollback_puts_back_what_was_replaced_and_removes_what_was_added(stale: Host) -> None:
    assert stale.take_back() == {"/etc/hosts": "repaired", "/etc/services": "repaired"}
    assert stale.path("/etc/hosts").read_bytes() == b"an older one\n"
    assert stale.path("/etc/hosts").stat().st_mtime == 1_500_000_000
    assert os.listdir(stale.path("/etc")) == ["hosts"]


def test_directories_that_a_repair_made_go_with_what_was_in_them(host: Host) -> None:
    deep = rule(files=("/etc/a/b/c",))
    grow(host.root, {"/etc/a/b/c": b"x"})
    host.fix(deep)
    outcomes = host.take_back(deep)
    assert set(outcomes.values()) == {"repaired"}
    assert os.listdir(host.root / "jail/one") == []


def test_a_directory_that_holds_something_else_by_now_stays(host: Host) -> None:
    host.fix()
    host.path("/etc/own").write_bytes(b"mine")
    outcomes = host.take_back()
    assert outcomes["/etc"] == "skipped: the directory stays, because it is not empty"
    assert os.listdir(host.path("/etc")) == ["own"]


def test_what_was_rolled_back_is_held_until_its_source_changes(stale: Host) -> None:
    stale.take_back()
    assert stale.check() == {"/etc/hosts": "held", "/etc/services": "held"}
    assert stale.check(force=True) == {"/etc/hosts": "outdated", "/etc/services": "missing"}
    before = snapshot(stale.root)
    stale.fix()
    assert snapshot(stale.root) == before
    (stale.root / "etc/hosts").write_bytes(b"newer still\n")
    assert stale.check() == {"/etc/hosts": "outdated", "/etc/services": "held"}
    stale.fix()
    assert stale.path("/etc/hosts").read_bytes() == b"newer still\n"
    assert stale.check() == {"/etc/services": "held"}


def test_a_hold_ends_after_seven_days(stale: Host) -> None:
    stale.take_back()
    assert stale.check(now=NOW + 6.9 * DAY) == {"/etc/hosts": "held", "/etc/services": "held"}
    assert stale.check(now=NOW + 7.1 * DAY) == {"/etc/hosts": "outdated", "/etc/services": "missing"}


def test_a_rollback_is_a_repair_of_its_own_and_can_be_taken_back(stale: Host) -> None:
    stale.take_back()
    newest, first = stale.repairs()
    assert (newest.undoes, newest.trigger) == (first.id, "rollback")
    assert set(stale.take_back(number=newest.id).values()) == {"repaired"}
    assert stale.path("/etc/hosts").read_bytes() == b"new\n"
    assert stale.check() == {}


def test_an_old_mode_obeys_what_the_source_is_today(stale: Host) -> None:
    (stale.root / "etc/hosts").chmod(0o600)
    stale.take_back()
    assert stat.S_IMODE(stale.path("/etc/hosts").stat().st_mode) == 0o600


def test_what_is_not_as_the_repair_left_it_is_refused_with_all_others(stale: Host) -> None:
    stale.path("/etc/hosts").write_bytes(b"an administrator's own\n")
    before = snapshot(stale.root)
    outcomes = stale.take_back()
    reason = "it is not what this repair left there any more; look at the repairs since"
    assert outcomes["/etc/hosts"] == f"failed: {reason}, or {FORCE}"
    assert outcomes["/etc/services"] == "skipped: left as it is, because /jail/one/etc/hosts cannot be taken back"
    assert snapshot(stale.root) == before
    assert stale.check() == {"/etc/hosts": "modified"}
    assert set(stale.take_back(number=1, force=True).values()) == {"repaired"}
    assert stale.path("/etc/hosts").read_bytes() == b"an older one\n"


def test_contents_that_are_not_kept_any_more_are_refused_and_left_with_force(stale: Host) -> None:
    for kept in (stale.state / "kept").glob("*/*"):
        kept.unlink()
    reason = "its old contents are not kept (any more)"
    assert stale.take_back()["/etc/hosts"] == f"failed: {reason}"
    outcomes = stale.take_back(number=1, force=True)
    assert outcomes["/etc/hosts"] == f"failed: {reason}"
    assert outcomes["/etc/services"] == "repaired"
    assert stale.path("/etc/hosts").read_bytes() == b"new\n"


def test_contents_that_were_tampered_with_are_not_put_back(stale: Host) -> None:
    (kept,) = (stale.state / "kept").glob("*/*")
    kept.write_bytes(b"evil content\n")
    assert stale.take_back()["/etc/hosts"] == "failed: its old contents are not kept (any more)"


def test_a_link_is_put_back(host: Host) -> None:
    wanted = rule(links=(Link(path="/etc/link", target="new"),))
    grow(host.root, {"/jail/one/etc/link": "old"})
    host.fix(wanted)
    assert host.take_back(wanted) == {"/etc/link": "repaired"}
    assert os.readlink(host.path("/etc/link")) == "old"
    assert host.check(wanted) == {"/etc/link": "held"}


@needs_root
def test_a_link_of_somebody_else_is_not_put_back_as_one_of_roots(host: Host) -> None:
    grow(host.root, {"/jail/one/etc/hosts": "/etc/shadow"})
    os.lchown(host.path("/etc/hosts"), STRANGER, STRANGER)
    host.fix()
    assert host.take_back()["/etc/hosts"] == f"failed: a link of user {STRANGER} is not put back"
    assert not host.path("/etc/hosts").is_symlink()


def test_a_fifo_is_not_put_back(host: Host) -> None:
    grow(host.root, {"/jail/one/etc/hosts": 0o600})
    host.fix()
    assert "is not put back" in host.take_back()["/etc/hosts"]


def test_kept_contents_that_change_while_they_are_put_back_are_told(
    stale: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(*_: object) -> None:
        raise SourceChangedError("/kept", "it changed after it was compared; run check --fix once more")

    monkeypatch.setattr(transaction, "_open", changed)
    reason = "/kept: it changed after it was compared; run check --fix once more"
    assert stale.take_back()["/etc/hosts"] == f"failed: kept contents changed: {reason}"


def test_what_cannot_be_held_is_left_as_it_is(stale: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def unable(self: Database, *_: object) -> bool:
        self.notes.append("the disk is full")
        return False

    monkeypatch.setattr(Database, "hold", unable)
    before = snapshot(stale.root)
    reason = "left as it is, since it could not be remembered that it is held: the disk is full"
    assert stale.take_back()["/etc/hosts"] == f"failed: {reason}"
    assert snapshot(stale.root) == before


def test_a_chroot_that_cannot_be_served_is_left_alone(stale: Host) -> None:
    (stale.root / "jail/one").chmod(0o777)
    before = snapshot(stale.root)
    assert all(outcome.startswith("failed") for outcome in stale.take_back().values())
    assert snapshot(stale.root) == before


def test_changes_of_other_instances_are_left_alone(stale: Host) -> None:
    with stale.at_work([FILES], NOW) as (work, writer, memory):
        other = replace(work, instances=[instance("two")])
        (repair,) = memory.repairs(1)
        journal = memory.begin(began=NOW, trigger="rollback", version="0", undoes=repair.id)
        assert rollback(other, writer, memory, journal, repair, now=NOW) == ()


def test_a_copy_that_no_rule_needs_any_more_can_still_be_taken_back(stale: Host) -> None:
    only_services = rule(id="other", files=("/etc/services",))
    outcomes = stale.take_back(only_services)
    assert outcomes["/etc/hosts"] == "repaired"
    assert stale.path("/etc/hosts").read_bytes() == b"an older one\n"


def test_a_mode_is_put_back_and_held(host: Host) -> None:
    host.fix()
    host.path("/etc/hosts").chmod(0o600)
    host.fix()
    assert host.take_back() == {"/etc/hosts": "repaired"}
    assert stat.S_IMODE(host.path("/etc/hosts").stat().st_mode) == 0o600
    assert host.check() == {"/etc/hosts": "held"}
    host.path("/etc/hosts").chmod(0o400)
    assert host.check() == {"/etc/hosts": "metadata"}


def test_a_link_in_the_place_of_a_file_is_put_back_and_held(host: Host) -> None:
    host.fix()
    grow(host.root, {"/jail/one/etc/other": b"other\n"})
    host.path("/etc/hosts").unlink()
    host.path("/etc/hosts").symlink_to("other")
    host.fix()
    assert host.take_back() == {"/etc/hosts": "repaired"}
    assert host.check() == {"/etc/hosts": "held"}


def test_what_is_put_back_does_not_go_for_want_of_room(host: Host) -> None:
    """What the rollback replaces is not kept then; what it restores must be."""
    host.quota = 40
    host.fix()
    host.path("/etc/hosts").write_bytes(b"an administrator's own, long\n")
    host.fix()
    (host.root / "etc/hosts").write_bytes(b"a source as long as that other\n")
    host.fix()
    assert host.take_back(number=2, force=True) == {"/etc/hosts": "repaired"}
    assert host.path("/etc/hosts").read_bytes() == b"an administrator's own, long\n"
