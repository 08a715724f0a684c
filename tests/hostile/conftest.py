"""The arena of the hostile cases, and the line that says how many of them were tried."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.hostile.arena")

from tests.hostile.arena import Arena, Tally  # noqa: E402 -- after its assertions are rewritten
from tests.hostile.counting import *  # noqa: E402, F403 -- hooks
from tests.hostile.counting import count  # noqa: E402


@pytest.fixture(scope="session")
def tally(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Tally]:
    """The counts of this process and of those that it forks."""
    counted = Tally(tmp_path_factory.mktemp("tally") / "counts")
    yield counted
    count(pytestconfig, counted.counts())


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the disk, which takes most of the time: what a power cut leaves is not what this is about."""
    monkeypatch.setattr(os, "fsync", lambda _fd: None)


@pytest.fixture
def arena(tmp_path: Path, tally: Tally) -> Arena:
    """A host with secrets and a chroot to prepare."""
    tmp_path.chmod(0o755)
    return Arena(tmp_path, tally)
