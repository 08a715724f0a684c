"""``explain`` on real trees, as one types it: who needs what and why, who does not, and what of it is there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, Never

import pytest

from chrootsync.model import (
    Daemon,
    Instance,
    Kind,
    ParameterCondition,
    PathError,
    Presence,
    Rule,
    TableCondition,
    UnreadableError,
    When,
)
from chrootsync.model.explanation import Explanation, Mapped, Need, Sort
from chrootsync.pipeline.explain import explain
from tests.unit.machine import needs_root
from tests.unit.report.test_report_formats import valid
from tests.unit.scenery import daemon, grow, instance, rule, snapshot, task
from tests.unit.test_cli import run
from tests.unit.test_shipped import FILES

MAIN = b"compatibility_level = 3.6\nmulti_instance_enable = yes\nqueue_directory = /var/spool/%s\n%s"
MASTER = b"smtp unix - - %s - - smtp\nsmtpd inet n - %s - - smtpd\n"
CERTIFICATES = {f"/etc/ssl/certs/{number:08}.0": b"certificate %d\n" % number for number in range(12)}

RULES = rb"""
[ruleset]
service = "postfix"
description = "rules that no release changes"

[[rule]]
id = "local.resolver"
why = "daemons ask DNS after chroot"
files = ["/etc/resolv.conf"]
when = { chrooted = ["smtp", "smtpd"] }

[[rule]]
id = "local.accounts"
why = "a unix: table reads it inside"
filtered = ["/etc/$1"]
when = { parameter = { names = ["*"], matches = '(?<![\w:])unix:(passwd|group)\.byname' } }

[[rule]]
id = "local.capath"
why = "smtp(8) searches it at each handshake"
directories = ["$1"]
match = '[0-9a-f]{8}\.r?[0-9]+'
mirror = true
when = { chrooted = ["smtp"], parameter = { names = ["smtp_tls_CApath"], matches = '(?:^|:)(/[^:]*[^:/\s])' } }

[[rule]]
id = "local.anchors"
why = "read per destination"
files = ["$1"]
when = { parameter = { names = ["smtp_tls_trust_anchor_file"], matches = '(?:^|[\s,])(/[^\s,]*[^\s,/])' } }

[[rule]]
id = "local.present"
why = "what is there goes stale otherwise"
directories = ["/bin", "/etc", "/lib", "/usr"]
presence = "if-present"
"""


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image: postfix has nothing chrooted, -in looks accounts up inside, -out has a CApath, -lost is broken."""
    image = tmp_path / "image"
    others = "multi_instance_directories = /etc/postfix-in /etc/postfix-out /etc/postfix-lost\n"
    grow(
        image,
        {
            "/etc/os-release": b"ID=debian\nVERSION_ID=12\n",
            "/run/stub.conf": b"nameserver 192.0.2.1\n",
            "/etc/resolv.conf": "../run/stub.conf",
            "/etc/hosts": b"127.0.0.1 localhost\n",
            "/etc/nsswitch.conf": b"hosts: files dns\n",
            "/etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n",
            "/etc/private": b"secret\n",
            "/etc/ssl/certs/ca-certificates.crt": b"all of them\n",
            **CERTIFICATES,
            "/etc/postfix/main.cf": MAIN % (b"postfix", others.encode()),
            "/etc/postfix/master.cf": MASTER % (b"n", b"n"),
            "/etc/postfix-in/main.cf": MAIN
            % (b"postfix-in", b"multi_instance_name = postfix-in\nlocal_recipient_maps = unix:passwd.byname\n"),
            "/etc/postfix-in/master.cf": MASTER % (b"n", b"y"),
            "/etc/postfix-out/main.cf": MAIN
            % (b"postfix-out", b"multi_instance_name = postfix-out\nsmtp_tls_CApath = /etc/ssl/certs\n"),
            "/etc/postfix-out/master.cf": MASTER % (b"y", b"y"),
            "/var/spool/postfix/etc/hosts": b"stale\n",
            "/var/spool/postfix-in": None,
            "/var/spool/postfix-out/etc/resolv.conf": b"nameserver 192.0.2.1\n",
            "/var/spool/postfix-out/etc/odd": b"nobody knows\n",
        },
    )
    (image / "etc/private").chmod(0o600)
    rules = tmp_path / "rules"
    rules.mkdir(mode=0o755)
    grow(rules, {**{f"/{path.name}": b"" for path in FILES}, "/local.toml": RULES})
    return image


