"""Instances and files at a glance: what drifted where, each mark leading to its card.

The longer of the two goes down the page, where there is room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from chrootsync.model import Kind, Severity
from chrootsync.model.frozen import frozen
from chrootsync.report import text
from chrootsync.report.html.cards import STATUSES, Card
from chrootsync.report.kinds import MEANINGS

if TYPE_CHECKING:
    from chrootsync.model import InstanceReport

ROWS: Final = 300
COLUMNS: Final = 60
"""A larger matrix tells nobody anything at a glance."""

ROOMY: Final = 6
"""Up to so many columns there is room for words."""

SIGNS: Final[Mapping[Kind, str]] = MappingProxyType(
    {
        Kind.MISSING: "Mi",
        Kind.OUTDATED: "Ou",
        Kind.MODIFIED: "Mo",
        Kind.DIFFERS: "Di",
        Kind.METADATA: "Me",
        Kind.TYPE: "Ty",
        Kind.ORPHAN: "Or",
        Kind.BAD_SOURCE: "Bs",
        Kind.BAD_INSTANCE: "Bi",
        Kind.UNREADABLE: "Ur",
        Kind.UNRESOLVED: "Ul",
        Kind.UNREACHABLE: "Uc",
        Kind.UNSAFE: "Us",
        Kind.CONTESTED: "Co",
        Kind.HELD: "He",
        Kind.STALE_PROCESS: "Sp",
    }
)
"""Colours are not for everybody, and words do not fit on a phone."""

Grid = Mapping[str, Mapping[int, Sequence[Card]]]
"""Cards by what they are found under, and by the place of their instance in the report."""


@frozen
class Mark:
    """A card in the matrix; ``linked``: it is told further down."""

    card: Card
    sign: str
    label: str
    linked: bool


@frozen
class Head:
    """The head of a row or column; ``anchor`` names the section of an instance, empty for a file."""

    label: str
    anchor: str


@frozen
class Matrix:
    """The matrix, its caption and its legend: signs with their kinds, and signs of outcomes."""

    corner: str
    columns: tuple[Head, ...]
    rows: tuple[tuple[Head, tuple[tuple[Mark, ...], ...]], ...]
    roomy: bool
    caption: str
    kinds: tuple[tuple[Kind, str, str], ...]
    outcomes: tuple[tuple[str, str], ...]


def matrix(instances: Sequence[InstanceReport], told: Sequence[Sequence[Card]], kept: frozenset[int]) -> Matrix | None:
    """The matrix of all that weighs something; None where nothing does."""
    grid = _grid(told)
    if not grid:
        return None
    hit = sorted({place for cells in grid.values() for place in cells})
    paths = sorted(grid, key=lambda path: (_rank(grid[path]), -len(grid[path]), path))
    down = len(paths) >= len(hit) or len(hit) <= ROOMY
    files, places = (paths[:ROWS], hit[:COLUMNS]) if down else (paths[:COLUMNS], hit[:ROWS])
    heads = {place: _head(place, instances[place], told[place], kept) for place in places}

    def cell(path: str, place: int) -> tuple[Mark, ...]:
        return tuple(_mark(card, heads[place].label, kept) for card in grid[path].get(place, ()))

    by_file = tuple((Head(label=path, anchor=""), tuple(cell(path, place) for place in places)) for path in files)
    by_instance = tuple((heads[place], tuple(cell(path, place) for path in files)) for place in places)
    shown = [card for path in files for place in places for card in grid[path].get(place, ())]
    return Matrix(
        corner="file" if down else "instance",
        columns=tuple(heads.values()) if down else tuple(Head(label=path, anchor="") for path in files),
        rows=by_file if down else by_instance,
        roomy=len(places if down else files) <= ROOMY,
        caption=_caption(instances, hit=len(hit), paths=len(paths), places=len(places), files=len(files)),
        kinds=tuple(
            (kind, SIGNS[kind], MEANINGS[kind].text) for kind in Kind if any(card.kind is kind for card in shown)
        ),
        outcomes=tuple(
            (sign, str(status)) for status, (sign, _) in STATUSES.items() if any(card.mark == sign for card in shown)
        ),
    )


def _head(place: int, instance: InstanceReport, found: Sequence[Card], kept: frozenset[int]) -> Head:
    """The name of an instance; it leads further down where something of it is told there."""
    told = any(card.number in kept for card in found)
    return Head(label=text.clean(instance.instance.name), anchor=f"i{place}" if told else "")


def _grid(told: Sequence[Sequence[Card]]) -> Grid:
    grid: dict[str, dict[int, list[Card]]] = {}
    for place, found in enumerate(told):
        for card in found:
            if card.severity is not Severity.INFO or card.mark:
                grid.setdefault(card.row, {}).setdefault(place, []).append(card)
    return grid


def _rank(cells: Mapping[int, Sequence[Card]]) -> tuple[bool, int]:
    return min(card.rank for cards in cells.values() for card in cards)


def _mark(card: Card, name: str, kept: frozenset[int]) -> Mark:
    what = f"{card.kind} ({card.severity}): {card.row} in {name}"
    return Mark(
        card=card,
        sign=SIGNS[card.kind],
        label=f"{what}, {card.end}" + (f", {card.count} files" if card.count > 1 else ""),
        linked=card.number in kept,
    )


def _caption(instances: Sequence[InstanceReport], *, hit: int, paths: int, places: int, files: int) -> str:
    """What is in the matrix, what is not, and why."""
    said = [f"{text.plural(paths, 'path')} in {hit} of {text.plural(len(instances), 'instance')}"]
    if hit < len(instances):
        rest = len(instances) - hit
        said.append(f"{text.plural(rest, 'instance')} without drift {'is' if rest == 1 else 'are'} left out")
    if files < paths or places < hit:
        said.append(f"only the worst {text.plural(files, 'path')} and {text.plural(places, 'instance')} are shown")
    return "; ".join(said) + ". An empty cell: in sync there, or not needed."
