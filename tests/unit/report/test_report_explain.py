"""Explanations held against golden files, and what no golden file shows.

``UPDATE_GOLDEN=1 pytest tests/unit/report/test_report_explain.py`` writes the files anew: read the diff.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrootsync.model import (
    Daemon,
    Drift,
    Entry,
    Evidence,
    FileType,
    Instance,
    Kind,
    Presence,
    Remedy,
    Rule,
    Severity,
    State,
    When,
)
from chrootsync.model.explanation import Answer, Aside, Explanation, Item, Mapped, Need, Sort, Subject
from chrootsync.report import explain_json
from chrootsync.report.explain import render
from chrootsync.report.tree import size, tree
from tests.unit.report.report_samples import IN, NSS, OUT, PRESENT, RESOLVER, SUBMISSION, file
from tests.unit.report.test_report_formats import valid

GOLDEN = Path(__file__).parents[2] / "golden" / "explain"
CAPATH = replace(RESOLVER, id="postfix.tls-smtp", why="smtp(8) searches it at each handshake, after chroot")
ANCHORS = replace(RESOLVER, id="postfix.tls-trust-anchors", why="read per destination")
SYSLOG = replace(RESOLVER, id="postfix.syslog", why="daemons log to it")
SERVICES = tuple(
    Daemon(name=f"{name}/unix", program=name, chrooted=True, command=f"/usr/lib/postfix/sbin/{name}")
    for name in ("smtp", "cleanup")
)
BROKEN = replace(IN, problem="/etc/postfix-in/main.cf: a line without =: correct it")
FULL = replace(OUT, daemons=SERVICES)
IDLE = replace(SUBMISSION, chrooted=False)
SETTING = Evidence(daemons=("smtp/unix", "relay/unix"), setting="smtp_tls_CApath", value="/etc/ssl/certs")
NODE = State(type=FileType.DIRECTORY, mode=0o755, uid=0, gid=0)
NAMES = {0: "root", 33: "www-data"}


def item(
    path: str = "/etc/resolv.conf",
    kind: Kind | None = None,
    where: Instance = FULL,
    *,
    mapped: Mapped | None = None,
    severity: Severity = Severity.ERROR,
    remedy: Remedy = Remedy.COPY,
    **fields: Any,
) -> Item:
    default: dict[str, Any] = {"rule": RESOLVER, "source": path, "because": "", "want": file(), "have": file()}
    entry = Entry(instance=where, path=path, **(default | fields))
    if kind is None:
        return Item(entry=entry, mapped=mapped)
    drift = Drift(kind=kind, severity=severity, remedy=remedy, reason=f"it is {kind}", entry=entry)
    return Item(entry=entry, drift=drift, mapped=mapped)


def answer(where: Instance = FULL, need: Need = Need.NEEDED, *items: Item, **fields: Any) -> Answer:
    return Answer(instance=where, need=need, items=items, **fields)


def explanation(*subjects: Subject, **fields: Any) -> Explanation:
    return Explanation(root="/", subjects=subjects, owners=NAMES, groups=NAMES, **fields)


def path(asked: str, *answers: Answer, **fields: Any) -> Explanation:
    subject = Subject(asked=asked, sort=Sort.PATH, answers=answers, **fields)
    return explanation(subject, packages={asked: "systemd 252.39"})


LIBRARY = item(
    "/lib/x86_64-linux-gnu/libcap.so.2",
    Kind.MISSING,
    rule=replace(NSS, when=(When(libc="glibc"),)),
    have=None,
    evidence=Evidence(chain=("libcap.so.2", "libnss_systemd.so.2", "nsswitch.conf hosts")),
    mapped=Mapped(by=("cleanup",), others=("smtp",), unknown=("qmqpd",)),
)
CERTIFICATES = tuple(
    item(
        f"/etc/ssl/certs/{number:08}.0",
        None if number % 3 else Kind.MISSING,
        rule=CAPATH,
        evidence=SETTING,
        want=file(size=1500),
    )
    for number in range(1, 31)
)
LOG = item(
    "/dev/log",
    Kind.UNREACHABLE,
    rule=SYSLOG,
    source=None,
    severity=Severity.INFO,
    remedy=Remedy.NONE,
    want=State(type=FileType.SOCKET),
    have=None,
)
URANDOM = item(
    "/dev/urandom",
    source=None,
    want=State(type=FileType.CHARACTER_DEVICE, mode=0o666, uid=0, gid=0, device=(1, 9)),
)
WHOLE = (
    item("/etc", source=None, want=NODE, have=NODE, because="holds /etc/resolv.conf"),
    item(),
    item("/etc/passwd", Kind.MODIFIED, filtered=True, have=file(0o600, size=12)),
    item("/etc/localtime", rule=replace(PRESENT, presence=Presence.IF_PRESENT)),
    item("/etc/a name\x1b[31m that is far too long for its column, so that it has a line of its own"),
    *CERTIFICATES,
    LOG,
    URANDOM,
    item("/lib", source=None, want=State(type=FileType.LINK, target="usr/lib"), have=None),
    item("/usr/lib/x86_64-linux-gnu/libcap.so.2", mapped=Mapped(by=("smtp", "cleanup")), want=file(size=48_000)),
    item("/usr/lib/x86_64-linux-gnu/libgcc_s.so.1", mapped=Mapped(by=("smtp",), others=("cleanup",))),
    item("/run/auth", source=None, want=State(type=FileType.SOCKET), have=State(type=FileType.SOCKET)),
    item("/usr/lib/lost.so", Kind.UNRESOLVED, want=None, have=None, remedy=Remedy.NONE),
)
NOT_SET = Aside(rule=CAPATH, reason="smtp_tls_CApath is not set")
ANY = Aside(rule=ANCHORS, reason="smtp_tls_trust_anchor_file is not set", loose=True)
FRESH = Aside(
    rule=replace(PRESENT, presence=Presence.IF_PRESENT), reason="it would keep a copy fresh if there were one"
)

SAMPLES: dict[str, Explanation] = {
    "resolver": path(
        "/etc/resolv.conf",
        answer(FULL, Need.NEEDED, item(evidence=Evidence(daemons=("smtp/unix",))), path="/etc/resolv.conf"),
        answer(
            replace(IN, daemons=SERVICES),
            Need.NEEDED,
            item(evidence=Evidence(daemons=("smtp/unix",))),
            path="/etc/resolv.conf",
        ),
        answer(IDLE, Need.NOT_NEEDED, reason="no service of it runs chrooted", asides=(FRESH,)),
        host=file(),
        real="/run/systemd/resolve/stub-resolv.conf",
    ),
    "drifted": path(
        "/etc/resolv.conf",
        answer(FULL, Need.NEEDED, item(kind=Kind.OUTDATED, have=file(0o600, size=12, uid=33)), path="/etc/resolv.conf"),
        answer(
            SUBMISSION,
            Need.KEPT_FRESH,
            item(rule=replace(PRESENT, presence=Presence.IF_PRESENT)),
            path="/etc/resolv.conf",
            reason="no rule names it",
        ),
        answer(BROKEN, Need.NOT_SERVED, reason=BROKEN.problem),
        host=file(),
        real="/etc/resolv.conf",
    ),
    "library": explanation(
        Subject(
            asked="libcap.so.2",
            sort=Sort.NAME,
            answers=(
                answer(FULL, Need.NEEDED, LIBRARY),
                answer(IN, Need.NOT_NEEDED, asides=(Aside(rule=NSS, reason="no module needs it"),)),
            ),
        ),
        packages={"/lib/x86_64-linux-gnu/libcap.so.2": "libcap2 1:2.66-4"},
    ),
    "renamed": path(
        "/usr/lib/x86_64-linux-gnu/libcap.so.2.66",
        answer(FULL, Need.NEEDED, LIBRARY, path="/usr/lib/x86_64-linux-gnu/libcap.so.2.66"),
        host=file(),
        real="/usr/lib/x86_64-linux-gnu/libcap.so.2.66",
    ),
    "directory": path(
        "/etc/ssl/certs",
        answer(FULL, Need.NEEDED, path="/etc/ssl/certs", below=(*CERTIFICATES, LOG), there=NODE),
        answer(IN, Need.NOT_NEEDED, path="/etc/ssl/certs", asides=(NOT_SET, ANY, FRESH)),
        answer(
            IDLE,
            Need.KEPT_FRESH,
            item("/etc/ssl/certs", Kind.METADATA, source=None, want=NODE, have=replace(NODE, mode=0o700)),
            path="/etc/ssl/certs",
            below=(item("/etc/ssl/certs/a", rule=replace(PRESENT, presence=Presence.IF_PRESENT)),),
            reason="no service of it runs chrooted",
        ),
        host=NODE,
        real="/etc/ssl/certs",
    ),
    "odd": path(
        "/etc/\x1b[31m\udcff",
        answer(FULL, Need.SURPLUS, item(kind=Kind.ORPHAN, remedy=Remedy.REMOVE), path="/etc/resolv.conf"),
        answer(IN, Need.UNDECIDED, path="/etc/odd", there=file(), asides=(NOT_SET,)),
        answer(
            SUBMISSION,
            Need.NEEDED,
            path="/etc/odd",
            unseen="permission denied",
            asides=(Aside(rule=RESOLVER, reason="it holds, but the way there is barred", holds=True),),
        ),
        host=replace(NODE, type=FileType.FIFO),
        real="/run/\x1b",
    ),
    "nodes": explanation(
        Subject(
            asked="urandom",
            sort=Sort.NAME,
            answers=(
                answer(
                    FULL,
                    Need.NEEDED,
                    URANDOM,
                    item("/chroot/urandom", Kind.BAD_SOURCE, want=None, have=None, remedy=Remedy.NONE),
                    replace(LIBRARY, mapped=Mapped(unknown=tuple("abcdefgh"))),
                ),
            ),
        ),
        Subject(
            asked="/etc",
            sort=Sort.PATH,
            answers=(
                answer(FULL, Need.NEEDED, item("/etc", source=None, want=NODE, have=NODE, because="holds /etc/a")),
                answer(IN, Need.NOT_NEEDED, path="/etc", there=State(type=FileType.LINK, mode=0o777, target="\x1b")),
            ),
        ),
        Subject(
            asked="/lib",
            sort=Sort.PATH,
            host=State(type=FileType.LINK, mode=0o777, uid=0, gid=0, target="usr/lib"),
            answers=(answer(FULL, Need.NOT_NEEDED, path="/lib", asides=(ANY,)),),
        ),
        Subject(asked="/gone", sort=Sort.PATH, answers=(answer(FULL, Need.NOT_NEEDED, path="/gone", there=NODE),)),
        Subject(asked="nothing", sort=Sort.NAME, answers=(answer(FULL, Need.NOT_NEEDED),)),
        Subject(asked="named", sort=Sort.NAME, answers=(answer(FULL, Need.NOT_NEEDED, asides=(NOT_SET,)),)),
        Subject(
            asked="bind",
            sort=Sort.INSTANCE,
            answers=(answer(replace(FULL, name="bind", daemons=()), Need.NEEDED, item(), item("/etc/x")),),
        ),
    ),
    "nowhere": path(
        "/nowhere", answer(FULL, Need.NOT_NEEDED, path="/nowhere", asides=(ANY,), reason="no rule names it")
    ),
    "nobody": path("/etc/hosts"),
    "inventory": explanation(
        Subject(asked="out", sort=Sort.INSTANCE, answers=(answer(FULL, Need.NEEDED, *WHOLE),)),
        Subject(asked="in", sort=Sort.INSTANCE, answers=(answer(BROKEN, Need.NOT_SERVED, reason=BROKEN.problem),)),
        Subject(
            asked="submission",
            sort=Sort.INSTANCE,
            answers=(answer(IDLE, Need.NOT_NEEDED, reason="no service of it runs chrooted"),),
        ),
        notes=("what is remembered cannot be read: \x1b",),
    ),
}
FLAVOURS: dict[str, dict[str, Any]] = {"80.txt": {}, "200.txt": {"width": 200}, "verbose.txt": {"verbose": True}}


@pytest.mark.parametrize("flavour", [*FLAVOURS, "json"])
@pytest.mark.parametrize("name", SAMPLES)
def test_golden(name: str, flavour: str) -> None:
    golden = GOLDEN / f"{name}.{flavour}"
    made = explain_json.render(SAMPLES[name]) if flavour == "json" else render(SAMPLES[name], **FLAVOURS[flavour])
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(made, encoding="utf-8")
    assert made == golden.read_text(encoding="utf-8")


def test_no_golden_file_is_left_over() -> None:
    ours = {f"{name}.{flavour}" for name in SAMPLES for flavour in (*FLAVOURS, "json")}
    assert {found.name for found in GOLDEN.iterdir()} == ours


@pytest.mark.parametrize("name", SAMPLES)
def test_json_keeps_to_its_schema(name: str) -> None:
    made = valid(explain_json.render(SAMPLES[name]))
    assert [one["asked"] for one in made["explained"]]


def test_the_schema_knows_every_word() -> None:
    schema = json.loads((Path(explain_json.__file__).with_name("schema.json")).read_text("utf-8"))["$defs"]
    assert list(Need) == schema["answer"]["properties"]["verdict"]["enum"]
    assert list(Sort) == schema["explained"]["properties"]["type"]["enum"]


@pytest.mark.parametrize("verbose", [False, True])
@pytest.mark.parametrize("width", [1, 40, 80, 200])
@pytest.mark.parametrize("name", SAMPLES)
def test_nothing_does_anything_to_a_terminal_or_is_cut_off(name: str, width: int, *, verbose: bool) -> None:
    made = render(SAMPLES[name], width=width, verbose=verbose)
    assert made.endswith("\n")
    assert not made.endswith("\n\n")
    assert all(line.isprintable() for line in made.split("\n"))
    shown = "".join(made.split())
    for subject in SAMPLES[name].subjects:
        for one in subject.answers:
            assert one.instance.name in shown
            for each in one.items:
                assert each.entry.rule.id in shown or one.below


def test_what_is_alike_is_shown_by_two_examples_unless_all_is_asked_for() -> None:
    few = tree("/jail", CERTIFICATES, 80, verbose=False)
    shown = [line.split()[-3] for line in few if ".0" in line]
    assert len(shown) == 4  # two in sync, two missing
    assert sum("more" in line for line in few) == 2
    assert "… 18 more" in "".join(few)
    every = tree("/jail", CERTIFICATES, 80, verbose=True)
    assert sum(".0 " in line for line in every) == len(CERTIFICATES)


def test_a_tree_has_lines_down_to_its_last_branch() -> None:
    lines = tree("/jail", [item("/a/b/c"), item("/a/d"), item("/e"), item("/f/g/h")], 80, verbose=False)
    assert [line.partition("  95 B")[0].rstrip() for line in lines] == [
        "/jail",
        "├── a/",
        "│   ├── b/",
        "│   │   └── c",
        "│   └── d",
        "├── e",
        "└── f/g/",
        "    └── h",
    ]


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (124_928, "122 KiB"),
        (1_048_575, "1.0 MiB"),
        (5 << 20, "5.0 MiB"),
        (3 << 30, "3.0 GiB"),
        (3 << 40, "3072 GiB"),
    ],
)
def test_sizes(count: int, said: str) -> None:
    assert size(count) == said


def test_a_secret_has_no_checksum() -> None:
    secret = item(kind=Kind.DIFFERS, want=file(0o600), have=file())
    made = json.loads(explain_json.render(path("/x", answer(FULL, Need.NEEDED, secret, item(kind=Kind.DIFFERS)))))
    hidden, shown = made["explained"][0]["instances"][0]["entries"]
    assert hidden["want"]["sha256"] is hidden["have"]["sha256"] is None
    assert shown["want"]["sha256"]


def test_a_library_that_every_program_has_mapped_is_said_to_be_of_no_use() -> None:
    mapped = replace(LIBRARY, mapped=Mapped(by=("cleanup", "smtp")))
    assert "before chroot by cleanup, smtp, for which the copy is never opened" in render(
        path("libcap.so.2", answer(FULL, Need.NEEDED, mapped)), width=200
    )


def test_a_setting_that_is_empty_is_said_to_be_so() -> None:
    unset = item(evidence=Evidence(daemons=("smtp/unix",), setting="maillog_file", value=""))
    said = render(path("/dev/log", answer(FULL, Need.NEEDED, unset)), width=200)
    assert "condition  maillog_file is empty (smtp/unix)" in said


def test_what_is_only_kept_fresh_below_a_directory_is_told_apart() -> None:
    fresh = item("/etc/b", rule=replace(RESOLVER, id="postfix.present", presence=Presence.IF_PRESENT))
    said = render(path("/etc", answer(FULL, Need.NEEDED, below=(item("/etc/a"), fresh))), width=200)
    assert "1 file of 95 B needed below it" in said
    assert "postfix.present   1 file of 95 B, only kept fresh\n" in said


@given(name=st.text(st.characters(), min_size=1), rule_id=st.text(st.characters()))
def test_any_name_is_survived(name: str, rule_id: str) -> None:
    where = replace(FULL, name=name, chroot=f"/{name}")
    odd: Rule = replace(RESOLVER, id=rule_id, why=name, origin=name)
    chain = Evidence(chain=(name,), daemons=(name,), setting=name, value=name)
    one = item(f"/{name}", Kind.DIFFERS, where, rule=odd, source=f"/{name}", because=name, evidence=chain)
    aside = Aside(rule=odd, reason=name)
    made = explanation(
        Subject(asked=name, sort=Sort.INSTANCE, answers=(answer(where, Need.NEEDED, one),)),
        Subject(asked=name, sort=Sort.NAME, answers=(answer(where, Need.NEEDED, one, asides=(aside,)),)),
    )
    for said in (render(made, verbose=True), explain_json.render(made)):
        assert all(line.isprintable() for line in said.split("\n"))
        said.encode("utf-8")