def said(image: Path, *asked: str, code: int = 0) -> str:
    result = run("explain", *asked, "--root", str(image), "--rules", str(image.parent / "rules"))
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


def blocks(image: Path, *asked: str) -> list[str]:
    """What is said, as one line a block."""
    return [" ".join(block.split()) for block in said(image, *asked).split("\n\n")]


def told(image: Path, asked: str) -> dict[str, Any]:
    """What is told for programs of one argument."""
    options = ("--root", str(image), "--rules", str(image.parent / "rules"), "--format", "json")
    (one,) = valid(run("explain", asked, *options).stdout)["explained"]
    return dict(one)


def answers(image: Path, asked: str) -> dict[str, Any]:
    return {one["name"]: one for one in told(image, asked)["instances"]}


def verdicts(image: Path, asked: str) -> dict[str, str]:
    return {name: one["verdict"] for name, one in answers(image, asked).items()}


# --- Paths --------------------------------------------------------------------------------------------------------


def test_every_instance_has_an_answer(image: Path) -> None:
    title, idle, into, out, lost = blocks(image, "/etc/resolv.conf")
    assert title == "/etc/resolv.conf"
    assert idle.startswith(
        "postfix: not needed (no service of it runs chrooted), and not there if there local.present:"
    )
    assert into.startswith("postfix-in: needed; missing rule local.resolver why daemons ask DNS")
    assert "condition smtpd/inet runs chrooted source /etc/resolv.conf (/run/stub.conf), 21 B" in into
    assert into.endswith("now missing: this file is not in the chroot repair check --fix copies the source")
    assert out.startswith("postfix-out: needed; in sync rule local.resolver")
    assert out.endswith("condition smtp/unix, smtpd/inet run chrooted source /etc/resolv.conf (/run/stub.conf), 21 B")
    assert lost.startswith("postfix-lost: cannot be served: /etc/postfix-lost/main.cf does not exist")


def test_instances_with_the_same_answer_share_a_block(image: Path) -> None:
    shutil.copytree(image / "var/spool/postfix-out/etc", image / "var/spool/postfix-in/etc")
    (image / "etc/postfix-in/master.cf").write_bytes(MASTER % (b"y", b"y"))
    assert [block.partition(":")[0] for block in blocks(image, "/etc/resolv.conf")[1:]] == [
        "postfix",
        "postfix-in, postfix-out",
        "postfix-lost",
    ]


def test_a_setting_is_named_with_its_value_and_its_service(image: Path) -> None:
    (entry,) = answers(image, "/etc/ssl/certs/00000001.0")["postfix-out"]["entries"]
    assert entry["rule"] == "local.capath"
    assert entry["conditions"]["setting"] == "smtp_tls_CApath"
    assert entry["conditions"]["value"] == "/etc/ssl/certs"
    assert entry["conditions"]["services"] == ["smtp/unix"]
    assert "condition smtp_tls_CApath = /etc/ssl/certs (smtp/unix)" in " ".join(
        said(image, "/etc/ssl/certs/00000001.0").split()
    )


def test_a_rule_that_would_name_it_tells_why_it_does_not_hold(image: Path) -> None:
    found = answers(image, "/etc/passwd")
    assert found["postfix-in"]["verdict"] == "needed"
    assert found["postfix-in"]["entries"][0]["filtered"]
    (accounts,) = [one for one in found["postfix-out"]["asides"] if one["rule"] == "local.accounts"]
    assert "unix:(passwd|group)" in accounts["reason"]
    assert not accounts["loose"]
    assert not [
        one for one in answers(image, "/etc/shadow")["postfix-out"]["asides"] if one["rule"] == accounts["rule"]
    ]


