"""The shipped rule sets for services of the configuration file, and the page that tells how to use them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from chrootsync import shipped
from chrootsync.model import Config, Host, Instance, OnChange, Presence, Rule, RuleSet
from chrootsync.providers import static
from chrootsync.root import Root
from chrootsync.rules.config import parse_config
from chrootsync.rules.ruleset import parse
from chrootsync.state import Store

from .scenery import checked, fixed, grow, instance, kinds

CHECKOUT = Path(__file__).parent.parent.parent
PAGE = (CHECKOUT / "docs" / "services.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
INSTANCES = "".join(block for block in BLOCKS if block.startswith("[[instance]]"))
SERVICES = ("bind", "php-fpm", "sshd")
JAIL = "/jail/one"


@pytest.fixture(scope="module")
def rule_sets() -> dict[str, RuleSet]:
    """All shipped rule sets, by name."""
    files = sorted(Path(shipped.directory("rules")).glob("*.toml"))
    return {found.name: found for found in parse([(str(path), path.read_bytes()) for path in files])}


@pytest.fixture(scope="module")
def rules(rule_sets: dict[str, RuleSet]) -> dict[str, Rule]:
    """The rules for services of the configuration file, by id."""
    return {rule.id: rule for found in rule_sets.values() if found.service in SERVICES for rule in found.rules}


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host with nothing on it."""
    root = Root(str(tmp_path))
    yield Host(root=root, run=None, cache=Store(None))
    root.close()


def configured(text: str, rule_sets: dict[str, RuleSet]) -> Config:
    """The configuration in a text, which names shipped rule sets alone."""
    return parse_config("chrootsync.toml", text, rule_sets=rule_sets)


def needed(root: Path, rule_set: RuleSet) -> set[str]:
    """The paths of files that a rule set asks for in an empty chroot; devices and links are the same anywhere."""
    found = checked(root, rule_set.rules, [instance()])
    return {each.drift.entry.path for report in found for each in report.findings if each.drift.entry.source}


def caught(rule: Rule, text: str) -> list[str]:
    """What the file conditions of a rule find in a text, each once: group 1, or else the whole match."""
    conditions = [when.file for when in rule.when if when.file is not None]
    assert conditions
    found = [match for one in conditions for match in re.finditer(one.matches, text, re.MULTILINE)]
    return list(dict.fromkeys(match[1] if match.re.groups else match[0] for match in found))


def test_the_instances_of_the_page_can_be_used_as_they_are(host: Host, rule_sets: dict[str, RuleSet]) -> None:
    config = configured(INSTANCES, rule_sets)
    found: list[Instance] = static.discover(host, config, rule_sets.values())

    assert [(each.name, each.service) for each in found] == [("named", "bind"), ("sftp", "sshd"), ("shop", "php-fpm")]
    assert all(each.control.reload for each in found if each.service != "sshd")


def test_the_example_has_the_instance_of_the_page(rule_sets: dict[str, RuleSet]) -> None:
    example = (CHECKOUT / "docs" / "chrootsync.toml.example").read_text(encoding="utf-8")
    settings = re.sub(r"^#(?=\S)", "", example, flags=re.MULTILINE)

    assert configured(settings, rule_sets).instances == configured(INSTANCES, rule_sets).instances[:1]


def test_the_page_names_every_rule_set_of_a_service(rule_sets: dict[str, RuleSet]) -> None:
    names = {name for name, found in rule_sets.items() if found.service in SERVICES}
    assert names == {"bind", "php-fpm", "php-fpm-accounts", "php-fpm-charsets", "sshd", "sshd-accounts"}
    assert all(f"`{name}`" in PAGE for name in names)


def test_the_rule_set_of_the_page_is_sound() -> None:
    [block] = [block for block in BLOCKS if block.startswith("[ruleset]")]
    [found] = parse([("shop.toml", block)])
    assert found.rules[0].optional
    assert tomllib.loads(block)["ruleset"]["service"] == "php-fpm"


def test_running_requests_are_only_disturbed_for_libraries(rules: dict[str, Rule]) -> None:
    reloading = {name for name, rule in rules.items() if rule.on_change is not OnChange.NOTHING}
    assert {name for name in reloading if not name.startswith("bind.")} == {
        "php-fpm.account-modules",
        "php-fpm.charsets",
        "php-fpm.libgcc",
        "php-fpm.locales",
        "php-fpm.nss",
        "php-fpm.present",
    }


def test_hashes_of_passwords_stay_outside(rules: dict[str, Rule]) -> None:
    for name, rule in rules.items():
        assert not any(path.endswith(("/passwd", "/group", "/shadow")) for path in rule.files), name


