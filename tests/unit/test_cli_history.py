"""``history`` and ``rollback`` as one types them, on a real state database."""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import re
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from chrootsync.cli.setup import Places, Scene, scene
from chrootsync.model import Completed, FileType, Kind, Outcome, Reload, State, Status
from chrootsync.model.memory import Change, Step
from chrootsync.state.database import Database, open_database
from tests.unit.scenery import snapshot
from tests.unit.test_cli import filled, image, plain_environment, rules, run

__all__ = ["filled", "image", "plain_environment"]  # fixtures

rolling = importlib.import_module("chrootsync.cli.rollback")

INSIDE = "var/spool/postfix/etc/resolv.conf"
OUTSIDE = "var/spool/postfix-out/etc/resolv.conf"
OLD, NEW, NEWER, FOREIGN = (b"nameserver 192.0.2.%d\n" % number for number in (1, 7, 8, 66))
WHEN = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


def state(root: Path) -> Path:
    return root.parent / f"{root.name}-state"


def on(root: Path, *arguments: str) -> Result:
    """A verb on an image that has a state directory."""
    return run(*arguments, "--root", str(root), "--rules", rules(root), "--state", str(state(root)))


def told(result: Result) -> str:
    """What was printed, with each time by its name."""
    return WHEN.sub("TIME", result.stdout)


def document(result: Result) -> dict[str, Any]:
    made = json.loads(result.stdout)
    assert isinstance(made, dict)
    return made


@pytest.fixture
def repaired(filled: Path) -> Path:
    """An image whose copies of resolv.conf were brought up to date, which is repair 1."""
    assert on(filled, "check", "--fix").exit_code == 0
    (filled / "etc/resolv.conf").write_bytes(NEW)
    assert on(filled, "check", "--fix").exit_code == 0
    assert copies(filled) == (NEW, NEW)
    return filled


def copies(root: Path) -> tuple[bytes, bytes]:
    return (root / INSIDE).read_bytes(), (root / OUTSIDE).read_bytes()


def update(root: Path, contents: bytes) -> None:
    """Another repair, because the source changed."""
    (root / "etc/resolv.conf").write_bytes(contents)
    assert on(root, "check", "--fix").exit_code == 0


# --- history --------------------------------------------------------------------------------------------------------


def test_where_nothing_was_repaired_yet_that_is_said(filled: Path) -> None:
    result = on(filled, "history")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "no repair is remembered here yet; check --fix remembers each that it makes\n"
    assert document(on(filled, "history", "--format", "json"))["repairs"] == []
    assert on(filled, "history", "1").stderr == "chrootsync: there is no repair 1 here; none is remembered yet\n"
    assert not state(filled).exists()


def test_each_repair_is_listed_the_newest_first(repaired: Path) -> None:
    update(repaired, NEWER)
    result = on(repaired, "history")
    assert (result.exit_code, result.stderr) == (0, "")
    head, *lines = told(result).splitlines()
    assert head.split() == ["ID", "WHEN", "TRIGGER", "INSTANCES", "CHANGES", "RELOADS"]
    line = " TIME manual postfix, postfix-out 2 repaired none"
    assert [" ".join(one.split()) for one in lines] == [f"2{line}", f"1{line}"]


@pytest.mark.parametrize(("limit", "numbers"), [("1", [3]), ("2", [3, 2]), ("0", [3, 2, 1]), ("9", [3, 2, 1])])
def test_a_limit_leaves_out_the_older_ones(repaired: Path, limit: str, numbers: list[int]) -> None:
    update(repaired, NEWER)
    update(repaired, OLD)
    made = document(on(repaired, "history", "--format", "json", "--limit", limit))
    assert [one["id"] for one in made["repairs"]] == numbers
    table = on(repaired, "history", "--format", "table", "--limit", limit).stdout
    assert ("There are older ones" in table) is (len(numbers) < 3)
    assert "There are older ones" not in on(repaired, "history", "--limit", limit).stdout


def test_all_of_one_repair(repaired: Path) -> None:
    result = on(repaired, "history", "1")
    assert (result.exit_code, result.stderr) == (0, "")
    assert told(result).startswith("repair 1: TIME, trigger manual, chrootsync ")
    sides = [line.strip() for line in result.stdout.splitlines() if "->" in line]
    assert sides == ["21 bytes, sha256 a9d549519efe -> 21 bytes, sha256 17d10e9e95be"] * 2
    assert f"{repaired}" not in result.stdout
    assert result.stdout.count("rule postfix.resolver, source /etc/resolv.conf, old contents kept") == 2
    assert "/var/spool/postfix-out/etc/resolv.conf" in result.stdout