def test_a_rule_that_takes_other_names_says_so(image: Path) -> None:
    grow(image.parent, {"/rules/more.toml": CERTIFICATE_RULES})
    (aside,) = [
        one
        for one in answers(image, "/etc/ssl/certs/ca-certificates.crt")["postfix-out"]["asides"]
        if one["rule"] == "more.certificates"
    ]
    assert aside["reason"] == r"it takes only names that match \d+\.0"


CERTIFICATE_RULES = rb"""
[ruleset]
service = "postfix"
description = "for a test"

[[rule]]
id = "more.certificates"
why = "a test wants it"
directories = ["/etc/ssl/certs"]
match = '\d+\.0'
"""


def test_what_settings_could_name_is_told_when_asked_for(image: Path) -> None:
    short = said(image, "/etc/private")
    assert "settings   that could name any file do not name this one (-v lists them)" in short
    assert "local.anchors" not in short
    long = said(image, "/etc/private", "-v")
    assert "local.anchors: smtp_tls_trust_anchor_file is not set" in long
    assert "settings" not in long


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/etc/private", "it leaves alone what the host has there, which not everybody may read"),
        ("/etc/odd", "it keeps fresh what the host has, and the host has no such file"),
        ("/etc/os-release", "it would keep a copy fresh if there were one"),
        ("/etc/ssl", "it would keep fresh what of it is there"),
    ],
)
def test_what_keeping_fresh_would_do(image: Path, path: str, reason: str) -> None:
    (image / "etc/postfix-out/main.cf").write_bytes(MAIN % (b"postfix-out", b"multi_instance_name = postfix-out\n"))
    fresh = [one for one in answers(image, path)["postfix-out"]["asides"] if one["presence"] == "if-present"]
    assert [one["reason"] for one in fresh if one["rule"] == "local.present"] == [reason]


def test_what_is_there_and_no_copy_is_left_alone(image: Path) -> None:
    (image / "var/spool/postfix-out/etc/os-release").symlink_to("odd")
    (fresh,) = answers(image, "/etc/os-release")["postfix-out"]["asides"][-1:]
    assert fresh["reason"] == "it keeps files fresh, and a link is there"


@needs_root
def test_what_belongs_to_somebody_else_is_left_alone(image: Path) -> None:
    grow(image, {"/var/spool/postfix-out/etc/os-release": b"mine"})
    os.chown(image / "var/spool/postfix-out/etc/os-release", 1234, 0)
    assert "it leaves alone what belongs to user 1234" in " ".join(said(image, "/etc/os-release").split())


def test_what_is_only_kept_fresh_is_not_needed(image: Path) -> None:
    (entry,) = (found := answers(image, "/etc/hosts")["postfix"])["entries"]
    assert (found["verdict"], found["needed"], found["reason"]) == (
        "kept-fresh",
        False,
        "no service of it runs chrooted",
    )
    assert (entry["rule"], entry["status"], entry["severity"]) == ("local.present", "differs", "warning")
    _, idle, *_ = blocks(image, "/etc/hosts")
    assert idle.startswith("postfix: not needed (no service of it runs chrooted), but kept as the host has it; differs")


def test_a_path_inside_a_chroot_concerns_that_one_alone(image: Path) -> None:
    assert verdicts(image, "/var/spool/postfix-out/etc/resolv.conf") == {"postfix-out": "needed"}
    assert verdicts(image, "/var/spool/postfix-out/etc/odd") == {"postfix-out": "not-needed"}
    assert "postfix-out: not needed (no rule names it), though a file is there" in said(
        image, "/var/spool/postfix-out/etc/odd"
    )


def test_a_chroot_by_another_spelling_is_that_chroot(image: Path) -> None:
    (image / "spool").symlink_to("var/spool")
    assert verdicts(image, "/spool/postfix-out/etc/resolv.conf") == {"postfix-out": "needed"}
    assert told(image, "/var/spool/postfix-out/")["type"] == "instance"


