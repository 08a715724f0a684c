"""Histories of repairs held against golden files, and what no golden file shows.

``UPDATE_GOLDEN=1 pytest tests/unit/report/test_history.py`` writes the files anew: read the diff.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrootsync.model import FileType, Kind, Outcome, Reload, State, Status
from chrootsync.model.memory import Change, Repair
from chrootsync.report.history import History, listing, remaining, rollback_summary, single, taken_back
from chrootsync.report.history_json import render as as_json
from chrootsync.report.json import utc
from tests.unit.report.report_samples import NEW, OLD, file

GOLDEN = Path(__file__).parents[2] / "golden" / "history"
BEGAN = 1_760_000_000.25
UNTIL = BEGAN + 7 * 86_400 + 14 * 60
DONE = Outcome(status=Status.REPAIRED)
HEADINGS = {"ID", "WHEN", "TRIGGER", "INSTANCES", "CHANGES", "RELOADS"}
COMMAND = ("/usr/sbin/postfix", "-c", "/etc/postfix-out", "reload")
RELOADED = Reload(needed=True, done=True, command=COMMAND, output="postfix/postfix-script: refreshing\n")


def change(path: str = "/etc/resolv.conf", where: str = "postfix-out", **fields: Any) -> Change:
    default: dict[str, Any] = {
        "instance": where,
        "chroot": f"/var/spool/{where}",
        "path": path,
        "source": path,
        "rule": "postfix.resolver",
        "kind": Kind.OUTDATED,
        "package": None,
        "before": file(size=120, sha256=OLD),
        "after": file(),
        "outcome": DONE,
        "kept": True,
    }
    return Change(**(default | fields))


def repair(number: int, *changes: Change, undoes: int | None = None, **fields: Any) -> Repair:
    default: dict[str, Any] = {
        "began": BEGAN + number * 60,
        "trigger": "manual" if undoes is None else "rollback",
        "version": "0.1.0",
    }
    return Repair(**(default | fields), id=number, undoes=undoes, changes=changes)


def history(*repairs: Repair, **fields: Any) -> History:
    default: dict[str, Any] = {
        "root": "/",
        "local": lambda seconds: (utc(seconds) or "unknown").replace("T", " ").removesuffix("Z"),
        "owners": {0: "root", 33: "www-data"},
        "groups": {0: "root"},
    }
    return History(**(default | fields), repairs=repairs)


def back(what: Change, **fields: Any) -> Change:
    """A change on its way back."""
    return replace(what, before=what.after, after=what.before, **fields)


# --- Samples ------------------------------------------------------------------------------------------------------

RESOLVER = change()
LIBRARY = change(
    "/lib/x86_64-linux-gnu/libnss_dns.so.2",
    "postfix-in",
    source="/usr/lib/x86_64-linux-gnu/libnss_dns.so.2",
    rule="postfix.nss",
    kind=Kind.MISSING,
    package="libc6",
    before=None,
    after=file(size=31_032),
    kept=False,
)
SERVICES = change(
    "/etc/services",
    rule="postfix.present",
    kind=Kind.METADATA,
    package="netbase",
    before=replace(file(0o600, size=12_813, uid=33), extended=("an ACL",)),
    after=file(size=12_813),
)
URANDOM = change(
    "/dev/urandom",
    source=None,
    rule="postfix.devices",
    kind=Kind.TYPE,
    before=file(size=0),
    after=State(type=FileType.CHARACTER_DEVICE, mode=0o666, uid=0, gid=0, device=(1, 9)),
    kept=False,
)
LINK = change(
    "/etc/localtime",
    source=None,
    rule="local.zone",
    kind=Kind.TYPE,
    before=State(type=FileType.LINK, mode=0o777, uid=0, gid=0, target="../usr/share/zoneinfo/UTC"),
    after=State(type=FileType.DIRECTORY, mode=0o755, uid=0, gid=0),
    kept=False,
)
ORPHAN = change("/etc/ssl/certs/1001acf7.0", rule="postfix.capath", kind=Kind.ORPHAN, source=None, after=None)
FULL = change(
    "/etc/hosts", rule="postfix.hosts", outcome=Outcome(status=Status.FAILED, reason="no space left on device")
)
SKIPPED = change(
    "/etc/host.conf",
    rule="postfix.hosts",
    outcome=Outcome(status=Status.SKIPPED, reason="left as it was, because /var/spool/postfix-out/etc/hosts failed"),
)
UNSURE = change(
    "/etc/nsswitch.conf",
    "postfix-in",
    outcome=Outcome(status=Status.UNKNOWN, reason="in place, but perhaps not on the disk: input/output error"),
)

PENDING = Reload(
    needed=True, pending=True, command=COMMAND, error="/etc/postfix-in/main.cf was changed after the last reload"
)
FAILED = Reload(needed=True, command=COMMAND, error="it ended with status 1", output="postfix: fatal: no such host\n")
LEFT = Reload(needed=True, command=COMMAND)

MANY = repair(
    12,
    LIBRARY,
    RESOLVER,
    SERVICES,
    URANDOM,
    LINK,
    ORPHAN,
    trigger="dpkg",
    reloads={"postfix-in": PENDING, "postfix-out": RELOADED},
)
BROKEN = repair(13, UNSURE, FULL, SKIPPED, reloads={"postfix-in": FAILED})
PARTLY = repair(14, back(RESOLVER), back(SERVICES), undoes=12, reloads={"postfix-out": LEFT})
CROWD = repair(15, *(change(where=f"postfix-{number}") for number in range(4)))
AGAIN = repair(16, back(UNSURE, outcome=DONE), undoes=13, reloads={"postfix-in": RELOADED, "postfix": RELOADED})
CUT_SHORT = repair(17, trigger="timer")

EVIL = repair(
    18,
    change(
        "/etc/latin1-\udce9\udcff\n\x1b]0;owned\x07",
        "[bold]out\x1b[31m",
        chroot="/srv/\u202egpj.exe/",
        source="/etc/new\nrepair 99: all is well",
        rule="evil\x00.rule",
        package="lib\u200bc6",
        before=State(type=FileType.LINK, mode=0o777, uid=0, gid=0, target="/tmp/\udcff\r"),
        outcome=Outcome(status=Status.UNKNOWN, reason="\x9b2J::error::\\x41"),
    ),
    trigger="cron\n19  2025-10-09 08:53:20  manual",
    version="0.1\t",
    reloads={"[bold]out\x1b[31m": Reload(needed=True, error="no\x1b[1m", output="\x1b[2Jgone\nsecond line\n")},
)

ALL = history(EVIL, CUT_SHORT, AGAIN, CROWD, PARTLY, BROKEN, MANY, unfinished=frozenset({17}))
REFUSED = replace(
    PARTLY, changes=(back(RESOLVER), replace(SERVICES, outcome=Outcome(status=Status.FAILED, reason="no")))
)
MADE = {
    "list.plain.txt": lambda: listing(ALL),
    "list.table80.txt": lambda: listing(ALL, width=80, more=True),
    "list.table200.txt": lambda: listing(ALL, width=200),
    "list.json": lambda: as_json(ALL, ALL.repairs, notes=["a note\n"]),
    "none.txt": lambda: listing(history()),
    "none.json": lambda: as_json(history(), []),
    "many.txt": lambda: single(ALL, MANY),
    "broken.txt": lambda: single(ALL, BROKEN),
    "rollback.txt": lambda: single(ALL, PARTLY) + rollback_summary(ALL, PARTLY, until=UNTIL),
    "refused.txt": lambda: single(ALL, REFUSED) + rollback_summary(ALL, REFUSED, until=None),
    "again.txt": lambda: single(ALL, AGAIN),
    "cut-short.txt": lambda: single(ALL, CUT_SHORT),
    "hostile.txt": lambda: single(ALL, EVIL),
}


@pytest.mark.parametrize("name", MADE)
def test_golden(name: str) -> None:
    made = MADE[name]()
    place = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        place.parent.mkdir(exist_ok=True)
        place.write_text(made, encoding="utf-8")
    assert made == place.read_text(encoding="utf-8")


def test_no_golden_file_is_left_over() -> None:
    assert {place.name for place in GOLDEN.iterdir()} == set(MADE)


@pytest.mark.parametrize("name", MADE)
def test_nothing_does_anything_to_a_terminal(name: str) -> None:
    made = MADE[name]()
    assert made.endswith("\n")
    assert not made.endswith("\n\n")
    assert all(line.isprintable() for line in made.split("\n"))
    made.encode("utf-8")


# --- What was taken back ------------------------------------------------------------------------------------------


def paths(changes: Sequence[Change]) -> list[str]:
    return [one.path for one in changes]


def test_what_a_rollback_took_back_is_not_in_effect_any_more() -> None:
    undone = taken_back([PARTLY, MANY])
    assert undone[12] == {("/var/spool/postfix-out", path): 14 for path in ("/etc/resolv.conf", "/etc/services")}
    left = paths(remaining(MANY, undone[12]))
    assert left == [LIBRARY.path, URANDOM.path, LINK.path, ORPHAN.path]
    assert paths(remaining(PARTLY, undone[14])) == ["/etc/resolv.conf", "/etc/services"]


def test_what_a_rollback_failed_to_take_back_is_still_in_effect() -> None:
    first = repair(1, RESOLVER, SERVICES)
    second = repair(2, back(RESOLVER, outcome=FULL.outcome), back(SERVICES, outcome=UNSURE.outcome), undoes=1)
    assert taken_back([second, first])[1] == {}


def test_a_rollback_that_was_taken_back_itself_does_not_count() -> None:
    first, second, third = (repair(number, RESOLVER, undoes=number - 1 or None) for number in (1, 2, 3))
    undone = taken_back([first, second, third])
    assert undone[1] == {}
    assert undone[2] == {("/var/spool/postfix-out", "/etc/resolv.conf"): 3}
    assert taken_back([first, second, third, repair(4, RESOLVER, undoes=3)])[1] != {}


def test_what_failed_was_never_in_effect() -> None:
    assert paths(remaining(BROKEN, {})) == ["/etc/nsswitch.conf"]


def test_a_directory_that_stays_does_not_keep_a_repair_in_effect() -> None:
    made = change("/etc", kind=Kind.MISSING, before=None, after=State(type=FileType.DIRECTORY, mode=0o755))
    first = repair(1, made, RESOLVER)
    assert paths(remaining(first, {})) == ["/etc", "/etc/resolv.conf"]
    assert remaining(first, taken_back([first, repair(2, back(RESOLVER), undoes=1)])[1]) == ()
    assert paths(remaining(repair(3, made), {})) == ["/etc"]


@given(
    st.lists(
        st.builds(
            lambda number, undoes: repair(number, RESOLVER, undoes=undoes),
            st.integers(-3, 8),
            st.none() | st.integers(-3, 8),
        ),
        max_size=8,
        unique_by=lambda one: one.id,
    )
)
def test_whatever_numbers_say_there_is_an_answer(repairs: list[Repair]) -> None:
    """A damaged database may have a repair take back itself, a later one, or one that takes it back."""
    undone = taken_back(repairs)
    for one in repairs:
        assert all(taker > one.id for taker in undone[one.id].values())
    assert len(listing(history(*repairs)).splitlines()) == max(1, len(repairs) + bool(repairs))


def test_a_long_chain_of_rollbacks_is_no_burden() -> None:
    chain = [repair(number, RESOLVER, undoes=number - 1 or None) for number in range(1, 2001)]
    undone = taken_back(chain)
    assert (undone[1] == {}) is (undone[3] == {}) is not (undone[2] == {})


# --- Both sides ---------------------------------------------------------------------------------------------------


def side_line(what: Change) -> str:
    return single(history(), repair(1, what)).splitlines()[4].strip()


def test_checksums_are_shown_only_where_everybody_may_read_both_sides() -> None:
    assert side_line(RESOLVER) == f"120 bytes, sha256 {OLD[:12]} -> 95 bytes, sha256 {NEW[:12]}"
    for modes in ((0o600, 0o644), (0o644, 0o600), (0o640, 0o640), (None, 0o644)):
        before, after = (replace(file(), mode=mode) for mode in modes)
        secret = replace(RESOLVER, before=before, after=after)
        assert "sha256" not in side_line(secret)
        made = json.loads(as_json(history(), [repair(1, secret)]))
        [shown] = made["repairs"][0]["instances"][0]["changes"]
        assert (shown["before"]["sha256"], shown["after"]["sha256"]) == (None, None)


def test_a_new_file_that_is_not_for_everybody_has_no_checksum() -> None:
    assert side_line(replace(RESOLVER, before=None, after=file(0o600))) == "(nothing) -> file, 95 bytes, mode 0600"


def test_an_owner_is_told_where_it_changed_or_is_not_root() -> None:
    assert side_line(replace(RESOLVER, before=file(0o600, uid=33), after=file(0o600, uid=33))) == "95 bytes -> 95 bytes"
    assert side_line(replace(RESOLVER, before=None, after=file(0o600, uid=34))).endswith("mode 0600, owner 34:34")
    nobody = State(type=FileType.FIFO, mode=0o600)
    assert side_line(replace(RESOLVER, before=nobody, after=None)) == "fifo, mode 0600 -> (nothing)"


def test_what_was_not_done_is_not_shown_as_if_it_were() -> None:
    made = single(history(), repair(1, FULL))
    assert "->" not in made
    assert "/var/spool/postfix-out/etc/hosts: no space left on device" in made


def test_a_repair_says_what_of_it_can_be_taken_back() -> None:
    assert "old contents kept\n" in single(history(), repair(1, RESOLVER))
    lost = single(history(), repair(1, replace(RESOLVER, kept=False)))
    assert "old contents not kept: cannot be taken back\n" in lost
    first = repair(1, RESOLVER)
    assert "; taken back by 2\n" in single(history(repair(2, back(RESOLVER), undoes=1), first), first)


# --- The list -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 20, 40, 79, 100, 150, 400])
def test_a_narrow_list_says_the_same(width: int) -> None:
    def words(made: str) -> set[str]:
        return {word.strip(",;:()") for line in made.splitlines() for word in line.split()}

    tall = words(listing(ALL, width=width)) | HEADINGS | {"none"}
    assert words(listing(ALL)) <= tall


def test_a_repair_without_a_time_is_listed_all_the_same() -> None:
    for odd in (float("nan"), float("inf"), -1e300, 1e18):
        assert utc(odd) is None
        assert "unknown" in listing(history(repair(1, RESOLVER, began=odd)))
        assert json.loads(as_json(history(), [repair(1, RESOLVER, began=odd)]))["repairs"][0]["began"] is None


# --- What a rollback came to --------------------------------------------------------------------------------------


def test_the_summary_says_what_is_held_only_where_something_is() -> None:
    nothing = repair(0, replace(RESOLVER, outcome=FULL.outcome), undoes=12)
    said = rollback_summary(history(nothing), nothing, until=None)
    assert said == (
        "0 of 1 change of repair 12 taken back.\nWhat was not taken back stays as it was, for the reasons above.\n"
    )
    assert single(history(nothing), nothing).startswith("repair: 2025-")
    assert json.loads(as_json(history(), [nothing]))["repairs"][0]["id"] is None


def test_the_summary_does_not_call_unchanged_what_nobody_knows() -> None:
    unsure = repair(2, back(UNSURE), undoes=1)
    assert rollback_summary(history(unsure), unsure, until=None) == "0 of 1 change of repair 1 taken back.\n"


# --- JSON ---------------------------------------------------------------------------------------------------------


def test_paths_that_cannot_be_shown_are_there_as_bytes() -> None:
    made = json.loads(as_json(ALL, [EVIL]))
    [where] = made["repairs"][0]["instances"]
    [shown] = where["changes"]
    assert base64.b64decode(where["chroot_b64"]).decode() == "/srv/\u202egpj.exe/"
    assert shown["path"] == r"/etc/latin1-\xe9\xff\x0a\x1b]0;owned\x07"
    assert base64.b64decode(shown["path_b64"]) == b"/etc/latin1-\xe9\xff\n\x1b]0;owned\x07"
    assert base64.b64decode(shown["before"]["target_b64"]) == b"/tmp/\xff\r"
    assert base64.b64decode(shown["source_b64"]) == b"/etc/new\nrepair 99: all is well"


def test_more_fields_stand_beside() -> None:
    made = json.loads(as_json(history(), [], notes=["one"], held_until=None))
    assert made == {"schema": 1, "root": "/", "repairs": [], "notes": ["one"], "held_until": None}
