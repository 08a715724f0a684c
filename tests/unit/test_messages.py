"""Everything that the program can say stands in a test that expects it, word for word.

Each text in the package that is more than a word is a message, unless it is exempt here. That it comes out is what the
test is for whose text it is found in; coverage shows that the line is run.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from tests.unit.sentences import HOLE, Proof, Said, proofs, said

TESTS = Path(__file__).parents[1]
PACKAGE = TESTS.parent / "chrootsync"

FILES = {
    "cli/application.py": "the help, which test_readme.py holds to the README",
    "cli/demo.py": "what the demonstration tells; nobody need do anything about it",
    "cli/manual.py": "the manual page, which test_manual.py holds to --help",
    "hooks/texts.py": "contents of files, which test_hooks.py and the system tests run",
    "providers/postfix/defaults.py": "settings of Postfix",
    "state/codec.py": "names of columns",
    "state/journal.py": "names of columns",
    "state/schema.py": "the tables of the database",
}
"""Modules that hold no messages, and why."""

TEXTS: dict[str, str] = {
    f"make_{HOLE}() if {HOLE} is missing else {HOLE}": "part of a program",
    "expected a list": "a cache that is damaged is as good as none, and nobody is told",
    "expected a text": "a cache that is damaged is as good as none, and nobody is told",
    "not an answer": "what is no answer of the probe is taken for none, which is told",
    "not a name": "what is no answer of the probe is taken for none, which is told",
    "Not a regular file": "stands for the error that a directory gives; only that there is one matters",
    "it was in force then": "why a rule that is gone was there; no report has it",
    "chrootsync rule file": "the title of the JSON Schema",
    "The rule set of this file.": "in the JSON Schema",
    "What a chroot must hold, when, and why.": "in the JSON Schema",
    "Changes of a rule of any file, by id.": "in the JSON Schema",
    "octal string or integer": "in the JSON Schema",
    "library name": "in the JSON Schema",
    "... and 1000000 more: chrootsync check": "as long as the longest line of its kind",
    "is no table that main.cf knows": "what is no table is passed over",
    f"{HOLE} leads here": "why something is no orphan, of which nobody is told",
    "is another place by now": "why something is no orphan, of which nobody is told",
}
"""Single texts that need no test, and why."""

MADE_UP = ("browser", "unit/report", "unit/report_samples.py", "golden")
"""Tests of reports make up the texts that they are given: these prove only what reports add of their own."""


def paths() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if str(path.relative_to(PACKAGE)) not in FILES]


@cache
def expected(*, of_reports: bool) -> tuple[Proof, ...]:
    """What tests expect; with those of reports, or without."""
    here = Path(__file__)
    modules = [path for path in sorted(TESTS.rglob("*.py")) if path != here and (of_reports or not _made_up(path))]
    goldens = [path for path in sorted((TESTS / "golden").rglob("*")) if path.is_file() and of_reports]
    errors = sorted(TESTS.rglob("*.errors"))
    found = [proof for path in modules for proof in proofs(path)]
    return (*found, *(Proof([path.read_text("utf-8")]) for path in (*goldens, *errors)))


def _made_up(path: Path) -> bool:
    return str(path.relative_to(TESTS)).startswith(MADE_UP)


def unproven(path: Path) -> list[Said]:
    """The messages of a module that no test expects."""
    among = expected(of_reports=path.relative_to(PACKAGE).parts[0] in ("report", "cli"))
    return [one for one in said(path) if one.text not in TEXTS and not any(proof.holds_to(one.text) for proof in among)]


@pytest.mark.parametrize("path", paths(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_message_is_expected_by_a_test(path: Path) -> None:
    missing = "\n".join(map(str, unproven(path)))
    assert not missing, f"no test expects these texts word for word; write one for each:\n{missing}"


def test_exemptions_are_needed() -> None:
    assert all((PACKAGE / name).is_file() for name in FILES)
    everything = {one.text for path in sorted(PACKAGE.rglob("*.py")) for one in said(path)}
    assert set(TEXTS) <= everything


def test_what_counts_as_expected() -> None:
    whole = Proof([f"{HOLE}: is a link; mend it", "chrootsync: /x: is a FIFO; remove it"])
    assert whole.holds_to(f"{HOLE}: is a {HOLE}; remove it")
    assert whole.holds_to(f"--state {HOLE}: is a link; mend it") is False
    assert whole.holds_to("is a link; remove it") is False
    apart = Proof(["is a directory; name a file", f"--report {HOLE}: {HOLE}"])
    assert apart.holds_to(f"--report {HOLE}: is a directory; name a file")
    assert not any(proof.holds_to("it happens by itself") for proof in expected(of_reports=True))