def test_a_directory_is_summed_up(image: Path) -> None:
    found = answers(image, "/etc/ssl/certs/")
    (share,) = found["postfix-out"]["below"]
    assert (share["rule"], share["files"], share["bytes"]) == (
        "local.capath",
        len(CERTIFICATES),
        sum(map(len, CERTIFICATES.values())),
    )
    assert share["drift"] == {"missing": len(CERTIFICATES)}
    assert "no smtp runs chrooted" in str(found["postfix-in"]["asides"])
    assert "12 files of 170 B needed below it; drifted: 13 missing" in said(image, "/etc/ssl/certs")


def test_a_path_that_exists_nowhere(image: Path) -> None:
    title, *_ = blocks(image, "/nowhere/at/all")
    assert title == "/nowhere/at/all: neither the host nor any chroot that can be seen has it"
    assert "postfix-out: not needed (no rule names it), and not there" in said(image, "/nowhere/at/all")


def test_a_bare_name_is_looked_for_in_every_chroot(image: Path) -> None:
    found = told(image, "resolv.conf")
    assert found["type"] == "name"
    assert [one["verdict"] for one in found["instances"]] == ["not-needed", "needed", "needed", "not-served"]
    assert "path       /etc/resolv.conf" in said(image, "resolv.conf")
    assert said(image, "nobody.knows").startswith(
        "nobody.knows: no instance has this name, and no chroot needs such a file\n"
    )
    assert verdicts(image, "stub.conf")["postfix-out"] == "needed"  # so the source is called without links


def test_the_source_of_a_copy_leads_to_the_copy(image: Path) -> None:
    _, _, into, *_ = blocks(image, "/run/stub.conf")
    assert into.startswith("postfix-in: needed as /etc/resolv.conf; missing")


def test_hostile_names_do_nothing_to_a_terminal(image: Path) -> None:
    grow(image, {"/etc/\x1b[31mred": b"x", "/var/spool/postfix-out/etc/\x1b[31mred": b"y"})
    shown = said(image, "/etc/\x1b[31mred", "out", "\x1b]0;x", "/etc/\udcff")
    assert all(line.isprintable() for line in shown.split("\n"))
    assert "/etc/\\x1b[31mred" in shown


# --- Instances ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked", ["postfix-out", "out", "/etc/postfix-out", "/etc/postfix-out/", "/var/spool/postfix-out"]
)
def test_an_instance_is_shown_whole(image: Path, asked: str) -> None:
    shown = said(image, asked)
    assert shown.startswith("postfix-out: smtp/unix, smtpd/inet run chrooted\n\n/var/spool/postfix-out\n└── etc/\n")
    assert "    ├── resolv.conf" in shown
    assert "… 10 more" in shown
    assert "13 files of 191 B" in shown.splitlines()[-1]


def test_an_inventory_is_what_a_check_counts(image: Path) -> None:
    options = ("--root", str(image), "--rules", str(image.parent / "rules"), "--format", "json")
    checked = {one["name"]: one for one in json.loads(run("check", *options).stdout)["instances"]}
    for name in ("postfix", "postfix-in", "postfix-out"):
        (found,) = told(image, name)["instances"]
        assert found["totals"]["entries"] == len(found["entries"]) == checked[name]["entries"]
        drifted = {(one["path"], one["kind"]) for one in checked[name]["drift"]}
        assert {(one["path"], one["status"]) for one in found["entries"] if one["status"] != "in-sync"} == drifted


def test_all_that_is_alike_is_shown_when_asked_for(image: Path) -> None:
    shown = said(image, "out", "-v")
    assert shown.count(".0 ") == len(CERTIFICATES)
    assert "more" not in shown


