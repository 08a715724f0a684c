"""The last rules and configuration that were sound."""

from __future__ import annotations

from pathlib import Path

import pytest

from chrootsync.cli import lastgood

CONFIG, RULES = "/etc/chrootsync/chrootsync.toml", "/etc/chrootsync/rules.d"
TEXTS = {CONFIG: b"[watch]\n", f"{RULES}/a.toml": b"a", f"{RULES}/b.toml": b"b", "/etc/postfix/main.cf": b"x"}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def kept(state: Path) -> dict[str, bytes]:
    good = lastgood.find(str(state))
    assert good is not None
    files = {path.name: path.read_bytes() for path in Path(good.rules).iterdir()}
    return {"": Path(good.config).read_bytes(), **files}


def test_the_configuration_and_the_rules_are_kept_and_nothing_else(state: Path) -> None:
    assert lastgood.find(str(state)) is None
    lastgood.keep(str(state), CONFIG, RULES, TEXTS)
    assert kept(state) == {"": b"[watch]\n", "a.toml": b"a", "b.toml": b"b"}
    assert all(
        path.stat().st_mode & 0o077 == 0 for path in (state, state / "last-good", state / "last-good" / "rules.d")
    )


def test_what_is_gone_is_not_kept(state: Path) -> None:
    lastgood.keep(str(state), CONFIG, RULES, TEXTS)
    lastgood.keep(str(state), CONFIG, RULES, {f"{RULES}/b.toml": b"new"})
    assert kept(state) == {"": b"", "b.toml": b"new"}


def test_what_is_the_same_is_not_written_again(state: Path) -> None:
    lastgood.keep(str(state), CONFIG, RULES, TEXTS)
    before = (state / "last-good" / "rules.d" / "a.toml").stat()
    lastgood.keep(str(state), CONFIG, RULES, TEXTS)
    assert (state / "last-good" / "rules.d" / "a.toml").stat() == before


def test_nothing_is_kept_where_others_can_write(state: Path) -> None:
    state.mkdir()
    state.chmod(0o777)
    lastgood.keep(str(state), CONFIG, RULES, TEXTS)
    assert lastgood.find(str(state)) is None
    assert list(state.iterdir()) == []


def test_a_link_in_place_of_the_directory_is_not_followed(state: Path, tmp_path: Path) -> None:
    state.mkdir(mode=0o700)
    (tmp_path / "elsewhere").mkdir()
    (state / "last-good").symlink_to(tmp_path / "elsewhere")
    lastgood.keep(str(state), CONFIG, RULES, TEXTS)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_where_nothing_can_be_written_that_is_no_error(state: Path) -> None:
    state.write_text("a file")
    lastgood.keep(str(state), CONFIG, RULES, TEXTS)
    assert lastgood.find(str(state)) is None
