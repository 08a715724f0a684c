"""A repair whose system calls fail, one at any place or all from there on: what it could not do is unchanged."""

from __future__ import annotations

import errno
import itertools
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import pytest

from .conftest import Drifted
from .counting import tried
from .place import GONE, TEMPORARY, Inodes, Picture, torn
from .test_kills import mended
from .tracing import Call, Fault, needs_strace, spread, with_faults
from .warm import CRASHED, Ended

pytestmark = needs_strace

PARTS = 8
ERRORS = ("EIO", "ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM")
POINTS, OPENINGS, READINGS, DOUBLES = 180, 24, 24, 40
READING = ("newfstatat", "fstat", "statx", "read", "pread64", "lseek", "getdents64", "readlinkat", "fgetxattr", "flock")
FOLLOWED_BY_UNDO = ("renameat2", "fsync", "fchmod", "write", "mkdirat", "symlinkat")
BUG = 70

Points = list[tuple[Call, str]]


def pairs(calls: Iterable[Call], long: bool) -> Points:
    """Calls with an error for each of them, in a long run with two."""
    calls = list(calls)
    rounds = [ERRORS, ERRORS[3:] + ERRORS[:3]] if long else [ERRORS]
    return [pair for errors in rounds for pair in zip(calls, itertools.cycle(errors), strict=False)]


def chosen(points: list[Call], count: int, long: bool) -> list[Call]:
    """All of some calls in a long run, else so many of them."""
    return points if long else spread(points, count)


def refused(scene: Drifted, call: Call, error: str, later: Fault | None = None) -> tuple[Ended, list[str]]:
    """A repair one of whose calls fails, and what is wrong with what it says and with what it leaves behind.

    Where ``later`` calls of the same name fail, this one is among them.
    """
    scene.renew()
    place = scene.place
    outside, before = place.outside(), place.inodes()
    faults = [Fault(call.name, call.nth, f"error={error}")] if later is None or later.name != call.name else []
    faults += [] if later is None else [later]
    ended = with_faults(place.warm, place.log, ["check", "--fix", "--format", "json", *place.arguments], *faults)
    wrong = [f"torn: {one}" for one in torn(scene.old, scene.new, place.picture())]
    wrong += misbehaved(ended)
    if place.outside() != outside:
        wrong.append("something outside the chroots was changed")
    report = read_report(ended)
    if report is None:
        wrong += untold(scene, ended)
    else:
        wrong += misreported(scene, report, ended, before)
    return ended, wrong


def misbehaved(ended: Ended) -> list[str]:
    """Bugs that a run tells of itself."""
    if "Traceback" in ended.output + ended.errors or ended.code in (BUG, CRASHED) or ended.code < 0:
        return [f"ended {ended.code}: {ended.errors[-1500:]}"]
    return []


def read_report(ended: Ended) -> dict[str, Any] | None:
    """The report, where the run came to have one, and could print it."""
    with suppress(json.JSONDecodeError):
        found = json.loads(ended.output)
        return found if isinstance(found, dict) and "instances" in found else None
    return None


def untold(scene: Drifted, ended: Ended) -> list[str]:
    """What is wrong with a run that gave no report: it says why in one sentence, and left all old or made all new."""
    now = scene.place.picture()
    wrong = []
    if now not in (scene.old, scene.new):
        wrong.append("without a report the chroots are neither as before nor repaired")
    if ended.code == 0 or not ended.errors.startswith("chrootsync: "):
        wrong.append(f"no report: ended {ended.code}, {ended.output[-300:]!r} {ended.errors!r}")
    return wrong


def misreported(scene: Drifted, report: dict[str, Any], ended: Ended, before: Inodes) -> list[str]:
    """Where what a report says of an instance is not what is there."""
    wrong, statuses = [], set()
    now = scene.place.picture()
    for instance in report["instances"]:
        name = instance["name"]
        outcomes = [drift["outcome"] for drift in instance["drift"] if not is_left_there(drift)]
        left = [f"/jail/{name}{drift['path']}" for drift in instance["drift"] if is_left_there(drift)]
        found = {outcome["status"] if outcome else "none" for outcome in outcomes}
        statuses |= found
        wrong += [f"{path} was to be left there" for path in left if now.get(path) != scene.old[path]]
        if not any(drift["path"] == GONE for drift in instance["drift"]):
            left.append(f"/jail/{name}{GONE}")  # in doubt, as when something could not be read, nothing goes
        if found <= {"repaired"} and not set(differences(name, now, scene.new)) <= set(left):
            wrong.append(f"{name} is reported as repaired: {differences(name, now, scene.new)}")
        if found & {"failed", "skipped"} and "unknown" not in found:
            wrong += changed(scene, name, now, before)
    if (ended.code == 3) != bool(statuses & {"failed", "unknown"}):
        wrong.append(f"ended {ended.code} with {sorted(statuses)}")
    return wrong


def is_left_there(drift: dict[str, Any]) -> bool:
    """Whether something was left in a chroot, the rest of which was repaired, because it could not be kept."""
    outcome = drift["outcome"]
    return bool(outcome and outcome["status"] == "skipped" and "could not be kept" in outcome["reason"])


def differences(name: str, now: Picture, wanted: Picture) -> list[str]:
    """Paths of an instance that are not as they should be; what is left over does not count."""
    inside = f"/jail/{name}/"
    paths = [path for path in sorted({*now, *wanted}) if path.startswith(inside) and f"/{TEMPORARY}" not in path]
    return [path for path in paths if now.get(path) != wanted.get(path)]