def test_instances_that_need_nothing_or_cannot_be_served_say_so(image: Path) -> None:
    shutil.rmtree(image / "var/spool/postfix/etc")
    idle, lost = blocks(image, "postfix", "lost")
    assert idle == "postfix: no service of it runs chrooted: it needs nothing"
    assert lost.startswith("postfix-lost: cannot be served: /etc/postfix-lost/main.cf does not exist")


def test_what_was_put_there_and_is_not_needed_any_more_should_not_be_there(image: Path) -> None:
    options = ("--root", str(image), "--rules", str(image.parent / "rules"), "--state", str(image.parent / "state"))
    (image.parent / "state").mkdir(mode=0o700)
    assert run("check", "--fix", *options).exit_code in (0, 1)
    (image / "etc/postfix-out/main.cf").write_bytes(MAIN % (b"postfix-out", b"multi_instance_name = postfix-out\n"))
    (one,) = json.loads(run("explain", "/etc/ssl/certs/00000001.0", *options, "--format", "json").stdout)["explained"]
    found = {each["name"]: each for each in one["instances"]}["postfix-out"]
    assert (found["verdict"], found["needed"]) == ("surplus", False)
    assert [(entry["status"], entry["remedy"]) for entry in found["entries"]] == [("orphan", "remove")]


# --- The command line ---------------------------------------------------------------------------------------------


def test_several_things_are_explained_in_their_order(image: Path) -> None:
    options = ("--root", str(image), "--rules", str(image.parent / "rules"), "--format", "json")
    made = valid(run("explain", "out", "/etc/hosts", "hosts", *options).stdout)
    assert [(one["asked"], one["type"]) for one in made["explained"]] == [
        ("postfix-out", "instance"),
        ("/etc/hosts", "path"),
        ("hosts", "name"),
    ]


@pytest.mark.parametrize("wrong", ["", "etc/hosts", "../etc/hosts", "/etc/../hosts", "./hosts", "..", "."])
def test_what_can_be_nothing_ends_2(image: Path, wrong: str) -> None:
    message = said(image, "/etc/hosts", wrong, code=2)
    wanted = "name an absolute path without .., a bare file name, or an instance"
    there = "postfix, postfix-in, postfix-lost, postfix-out"
    assert message == f"chrootsync: {wrong!r} can be neither a path nor an instance: {wanted} (there is: {there})\n"


def test_nothing_asked_is_about_every_instance(image: Path) -> None:
    shown = [line.partition(":")[0] for line in said(image).splitlines() if line.startswith("postfix")]
    assert shown == ["postfix", "postfix-in", "postfix-out", "postfix-lost"]


def test_a_host_without_instances_needs_nothing(tmp_path: Path) -> None:
    grow(tmp_path, {"/etc/hosts": b"127.0.0.1 localhost\n"})
    title, note = run("explain", "/etc/hosts", "--root", str(tmp_path)).stdout.split("\n\n")
    assert title == "/etc/hosts: no instance was found, so nothing needs it"
    assert note.startswith("note: no /etc/postfix/main.cf is there")


def test_explaining_changes_nothing(image: Path) -> None:
    before = snapshot(image)
    said(image, "/etc/resolv.conf", "out", "hosts", "/etc/ssl")
    assert snapshot(image) == before


def test_lines_are_drawn_with_letters_where_there_is_nothing_else(image: Path) -> None:
    import sys

    program = "import sys; sys.argv[0] = 'chrootsync'; from chrootsync.__main__ import main; main()"
    options = ["out", "--root", str(image), "--rules", str(image.parent / "rules")]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", program, "explain", *options]
    shown = subprocess.run(command, check=True, env=environment, capture_output=True).stdout
    assert shown.isascii()
    assert b"    |-- resolv.conf" in shown


# --- What only made-up scenes show --------------------------------------------------------------------------------


def explained(root: Path, rules: list[Rule], instances: list[Instance], *asked: str) -> Explanation:
    with task(root, rules, instances) as (work, _):
        return explain(work, asked)


