"""What a pass is told, and what it tells when it has ended."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from chrootsync.watch.places import Places


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What a pass tells the watcher; everything is for people or for the watcher's clock.

    ``status`` is one clause on how things are; ``problems`` are sentences on what kept the pass from its work, or from
    using the rules and the configuration that are there now. ``places`` are what to watch from now on. ``retry`` asks
    for another pass before long, ``reload_in`` for one in so many seconds. The settings are None where they could not
    be read. ``logged`` stands for what is the matter for longer and was logged; the next pass gets it as its word.
    ``version`` is that of the chrootsync that made the pass.
    """

    status: str
    places: Places
    logged: str = ""
    version: str = ""
    problems: tuple[str, ...] = ()
    retry: bool = False
    reload_in: float | None = None
    settle: float | None = None
    maximum: float | None = None
    interval: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Where:
    """The options of the watcher, which it hands to each pass."""

    config: str | None = None
    rules: str | None = None
    state: str | None = None

    def options(self) -> list[str]:
        """The options as arguments."""
        named = (("--config", self.config), ("--rules", self.rules), ("--state", self.state))
        return [f"{option}={path}" for option, path in named if path is not None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """How a pass is started, and with which variables beside the usual few."""

    interpreter: str
    where: Where
    environment: Mapping[str, str] = field(default_factory=dict)

    def arguments(self, word: int, report: int) -> Sequence[str]:
        """The arguments of one that reads its word from, and writes its report to, these descriptors."""
        ours = ("-I", "-m", "chrootsync", "watch-pass", f"--word={word}", f"--report={report}")
        return [self.interpreter, *ours, *self.where.options()]


def written(told: Told) -> bytes:
    """A pass's report as bytes."""
    content = asdict(told)
    content["places"] = {
        directory: None if names is None else sorted(names) for directory, names in told.places.items()
    }
    return json.dumps(content).encode("ascii")  # names that are no text are escaped surrogates there


def read(data: bytes) -> Told | None:
    """A pass's report; None where it is none. One of another version may know more, which is left out."""
    try:
        content = json.loads(data)
        places = {
            str(directory): None if names is None else frozenset(map(str, names))
            for directory, names in content["places"].items()
        }
        seconds = {name: _seconds(content.get(name)) for name in ("reload_in", "settle", "maximum", "interval")}
        return Told(
            status=str(content["status"]),
            places=places,
            logged=str(content.get("logged", "")),
            version=str(content.get("version", "")),
            problems=tuple(map(str, content["problems"])),
            retry=bool(content["retry"]),
            **seconds,
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