def changed(scene: Drifted, name: str, now: Picture, before: Inodes) -> list[str]:
    """Where an instance is not byte for byte what it was, under the same inodes."""
    wrong = [f"{name} was to be as before: {path}" for path in differences(name, now, scene.old)]
    inodes = scene.place.inodes()
    for path, (inode, _) in before.items():
        if path.startswith(f"/jail/{name}/") and inodes.get(path, (0, 0))[0] != inode:
            wrong.append(f"{path} is another inode than before")
    return wrong


def unexplained(error: str, ended: Ended) -> list[str]:
    """What is wrong with how a failed change of a chroot is told: the path and the reason belong into it."""
    report = read_report(ended)
    if report is None or ended.code != 3:
        return [] if ended.code in (0, 3) else [f"ended {ended.code} though only the chroot was hit: {ended.errors}"]
    drifts = [drift for instance in report["instances"] for drift in instance["drift"] if drift["outcome"]]
    told = [drift["outcome"]["reason"] for drift in drifts if drift["outcome"]["status"] in ("failed", "unknown")]
    reason = os.strerror(getattr(errno, error)).lower()
    return [] if any(reason in one for one in told) else [f"{reason!r} is not told: {told[:3]}"]


def is_left_out(call: Call) -> bool:
    """Whether a failure of this call is why something may be left until the next run."""
    return call.name in ("unlinkat", "unlink", "rmdir")


def assert_harmless(found: Sequence[str]) -> None:
    assert not found, "\n".join(found)


@pytest.mark.parametrize("part", range(PARTS))
def test_an_error_in_a_chroot_leaves_its_instance_as_it_was_and_is_told(scene: Drifted, long: bool, part: int) -> None:
    found = []
    calls = [call for call in scene.changes() if "/root/jail/" in call.arguments]
    for call, error in pairs(chosen(calls, POINTS, long), long)[part::PARTS]:
        ended, wrong = refused(scene, call, error)
        wrong += unexplained(error, ended)
        if not is_left_out(call):
            wrong += [f"left over: {one}" for one in scene.place.temporaries() if "unknown" not in ended.output]
        wrong += mended(scene)
        tried("error", bad=bool(wrong))
        found += [f"{error} of {call}: {one}" for one in wrong]
    assert_harmless(found)


def test_an_error_in_the_state_directory_does_not_keep_a_repair_back(scene: Drifted, long: bool) -> None:
    found = []
    calls = [call for call in scene.changes() if "/state" in call.arguments]
    for call, error in pairs(chosen(calls, POINTS // 3, long), long):
        ended, wrong = refused(scene, call, error)
        if ended.code != 0:
            wrong.append(f"ended {ended.code}: {ended.output[-600:]}{ended.errors}")
        wrong += mended(scene)
        tried("error", bad=bool(wrong))
        found += [f"{error} of {call}: {one}" for one in wrong]
    assert_harmless(found)


def test_an_error_anywhere_else_is_one_sentence_and_all_or_nothing(scene: Drifted, long: bool) -> None:
    found = []
    calls = [call for call in scene.changes() if "/root/jail/" not in call.arguments and "/state" not in call.arguments]
    for call, error in pairs(chosen(calls, POINTS // 4, long), long):
        _, wrong = refused(scene, call, error)
        wrong += mended(scene)
        tried("error", bad=bool(wrong))
        found += [f"{error} of {call}: {one}" for one in wrong]
    assert_harmless(found)


@pytest.mark.parametrize(("error", "count"), [("EMFILE", OPENINGS), ("EACCES", OPENINGS // 2), ("EIO", OPENINGS // 2)])
def test_what_cannot_be_opened_is_told_and_not_touched(scene: Drifted, long: bool, error: str, count: int) -> None:
    found = []
    for call in chosen([call for call in scene.calls if call.name == "openat"], count, long):
        _, wrong = refused(scene, call, error)
        wrong += mended(scene)
        tried("error", bad=bool(wrong))
        found += [f"{error} of {call}: {one}" for one in wrong]
    assert_harmless(found)


def test_what_cannot_be_read_is_told_and_not_touched(scene: Drifted, long: bool) -> None:
    found = []
    for call in chosen([call for call in scene.calls if call.name in READING], READINGS, long):
        _, wrong = refused(scene, call, "EIO")
        wrong += mended(scene)
        tried("error", bad=bool(wrong))
        found += [f"EIO of {call}: {one}" for one in wrong]
    assert_harmless(found)


@pytest.mark.parametrize("undoing", ["renameat2", "unlinkat", "fsync", "fchmod"])
def test_where_taking_back_fails_too_nothing_is_torn_and_the_next_repair_ends_it(
    scene: Drifted, long: bool, undoing: str
) -> None:
    found = []
    calls = [call for call in scene.changes() if call.name in FOLLOWED_BY_UNDO and "/root/jail/" in call.arguments]
    for call in chosen(calls, DOUBLES // 4, long):
        ended, wrong = refused(scene, call, "EIO", all_later(scene, call, undoing))
        if ended.code not in (0, 3):
            wrong.append(f"ended {ended.code}: {ended.errors}")
        wrong += mended(scene)
        tried("double", bad=bool(wrong))
        found += [f"EIO of {call} and then of {undoing}: {one}" for one in wrong]
    assert_harmless(found)


def all_later(scene: Drifted, call: Call, name: str) -> Fault:
    """Every call of a name fails that comes after another call."""
    earlier = [one for one in scene.calls[: scene.calls.index(call) + 1] if one.name == name]
    return Fault(name, len(earlier) + (name != call.name), "error=EIO", onwards=True)