def test_a_merged_usr_is_spelled_as_each_chroot_has_it(tmp_path: Path) -> None:
    grow(
        tmp_path,
        {
            "/usr/lib/thing": b"x",
            "/lib": "usr/lib",
            "/jail/split/lib/thing": b"x",
            "/jail/merged/usr/lib/thing": b"x",
            "/jail/merged/lib": "usr/lib",
        },
    )
    both = [instance("split"), instance("merged")]
    for asked in ("/lib/thing", "/usr/lib/thing"):
        (subject,) = explained(tmp_path, [rule(files=("/lib/thing",))], both, asked).subjects
        assert [one.need for one in subject.answers] == [Need.NEEDED, Need.NEEDED]
        assert [one.items[0].entry.path for one in subject.answers] == ["/lib/thing", "/usr/lib/thing"]


def test_another_value_of_a_setting_is_told(tmp_path: Path) -> None:
    grow(tmp_path, {"/etc/a": b"a", "/etc/b": b"b", "/jail/one": None})
    when = When(parameters=(ParameterCondition(names=("x",), matches="^(.*)$"),))
    rules = [rule(files=("/etc/$1",), when=(when,))]
    (subject,) = explained(tmp_path, rules, [instance(daemons=(daemon("smtp", x="a"),))], "/etc/b").subjects
    (aside,) = subject.answers[0].asides
    assert aside.reason == "it asks for what another setting names: x = a (smtp/unix)"
    assert subject.answers[0].need is Need.NOT_NEEDED


def test_what_the_host_need_not_have_is_told(tmp_path: Path) -> None:
    grow(tmp_path, {"/jail/one": None})
    (subject,) = explained(
        tmp_path, [rule(files=("/etc/gai.conf",), optional=True)], [instance()], "/etc/gai.conf"
    ).subjects
    assert [one.reason for one in subject.answers[0].asides] == ["the host has no such file, and need not have it"]


class Unreadable(dict[str, dict[str, str]]):
    """Lookup tables that nobody may read."""

    def get(self, *_: object) -> Never:
        raise UnreadableError("/etc/x.cf", "permission denied")


def test_what_cannot_be_decided_is_said_to_be_so(tmp_path: Path) -> None:
    grow(tmp_path, {"/jail/one": None, "/etc/a": b"a"})
    table = TableCondition(of=("x",), types=("ldap",), keys=("*",), matches="a")
    where = instance(daemons=(replace(daemon("smtp", x="ldap:/etc/x.cf"), tables=Unreadable()),))
    rules = [rule(files=("/etc/a",), when=(When(table=table),))]
    (subject,) = explained(tmp_path, rules, [where], "/etc/a").subjects
    assert subject.answers[0].need is Need.UNDECIDED
    assert subject.answers[0].asides[0].reason.startswith("whether it holds cannot be told: /etc/x.cf")


def test_a_table_that_cannot_be_read_is_not_said_to_be_needed_and_could_name_any_file(tmp_path: Path) -> None:
    grow(tmp_path, {"/jail/one": None, "/etc/ca.pem": b"a", "/etc/x.cf": b"secret"})
    table = TableCondition(of=("x",), types=("ldap",), keys=("*",), matches="^(/.*)$")
    where = instance(daemons=(replace(daemon("smtp", x="ldap:/etc/x.cf"), tables=Unreadable()),))
    rules = [rule(files=("$1",), when=(When(table=table),))]
    made = explained(tmp_path, rules, [where], "/etc/x.cf", "/etc/ca.pem")
    assert [subject.answers[0].need for subject in made.subjects] == [Need.UNDECIDED, Need.UNDECIDED]
    assert [one.loose for one in made.subjects[1].answers[0].asides] == [False]
    assert [str(item.drift and item.drift.kind) for item in made.subjects[0].answers[0].items] == ["unreadable"]


