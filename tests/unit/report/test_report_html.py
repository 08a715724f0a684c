"""HTML: well-formed, escaped, closed to everything from outside, and complete."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from xml.etree.ElementTree import Element

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tinyhtml5.parser import HTMLParser  # type: ignore[import-untyped]  # it ships no types

from chrootsync.model import (
    Finding,
    InstanceReport,
    Kind,
    Outcome,
    Probe,
    Reload,
    Remedy,
    Report,
    Retry,
    Severity,
    StaleProcess,
    Status,
)
from chrootsync.report import Options, render
from chrootsync.report.history import History
from chrootsync.report.html.matrix import ROOMY, SIGNS
from chrootsync.report.html.view import FEW
from chrootsync.report.kinds import MEANINGS
from chrootsync.report.text import clean
from tests.browser.samples import certificates, crowd, everything, night, past, same
from tests.unit.report.report_samples import (
    OUT,
    REPORTS,
    SUBMISSION,
    clean_instances,
    finding,
    instance,
    lost_library,
    report,
    stale_resolver,
    wrong_mode,
)

SAMPLES = {**REPORTS, "night": night(), "crowd": crowd(12, 5)}
HOSTILE = (
    "<script>document.title = 'owned'</script>",
    "\"><img src=x onerror=\"document.title = 'owned'\">",
    "' onmouseover='document.title=1' x='",
    "</style><style>body { display: none }",
    "</title></details></section><h1>All in sync</h1>",
    "<!-- ", "--> ]]>", "&lt;b&gt; &amp; &#60;", "{{ 7 * 7 }} {% raw %}", "javascript:alert(1)",
    "\x1b]0;owned\x07", "two\nlines", "\u202egpj.exe", "\udcff\udcfe", "::error file=x::y", "<3>kern",
    "<base href=//x>",
)  # fmt: skip

# What a page may consist of.
ELEMENTS = {
    *("a", "body", "br", "code", "dd", "details", "div", "dl", "dt", "h1", "h2", "h3", "head", "header", "html", "kbd"),
    *("li", "main", "meta", "p", "pre", "section", "span", "strong", "style", "summary", "table", "tbody", "td", "th"),
    *("thead", "title", "tr", "ul"),
}
ATTRIBUTES = {
    *("aria-hidden", "aria-label", "charset", "class", "colspan", "content", "data-head", "href", "http-equiv", "id"),
    *("lang", "name", "open", "role", "scope", "tabindex", "title"),
}


def parsed(text: str) -> Element:
    """The page as a strict browser sees it."""
    parser = HTMLParser(namespace_html_elements=False)
    tree: Element = parser.parse(text)
    assert parser.errors == []
    return tree


def page(whole: Report, options: Options | None = None) -> Element:
    return parsed(render("html", whole, options))


def words(element: Element) -> str:
    return " ".join(" ".join(element.itertext()).split())


def of_class(tree: Element, name: str) -> list[Element]:
    return [one for one in tree.iter() if name in one.get("class", "").split()]


def heading(tree: Element) -> str:
    return next(words(one) for one in tree.iter("h1"))


def harmless(tree: Element) -> bool:
    """Whether a page consists of nothing but what loads, runs and sends nothing."""
    known = {one.tag for one in tree.iter()} <= ELEMENTS
    return known and {key for one in tree.iter() for key in one.attrib} <= ATTRIBUTES


def targets(tree: Element) -> Iterator[str]:
    for one in tree.iter():
        if "href" in one.attrib:
            yield one.attrib["href"]


# --- What every page keeps to -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLES)
def test_a_page_is_well_formed_and_leads_nowhere_else(name: str) -> None:
    tree = page(SAMPLES[name], everything())
    assert tree.attrib["lang"] == "en"
    assert next(words(one) for one in tree.iter("title"))
    assert harmless(tree)
    ids = [one.attrib["id"] for one in tree.iter() if "id" in one.attrib]
    assert len(ids) == len(set(ids))
    assert {target[:1] for target in targets(tree)} <= {"#"}
    assert {target[1:] for target in targets(tree)} <= set(ids)


def test_the_policy_allows_the_style_sheet_and_nothing_else() -> None:
    tree = page(night(), everything())
    (policy,) = [
        one.attrib["content"] for one in tree.iter("meta") if one.get("http-equiv") == "Content-Security-Policy"
    ]
    (style,) = tree.iter("style")
    checksum = base64.b64encode(hashlib.sha256((style.text or "").encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{checksum}'; base-uri 'none'; form-action 'none'"
    assert not re.search(r"url\(|@import|expression|</", style.text or "")


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text_wherever_it_comes_from(text: str) -> None:
    mild = page(*hostile("mild" if clean(text) == text else "mild\x07"))  # what is not clean cannot be typed
    tree = page(*hostile(text))
    assert [one.tag for one in tree.iter()] == [one.tag for one in mild.iter()]
    assert [one.keys() for one in tree.iter()] == [one.keys() for one in mild.iter()]
    for one, other in zip(tree.iter(), mild.iter(), strict=True):
        assert one.get("class") == other.get("class")
        assert one.get("href") == other.get("href")
    assert heading(tree) == heading(mild)


def hostile(text: str) -> tuple[Report, Options]:
    """A report in which every text from outside is ``text``."""
    where = instance(f"n{text}", chroot=f"/c{text}", config=f"/etc/{text}")
    one = stale_resolver(where, Outcome(status=Status.FAILED, reason=text))
    rule = replace(one.drift.entry.rule, id=text, why=text, origin=text)
    entry = replace(one.drift.entry, path=f"/p{text}", source=f"/s{text}", because=text, rule=rule)
    one = replace(one, drift=replace(one.drift, entry=entry, reason=text, package=text))
    alike = tuple(lost_library(where, f"{text}{number}") for number in range(9))
    bad = finding(Kind.BAD_INSTANCE, where, "/", text)
    lookup = replace(same(text, text), advice=text)
    whole = InstanceReport(
        instance=where,
        entries=2,
        findings=(one, bad, *alike),
        reload=Reload(needed=True, error=text, output=text.replace("\n", " "), command=("true",), seen=(text,)),
        probe=Probe(lookups=(lookup, replace(lookup, what=f"{text}2", matters=True)), lost=(text,), error=text),
        stale=(StaleProcess(pid=1, daemon=text, began=1.0, uses=(text,), why=text),),
        retry=Retry(tried=1, left=1, error=text),
    )
    history = past(1)
    repair = replace(history.repairs[0], trigger=text, version=text)
    repair = replace(
        repair, changes=(replace(repair.changes[0], instance=text, path=text),), reloads={text: whole.reload}
    )
    options = Options(
        diffs={(where.name, entry.path): f"-{text}".replace("\n", " ")}, history=replace(history, repairs=[repair])
    )
    idle = InstanceReport(instance=instance(f"idle{text}", chroot=f"/idle{text}"), entries=1, findings=())
    return replace(report(whole, idle, fixed=True, notes=(text,)), version=text), options


@settings(max_examples=15)
@given(text=st.text(st.characters(), max_size=40))
def test_no_text_breaks_a_page(text: str) -> None:
    made = render("html", *hostile(text))
    assert all(line.isprintable() for line in made.split("\n"))
    assert harmless(parsed(made))


# --- What a page says ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("in-sync", "In sync"),
        ("unchrooted", "In sync"),
        ("warnings", "In sync"),
        ("drift", "Drift"),
        ("repaired", "Reload due"),
        ("failed", "Failed"),
        ("nothing", "Nothing to check"),
    ],
)
def test_the_heading_says_how_it_stands(name: str, said: str) -> None:
    assert heading(page(REPORTS[name])) == said


def test_a_repair_without_a_remainder_is_called_one() -> None:
    done = InstanceReport(instance=OUT, entries=2, findings=(stale_resolver(outcome=Outcome(status=Status.REPAIRED)),))
    tree = page(report(done, fixed=True))
    assert heading(tree) == "Repaired"
    assert of_class(tree, "steps") == []


def test_what_waits_is_called_so() -> None:
    late = Outcome(status=Status.WAITING, reason="dpkg is at work")
    tree = page(report(InstanceReport(instance=OUT, entries=2, findings=(stale_resolver(outcome=late),)), fixed=True))
    assert heading(tree) == "Waiting"


def test_lookups_that_fail_make_a_clean_instance_a_bad_one() -> None:
    lost = Probe(lookups=(replace(same("getaddrinfo localhost", "127.0.0.1"), matters=True),), asked=True)
    tree = page(report(InstanceReport(instance=OUT, entries=2, findings=(), probe=lost)))
    assert heading(tree) == "Lookups fail"
    assert words(of_class(tree, "instance")[0]).startswith("postfix-out lookups fail")


def test_a_card_tells_all_that_is_known() -> None:
    one = InstanceReport(instance=OUT, entries=2, findings=(lost_library(OUT), stale_resolver()))
    tree = page(report(one), everything())
    library, resolver = of_class(tree, "card")
    assert words(library) == (
        "missing /var/spool/postfix-out /lib/x86_64-linux-gnu/libnss_dns.so.2 missing create "
        "modules that the host's nsswitch.conf names and that libc has not built in package libc6 "
        "rule postfix.nss (rules/postfix.toml) because libnss_dns.so.2 ← nsswitch.conf hosts "
        "source /usr/lib/x86_64-linux-gnu/libnss_dns.so.2 want file 0644 root:root, 31032 bytes, sha256 9f86d081884c "
        "remedy create more: chrootsync explain /var/spool/postfix-out/lib/x86_64-linux-gnu/libnss_dns.so.2"
    )
    assert "have file 0644 root:root, 120 bytes, sha256 5f70bf18a086" in words(resolver)
    (diff,) = of_class(resolver, "diff")
    assert [(row.get("class"), words(row)) for row in diff.iter("tr")] == [
        ("d-out", "--- /etc/resolv.conf"),
        ("d-in", "+++ /var/spool/postfix-out/etc/resolv.conf"),
        ("d-at", "@@ -1 +1 @@"),
        ("d-out", "-nameserver 192.0.2.53"),
        ("d-in", "+nameserver 127.0.0.53"),
    ]


def test_an_outcome_is_told_with_its_reason() -> None:
    full = Outcome(status=Status.FAILED, reason="no space left on device")
    one = InstanceReport(instance=OUT, entries=2, findings=(stale_resolver(outcome=full),))
    tree = page(report(one, fixed=True, root="/srv/image"))
    assert "no space left on device ✗ failed" in words(of_class(tree, "card")[0])
    assert words(of_class(tree, "steps")[0]) == (
        "chrootsync check --root /srv/image --fix tries again what was not repaired."
    )
    assert "chrootsync explain --root /srv/image /var/spool/postfix-out/etc/resolv.conf" in words(tree)


def test_what_to_type_comes_first() -> None:
    by_hand = finding(Kind.BAD_SOURCE, OUT, "/etc/hosts", "the source /etc/hosts is empty; the copy is kept")
    one = InstanceReport(instance=OUT, entries=2, findings=(stale_resolver(), by_hand))
    (steps,) = of_class(page(report(one, notes=("mind the gap",))), "steps")
    assert words(steps) == (
        "chrootsync check --fix repairs 1 of 2; what the others need is said below. note mind the gap"
    )


def test_a_command_that_cannot_be_typed_is_not_shown() -> None:
    where = instance("out", chroot="/var/spool/\udcff")
    reload = Reload(needed=True, command=("/usr/sbin/postfix", "\udcff"), error="exit status 1")
    one = InstanceReport(instance=where, entries=1, findings=(stale_resolver(where),), reload=reload)
    tree = page(report(one, fixed=True))
    assert [words(kbd) for kbd in tree.iter("kbd")] == ["chrootsync check --fix"]


def test_the_night() -> None:
    tree = page(night(), everything())
    submission, out, inside = of_class(tree, "instance")
    assert "142 files alike: missing" in words(submission)
    assert len(of_class(submission, "members")[0]) == 142
    assert "reloaded the master (pid 812) lives 1 stale process is finishing the log shows no fatal line" in words(out)
    assert "4711 smtp 2025-10-09 07:53:20 UTC still uses 1 file that was replaced" in words(out)
    assert "probe 3 of 5 lookups inside as outside; 1 worked before the repair and fails now" in words(out)
    assert "fails inside worked before the repair" in words(out)
    assert "probe 3 of 3 lookups inside as outside" in words(inside)


def test_retried_mail_is_told() -> None:
    one = InstanceReport(instance=OUT, entries=2, findings=(), retry=Retry(tried=3, left=2, error="it took too long"))
    said = words(of_class(page(report(one, fixed=True)), "instance")[0])
    assert said.endswith("3 deferred messages tried again, 2 left to their own time; it took too long")


def test_what_is_in_sync_is_listed() -> None:
    said = words(page(REPORTS["in-sync"]))
    assert "3 instances without anything to tell postfix-submission: /var/spool/postfix-submission, 42 entries" in said


# --- The matrix ---------------------------------------------------------------------------------------------------


def test_every_kind_has_a_sign_of_its_own() -> None:
    assert set(SIGNS) == set(Kind) == set(MEANINGS)
    assert len(set(SIGNS.values())) == len(SIGNS)


def marks(tree: Element) -> list[tuple[str, str, str]]:
    """Row, label and target of each mark, in the order of the page."""
    (table,) = of_class(tree, "matrix")
    return [
        (words(row[0]), one.attrib["title"], one.get("href", ""))
        for row in table.iter("tr")
        for one in of_class(row, "badge")
    ]


def test_each_mark_leads_to_its_card() -> None:
    tree = page(night(), everything())
    bodies = {one.attrib["id"]: words(one) for one in of_class(tree, "body")}
    found = marks(tree)
    assert ("/etc/ssl/certs/", "missing (error): /etc/ssl/certs/ in postfix-submission, not tried, 142 files") in [
        mark[:2] for mark in found
    ]
    assert len(found) == len(of_class(tree, "card"))
    for row, _, target in found:
        assert row in bodies[target[1:]]


def test_the_matrix_says_what_is_left_out() -> None:
    one = InstanceReport(instance=OUT, entries=2, findings=(stale_resolver(), wrong_mode()))
    (caption, *_) = of_class(page(report(*clean_instances(SUBMISSION), one)), "caption")
    assert words(caption) == (
        "2 paths in 1 of 2 instances; 1 instance without drift is left out."
        " An empty cell: in sync there, or not needed."
    )


def test_what_is_information_alone_is_no_mark() -> None:
    info = finding(Kind.UNREACHABLE, OUT, "/run/x", "no socket is there", severity=Severity.INFO)
    tree = page(report(InstanceReport(instance=OUT, entries=2, findings=(info,))))
    assert of_class(tree, "matrix") == []
    assert "no socket is there none ▸ info".replace(" ▸", "") in words(of_class(tree, "card")[0])


def test_the_longer_side_goes_down() -> None:
    few, many = page(crowd(ROOMY + 1, ROOMY + 2)), page(crowd(ROOMY + 5, ROOMY + 2))
    assert [words(of_class(tree, "corner")[0]) for tree in (few, many)] == ["file", "instance"]
    assert [len(of_class(tree, "roomy")) for tree in (few, many)] == [1, 0]


def test_a_crowd_is_cut_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chrootsync.report.html.matrix.ROWS", 20)
    monkeypatch.setattr("chrootsync.report.html.matrix.COLUMNS", 10)
    monkeypatch.setattr("chrootsync.report.html.view.MOST", 50)
    tree = page(crowd(30, 12))  # three of the instances have no drift
    (table,) = of_class(tree, "matrix")
    rows = list(table.iter("tr"))
    assert len(rows) == 1 + 20
    assert len(rows[0]) == 1 + 10
    assert "only the worst 10 paths and 20 instances are shown" in words(tree)
    assert len(of_class(tree, "card")) == 50
    assert f"This page tells {27 * 12 - 50} findings less than there are" in words(tree)
    assert "3 instances without anything to tell" in words(tree)
    linked = [mark for mark in of_class(table, "badge") if mark.tag == "a"]
    assert len(linked) == 4 * 10 + 2  # the first four instances are told in full, and two findings of the fifth
    assert set(targets(tree)) <= {f"#{one.attrib['id']}" for one in tree.iter() if "id" in one.attrib}


def test_ten_thousand_findings_are_a_page_of_a_few_megabytes() -> None:
    assert len(render("html", crowd(1000, 11))) < 3 << 20


def test_many_alike_share_a_card() -> None:
    one = InstanceReport(instance=SUBMISSION, entries=200, findings=certificates(9))
    assert len(of_class(page(report(one)), "card")) == 1
    one = replace(one, findings=certificates(8))
    assert len(of_class(page(report(one)), "card")) == 8


@pytest.mark.parametrize(("count", "is_open"), [(FEW, True), (FEW + 1, False)])
def test_a_few_findings_are_open(count: int, is_open: bool) -> None:
    found: tuple[Finding, ...] = tuple(lost_library(OUT, f"lib{number}.so") for number in range(count))
    tree = page(report(InstanceReport(instance=OUT, entries=9, findings=found)))
    assert {"open" in card.attrib for card in of_class(tree, "card")} == {is_open}


# --- History ------------------------------------------------------------------------------------------------------


def test_the_last_repairs_are_listed() -> None:
    tree = page(REPORTS["in-sync"], everything())
    (section,) = [one for one in tree.iter("section") if one.get("id") == "history"]
    rows = [words(row) for row in section.iter("tr")]
    assert rows[1] == "14 2025-10-08 08:53:20 UTC chrootsync-watch.service postfix-out 1 repaired 1 done"
    assert rows[2] == "13 2025-10-07 08:53:20 UTC manual postfix-out 1 taken back takes back 12 1 done"
    assert "chrootsync rollback 14 takes it back" in words(section)


def test_where_nothing_is_remembered_that_is_said() -> None:
    nothing = Options(history=History(root="/", repairs=[], local=str))
    assert "Last repairs No repair is remembered here yet." in words(page(REPORTS["in-sync"], nothing))
    assert "Last repairs" not in words(page(REPORTS["in-sync"]))


def test_a_time_that_is_none_is_unknown() -> None:
    tree = page(replace(REPORTS["in-sync"], generated=float("inf")))
    assert "at unknown root /" in words(tree)


def test_how_long_it_took_is_told_in_seconds_too() -> None:
    assert "took 12.35 s" in words(page(replace(REPORTS["in-sync"], duration=12.345678)))


def test_a_reload_that_is_left_to_somebody_is_to_be_typed() -> None:
    stale = finding(Kind.STALE_PROCESS, OUT, "/lib/x.so", "smtp (1) uses it", remedy=Remedy.RELOAD)
    left = Reload(needed=True, command=("/usr/sbin/postfix", "-c", "/etc/postfix-out", "reload"))
    tree = page(report(InstanceReport(instance=OUT, entries=2, findings=(stale,), reload=left), fixed=True))
    assert words(of_class(tree, "steps")[0]) == "/usr/sbin/postfix -c /etc/postfix-out reload reloads postfix-out."
    assert words(of_class(tree, "reload")[0]).startswith("not reloaded")
