"""The HTML report as people see it: on a phone, on a desk, in the dark, on paper; and what the page must not do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from chrootsync.model import Report
from chrootsync.report import Options, render
from tests.browser.chromium import Chromium
from tests.browser.samples import crowd, everything, night
from tests.unit.report.report_samples import REPORTS
from tests.unit.report.test_report_html import HOSTILE, hostile

PHONE, DESK = 400, 1400
SAMPLES: dict[str, tuple[Report, Options]] = {
    "night": (night(), everything()),
    "drift": (REPORTS["drift"], everything()),
    "in-sync": (REPORTS["in-sync"], everything()),
    "crowd": (crowd(16, 20), everything()),
    "hostile": (REPORTS["hostile"], everything()),
}

# Elements that reach beyond the right edge of the page, but those that scroll in a box of their own.
TOO_WIDE = """
[...document.querySelectorAll('body *')]
    .filter(one => !one.closest('.box') && one.getBoundingClientRect().right > innerWidth + 0.5)
    .map(one => one.outerHTML.slice(0, 80))
"""

# Texts whose contrast with what is behind them is too low (WCAG 2.2, 1.4.3: 4.5 to 1, 3 to 1 where they are large).
TOO_FAINT = """
(() => {
    const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const colour = css => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = css;
        canvas.fillRect(0, 0, 1, 1);
        return canvas.getImageData(0, 0, 1, 1).data;
    };
    const behind = one => {
        for (; one; one = one.parentElement) {
            const [r, g, b, a] = colour(getComputedStyle(one).backgroundColor);
            if (a === 255) return [r, g, b];
        }
        return null;
    };
    const light = rgb => {
        const [r, g, b] = [...rgb].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const faint = [];
    let seen = 0;
    for (const one of document.querySelectorAll('body *')) {
        if (![...one.childNodes].some(node => node.nodeType === 3 && node.data.trim())) continue;
        if (!one.checkVisibility({contentVisibilityAuto: true})) continue;
        const style = getComputedStyle(one);
        const [front, back] = [light(colour(style.color)), light(behind(one))];
        const contrast = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
        const large = parseFloat(style.fontSize) >= 24;
        seen += 1;
        if (contrast < (large ? 3 : 4.5)) faint.push([contrast.toFixed(2), one.outerHTML.slice(0, 90)]);
    }
    return {seen, faint};
})()
"""

# What of the details is hidden.
HIDDEN = """
[...document.querySelectorAll('details > :not(summary)')]
    .filter(one => !one.checkVisibility({contentVisibilityAuto: true})).length