def test_a_source_inside_the_chroot_asks_for_nothing(tmp_path: Path) -> None:
    grow(tmp_path, {"/jail/one/etc/a": b"a", "/etc": "jail/one/etc"})
    when = When(parameters=(ParameterCondition(names=("x",), matches="^(.*)$"),))
    where = instance(daemons=(daemon("smtp", x="/jail/one/etc/a"),))
    (subject,) = explained(tmp_path, [rule(files=("$1",), when=(when,))], [where], "/jail/one/etc/a").subjects
    assert subject.answers[0].need is Need.NOT_NEEDED
    (aside,) = subject.answers[0].asides
    assert (aside.loose, aside.reason) == (
        True,
        "it asks for what another setting names: x = /jail/one/etc/a (smtp/unix)",
    )


def test_a_barred_way_does_not_make_a_need_go_away(tmp_path: Path) -> None:
    grow(tmp_path, {"/etc/a": b"a", "/elsewhere": None, "/jail/one/tmp": None})
    (tmp_path / "jail/one/etc").mkdir()
    (tmp_path / "jail/one/etc").chmod(0o777)
    value = When(parameters=(ParameterCondition(names=("x",), matches="^(.*)$"),))
    rules = [rule(files=("/etc/a",)), rule(id="test.value", files=("/etc/$1",), when=(value,))]
    where = instance(daemons=(daemon("smtp", x="a"),))
    (subject,) = explained(tmp_path, rules, [where], "/etc/a").subjects
    (answer,) = subject.answers
    assert answer.need is Need.NEEDED
    assert [one.holds for one in answer.asides] == [True, True]
    assert answer.asides[0].reason.startswith("it holds, but the way there is barred at /etc: ")
    assert answer.unseen


def test_two_entries_for_one_name_are_both_told(tmp_path: Path) -> None:
    grow(tmp_path, {"/etc/a": b"1", "/opt/a": b"2", "/jail/one/etc": None, "/jail/one/opt/a": b"2"})
    made = explained(tmp_path, [rule(files=("/etc/a", "/opt/a"))], [instance()], "a")
    (answer,) = made.subjects[0].answers
    assert made.subjects[0].sort is Sort.NAME
    assert {item.entry.path: None if item.drift is None else item.drift.kind for item in answer.items} == {
        "/etc/a": Kind.MISSING,
        "/opt/a": None,
    }


# --- Libraries ----------------------------------------------------------------------------------------------------