@pytest.mark.parametrize("service", ["php-fpm", "sshd"])
def test_a_passwd_made_by_hand_is_no_business_of_the_plain_rule_set(
    service: str, tmp_path: Path, rule_sets: dict[str, RuleSet]
) -> None:
    short = b"alice:x:1000:1000::/:/bin/false\n"
    grow(tmp_path, {"/etc/passwd": b"root:x:0:0::/root:/bin/sh\n", f"{JAIL}/etc/passwd": short})

    fixed(tmp_path, [rule for rule in rule_sets[service].rules if not rule.devices], [instance()])

    assert (tmp_path / JAIL.lstrip("/") / "etc/passwd").read_bytes() == short


def test_what_was_put_there_by_hand_is_kept_fresh(tmp_path: Path, rule_sets: dict[str, RuleSet]) -> None:
    for name in SERVICES:
        present = [rule for rule in rule_sets[name].rules if rule.presence is Presence.IF_PRESENT and not rule.devices]
        root = tmp_path / name
        grow(root, {"/usr/lib/libold.so.1": b"new", f"{JAIL}/usr/lib/libold.so.1": b"old"})
        assert kinds(checked(root, present, [instance()])) == {"/usr/lib/libold.so.1": "differs"}


def test_a_confined_user_needs_no_program_and_no_library(tmp_path: Path, rule_sets: dict[str, RuleSet]) -> None:
    host: dict[str, bytes | str | int | None] = {
        "/etc/nsswitch.conf": b"passwd: files systemd\ngroup: files [NOTFOUND=return] systemd\nhosts: files dns\n",
        "/etc/passwd": b"root:x:0:0::/root:/bin/sh\n",
        "/etc/group": b"root:x:0:\n",
        "/etc/localtime": b"TZif2",
        "/lib/x86_64-linux-gnu/libnss_systemd.so.2": b"no ELF",
    }
    grow(tmp_path, {**host, JAIL: None})

    assert needed(tmp_path, rule_sets["sshd"]) == {"/etc/localtime"}
    assert needed(tmp_path, rule_sets["sshd-accounts"]) == {"/etc/passwd", "/etc/group"}


def test_accounts_of_extrausers_come_with_their_own_files(tmp_path: Path, rule_sets: dict[str, RuleSet]) -> None:
    extra = "/var/lib/extrausers"
    host: dict[str, bytes | str | int | None] = {
        "/etc/nsswitch.conf": b"passwd: files extrausers\n",
        "/etc/passwd": b"root:x:0:0::/root:/bin/sh\n",
        "/etc/group": b"root:x:0:\n",
        f"{extra}/passwd": b"alice:$6$secret:1000:1000::/:/bin/false\n",
    }
    grow(tmp_path, {**host, JAIL: None})

    files = [rule for rule in rule_sets["sshd-accounts"].rules if not rule.nss]
    fixed(tmp_path, files, [instance()])

    jail = tmp_path / JAIL.lstrip("/")
    assert (jail / extra.lstrip("/") / "passwd").read_bytes() == b"alice:x:1000:1000::/:/bin/false\n"
    assert not (jail / extra.lstrip("/") / "group").exists()


def test_zones_are_needed_by_the_names_that_scripts_use(tmp_path: Path, rule_sets: dict[str, RuleSet]) -> None:
    zones = "/usr/share/zoneinfo"
    wanted = {f"{zones}/UTC", f"{zones}/Europe/Berlin", f"{zones}/America/Indiana/Knox", f"{zones}/zone.tab"}
    others = {f"{zones}/posix/UTC", f"{zones}/right/Europe/Berlin", f"{zones}/tzdata.zi", f"{zones}/leapseconds"}
    grow(tmp_path, {**dict.fromkeys(wanted | others, b"TZif2"), JAIL: None})

    found = needed(tmp_path, rule_sets["php-fpm"])

    assert {path for path in found if path.startswith(zones)} == wanted


@pytest.mark.parametrize(
    ("bundle", "others"),
    [
        ("/etc/ssl/certs/ca-certificates.crt", {"/etc/ssl/certs/0a1b2c3d.0"}),
        ("/etc/pki/tls/cert.pem", set[str]()),
        ("/etc/ssl/ca-bundle.pem", {"/etc/ssl/certs/0a1b2c3d.0"}),
        ("/etc/ssl/cert.pem", set[str]()),
    ],
    ids=["Debian", "Fedora", "SUSE", "Arch and Alpine"],
)
def test_certificates_are_found_where_a_distribution_has_them(
    bundle: str, others: set[str], tmp_path: Path, rule_sets: dict[str, RuleSet]
) -> None:
    grow(
        tmp_path, {**dict.fromkeys({bundle, *others}, b"-----BEGIN"), "/etc/ssl/certs/Some_Root.pem": b"x", JAIL: None}
    )

    found = needed(tmp_path, rule_sets["php-fpm"])

    assert {path for path in found if path.startswith(("/etc/ssl", "/etc/pki"))} == {bundle, *others}