def test_times_are_local_ones(repaired: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    for zone in ("UTC", "UTC-3"):  # three hours east of Greenwich
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        try:
            [when] = WHEN.findall(on(repaired, "history").stdout)
        finally:
            monkeypatch.delenv("TZ")
            time.tzset()
        shown.append(time.mktime(time.strptime(when, "%Y-%m-%d %H:%M:%S")))
    assert shown[1] - shown[0] == 3 * 3600


def test_a_time_that_is_none_is_unknown(repaired: Path) -> None:
    with closing(sqlite3.connect(state(repaired) / "state.db")) as connection, connection:
        connection.execute("UPDATE repairs SET began = 1e300")
    result = on(repaired, "history", "1")
    assert result.exit_code == 0
    assert result.stdout.startswith("repair 1: unknown, trigger manual, ")


def test_json_tells_both_sides(repaired: Path) -> None:
    made = document(on(repaired, "history", "1", "--format", "json"))
    assert (made["schema"], made["root"], made["notes"]) == (1, str(repaired), [])
    [repair] = made["repairs"]
    assert (repair["id"], repair["trigger"], repair["undoes"], repair["finished"]) == (1, "manual", None, True)
    assert repair["summary"] == {"changes": 2, "by_status": {"repaired": 2}}
    assert [where["name"] for where in repair["instances"]] == ["postfix", "postfix-out"]
    [change] = repair["instances"][0]["changes"]
    assert (change["path"], change["kept"], change["outcome"]["status"]) == ("/etc/resolv.conf", True, "repaired")
    assert (change["before"]["mode"], change["after"]["size"]) == ("0644", 21)


@pytest.mark.parametrize("number", ["2", "0", "99", "9" * 30])
@pytest.mark.parametrize("verb", ["history", "rollback"])
def test_an_unknown_repair_ends_2(repaired: Path, verb: str, number: str) -> None:
    before = snapshot(repaired)
    result = on(repaired, verb, number)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"chrootsync: there is no repair {number} here; the newest is 1\n"
    assert snapshot(repaired) == before


def test_a_repair_of_another_root_is_none_of_this_one(repaired: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / "etc").mkdir()
    shared = ("--state", str(state(repaired)))
    assert run("history", "1", "--root", str(other), *shared).exit_code == 2
    assert run("rollback", "--root", str(other), *shared).exit_code == 3


def test_a_history_changes_nothing(repaired: Path) -> None:
    def seen() -> list[dict[str, object]]:
        # SQLite's readers agree with writers by small files of their own.
        own = (f"{state(repaired)}/state.db-wal", f"{state(repaired)}/state.db-shm")
        kept = {path: what for path, what in snapshot(state(repaired)).items() if path not in own}
        return [snapshot(repaired), kept]

    before = seen()
    on(repaired, "history")
    on(repaired, "history", "1", "--format", "json")
    assert seen() == before


def test_contents_that_are_gone_are_not_called_kept(repaired: Path) -> None:
    for kept in (state(repaired) / "kept").rglob("*"):
        if kept.is_file():
            kept.unlink()
    assert on(repaired, "history", "1").stdout.count("old contents not kept: cannot be taken back") == 2
    result = on(repaired, "rollback")
    assert (result.exit_code, copies(repaired)) == (3, (NEW, NEW))
    assert "its old contents are not kept" in result.stdout


def test_a_repair_that_was_cut_short_is_said_to_be(
    repaired: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = Change(
        instance="postfix",
        chroot="/var/spool/postfix",
        path="/etc/resolv.conf",
        source="/etc/resolv.conf",
        rule="postfix.resolver",
        kind=Kind.OUTDATED,
        package=None,
        before=None,
        after=None,
        outcome=Outcome(status=Status.UNKNOWN),
    )
    with closing(open_database(str(state(repaired)), str(repaired), write=True, now=time.time())) as memory:
        journal = memory.begin(began=time.time(), trigger="timer", version="1")
        journal.plan([Step(change=change, temporary=".chrootsync-x")])
    assert "under way or cut short" in on(repaired, "history").stdout
    note = "a repair of postfix was cut short; check --fix clears up what it left"
    assert f"note: {note}\n" in on(repaired, "check").stdout
    locks = tmp_path_factory.mktemp("locks")
    monkeypatch.setattr("chrootsync.cli.compare.root_lock", lambda _stage: (str(locks), "one.lock"))
    with (locks / "one.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "note: a repair is under way meanwhile\n" in on(repaired, "check").stdout
    assert document(on(repaired, "history", "2", "--format", "json"))["repairs"][0]["finished"] is False


# --- Hostile names --------------------------------------------------------------------------------------------------


def test_hostile_names_do_nothing_to_a_terminal(repaired: Path) -> None:
    path = "/etc/\udcff\n\x1b[2J\u202egpj"
    change = Change(
        instance="postfix\x1b[31m",
        chroot="/var/spool/post\nfix",
        path=path,
        source=path,
        rule="evil\r",
        kind=Kind.MODIFIED,
        package="lib\x07",
        before=State(type=FileType.LINK, mode=0o777, target=path),
        after=None,
        outcome=Outcome(status=Status.REPAIRED, reason="\x9b"),
    )
    reload = Reload(needed=True, error="\x1b]0;owned\x07", output="\x1b[2J\nline")
    with closing(open_database(str(state(repaired)), str(repaired), write=True, now=time.time())) as memory:
        journal = memory.begin(began=time.time(), trigger="cron\n\x1b[2J", version="\x00")
        journal.settle([change])
        journal.reloaded(change.instance, reload)
    results = [
        on(repaired, *arguments, "--format", style)
        for arguments in (("history",), ("history", "2"), ("rollback", "2"))
        for style in ("table", "plain", "json")
    ]
    assert [result.exit_code for result in results] == [0] * 6 + [3] * 3
    for result in results:
        assert all(line.isprintable() for line in result.stdout.split("\n"))
        assert all(line.isprintable() for line in result.stderr.split("\n"))
    made = document(on(repaired, "history", "2", "--format", "json"))
    assert made["repairs"][0]["instances"][0]["changes"][0]["path"] == r"/etc/\xff\x0a\x1b[2J\xe2\x80\xaegpj"


# --- State that is of no use ----------------------------------------------------------------------------------------


def garble(root: Path) -> None:
    for place in state(root).iterdir():
        if place.name.startswith("state.db"):
            place.write_bytes(b"garbage " * 1000)


def test_garbage_is_told_and_left_alone(repaired: Path) -> None:
    garble(repaired)
    before = snapshot(state(repaired))
    result = on(repaired, "history")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"chrootsync: {state(repaired)}/state.db: ")
    assert document(on(repaired, "history", "--format", "json"))["error"]["code"] == 3
    assert on(repaired, "history", "1").exit_code == 3
    assert snapshot(state(repaired)) == before


def test_what_cannot_be_read_is_told(repaired: Path) -> None:
    (state(repaired) / "state.db").unlink()
    (state(repaired) / "state.db").mkdir()
    for verb in ("history", "rollback"):
        result = on(repaired, verb)
        assert (result.exit_code, result.stdout) == (3, "")
        assert "state.db: is not a regular file" in result.stderr


def test_a_row_that_makes_no_sense_is_told(repaired: Path) -> None:
    with closing(sqlite3.connect(state(repaired) / "state.db")) as connection, connection:
        connection.execute("UPDATE changes SET kind = 'nonsense'")
    result = on(repaired, "history")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "state.db: is damaged" in result.stderr


def test_nothing_is_taken_back_without_usable_state(repaired: Path) -> None:
    garble(repaired)
    before = snapshot(repaired)
    result = on(repaired, "rollback")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith(f"chrootsync: nothing can be taken back: {state(repaired)}/state.db: ")
    assert result.stderr.count("\n") == 1
    assert snapshot(repaired) == before
    assert on(repaired, "rollback").stderr == result.stderr
    assert not list(state(repaired).glob("state.db.bad-*"))


def test_of_an_image_nothing_is_remembered_without_a_place_for_it(filled: Path) -> None:
    for verb, what in (("history", ""), ("rollback", "nothing can be taken back: ")):
        result = run(verb, "--root", str(filled))
        assert (result.exit_code, result.stdout) == (3, "")
        reason = "of an image nothing is remembered without --state; name the directory that repairs used"
        assert result.stderr == f"chrootsync: {what}{reason}\n"
    place = filled.parent / f"{filled.name}-nothing"
    result = run("rollback", "--root", str(filled), "--state", str(place))
    assert result.stderr == "chrootsync: nothing can be taken back: no repair is remembered yet\n"


def test_nothing_is_taken_back_that_cannot_be_remembered(repaired: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Database, "try_to_write", lambda _self: False)
    result = on(repaired, "rollback")
    reason = "nothing can be taken back, since it could not be remembered: nothing can be written to the state"
    assert (result.exit_code, result.stderr) == (3, f"chrootsync: {reason}\n")


# --- rollback -------------------------------------------------------------------------------------------------------


def test_the_newest_repair_is_taken_back(repaired: Path) -> None:
    result = on(repaired, "rollback")
    assert (result.exit_code, result.stderr) == (0, "")
    assert copies(repaired) == (OLD, OLD)
    lines = told(result).splitlines()
    assert lines[0].startswith("repair 2: TIME, trigger rollback, chrootsync ")
    assert lines[0].endswith("; takes back 1")
    assert lines[-4:] == [
        "note: this is an image: nothing runs in it, so nothing was reloaded",
        "2 of 2 changes of repair 1 taken back.",
        "What was taken back is held for 7 days (until TIME), or until its source changes:",
        "check --fix leaves it alone; check --fix --force repairs it at once.",
    ]
    listed = [" ".join(line.split()) for line in told(on(repaired, "history")).splitlines()[1:]]
    assert listed == [
        "2 TIME rollback postfix, postfix-out 2 taken back none takes back 1",
        "1 TIME manual postfix, postfix-out 2 repaired none taken back by 2",
    ]


def test_what_was_taken_back_is_held(repaired: Path) -> None:
    on(repaired, "rollback")
    result = on(repaired, "check", "--fix")
    assert copies(repaired) == (OLD, OLD)
    assert result.stdout.count("held") >= 2
    assert on(repaired, "check", "--fix", "--force").exit_code == 0
    assert copies(repaired) == (NEW, NEW)


def test_a_hold_ends_with_a_change_of_the_source(repaired: Path) -> None:
    on(repaired, "rollback")
    update(repaired, NEWER)
    assert copies(repaired) == (NEWER, NEWER)


def test_one_repair_after_the_other_is_taken_back(repaired: Path) -> None:
    update(repaired, NEWER)
    assert on(repaired, "rollback").exit_code == 0
    assert copies(repaired) == (NEW, NEW)
    assert on(repaired, "rollback").exit_code == 0
    assert copies(repaired) == (OLD, OLD)
    result = on(repaired, "rollback")
    assert (result.exit_code, result.stdout) == (3, "")
    reason = "every repair that changed something was taken back already"
    assert result.stderr == f"chrootsync: nothing can be taken back: {reason}\n"


def test_a_rollback_is_taken_back_by_its_number(repaired: Path) -> None:
    on(repaired, "rollback")
    assert on(repaired, "rollback", "2").exit_code == 0
    assert copies(repaired) == (NEW, NEW)
    made = document(on(repaired, "history", "--format", "json"))
    assert [(one["id"], one["undoes"], one["undone_by"]) for one in made["repairs"]] == [
        (3, 2, []),
        (2, 1, [3]),
        (1, None, []),
    ]
    assert on(repaired, "rollback").exit_code == 0
    assert copies(repaired) == (OLD, OLD)


def test_what_was_taken_back_already_is_said_to_be(repaired: Path) -> None:
    on(repaired, "rollback")
    before = snapshot(repaired)
    result = on(repaired, "rollback", "1")
    said = "note: repair 1 was taken back by 2 already; nothing was done\n"
    assert (result.exit_code, result.stdout) == (0, said)
    made = document(on(repaired, "rollback", "1", "--format", "json"))
    assert (made["repairs"], made["held_until"], len(made["notes"])) == ([], None, 1)
    assert snapshot(repaired) == before


def test_a_repair_that_changed_nothing_is_said_to_have(repaired: Path) -> None:
    with closing(open_database(str(state(repaired)), str(repaired), write=True, now=time.time())) as memory:
        failed = Outcome(status=Status.FAILED, reason="no space left on device")
        change = replace(memory.repairs(1)[0].changes[0], outcome=failed)
        memory.begin(began=time.time(), trigger="timer", version="1").settle([change])
    result = on(repaired, "rollback", "2")
    assert (result.exit_code, result.stdout) == (0, "note: repair 2 changed nothing; nothing was done\n")
    assert on(repaired, "rollback").exit_code == 0
    assert copies(repaired) == (OLD, OLD)


def test_what_was_changed_since_is_refused_and_its_instance_left_alone(repaired: Path) -> None:
    (repaired / OUTSIDE).write_bytes(FOREIGN)
    result = on(repaired, "rollback")
    assert (result.exit_code, copies(repaired)) == (3, (OLD, FOREIGN))
    line = next(one for one in result.stdout.splitlines() if "failed" in one)
    assert "/var/spool/postfix-out/etc/resolv.conf: it is not what this repair left there" in line
    assert "--force" in line
    assert "1 of 2 changes of repair 1 taken back." in result.stdout
    assert "partly taken back by 2" in on(repaired, "history").stdout


def test_after_a_refusal_force_takes_back_the_rest_of_the_same_repair(repaired: Path) -> None:
    update(repaired, NEWER)
    (repaired / OUTSIDE).write_bytes(FOREIGN)
    assert on(repaired, "rollback").exit_code == 3
    result = on(repaired, "rollback", "--force")
    assert (result.exit_code, copies(repaired)) == (0, (NEW, NEW))
    assert "1 of 1 change of repair 2 taken back." in result.stdout
    assert "taken back by 3 and 4" in on(repaired, "history").stdout


def test_where_all_is_refused_nothing_is_remembered(repaired: Path) -> None:
    for path in (INSIDE, OUTSIDE):
        (repaired / path).write_bytes(FOREIGN)
    result = on(repaired, "rollback", "--format", "json")
    assert result.exit_code == 3
    [repair] = document(result)["repairs"]
    assert (repair["id"], repair["undoes"], repair["summary"]["by_status"]) == (None, 1, {"failed": 2})
    assert len(on(repaired, "history").stdout.splitlines()) == 2


def test_an_instance_that_is_gone_is_refused(repaired: Path) -> None:
    main = repaired / "etc/postfix/main.cf"
    main.write_bytes(main.read_bytes().replace(b"multi_instance_directories = /etc/postfix-out\n", b""))
    result = on(repaired, "rollback")
    assert (result.exit_code, copies(repaired)) == (3, (OLD, NEW))
    reason = "there is no instance postfix-out with this chroot any more"
    assert f"/var/spool/postfix-out/etc/resolv.conf: {reason}" in result.stdout


def test_the_first_repair_is_taken_back_with_its_directories(image: Path) -> None:
    assert on(image, "check", "--fix").exit_code == 0
    (image / "var/spool/postfix/etc/mine").write_bytes(b"")
    result = on(image, "rollback")
    assert result.exit_code == 0
    assert os.listdir(image / "var/spool/postfix/etc") == ["mine"]
    assert os.listdir(image / "var/spool/postfix-out") == []
    assert "the directory stays, because it is not empty" in result.stdout
    assert " taken back by 2" in on(image, "history").stdout
    assert "partly" not in on(image, "history").stdout
    assert on(image, "rollback").exit_code == 3


def test_quiet_prints_nothing(repaired: Path) -> None:
    result = on(repaired, "rollback", "-q")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert copies(repaired) == (OLD, OLD)


def test_json_says_until_when_it_is_held(repaired: Path) -> None:
    made = document(on(repaired, "rollback", "--format", "json"))
    assert made["repairs"][0]["undoes"] == 1
    assert made["notes"] == ["this is an image: nothing runs in it, so nothing was reloaded"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", made["held_until"])


def test_another_repair_ends_5(repaired: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locks = tmp_path / "locks"
    locks.mkdir(mode=0o700)
    monkeypatch.setattr(sys.modules["chrootsync.cli.rollback"], "root_lock", lambda _stage: (str(locks), "one.lock"))
    with (locks / "one.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        result = on(repaired, "rollback", "--wait", "0.1")
        assert on(repaired, "history").exit_code == 0
    assert (result.exit_code, result.stdout) == (5, "")
    assert "another repair of this root is under way" in result.stderr
    assert copies(repaired) == (NEW, NEW)


@pytest.mark.parametrize("arguments", [("--wait", "nan"), ("--wait", "-1"), ("--format", "html"), ("twelve",)])
def test_wrong_usage_ends_2(repaired: Path, arguments: Sequence[str]) -> None:
    result = on(repaired, "rollback", *arguments)
    assert result.exit_code == 2
    assert copies(repaired) == (NEW, NEW)


def test_an_interrupted_repair_is_cleared_up_first(repaired: Path) -> None:
    """What a run that was killed had swapped in counts as the newest repair."""
    with closing(open_database(str(state(repaired)), str(repaired), write=True, now=time.time())) as memory:
        journal = memory.begin(began=time.time(), trigger="timer", version="1")
        change = replace(
            memory.repairs(1)[0].changes[0], path="/etc/hosts", source="/etc/hosts", before=None, kept=False
        )
        journal.plan([Step(change=change, temporary=".chrootsync-x")])
    result = on(repaired, "rollback")
    assert "note: a repair of postfix had been cut short; what it left was cleared up\n" in result.stdout
    assert (result.exit_code, copies(repaired)) == (0, (OLD, OLD))


# --- Reloads --------------------------------------------------------------------------------------------------------


class Running:
    """Instances that run, and whose reload ends as it is told to."""

    def __init__(self, code: int) -> None:
        self.code = code
        self.reloads: list[str] = []

    def run(self, command: Sequence[str], *, timeout: float) -> Completed:
        assert timeout > 0
        if "reload" not in command:
            return Completed(code=0, output="")
        self.reloads.append(" ".join(command))
        return Completed(code=self.code, output="refreshing the Postfix mail system\n")

    def started(self, pid: int, child: str | None) -> float | None:
        raise AssertionError((pid, child))


@contextmanager
def running(monkeypatch: pytest.MonkeyPatch, code: int = 0) -> Iterator[Running]:
    """Let what is in an image run."""
    machine = Running(code)

    @contextmanager
    def live(where: Places) -> Iterator[Scene]:
        with scene(where) as stage:
            yield replace(stage, host=replace(stage.host, run=machine))

    with monkeypatch.context() as patch:
        patch.setattr(rolling, "scene", live)
        yield machine


def test_exactly_what_was_changed_is_reloaded(repaired: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repaired / OUTSIDE).write_bytes(FOREIGN)
    with running(monkeypatch) as machine:
        result = on(repaired, "rollback")
    assert result.exit_code == 3
    assert len(machine.reloads) == 1
    assert "  reloaded\n" in result.stdout
    shown = on(repaired, "history").stdout.splitlines()[1]
    assert " 1 taken back  1 done " in shown


def test_a_reload_that_fails_ends_4_and_stays_due(repaired: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(monkeypatch, code=1) as machine:
        result = on(repaired, "rollback")
    assert (result.exit_code, copies(repaired)) == (4, (OLD, OLD))
    assert len(machine.reloads) == 2
    assert result.stdout.count("  reload pending: ") == 2
    assert result.stdout.count("    refreshing the Postfix mail system\n") == 2
    assert pending(repaired) == {"postfix", "postfix-out"}
    assert "2 pending" in on(repaired, "history").stdout
    [made] = document(on(repaired, "history", "2", "--format", "json"))["repairs"]
    assert [where["reload"]["pending"] for where in made["instances"]] == [True, True]


def test_reloading_can_be_left_to_somebody(repaired: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(monkeypatch) as machine:
        result = on(repaired, "rollback", "--no-reload")
    assert (result.exit_code, machine.reloads) == (0, [])
    assert result.stdout.count("  not reloaded; do it with: ") == 2
    assert pending(repaired) == {"postfix", "postfix-out"}


def test_where_all_is_refused_no_reload_becomes_due(repaired: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (INSIDE, OUTSIDE):
        (repaired / path).write_bytes(FOREIGN)
    with running(monkeypatch) as machine:
        assert on(repaired, "rollback").exit_code == 3
    assert (machine.reloads, pending(repaired)) == ([], set())


def test_a_reload_is_due_before_anything_is_taken_back(repaired: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object, **__: object) -> None:
        assert pending(repaired) == {"postfix", "postfix-out"}
        raise KeyboardInterrupt

    monkeypatch.setattr("chrootsync.pipeline.rollback.rollback", killed)
    with running(monkeypatch):
        assert on(repaired, "rollback").exit_code == 130
    assert pending(repaired) == {"postfix", "postfix-out"}


def pending(root: Path) -> set[str]:
    with closing(open_database(str(state(root)), str(root), write=False, now=time.time())) as memory:
        return {name for name, record in memory.reloads().items() if record.pending}