MODULES = Rule(id="test.nss", why="lookups", origin="", nss=("hosts",))


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A host with real libraries: those of this machine."""
    library = next(
        (path for path in Path("/usr/lib").glob("*-linux-gnu/libnss_*.so.2") if "dns" not in path.name), None
    )
    interpreter = "/lib64/ld-linux-x86-64.so.2"
    if library is None or not Path(interpreter).exists():
        pytest.skip("this machine has no name service module to try")
    module = library.name.removeprefix("libnss_").removesuffix(".so.2")
    grow(tmp_path, {"/etc/nsswitch.conf": f"hosts: files {module} dns\n".encode(), "/jail/one": None})
    needed = subprocess.run(["ldd", str(library)], capture_output=True, text=True, check=True).stdout.split()
    copied = {str(library), interpreter, "/bin/sh", *(word for word in needed if word.startswith("/"))}
    for path in copied:
        place = tmp_path / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(os.path.realpath(path), place)
    for place in [tmp_path, *tmp_path.rglob("*")]:
        place.chmod(0o755 if place.is_dir() else place.stat().st_mode & 0o755)
    (tmp_path / "name").write_text(library.name)
    return tmp_path


def test_a_module_is_traced_to_nsswitch_conf_and_to_the_programs_that_have_it_mapped(host: Path) -> None:
    name = (host / "name").read_text()
    daemons = (
        Daemon(name="a/unix", program="a", chrooted=True, command="/bin/sh"),
        Daemon(name="b/unix", program="b", chrooted=True),
        Daemon(name="c/unix", program="c", chrooted=True, command="/nowhere"),
        Daemon(name="d/unix", program="d", chrooted=False, command="/bin/sh"),
    )
    (subject,) = explained(host, [MODULES], [instance(daemons=daemons)], name).subjects
    (item,) = subject.answers[0].items
    assert item.entry.evidence.chain == (name, "nsswitch.conf hosts")
    assert item.mapped == Mapped(others=("a",), unknown=("b", "c"))


def test_a_socket_that_a_module_asks_is_mapped_by_nobody(host: Path) -> None:
    name = (host / "name").read_text()
    library = next(path for path in host.rglob(name) if not path.is_symlink())
    library.rename(library.with_name("libnss_sss.so.2"))
    grow(host, {"/etc/nsswitch.conf": b"hosts: sss\n"})
    daemons = (Daemon(name="a/unix", program="a", chrooted=True, command="/bin/sh"),)
    (subject,) = explained(host, [MODULES], [instance(daemons=daemons)], "/var/lib/sss/pipes/nss").subjects
    (item,) = subject.answers[0].items
    assert item.entry.evidence.chain == ("libnss_sss.so.2", "nsswitch.conf hosts")
    assert item.mapped is None


def test_a_library_that_no_module_needs_tells_so(host: Path) -> None:
    made = explained(host, [MODULES], [instance()], "libnss_dns.so.2", "libnss_other.so.2", "libother.so.1")
    reasons = [one.answers[0].asides[0].reason for one in made.subjects]
    assert reasons == [
        "nsswitch.conf names it for hosts, but libc has it built in, or the host lacks it",
        "nsswitch.conf does not name it for hosts",
        "no module that nsswitch.conf names for hosts needs it",
    ]


def test_a_rule_for_modules_that_does_not_hold_would_name_its_libraries(host: Path) -> None:
    name = (host / "name").read_text()
    rules = [Rule(id="test.nss", why="", origin="", nss=("hosts",), when=(When(chrooted=("smtp",)),))]
    (named, other) = explained(host, rules, [instance()], name, "libother.so.1").subjects
    assert [one.reason for one in named.answers[0].asides] == ["no smtp runs chrooted"]
    assert named.host is not None  # the loader finds it by its name
    assert other.answers[0].asides == ()


def test_an_unreadable_nsswitch_conf_makes_no_aside(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PathError("/etc/nsswitch.conf", "permission denied")

    monkeypatch.setattr("chrootsync.libraries.nss_modules", refuse)
    monkeypatch.setattr("chrootsync.libraries.mapped", refuse)
    monkeypatch.setattr("chrootsync.libraries.locations", refuse)
    daemons = (Daemon(name="a/unix", program="a", chrooted=True, command="/bin/sh"),)
    name = (host / "name").read_text()
    made = explained(host, [MODULES], [instance(daemons=daemons)], "libnss_dns.so.2", name)
    assert made.subjects[0].answers[0].asides == ()
    assert made.subjects[1].answers[0].items[0].mapped == Mapped(unknown=("a",))


def test_packages_are_named(tmp_path: Path) -> None:
    grow(
        tmp_path,
        {
            "/etc/services": b"smtp 25/tcp\n",
            "/etc/odd": b"x\n",
            "/jail/one": None,
            "/var/lib/dpkg/info/netbase.list": b"/etc/services\n/etc/odd\n",
            "/var/lib/dpkg/status": b"Package: netbase\nStatus: install ok installed\nVersion: 6.4\n",
        },
    )
    made = explained(tmp_path, [rule(files=("/etc/services",))], [instance()], "/etc/services", "/etc/odd")
    assert made.packages == {"/etc/services": "netbase 6.4", "/etc/odd": "netbase 6.4"}


def test_presence_is_no_need(tmp_path: Path) -> None:
    grow(tmp_path, {"/etc/a": b"a", "/jail/one/etc/a": b"a"})
    rules = [rule(directories=("/etc",), presence=Presence.IF_PRESENT)]
    file, folder = explained(tmp_path, rules, [instance()], "/etc/a", "/etc").subjects
    assert [one.answers[0].need for one in (file, folder)] == [Need.KEPT_FRESH, Need.KEPT_FRESH]
    assert file.answers[0].reason == "no rule names it"
