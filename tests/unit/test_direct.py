"""The command line of a check is read directly as typer reads it, or not at all."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import typer.main
from hypothesis import given, settings
from hypothesis import strategies as st

from chrootsync.cli import check as checks
from chrootsync.cli import checking, direct
from chrootsync.cli.application import application, run

GOOD = [*direct.SWITCHES, *direct.VALUES, "--wait=30", "--root=/image", "-q", "out", "20"]
ODD = [
    *(f"{name}={value}" for name in direct.VALUES for value in ("", "x", "/a b", "--fix", "a=b", "\udcff\n")),
    *("--wait", "--wait=0", "--wait=30", "--wait=1.5", "--wait=-1", "--wait=x", "--wait=", "--wait=٣", "20"),
    *(
        "-q",
        "-qq",
        "-v",
        "-qv",
        "-h",
        "--help",
        "--verbose",
        "--report",
        "--report=json=x",
        "--qui",
        "--fix=1",
        "--no-fix",
    ),
    *("out", "", "-", "--", "---", "-x", "check", "/etc/postfix", "é", "--ROOT", "-root"),
]


def by_typer(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any] | None:
    """What typer gives the verb; None where it never comes to that."""
    asked: list[dict[str, Any]] = []

    def check(**values: Any) -> int:
        asked.append(values)
        return 0

    monkeypatch.setattr(checking, "run", check)
    run(arguments)
    return asked[0] if asked else None


def in_full(asked: dict[str, Any]) -> dict[str, Any]:
    """With the defaults of what was not asked for."""
    defaults = {name: one.default for name, one in inspect.signature(checks.check).parameters.items()}
    return {**defaults, **asked, "names": list(asked["names"] or ())}


@settings(max_examples=400)
@given(st.lists(st.one_of(st.sampled_from(GOOD), st.sampled_from(GOOD + ODD)), max_size=6))
def test_it_reads_what_typer_reads(words: list[str]) -> None:
    found = direct.parse(["check", *words])
    if found is not None:
        with pytest.MonkeyPatch.context() as monkeypatch:
            expected = by_typer(["check", *words], monkeypatch)
        assert expected is not None, "typer refuses it"
        assert in_full(found) == in_full(expected)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--fix", "--trigger", "apt", "--wait", "30"],  # as hooks have it
        ["--fix", "--trigger", "postfix", "--wait", "20", "--", "postfix-out"],  # and a unit
        ["--quiet", "--root", "/image", "--state=/var/lib/x"],
        ["out", "--format", "json", "in", "-q"],
    ],
)
def test_the_usual_is_read(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As well as held equal above: a reader that never reads would pass there."""
    found = direct.parse(["check", *words])
    expected = by_typer(["check", *words], monkeypatch)
    assert found is not None
    assert expected is not None
    assert in_full(found) == in_full(expected)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--version"],
        ["status"],
        ["check", "--help"],
        ["check", "--qui"],
        ["check", "--report", "json=x"],
        ["check", "-v"],
    ],
)
def test_the_rest_is_left_to_typer(arguments: list[str]) -> None:
    assert direct.parse(arguments) is None


def test_no_option_is_forgotten() -> None:
    """All that typer knows is read directly, or named here."""
    command: Any = typer.main.get_command(application(["check"]))
    options = {name for one in command.commands["check"].params for name in one.opts if name.startswith("-")}
    left = {"--report", "--verbose", "-v"}
    assert options - left == {*direct.SWITCHES, *direct.VALUES}


def test_both_readers_have_the_same_defaults() -> None:
    plain, typed = (inspect.signature(one).parameters for one in (checks.check, checking.check))
    assert [(one.name, one.default) for one in plain.values()] == [(one.name, one.default) for one in typed.values()]
