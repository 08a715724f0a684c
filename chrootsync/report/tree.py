"""An inventory as a tree with sizes and rules; what is alike in one directory is shown by examples and a count."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from chrootsync.model import FileType, Presence, Severity
from chrootsync.report.text import clean, plural

if TYPE_CHECKING:
    from chrootsync.model.explanation import Item, Mapped

BUNDLE = 8  # more names than these that are alike are shown by examples
SAMPLE = 2
LABELS = 36  # columns that names have at least, however narrow it is
GAP = "  "
KIB = 1024


@dataclass(kw_only=True, slots=True)
class _Node:
    """A name with its entries (none: a directory that is no entry itself) and what is below it."""

    items: list[Item] = field(default_factory=list)
    below: dict[str, _Node] = field(default_factory=dict)


class _Row(NamedTuple):
    """A line: its branch and name, and what stands behind them; ``stem`` goes on with the branches on a next line."""

    label: str
    size: str = ""
    rule: str = ""
    marks: str = ""
    stem: str = ""


def tree(top: str, items: Sequence[Item], width: int, *, verbose: bool) -> list[str]:
    """The lines of a tree below ``top``; with ``verbose`` each name has its own."""
    root = _Node()
    for item in items:
        node = root
        for name in item.entry.path.strip("/").split("/"):
            node = node.below.setdefault(name, _Node())
        node.items.append(item)
    return _aligned([_Row(top), *_rows(root, "", verbose=verbose)], width)


def _rows(node: _Node, indent: str, *, verbose: bool) -> Iterator[_Row]:
    """The lines below a directory."""
    rows = [
        (label, below, own)
        for names in _bundles(node, verbose=verbose)
        for label, below, own in _of_bundle(node, names)
    ]
    for index, (label, below, own) in enumerate(rows):
        last = index == len(rows) - 1
        stem = indent + ("    " if last else "│   ")
        for number, row in enumerate(own):
            first = f"{indent}{'└── ' if last else '├── '}{label}"
            yield row._replace(label=stem if number else first, stem=stem)
        if below is not None:
            yield from _rows(below, stem, verbose=verbose)


def _bundles(node: _Node, *, verbose: bool) -> list[list[str]]:
    """The names in a directory, those together that are shown as one."""
    alike: dict[object, list[str]] = {}
    for name, child in sorted(node.below.items()):
        key: object = name
        if not verbose and not child.below and len(child.items) == 1:
            key = _cells(child.items[0])[1:]
        alike.setdefault(key, []).append(name)
    found = [names if len(names) > BUNDLE else [name] for names in alike.values() for name in names]
    return sorted({names[0]: names for names in found}.values())


def _of_bundle(node: _Node, names: list[str]) -> Iterator[tuple[str, _Node | None, list[_Row]]]:
    """What is shown of names: their label, what is below it, and the rows of cells."""
    for name in names if len(names) == 1 else names[:SAMPLE]:
        yield _of_name(name, node.below[name])
    if len(names) > 1:
        others = [node.below[name].items[0] for name in names[SAMPLE:]]
        _, rule, marks = _cells(others[0])
        yield f"… {len(others)} more", None, [_Row("", _sizes(others), rule, marks)]


def _of_name(name: str, node: _Node) -> tuple[str, _Node | None, list[_Row]]:
    """A name; directories that hold nothing but another one stand on its line."""
    label = clean(name)
    while node.below and len(node.below) == 1 and not _telling(node):
        (inner, child), *_ = node.below.items()
        if not child.below:
            break
        label, node = f"{label}/{clean(inner)}", child
    if node.below:
        label += "/"
    rows = [_Row("", *_cells(item)) for item in node.items if not node.below or item.drift is not None]
    return label, node if node.below else None, rows or [_Row("")]


def _telling(node: _Node) -> bool:
    return any(item.drift is not None for item in node.items)


def _cells(item: Item) -> tuple[str, str, str]:
    """The size, the rule and the marks of an entry."""
    return _sizes([item]), clean(item.entry.rule.id), ", ".join(_marks(item))


def _marks(item: Item) -> Iterator[str]:
    entry = item.entry
    if item.drift is not None:
        weight = "" if item.drift.severity is Severity.ERROR else f" ({item.drift.severity})"
        yield f"{item.drift.kind}{weight}"
    want = entry.want
    if want is not None and want.device is not None:
        yield f"device {want.device[0]}:{want.device[1]}"
    elif want is not None and want.target is not None:
        yield f"link to {clean(want.target)}"
    elif want is not None and want.type is FileType.SOCKET and item.drift is None:
        yield "socket"
    if entry.rule.presence is Presence.IF_PRESENT:
        yield "if present"
    if entry.filtered:
        yield "without passwords"
    if item.mapped is not None and item.mapped.by:
        yield _mapped(item.mapped)


def _mapped(mapped: Mapped) -> str:
    some = bool(mapped.others or mapped.unknown)
    return f"mapped by {', '.join(map(clean, mapped.by))}" if some else "mapped before chroot"


def _aligned(rows: Sequence[_Row], width: int) -> list[str]:
    """The rows with their cells one below the other; a cell that does not fit goes to a line of its own."""
    sizes = max(len(row.size) for row in rows)
    rules = max(len(row.rule) for row in rows)
    marks = max(len(row.marks) for row in rows)
    room = max(LABELS, width - sizes - rules - marks - 3 * len(GAP))
    labels = min(max((len(row.label) for row in rows if row.rule), default=0), room)
    lines: list[str] = []
    for row in rows:
        label = row.label
        if len(label) > labels and row.rule:
            lines.append(label)
            label = row.stem
        line = f"{label:<{labels}}{GAP}{row.size:>{sizes}}{GAP}{row.rule:<{rules}}"
        if row.marks and len(line) + len(GAP) + len(row.marks) > width:
            lines += [line.rstrip(), f"{row.stem:<{labels}}{GAP}{'':>{sizes}}{GAP}{row.marks}"]
        else:
            lines.append(f"{line}{GAP}{row.marks}".rstrip())
    return lines


# --- Sums ---------------------------------------------------------------------------------------------------------


def total(items: Iterable[Item]) -> str:
    """What entries come to: ``110 files of 4.3 MiB, 3 sockets``."""
    return amount(items, directories=True)


def amount(items: Iterable[Item], *, directories: bool = False) -> str:
    """How many of each type there are; files with their size."""
    counts: dict[str, int] = {}
    listed = list(items)
    for item in listed:
        want = item.entry.want or item.entry.have
        # What has a source is a file, even where nobody could look at it.
        kind = want.type if want is not None else FileType.FILE if item.entry.source is not None else None
        word = "entry" if kind is None else kind.replace("-", " ")
        counts[word] = counts.get(word, 0) + 1
    files = counts.pop("file", 0)
    many = counts.pop("directory", 0)
    said = [f"{plural(files, 'file')} of {_sizes(listed)}"] if files else []
    if many and (directories or not (files or counts)):
        said.append(plural(many, "directory"))
    return ", ".join([*said, *(plural(count, word) for word, count in sorted(counts.items()))]) or "nothing"


def bytes_of(items: Iterable[Item]) -> int:
    """The bytes of all files among entries."""
    wanted = [item.entry.want for item in items]
    return sum(want.size or 0 for want in wanted if want is not None and want.type is FileType.FILE)


def _sizes(items: Sequence[Item]) -> str:
    """The size of files; nothing where none is a file."""
    files = [item for item in items if item.entry.want is not None and item.entry.want.size is not None]
    return size(bytes_of(files)) if files else ""


def size(count: int) -> str:
    """A size as people read it: ``163 B``, ``1.2 KiB``, ``122 KiB``."""
    if count < KIB:
        return f"{count} B"
    told, unit = count / KIB, "KiB"
    for larger in ("MiB", "GiB"):
        if round(told) < KIB:
            break
        told, unit = told / KIB, larger
    return f"{told:.1f} {unit}" if told < 100 else f"{told:.0f} {unit}"
