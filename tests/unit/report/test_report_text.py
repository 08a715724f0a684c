"""The sanitizer."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrootsync.model import Kind, Reload
from chrootsync.report import Options
from chrootsync.report.text import clean, command_line, likeness, lines, plural, raw, reload_line, reload_output
from tests.unit.report.report_samples import REPORTS

ANY = st.text(st.characters())  # surrogates included


def unclean(shown: str) -> bytes:
    """What a reader of a report does to get the bytes back."""
    parts = re.split(r"\\x([0-9a-f]{2})", shown)
    return b"".join(bytes.fromhex(part) if odd % 2 else part.encode() for odd, part in enumerate(parts))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/etc/resolv.conf", "/etc/resolv.conf"),
        ("/srv/Müller/漢字 ← …", "/srv/Müller/漢字 ← …"),
        ("caf\udce9", r"caf\xe9"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("a\nb\r\tc\x00\x7f", r"a\x0ab\x0d\x09c\x00\x7f"),
        ("\x85\x9b", r"\xc2\x85\xc2\x9b"),
        ("\u202egpj\u2066\u200f\u061c", r"\xe2\x80\xaegpj\xe2\x81\xa6\xe2\x80\x8f\xd8\x9c"),
        ("\u2028\u2029", r"\xe2\x80\xa8\xe2\x80\xa9"),
        ("\u200b\ufeff\u00ad", r"\xe2\x80\x8b\xef\xbb\xbf\xc2\xad"),
        ("\ue000\U000e0041\u0378", r"\xee\x80\x80\xf3\xa0\x81\x81\xcd\xb8"),
        ("a\ufe0f\u3164\u00a0b", r"a\xef\xb8\x8f\xe3\x85\xa4\xc2\xa0b"),
        ("\ud800", r"\xed\xa0\x80"),
        (r"\x41", r"\x5cx41"),
        (r"\\x41 \y \ ", r"\\x5cx41 \y \ "),
        ("\\\n", r"\\x0a"),
    ],
)
def test_clean(text: str, shown: str) -> None:
    assert clean(text) == shown


@given(ANY)
def test_clean_text_is_one_printable_line(text: str) -> None:
    shown = clean(text)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1
    shown.encode("utf-8")


@given(ANY)
def test_clean_can_be_undone(text: str) -> None:
    assert unclean(clean(text)) == b"".join(map(raw, text))


@given(st.binary())
def test_clean_shows_the_bytes_of_a_file_name(name: bytes) -> None:
    assert unclean(clean(name.decode("utf-8", "surrogateescape"))) == name


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)))
def test_clean_leaves_ordinary_text_alone(text: str) -> None:
    assert clean(text) == text or "\\x" in text


def test_lines() -> None:
    assert lines("") == []
    assert lines("one\ntwo\r\n\nthree\x85\n") == ["one", "two\\x0d", "", "three\\xc2\\x85"]


def test_words() -> None:
    assert [plural(count, "entry") for count in (0, 1, 2)] == ["0 entries", "1 entry", "2 entries"]
    assert plural(2, "instance") == "2 instances"
    assert command_line(("/bin/a b", "c\n")) == "'/bin/a b' 'c\\x0a'"


@pytest.mark.parametrize(
    ("reload", "line", "beneath"),
    [
        (Reload(needed=True, done=True, seen=("the master runs",), output="a\n"), "reloaded", []),
        (
            Reload(needed=True, done=True, error="its log says: x", seen=("the master runs",), output="a\n"),
            "reloaded, and in trouble: its log says: x",
            ["the master runs", "a"],
        ),
        (Reload(needed=True, error="status 1", output="a\n"), "reload failed: status 1", ["a"]),
    ],
)
def test_a_reload_tells_what_was_seen_where_it_went_wrong(reload: Reload, line: str, beneath: list[str]) -> None:
    report = REPORTS["drift"]
    instance = replace(report.instances[0], reload=reload)
    assert reload_line(instance, report) == f"{instance.instance.name}: {line}"
    assert reload_output(instance, Options()) == beneath
    assert reload_output(instance, Options(verbose=1)) == [*reload.seen, "a"]


def test_stale_processes_of_one_file_are_alike() -> None:
    finding = REPORTS["drift"].instances[-1].findings[0]
    one, other = (
        replace(finding, drift=replace(finding.drift, kind=kind, reason=reason))
        for kind, reason in ((Kind.STALE_PROCESS, "smtp[1] began"), (Kind.STALE_PROCESS, "smtp[2] began"))
    )
    assert likeness(one) == likeness(other)
    assert likeness(finding) != likeness(replace(finding, drift=replace(finding.drift, reason="another")))
