"""Records are as dataclass(frozen=True) makes them, so far as anybody asks."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from dataclasses import field as their_field
from dataclasses import replace as their_replace

import pytest

from chrootsync.model.frozen import field, frozen, record, replace


@frozen
class Ours:
    name: str
    size: int = 0
    hidden: list[int] = field(default_factory=list, repr=False, compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Theirs:
    name: str
    size: int = 0
    hidden: list[int] = their_field(default_factory=list, repr=False, compare=False)


def test_it_has_the_methods_of_a_dataclass() -> None:
    one, other = Ours(name="x", size=2, hidden=[1]), Theirs(name="x", size=2, hidden=[1])
    assert repr(one) == repr(other).replace("Theirs", "Ours")
    assert one == Ours(name="x", size=2)
    assert hash(one) == hash(Ours(name="x", size=2)) == hash(other)
    assert replace(one, size=3) == Ours(name="x", size=3)
    assert replace(one, size=3).hidden is one.hidden
    assert Ours(name="x").hidden is not Ours(name="x").hidden


def test_it_is_one_to_those_who_ask() -> None:
    one = Ours(name="x", size=2, hidden=[1])
    assert their_replace(one, size=3) == Ours(name="x", size=3)
    assert their_replace(one, size=3).hidden is one.hidden
    assert asdict(one) == {"name": "x", "size": 2, "hidden": [1]}
    assert [(one.name, one.default) for one in fields(Ours)] == [(one.name, one.default) for one in fields(Theirs)]


@pytest.mark.parametrize("other", [Ours(name="y"), Ours(name="x", size=1), Theirs(name="x"), "x", None])
def test_nothing_else_is_equal(other: object) -> None:
    assert Ours(name="x") != other


def test_it_takes_keywords_and_has_no_other_attributes() -> None:
    with pytest.raises(TypeError):
        Ours("x")  # type: ignore[call-arg]  # the mistake that is to be refused
    with pytest.raises(TypeError):
        Ours()  # type: ignore[call-arg]  # likewise
    with pytest.raises(TypeError):
        replace(Ours(name="x"), other=1)  # type: ignore[call-arg]  # likewise
    with pytest.raises(AttributeError):
        Ours(name="x").other = 1  # type: ignore[attr-defined]  # likewise


def test_a_record_may_be_changed() -> None:
    @record
    class Changing:
        seen: list[str] = field(default_factory=list)
        size: int = 0

    one = Changing()
    one.size = 3
    one.seen.append("x")
    assert one == Changing(seen=["x"], size=3)
    assert Changing().seen == []


def test_a_field_of_dataclasses_is_refused() -> None:
    """It would become the default itself."""
    wrong = type("Wrong", (), {"__annotations__": {"seen": "list[str]"}, "seen": their_field(default_factory=list)})
    with pytest.raises(TypeError) as caught:
        frozen(wrong)
    assert str(caught.value) == "Wrong: takes field() of this module, not that of dataclasses"
