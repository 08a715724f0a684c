"""Counts the faults that a test run has tried, and says so at its end; pytest-xdist's workers are counted too."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

__all__ = ["pytest_configure", "pytest_sessionfinish", "pytest_terminal_summary", "pytest_testnodedown", "tried"]

WORDS = {
    "kill": "kills",
    "error": "errors",
    "double": "double faults",
    "cut": "power cuts",
    "full": "full file systems",
    "example": "examples",
}
COUNTS = pytest.StashKey[Counter[str]]()
_tried: Counter[str] = Counter()


def tried(what: str, *, bad: bool = False) -> None:
    """Count one fault; ``bad``: what it left behind was not what it may leave."""
    _tried[what] += 1
    _tried["bad"] += bad


def pytest_configure(config: pytest.Config) -> None:
    """Have a place for what the workers count."""
    config.stash.setdefault(COUNTS, Counter())


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send what this worker has counted to whoever prints it."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["faults"] = dict(_tried)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what a worker has counted, once."""
    node.config.stash[COUNTS].update(getattr(node, "workeroutput", {}).pop("faults", {}))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many faults were tried, once."""
    counts = terminalreporter.config.stash[COUNTS]
    counts.update(_tried)
    _tried.clear()
    if counts:
        said = ", ".join(f"{counts[key]} {word}" for key, word in WORDS.items() if counts[key])
        terminalreporter.write_line(f"faults: {said}: {counts['bad']} with damage")
        counts.clear()
