"""``check --report html=FILE``: a page that tells of earlier repairs too, where they are remembered."""

from __future__ import annotations

from pathlib import Path

from tests.unit.test_cli import filled, image, plain_environment, rules, run
from tests.unit.test_cli_history import NEW, on, repaired, state

__all__ = ["filled", "image", "plain_environment", "repaired"]  # fixtures

HISTORY = '<section id="history">'


def page(root: Path, *arguments: str) -> str:
    file = root.parent / "report.html"
    run("check", "--root", str(root), "--rules", rules(root), "--report", f"html={file}", *arguments)
    return file.read_text("utf-8")


def test_a_page_tells_of_the_repairs_before_it(repaired: Path) -> None:
    made = page(repaired, "--state", str(state(repaired)))
    assert "<h1>In sync</h1>" in made
    assert HISTORY in made
    assert made.count('<tr><th scope="row">') == 1


def test_a_page_tells_of_the_very_repair_that_it_is_of(repaired: Path) -> None:
    (repaired / "etc/resolv.conf").write_bytes(NEW.replace(b"7", b"9"))
    made = page(repaired, "--state", str(state(repaired)), "--fix")
    assert "<h1>Repaired</h1>" in made
    assert [f'<tr><th scope="row">{number}</th>' in made for number in (1, 2, 3)] == [True, True, False]


def test_a_page_of_what_was_never_repaired_says_so(filled: Path) -> None:
    assert "No repair is remembered here yet." in page(filled, "--state", str(state(filled)))


def test_where_nothing_can_be_remembered_a_page_says_nothing_of_it(repaired: Path) -> None:
    assert HISTORY not in page(repaired)
    (database,) = state(repaired).glob("*.db")
    database.write_bytes(b"this is no database" * 100)
    assert HISTORY not in page(repaired, "--state", str(state(repaired)))


def test_html_can_be_printed_too(repaired: Path) -> None:
    made = on(repaired, "check", "--format", "html")
    assert made.exit_code == 0
    assert made.stdout.startswith("<!DOCTYPE html>")
    assert made.stdout.endswith("</html>\n")
