"""Names that a shell, a terminal, a report or a repair could take for something else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hostile.arena import ATTACKER, NEW, OLD, SECRET, Arena
from tests.unit.machine import needs_root
from tests.unit.scenery import snapshot

NAMES = [
    b"new\nline",
    b"\n",
    b"carriage\rreturn",
    b"tab\t",
    b"\x1b[2J\x1b]0;title\x07",
    b"\x7f\x01\x02",
    b"\xff\xfe",
    b"half \xe2\x82",
    b"surrogate \xed\xb2\x80",
    "right-to-left \u202e".encode(),
    "c1 \u0085 \u009b2J".encode(),
    "separator \u2028".encode(),
    b" ",
    b" leading and trailing ",
    b"-rf",
    b"--fix",
    b"...",
    b"*",
    b"~",
    b"$(touch outside)",
    b"`id`; true",
    b"'\"\\",
    b"%s %n %(x)s {0}",
    b"[bold]markup[link=x]",
    b"<script>alert(1)<br>&amp;",
    b"::error file=x::forged",
    b"conf: in sync",
    b".chrootsync-000000000000",
    b".chrootsync-000000000000-old",
    b"x" * 255,
    b"\xff" * 255,
]
IDS = [f"{number:02}" for number, _ in enumerate(NAMES)]


@pytest.mark.parametrize("name", NAMES, ids=IDS)
def test_an_odd_name_is_copied_as_any_other(arena: Arena, name: bytes) -> None:
    path = f"/etc/odd/{os.fsdecode(name)}"
    arena.rule(directories=["/etc/odd"])
    arena.host({path: NEW})
    arena.plant({path: OLD})
    found = arena.trial({path: "differs"})
    assert (arena.jail / path[1:]).read_bytes() == NEW
    assert os.listdir(os.fsencode(arena.jail / "etc/odd")) == [name]
    assert len(found.drifts()) == 1


@pytest.mark.parametrize("separate", [False, True], ids=["in-process", "as-a-process"])
def test_all_odd_names_at_once(arena: Arena, *, separate: bool) -> None:
    arena.separate = separate
    arena.rule(directories=["/etc/odd"])
    paths = [f"/etc/odd/{os.fsdecode(name)}" for name in NAMES]
    arena.host(dict.fromkeys(paths, NEW))
    arena.trial({"/etc": "missing", "/etc/odd": "missing", **dict.fromkeys(paths, "missing")})
    assert sorted(os.listdir(os.fsencode(arena.jail / "etc/odd"))) == sorted(NAMES)


@pytest.mark.parametrize("thing", ["file", "/outside/shadow", "fifo"])
def test_odd_names_that_the_host_does_not_have_are_told_in_a_mirrored_directory(arena: Arena, thing: str) -> None:
    arena.rule(directories=["/etc/odd"], mirror=True)
    arena.host({"/etc/odd/conf": NEW})
    things: dict[str, bytes | str | int] = {"file": OLD, "fifo": 0o600}
    what = things.get(thing, thing)
    paths = [f"/etc/odd/{os.fsdecode(name)}" for name in NAMES]
    arena.plant({"/etc/odd/conf": NEW, **dict.fromkeys(paths, what)})
    arena.tally.add("case")
    with arena.untouched(inside=True):
        found = arena.said(arena.check())
    assert found.kinds == dict.fromkeys(paths, "orphan")
    with arena.untouched():
        arena.said(arena.fix())
    for path in paths:
        (arena.jail / path[1:]).unlink(missing_ok=True)
    assert arena.check().kinds == {}


@pytest.mark.parametrize("name", NAMES, ids=IDS)
def test_an_odd_name_is_kept_fresh_where_it_is_there(arena: Arena, name: bytes) -> None:
    path = f"/etc/{os.fsdecode(name)}"
    arena.rule(directories=["/etc"], presence="if-present")
    arena.host({path: NEW})
    arena.plant({path: OLD, "/etc/unknown": b"not the host's"})
    arena.trial({path: "differs"})
    assert (arena.jail / "etc/unknown").read_bytes() == b"not the host's"


# --- Contents -----------------------------------------------------------------------------------------------------

TEXTS = {
    "escapes": b"\x1b[2J\x1b]0;title\x07\x1b[31mred\n",
    "control": bytes(range(1, 32)) + b"\x7f\n",
    "latin": bytes(range(128, 256)) + b"\n",
    "bidi": "\u202e\u2066\u200b\ufeff\n".encode(),
    "lines": "a\u2028b\u2029c\u0085d\x0be\x0cf\rg\n".encode(),
    "commands": b"::error file=x::forged\n$(touch outside)\n]]>\n<!--\n</script>\n",
    "report": b"2 instances, 10 entries in /: in sync\n",
    "markup": b"[bold][/bold][link=file:///etc/shadow]x[/link]\n",
    "binary": b"\0" * 100,
    "long": b"x" * 200_000 + b"\n",
    "no-newline": b"x",
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("side", ["copy", "source"])
def test_whatever_a_file_says_stays_text(arena: Arena, text: str, side: str) -> None:
    (arena.image / "etc/conf").write_bytes(NEW if side == "copy" else TEXTS[text])
    arena.plant({"/etc/conf": TEXTS[text] if side == "copy" else NEW})
    arena.trial({"/etc/conf": "differs"})


# --- Names of temporaries -----------------------------------------------------------------------------------------

THINGS: dict[str, Callable[[Arena, Path], object]] = {
    "a-file": lambda _, path: path.write_bytes(b"mine"),
    "a-link-to-a-secret": lambda arena, path: path.symlink_to(arena.beyond / "shadow"),
    "a-link-to-a-secret-of-the-image": lambda _, path: path.symlink_to("/outside/shadow"),
    "a-dangling-link": lambda _, path: path.symlink_to("/nowhere"),
    "a-hard-link": lambda arena, path: path.hardlink_to(arena.outside / "shadow"),
    "a-fifo": lambda _, path: os.mkfifo(path),
    "an-empty-directory": lambda _, path: path.mkdir(),
    "a-full-directory": lambda _, path: (path / "x").mkdir(parents=True),
}


def pretend(arena: Arena, thing: str, owner: int, count: int = 20) -> dict[str, object]:
    """Make things with names that a repair could choose; what they are."""
    for number in range(count):
        for name in (f".chrootsync-{number:012x}-0", f".chrootsync-{number:012x}-0-old", f".chrootsync-{number:012x}"):
            THINGS[thing](arena, arena.jail / "etc" / name)
            if owner and thing != "a-hard-link":
                arena.give_away(f"/etc/{name}", owner=owner)
    return pretended(arena)


def pretended(arena: Arena) -> dict[str, object]:
    return {path: what for path, what in snapshot(arena.jail / "etc").items() if "/.chrootsync-" in path}


@needs_root
@pytest.mark.parametrize("owner", [pytest.param(0, id="roots"), pytest.param(ATTACKER, id="attackers")])
@pytest.mark.parametrize("thing", THINGS)
def test_what_only_looks_like_a_temporary_is_left_alone(arena: Arena, thing: str, owner: int) -> None:
    arena.plant({"/etc/conf": OLD})
    before = pretend(arena, thing, owner)
    arena.trial({"/etc/conf": "differs"})
    assert pretended(arena) == before


@pytest.mark.parametrize("thing", THINGS)
def test_a_name_that_was_guessed_is_neither_used_nor_removed(
    arena: Arena, thing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody guesses 48 bits; but what a repair removes must be its own all the same."""
    arena.tally.add("case")
    arena.plant({"/etc/conf": OLD})
    before = pretend(arena, thing, 0, 1)
    monkeypatch.setattr(os, "urandom", bytes)
    with arena.untouched(inside=True):
        fixed = arena.fix()
    assert fixed.code == 3
    assert "file exists" in fixed.messages
    assert pretended(arena) == before
    assert (arena.outside / "shadow").read_bytes() == SECRET
    monkeypatch.undo()
    arena.trial({"/etc/conf": "differs"})
