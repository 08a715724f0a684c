"""A repair that is killed at any of its system calls: every path is the whole old or the whole new one."""

from __future__ import annotations

import pytest

from .conftest import Drifted
from .counting import tried
from .place import GONE, torn
from .remembered import lies, lost
from .tracing import Call, Fault, needs_strace, spread, with_faults

pytestmark = needs_strace

PARTS = 8
POINTS = 150


def killed_at(scene: Drifted, call: Call) -> list[str]:
    """What is wrong after a repair was killed before a call took effect, and after the repairs that follow."""
    scene.renew()
    place = scene.place
    outside = place.outside()
    ended = with_faults(
        place.warm, place.log, ["check", "--fix", *place.arguments], Fault(call.name, call.nth, "signal=KILL")
    )
    if not ended.killed:
        return [f"it was not hit, and ended {ended.code}"]
    wrong = [f"torn: {one}" for one in torn(scene.old, scene.new, place.picture())]
    if place.outside() != outside:
        wrong.append("something outside the chroots was changed")
    return wrong + mended(scene) + lies(place, scene.old, scene.new) + lost(place, scene.old, scene.new)


def mended(scene: Drifted) -> list[str]:
    """What is wrong after the repair that follows one that was cut short."""
    place = scene.place
    wrong = []
    fixed = place.fix()
    if fixed.code != 0:
        wrong.append(f"the next repair ended {fixed.code}: {fixed.output[-600:]}{fixed.errors}")
    wrong += [f"left over: {one}" for one in place.temporaries()]
    left = torn(scene.new, scene.new, place.picture())
    if place.forgot():  # who put a thing there is not known any more, so that it stays
        left = [one for one in left if f"{GONE}: " not in one]
    wrong += [f"not repaired: {one}" for one in left]
    checked = place.check()
    if checked.code != 0:
        wrong.append(f"the next check ended {checked.code}: {checked.output[-600:]}{checked.errors}")
    before = place.inodes(), place.outside()
    again = place.fix()
    if again.code != 0 or (place.inodes(), place.outside()) != before:
        wrong.append(f"a second repair ended {again.code}, or changed something: {again.output[-600:]}{again.errors}")
    return wrong


@pytest.mark.parametrize("part", range(PARTS))
def test_a_kill_at_any_call_leaves_each_path_old_or_new_and_the_next_repair_ends_it(
    scene: Drifted, long: bool, part: int
) -> None:
    points = scene.changes() if long else spread(scene.changes(), POINTS)
    found = []
    for call in points[part::PARTS]:
        wrong = killed_at(scene, call)
        tried("kill", bad=bool(wrong))
        found += [f"{call}: {one}" for one in wrong]
    assert not found, "\n".join(found)


def test_the_calls_that_are_tried_are_those_of_a_whole_repair(scene: Drifted) -> None:
    names = {call.name for call in scene.changes()}
    assert names >= {"mkdirat", "renameat2", "fsync", "write", "fchmod", "fchown", "symlinkat", "unlinkat", "openat"}
    assert len(scene.changes()) > 150
