"""What comes with chrootsync is found, and the rule sets among it are sound."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chrootsync import shipped
from chrootsync.model import ChrootsyncError, Presence, Rule, RuleSet
from chrootsync.rules.ruleset import parse

FILES = sorted(Path(shipped.directory("rules")).glob("*.toml"))


def rule_sets() -> tuple[RuleSet, ...]:
    return parse([(str(path), path.read_bytes()) for path in FILES])


def rules() -> dict[str, Rule]:
    return {rule.id: rule for rule_set in rule_sets() for rule in rule_set.rules}


def test_a_checkout_has_its_files_beside_the_package() -> None:
    assert shipped.directory("rules") == str(Path(__file__).parent.parent.parent / "rules")


def test_a_wheel_has_them_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "__file__", str(tmp_path / "chrootsync" / "shipped.py"))
    (tmp_path / "chrootsync" / "_shipped" / "systemd").mkdir(parents=True)
    assert shipped.directory("systemd") == str(tmp_path / "chrootsync" / "_shipped" / "systemd")


def test_a_folder_of_somebody_else_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "__file__", str(tmp_path / "chrootsync" / "shipped.py"))
    (tmp_path / "rules").mkdir()
    with pytest.raises(ChrootsyncError) as error:
        shipped.directory("rules")
    assert str(error.value) == f"{tmp_path}/chrootsync/_shipped/rules: is missing; install chrootsync again"


def test_all_shipped_rules_parse_and_say_why() -> None:
    found = rules()
    assert len(found) == sum(len(rule_set.rules) for rule_set in rule_sets())
    assert all(len(rule.why) > 20 for rule in found.values())


def test_rule_sets_are_for_the_service_that_their_ids_begin_with() -> None:
    for rule_set in rule_sets():
        assert rule_set.name.startswith(rule_set.service)
        assert all(rule.id.startswith(f"{rule_set.service}.") for rule in rule_set.rules)


def test_no_shipped_rule_makes_every_start_load_packaging() -> None:
    for rule in rules().values():
        assert all(when.version is None and when.libc in (None, "glibc", "musl") for when in rule.when)


def test_a_resolver_file_without_a_nameserver_never_passes() -> None:
    for rule in rules().values():
        if "/etc/resolv.conf" in rule.files:
            assert rule.guard is not None
            guard = re.compile(rule.guard.matches, re.MULTILINE)
            assert guard.search("search a\n nameserver 127.0.0.53\n")
            assert guard.search("nameserver\t::1\n")
            assert not guard.search("# nameserver 1.1.1.1\n;nameserver 1.1.1.1\nsearch nameserver\n")


def test_nothing_that_is_off_by_default_is_required() -> None:
    assert rules()["postfix.random"].presence is Presence.IF_PRESENT
    assert rules()["bind.random"].presence is Presence.IF_PRESENT


def test_secrets_are_brought_into_no_chroot_but_for_those_of_sasl() -> None:
    secrets = {"/etc/shadow", "/etc/gshadow", "/etc/sasldb2"}
    assert not any(secrets & {*rule.files, *rule.filtered} for rule in rules().values())
    # These name a group: it alone may read the copy, and that only where the host lets it read the file.
    given = {name: rule.group for name, rule in rules().items() if rule.group and name.startswith("postfix.")}
    assert given == {"postfix.sasldb": "sasl", "postfix.sasldb-elsewhere": "postfix"}


def test_sockets_come_with_a_way_out() -> None:
    for name, rule in rules().items():
        if rule.sockets and name.startswith("postfix."):
            assert rule.advice is not None, name
            assert not rule.advice.endswith("."), name


def test_what_is_special_stands_before_what_takes_everything() -> None:
    ids = [name for name, rule in rules().items() if rule.presence is Presence.IF_PRESENT]
    assert ids.index("postfix.localtime") < ids.index("postfix.present")


def test_a_capath_takes_hashed_names_only() -> None:
    match = rules()["postfix.tls-capath"].match
    assert match is not None
    assert all(re.fullmatch(match, name) for name in ("0a1b2c3d.0", "ffffffff.12", "0a1b2c3d.r0"))
    assert not any(re.fullmatch(match, name) for name in ("ca-certificates.crt", "0a1b2c3d.0.bak", "0a1b2c3d."))
