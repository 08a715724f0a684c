"""What all faults share: a warm chrootsync, a place that has drifted, and what becomes of it without faults."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from . import place as places
from .counting import *  # noqa: F403 -- hooks
from .place import Picture, Place
from .tracing import Call, calls
from .warm import Warm


@pytest.fixture(scope="session")
def long(request: pytest.FixtureRequest) -> bool:
    """Whether every single point is to be tried, as in make test-long."""
    return bool(request.config.getoption("--hypothesis-profile") == "long")


@dataclass(frozen=True, kw_only=True)
class Drifted:
    """A place that has drifted: what it looked like then and once it is repaired, and the calls of a repair."""

    place: Place
    template: Path = field(repr=False)
    old: Picture = field(repr=False)
    new: Picture = field(repr=False)
    calls: list[Call] = field(repr=False)

    def renew(self) -> None:
        """Let it have drifted again."""
        places.renew(self.place.base, self.template)

    def changes(self) -> list[Call]:
        """The calls that change a file system."""
        return [call for call in self.calls if call.changes]


def drifted(base: Path, warm: Warm) -> Drifted:
    """Build a place, and learn what a repair makes of it."""
    place = Place(base / "place", warm)
    place.build()
    template = base / "template"
    template.mkdir()
    for name in ("root", "state", "config", "rules"):
        places.copy(str(place.base / name), template / name)
    found = Drifted(place=place, template=template, old={}, new={}, calls=[])
    warm.load("check", "--fix", *place.arguments)
    found.renew()
    old = place.picture()
    found.renew()
    traced = calls(warm, place.log, ["check", "--fix", *place.arguments], str(place.base))
    return Drifted(place=place, template=template, old=old, new=place.picture(), calls=traced)


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """A chrootsync that has been loaded."""
    with Warm(tmp_path_factory.mktemp("warm")) as found:
        yield found


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory, warm: Warm) -> Drifted:
    """A place that has drifted, and is to be renewed before each use."""
    base = tmp_path_factory.mktemp("faults")
    os.chmod(base, 0o755)
    return drifted(base, warm)
