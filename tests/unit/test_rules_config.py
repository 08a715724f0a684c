"""The configuration file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrootsync.model import Config, ConfigError, StaticInstance
from chrootsync.rules.config import INSTANCE_KEYS, POSTFIX_KEYS, RELOAD_KEYS, parse_config

ROOT = Path(__file__).parent.parent.parent
CASES = ROOT / "tests" / "cases" / "rules" / "config"
RULE_SETS = ("bind", "local", "postfix-nss")
BAD = sorted((CASES / "bad").glob("*.toml"))


def test_an_empty_file_gives_the_defaults() -> None:
    assert parse_config("chrootsync.toml", b"") == Config()
    assert parse_config("chrootsync.toml", "[postfix]\n[reload]\n") == Config()


def test_every_key_becomes_its_field() -> None:
    path = CASES / "good" / "full.toml"
    assert parse_config(path.name, path.read_bytes()) == Config(
        instances=(
            StaticInstance(
                name="bind",
                chroot="/var/lib/named",
                rules=("bind",),
                reload=("/usr/sbin/rndc", "reload", ""),
                running=("/usr/bin/systemctl", "--quiet", "is-active", "named.service"),
                unit="named.service",
            ),
            StaticInstance(name="ftp", chroot="/srv/ftp", rules=("ftp", "local")),
        ),
        postfix="/etc/postfix-mx",
        reload_timeout=30.0,
        reload_interval=0.5,
    )


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_file_gives_exactly_these_messages(path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(path.name, path.read_bytes(), rule_sets=RULE_SETS)
    assert list(caught.value.problems) == path.with_suffix(".errors").read_text().splitlines()


def test_names_of_rule_sets_are_checked_only_where_they_are_known() -> None:
    text = '[[instance]]\nname = "x"\nchroot = "/srv/x"\nrules = ["nowhere"]\n'
    assert parse_config("c.toml", text).instances[0].rules == ("nowhere",)
    with pytest.raises(ConfigError, match=re.escape("c.toml: instance[0].rules[0]: is not a known rule set")):
        parse_config("c.toml", text, rule_sets=())


def test_the_example_is_valid_as_it_is_and_with_every_line_taken_in() -> None:
    text = (ROOT / "docs" / "chrootsync.toml.example").read_text()
    assert parse_config("example", text) == Config()
    whole = re.sub(r"(?m)^#(?=\S)", "", text)
    config = parse_config("example", whole, rule_sets=RULE_SETS)
    assert [instance.name for instance in config.instances] == ["named"]
    for name in (*INSTANCE_KEYS, *POSTFIX_KEYS, *RELOAD_KEYS):
        assert re.search(rf"(?m)^{name} = ", whole), name


VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["/x", "//", "/."]),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)


def to_toml(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(character):08x}" for character in value) + '"'
    return str(value).lower()


@given(st.dictionaries(st.sampled_from([*INSTANCE_KEYS]), VALUES), st.sampled_from(["[[instance]]", "[reload]"]))
def test_any_table_is_taken_or_refused_with_config_error(table: dict[str, Any], head: str) -> None:
    text = "\n".join([head, *(f"{key} = {to_toml(value)}" for key, value in table.items())])
    try:
        config = parse_config("c.toml", text)
    except ConfigError:
        return
    assert all(instance.chroot.strip("/.") for instance in config.instances)


def test_the_settings_of_the_watcher() -> None:
    text = "[watch]\nsettle = 1\nmaximum = 2.5\ninterval = 60\n"
    assert parse_config("c.toml", text) == Config(watch_settle=1.0, watch_maximum=2.5, watch_interval=60.0)
    with pytest.raises(ConfigError) as caught:
        parse_config("c.toml", "[watch]\nsettle = -1\ninterval = 1\n")
    assert list(caught.value.problems) == [
        "c.toml: watch.settle: must be between 0 and 60",
        "c.toml: watch.interval: must be between 10 and 86400",
    ]
