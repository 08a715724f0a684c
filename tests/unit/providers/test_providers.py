"""All providers together, and those instances that the configuration file lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from chrootsync.model import (
    Config,
    ConfigError,
    Control,
    Host,
    Instance,
    ParameterCondition,
    Rule,
    RuleSet,
    StaticInstance,
    TableCondition,
    When,
)
from chrootsync.providers import PROVIDERS, discover_all, static
from tests.unit.tree_reader import MemoryCache, TreeReader, plant

RULE_SETS = [
    RuleSet(name=name, service=service, description="", origin="", rules=())
    for name, service in (("postfix", "postfix"), ("resolver", "sftp"), ("logging", "any"))
]


def host(root: Path) -> Host:
    return Host(root=TreeReader(root), run=None, cache=MemoryCache())


def table(name: str, *rules: str) -> StaticInstance:
    return StaticInstance(name=name, chroot=f"/srv/{name}", rules=rules)


def test_a_table_becomes_an_instance(tmp_path: Path) -> None:
    listed = StaticInstance(
        name="sftp",
        chroot="/srv/sftp",
        rules=("resolver", "logging"),
        reload=("/bin/a", "b"),
        running=("/bin/c",),
        unit="sftp.service",
    )
    assert static.discover(host(tmp_path), Config(instances=(listed,)), RULE_SETS) == [
        Instance(
            name="sftp",
            service="sftp",
            provider="static",
            chroot="/srv/sftp",
            found="listed in the configuration file",
            rule_sets=("resolver", "logging"),
            control=Control(reload=("/bin/a", "b"), running=("/bin/c",), unit="sftp.service"),
        )
    ]


def test_all_unknown_rule_sets_are_named(tmp_path: Path) -> None:
    config = Config(instances=(table("a", "resolver", "x"), table("b", "y", "z"), table("c")))
    with pytest.raises(ConfigError) as caught:
        static.discover(host(tmp_path), config, RULE_SETS)
    known = "known: logging, postfix, resolver"
    assert caught.value.problems == (
        f"instance 'a': no rule set is named 'x'; {known}",
        f"instance 'b': no rule set is named 'y'; {known}",
        f"instance 'b': no rule set is named 'z'; {known}",
        f"instance 'c': rules names no rule set; {known}",
    )


def test_providers_answer_in_their_order(tmp_path: Path) -> None:
    plant(tmp_path, {"/etc/postfix/main.cf": b"", "/etc/postfix/master.cf": b""})
    instances = discover_all(host(tmp_path), Config(instances=(table("sftp", "resolver"),)), RULE_SETS)
    assert [(each.name, each.provider) for each in instances] == [("postfix", "postfix"), ("sftp", "static")]
    assert list(PROVIDERS) == ["postfix", "static"]


def test_names_are_unique_across_providers(tmp_path: Path) -> None:
    plant(tmp_path, {"/etc/postfix/main.cf": b"", "/etc/postfix/master.cf": b""})
    with pytest.raises(ConfigError) as caught:
        discover_all(host(tmp_path), Config(instances=(table("postfix", "resolver"),)), RULE_SETS)
    [problem] = caught.value.problems
    assert problem == (
        "instance 'postfix' is there twice, as postfix (default instance, /etc/postfix/main.cf) and as sftp (listed in "
        "the configuration file): give one of them another name"
    )


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_provider_finds_nothing_on_an_empty_host(tmp_path: Path, provider: str) -> None:
    assert PROVIDERS[provider](host(tmp_path), Config(), RULE_SETS) == []


def test_rules_that_only_daemons_could_make_hold_are_told(tmp_path: Path) -> None:
    """One that holds by another alternative too can be used."""
    condition = ParameterCondition(names=("a",), matches="b")
    lookup = TableCondition(of=("a",), types=("ldap",), keys=("b",), matches="c")
    asking = [When(chrooted=("sshd",)), When(parameters=(condition,)), When(table=lookup)]
    sets: dict[str, list[tuple[When, ...]]] = {
        "bad": [(asking[0], asking[1])],
        "worse": [(asking[2],), ()],
        "good": [(), (*asking, When(version=">=1")), (When(libc="glibc"),)],
    }
    rule_sets = [
        RuleSet(
            name=name,
            service="sftp",
            description="",
            origin="",
            rules=tuple(Rule(id=f"{name}{index}", why="", origin="", when=when) for index, when in enumerate(whens)),
        )
        for name, whens in sets.items()
    ]
    with pytest.raises(ConfigError) as caught:
        static.discover(host(tmp_path), Config(instances=(table("a", "good", "worse", "bad"),)), rule_sets)
    reason = "asks which daemons run chrooted, which is known of Postfix alone; write a rule set for it"
    assert caught.value.problems == (
        f"instance 'a': rule set 'worse' {reason}",
        f"instance 'a': rule set 'bad' {reason}",
    )
    assert static.discover(host(tmp_path), Config(instances=(table("a", "good"),)), rule_sets)