def test_only_debian_gets_the_links_of_its_openssl(tmp_path: Path, rule_sets: dict[str, RuleSet]) -> None:
    for name, expected in (("debian", 3), ("fedora", 0)):
        root = tmp_path / name
        grow(root, {"/etc/os-release": f"ID={name}\n".encode(), JAIL: None})
        found = kinds(checked(root, rule_sets["php-fpm"].rules, [instance()]))
        assert sum(path.startswith("/usr/lib/ssl/") for path in found) == expected


NAMED_CONF = """
// file "/usr/share/commented";  include "/etc/commented";
# include "/etc/commented";
zone "." { type hint; file "/usr/share/dns/root.hints"; };
zone "a.example" { type primary; file "/etc/bind/db.a"; }; // file "/usr/share/behind";
zone "b.example" { type secondary; file "/srv/zones/b"; };
include "/etc/dhcp/ddns.key";
tls local { key-file "/etc/tls/key.pem"; cert-file "/etc/tls/cert.pem"; };
logging { channel all { file "/var/log/named.log"; }; };
options { directory "/var/cache/bind"; statistics-file "/usr/statistics"; dump-file "/usr/dump"; };
"""


def test_named_reads_what_its_configuration_names_elsewhere(rules: dict[str, Rule]) -> None:
    assert caught(rules["bind.elsewhere"], NAMED_CONF) == [
        "/usr/share/dns/root.hints",
        "/etc/dhcp/ddns.key",
        "/etc/tls/key.pem",
        "/etc/tls/cert.pem",
    ]


def test_root_hints_are_only_needed_where_they_are_named(tmp_path: Path, rule_sets: dict[str, RuleSet]) -> None:
    hints = {"/usr/share/dns/root.hints": b".", "/usr/share/dns/root.key": b"."}
    for name, text in (("with", b'zone "." { type hint; file "/usr/share/dns/root.hints"; };\n'), ("without", b"")):
        grow(tmp_path / name, {**hints, "/etc/bind/named.conf": b"", JAIL: None})
        grow(tmp_path / name, {"/etc/bind/named.conf.default-zones": text})

    assert "/usr/share/dns/root.hints" in needed(tmp_path / "with", rule_sets["bind"])
    assert "/usr/share/dns/root.key" not in needed(tmp_path / "with", rule_sets["bind"])
    assert not any(path.startswith("/usr") for path in needed(tmp_path / "without", rule_sets["bind"]))


@pytest.mark.parametrize(
    ("line", "holds"),
    [
        ("ForceCommand internal-sftp -l INFO -d /%u", True),
        ("    forcecommand internal-sftp -f AUTH -l verbose", True),
        ("Subsystem sftp internal-sftp -lINFO", True),
        ("ForceCommand internal-sftp", False),
        ("ForceCommand internal-sftp -l ERROR", False),
        ("# ForceCommand internal-sftp -l INFO", False),
        ("Subsystem sftp /usr/lib/openssh/sftp-server -l INFO", False),
        ("ForceCommand internal-sftp # -l INFO", False),
    ],
)
def test_a_log_of_transfers_is_one_that_sshd_is_told_to_write(
    line: str, *, holds: bool, rules: dict[str, Rule]
) -> None:
    text = f"Port 22\n{line}\nMatch all\n"
    assert bool(caught(rules["sshd.transfer-log"], text)) is holds


@pytest.mark.parametrize(
    ("line", "holds"),
    [
        ("passwd: files", False),
        ("passwd:         files systemd", False),
        ("passwd: files [NOTFOUND=return] systemd\ngroup: compat", False),
        ("passwd: files # sss", False),
        ("hosts: files mdns4_minimal dns", False),
        ("passwd: files sss", True),
        ("group:files\twinbind", True),
        ("passwd: files [!UNAVAIL=continue] ldap", True),
        ("passwd: systemd_more", True),
        ("passwd: files systemd\ngroup: files extrausers", True),
    ],
)
def test_modules_for_accounts_are_those_that_know_more_than_files(
    line: str, *, holds: bool, rules: dict[str, Rule]
) -> None:
    assert bool(caught(rules["sshd.account-modules"], f"{line}\nshadow: files sss\n")) is holds
