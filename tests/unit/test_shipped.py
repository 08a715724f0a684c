"""What comes with chrootsync is found, and the rule sets among it are sound."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chrootsync import shipped
from chrootsync.model import ChrootsyncError, Presence, Rule, RuleSet
from chrootsync.rules import parse

FILES = sorted(Path(shipped.directory("rules")).glob("*.toml"))


def rule_sets() -> tuple[RuleSet, ...]:
    return parse([(str(path), path.read_bytes()) for path in FILES])


def rules() -> dict[str, Rule]:
    return {rule.id: rule for rule_set in rule_sets() for rule in rule_set.rules}


def caught(name: str, value: str) -> list[str]:
    """What a shipped rule takes out of the value of a parameter: group 1, or else the whole match."""
    condition = rules()[name].when.parameter
    assert condition is not None
    return [found[condition_group(found)] for found in re.finditer(condition.matches, value)]


def condition_group(found: re.Match[str]) -> int:
    return 1 if found.re.groups else 0


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
        assert rule.when.version is None
        assert rule.when.libc in (None, "glibc", "musl")


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


def test_secrets_are_brought_into_no_chroot() -> None:
    secrets = {"/etc/shadow", "/etc/gshadow", "/etc/sasldb2"}
    assert not any(secrets & {*rule.files, *rule.filtered} for rule in rules().values())


def test_what_is_special_stands_before_what_takes_everything() -> None:
    ids = [name for name, rule in rules().items() if rule.presence is Presence.IF_PRESENT]
    assert ids.index("postfix.localtime") < ids.index("postfix.present")


CAUGHT = {
    "postfix.accounts": {
        "proxy:unix:passwd.byname, hash:/etc/aliases": [],
        "unix:passwd.byname": ["passwd"],
        "hash:/x, unix:group.byname unix:passwd.byname": ["group", "passwd"],
        "pipemap:{unix:passwd.byname,regexp:/x}": ["passwd"],
    },
    "postfix.nss-accounts": {"proxy:unix:group.byname": [], "unix:group.byname": ["unix:group.byname"]},
    "postfix.resolver-tables": {
        "ldap:/etc/postfix/x.cf": ["ldap:"],
        "proxy:ldap:/etc/postfix/x.cf": [],
        "hash:/etc/postfix/ldap": [],
        "inet:127.0.0.1:8891": [],
        "inet:[::1]:8891": [],
        "inet:milter.example.org:8891": ["inet:milter.example.org"],
        "inet:localhost:8891 unix:/x": ["inet:localhost"],
        "check_policy_service inet:10-x.example.org:25": ["inet:10-x.example.org"],
    },
    "postfix.tls-smtp": {
        "/etc/ssl/certs": ["/etc/ssl/certs"],
        "/etc/ssl/certs/": ["/etc/ssl/certs"],
        "/a:/b c/d:e": ["/a", "/b c/d"],
        "etc/certs": [],
        "": [],
    },
    "postfix.tls-trust-anchors": {"/etc/a.pem, /etc/b.pem etc/c.pem": ["/etc/a.pem", "/etc/b.pem"]},
    "postfix.tls-policy": {"inline:{ {a.example = secure tafile=/etc/ta.pem} } hash:/x": ["/etc/ta.pem"]},
    "postfix.milters": {
        "unix:/run/a.sock, inet:127.0.0.1:1 { unix:/run/b.sock, connect_timeout=3s }": ["/run/a.sock", "/run/b.sock"],
        "local:/run/a.sock": ["/run/a.sock"],
        "unix:opendkim/opendkim.sock": [],
        "": [],
    },
    "postfix.policy": {
        "reject_unknown_sender_domain, check_policy_service unix:/run/p": ["/run/p"],
        "check_policy_service { unix:/run/p, timeout=10s }": ["/run/p"],
        "check_policy_service unix:private/policy": [],
    },
    "postfix.dovecot": {
        "private/auth": [],
        "smtpd": [],
        "inet:127.0.0.1:12345": [],
        "/run/dovecot/auth": ["/run/dovecot/auth"],
        "unix:/run/dovecot/auth ": ["/run/dovecot/auth"],
    },
    "postfix.databases": {"unix:/run/mysqld/mysqld.sock inet:db": ["/run/mysqld/mysqld.sock"], "127.0.0.1": []},
    "postfix.ldapi": {
        "ldapi:///": ["ldapi:///"],
        "ldapi://%2fvar%2Frun%2Fslapd%2Fldapi/": ["ldapi://%2fvar%2Frun%2Fslapd%2Fldapi/"],
        "ldapi://%2Fopt%2Fldapi": [],
        "ldap://localhost": [],
    },
    "postfix.syslog": {"": [""], "/var/log/mail.log": []},
    "postfix.saslauthd": {"yes": ["yes"], "no": []},
    "postfix.tlsrpt": {"run/tlsrpt.sock": [], "/run/tlsrpt.sock": ["/run/tlsrpt.sock"]},
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in CAUGHT.items() for value in values])
def test_conditions_see_what_postfix_means(name: str, value: str) -> None:
    assert caught(name, value) == CAUGHT[name][value]


def test_a_capath_takes_hashed_names_only() -> None:
    match = rules()["postfix.tls-smtp"].match
    assert match is not None
    assert all(re.fullmatch(match, name) for name in ("0a1b2c3d.0", "ffffffff.12", "0a1b2c3d.r0"))
    assert not any(re.fullmatch(match, name) for name in ("ca-certificates.crt", "0a1b2c3d.0.bak", "0a1b2c3d."))
