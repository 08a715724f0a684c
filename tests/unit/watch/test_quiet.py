"""When a burst of changes has settled."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chrootsync.watch.quiet import Quiet


def test_nothing_is_due_while_nothing_changed() -> None:
    assert Quiet(0.5, 10).due is None


def test_a_single_change_is_due_once_it_has_settled() -> None:
    quiet = Quiet(0.5, 10)
    quiet.noticed(100)
    assert quiet.due == 100.5


def test_each_further_change_puts_it_off() -> None:
    quiet = Quiet(0.5, 10)
    for now in (100, 100.25, 100.5):
        quiet.noticed(now)
    assert quiet.due == 101


def test_but_no_longer_than_the_maximum_after_the_first() -> None:
    quiet = Quiet(0.5, 2)
    for tick in range(100):
        quiet.noticed(100 + tick / 4)
    assert quiet.due == 102


def test_what_was_taken_is_not_due_any_more() -> None:
    quiet = Quiet(0.5, 10)
    quiet.noticed(100)
    quiet.taken()
    assert quiet.due is None
    quiet.noticed(200)
    assert quiet.due == 200.5


def test_a_maximum_below_the_settle_time_is_as_much_as_it() -> None:
    quiet = Quiet(5, 1)
    quiet.noticed(100)
    assert quiet.due == 105


@given(
    settle=st.integers(0, 50),
    maximum=st.integers(0, 50),
    gaps=st.lists(st.integers(0, 20), min_size=1),
)
def test_it_is_due_within_both_bounds(settle: int, maximum: int, gaps: list[int]) -> None:
    quiet, now = Quiet(settle, maximum), 1000
    quiet.noticed(now)
    for gap in gaps:
        now += gap
        quiet.noticed(now)
    assert quiet.due is not None
    assert quiet.due <= 1000 + max(settle, maximum)
    assert quiet.due <= now + settle
    assert quiet.due >= min(now + settle, 1000 + maximum)
