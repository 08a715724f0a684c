"""Says at the end of a test run how many hostile cases were tried; the workers of pytest-xdist are counted too."""

from __future__ import annotations

from typing import Any

import pytest

__all__ = ["pytest_terminal_summary", "pytest_testnodedown"]

EVENTS = ("case", "escaped", "swap", "repair")
COUNTS = pytest.StashKey[dict[str, int]]()


def count(config: pytest.Config, counts: dict[str, int]) -> None:
    """Hand in what this process has counted: to itself, or to whoever prints it."""
    output: dict[str, Any] | None = getattr(config, "workeroutput", None)
    if output is None:
        config.stash[COUNTS] = counts
    else:
        output["hostile"] = counts


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what a worker has counted, once."""
    counts = node.config.stash.setdefault(COUNTS, {})
    for event, times in getattr(node, "workeroutput", {}).pop("hostile", {}).items():
        counts[event] = counts.get(event, 0) + times


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many cases were tried, once."""
    counts = terminalreporter.config.stash.get(COUNTS, {})
    if counts:
        cases, escaped, swaps, repairs = (counts.get(event, 0) for event in EVENTS)
        line = f"hostile: {cases} cases, {escaped} escaped; racing thread: {swaps} swaps, {repairs} repairs"
        terminalreporter.write_line(line)
        counts.clear()