"""


def written(folder: Path, name: str) -> Path:
    file = folder / f"{name}.html"
    file.write_text(render("html", *SAMPLES[name]), encoding="utf-8")
    return file


def complaints(browser: Chromium) -> list[Any]:
    """What the browser found wrong with a page, and what the page asked for beyond itself."""
    wrong = [event for event in browser.log if event["method"] in {"Log.entryAdded", "Runtime.exceptionThrown"}]
    asked = [event for event in browser.log if event["method"] == "Network.requestWillBeSent"]
    return wrong + [event for event in asked if not event["params"]["request"]["url"].startswith("file:")]


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("name", SAMPLES)
def test_no_page_is_wider_than_its_screen(browser: Chromium, tmp_path: Path, name: str, width: int) -> None:
    browser.open(written(tmp_path, name), width=width)
    assert browser.ask("innerWidth") == width
    assert browser.ask("document.documentElement.scrollWidth") == width
    assert browser.ask("document.querySelectorAll('details').forEach(one => one.open = true)") is None
    assert browser.ask("document.documentElement.scrollWidth") == width
    assert browser.ask(TOO_WIDE) == []
    assert complaints(browser) == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["night", "drift", "in-sync"])
def test_every_text_can_be_read(browser: Chromium, tmp_path: Path, name: str, dark: bool) -> None:
    browser.open(written(tmp_path, name), width=DESK, dark=dark)
    browser.ask("document.querySelectorAll('details').forEach(one => one.open = true)")
    background = browser.ask("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", background))) < 60) is dark
    found = browser.ask(TOO_FAINT)
    assert found["seen"] > 20
    assert found["faint"] == []


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_a_mark_opens_its_why(browser: Chromium, tmp_path: Path, width: int) -> None:
    browser.open(written(tmp_path, "drift"), width=width)
    assert browser.ask("document.querySelectorAll('.card[open]').length") == 0
    browser.click('.matrix a[title^="differs"]')
    assert browser.until("document.querySelectorAll('.card[open]').length", 1)
    opened = browser.ask("document.querySelector('.card[open]').innerText")
    assert "/etc/resolv.conf" in opened
    assert "a stale one defers mail" in opened
    assert browser.until(
        "(() => { const box = document.querySelector('.card[open]').getBoundingClientRect();"
        " return box.top >= 0 && box.top < innerHeight; })()",
        wanted=True,
    )


@pytest.mark.parametrize("name", ["night", "drift"])
def test_paper_shows_what_the_screen_hides(browser: Chromium, tmp_path: Path, artifacts: Path, name: str) -> None:
    browser.open(written(tmp_path, name), width=DESK, dark=True)
    assert browser.ask(HIDDEN) > 0
    browser.media("print")
    assert browser.until(HIDDEN, 0)
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.printed(artifacts / f"report-{name}.pdf").read_bytes().startswith(b"%PDF-")


def test_a_page_is_read_without_javascript(browser: Chromium, tmp_path: Path) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(written(tmp_path, "drift"), width=PHONE)
        browser.click(".card > summary")
        assert browser.until("document.querySelector('.card').open", wanted=True)
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_names_that_are_programs_do_nothing(browser: Chromium, tmp_path: Path) -> None:
    file = tmp_path / "hostile.html"
    for text in (*HOSTILE[:5], " ".join(HOSTILE)):
        file.write_text(render("html", *hostile(text)), encoding="utf-8")
        browser.open(file)
        assert browser.ask("document.title").startswith("Failed: chroots of /, ")
        assert browser.ask("document.querySelectorAll('script, img, iframe, object, link, base').length") == 0
        assert complaints(browser) == []


@pytest.mark.parametrize(
    "code",
    [
        "<script>document.title = 'owned'</script>",
        "<img src='data:image/gif;base64,R0lGODlhAQABAAAAACw=' onerror=\"document.title = 'owned'\">",
        "<div style='position: fixed; inset: 0'></div>",
        "<style>body { display: none }</style>",
        "<iframe src='data:text/html,x'></iframe>",
        "<link rel=stylesheet href='data:text/css,body%7Bdisplay:none%7D'>",
    ],
)
def test_the_policy_holds_where_escaping_would_fail(browser: Chromium, tmp_path: Path, code: str) -> None:
    file = written(tmp_path, "drift")
    file.write_text(file.read_text("utf-8").replace("</header>", f"{code}</header>", 1), encoding="utf-8")
    browser.open(file)
    refused = [entry["params"]["entry"]["text"] for entry in complaints(browser) if entry["method"] == "Log.entryAdded"]
    assert any("Content Security Policy" in text for text in refused), refused
    assert browser.ask("document.title").startswith("Drift: ")
    assert browser.ask("getComputedStyle(document.body).display") == "block"


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["night", "drift"])
def test_pictures(browser: Chromium, tmp_path: Path, artifacts: Path, name: str, dark: bool, width: int) -> None:
    browser.open(written(tmp_path, name), width=width, dark=dark)
    shade = "-dark" if dark else ""
    file = browser.picture(artifacts / f"report-{name}-{width}{shade}.png")
    assert file.read_bytes().startswith(b"\x89PNG")
    assert int.from_bytes(file.read_bytes()[16:20]) == width
