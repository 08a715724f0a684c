"""Reports: one pure renderer a format, all listed in one dict.

A renderer is a module with ``render(report, options) -> str``. It touches nothing and asks nobody: what it says
depends on its arguments alone. It is imported when its format is asked for, so that a plain report loads no rich. What
it returns ends in a newline, and UTF-8 can encode it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, cast

from chrootsync.model.frozen import field, frozen

if TYPE_CHECKING:
    from chrootsync.model import Report
    from chrootsync.report.history import History


@frozen
class Options:
    """How a report is shown; a renderer ignores what its format has no use for.

    ``width`` is in columns. ``verbose`` 1 adds to every drift its rule, what led there and both states, and shows what
    is merely information. ``strict`` makes warnings count as drift. ``diffs`` holds unified differences by (instance
    name, path inside the chroot), only of files that everybody may read. ``compared`` holds the paths of all entries
    by instance name, for formats of LISTING alone; ``history`` the last repairs, for formats of RETROSPECTIVE alone.
    """

    width: int = 80
    color: bool = False
    verbose: int = 0
    strict: bool = False
    diffs: Mapping[tuple[str, str], str] = field(default_factory=dict)
    compared: Mapping[str, Collection[str]] = field(default_factory=dict)
    history: History | None = None


FORMATS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "table": "chrootsync.report.table",
        "plain": "chrootsync.report.plain",
        "json": "chrootsync.report.json",
        "junit": "chrootsync.report.junit",
        "sarif": "chrootsync.report.sarif",
        "github": "chrootsync.report.github",
        "nagios": "chrootsync.report.nagios",
        "prometheus": "chrootsync.report.prometheus",
        "html": "chrootsync.report.html",
    }
)

LISTING: Final = frozenset({"junit"})
"""The formats that list every entry, be it in sync or not."""

RETROSPECTIVE: Final = frozenset({"html"})
"""The formats that tell of earlier repairs; these cost a look into the state database."""


def renderer(name: str) -> Callable[[Report, Options], str]:
    """The renderer of a format; KeyError for a name that is not in FORMATS."""
    return cast("Callable[[Report, Options], str]", import_module(FORMATS[name]).render)


def render(name: str, report: Report, options: Options | None = None) -> str:
    """The report in a format of FORMATS, with a newline at its end."""
    return renderer(name)(report, options or Options())
