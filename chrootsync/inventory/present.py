"""What a chroot holds beyond what is required, where a rule says to keep it fresh: nothing is added."""

from __future__ import annotations

import re

from chrootsync.inventory.conditions import Holding
from chrootsync.inventory.needs import Basket, NodeNeed, Origin
from chrootsync.inventory.required import nodes, paths
from chrootsync.model import FileType, LibrarySet, PathError


def gather_present(basket: Basket, held: Holding, needed: LibrarySet) -> None:
    """Put what a rule keeps fresh into the basket, as far as the chroot holds it; ``needed`` are its libraries."""
    rule = held.rule
    for path in paths(basket, held, rule.files):
        _add_file(basket, held, path, Origin(source=path, optional=True))
    for path in paths(basket, held, rule.filtered):
        _add_file(basket, held, path, Origin(source=path, filtered=True, optional=True))
    for library in needed.libraries:
        _add_file(basket, held, library.path, Origin(source=library.source, optional=True))
    for path in paths(basket, held, rule.directories):
        _add_directory(basket, held, path)
    for path, want in nodes(basket, held, rule):
        if basket.holds(held, path) and (place := basket.claim(held, path, held.because)) is not None:
            basket.others.append(NodeNeed(place=place, want=want, advice=rule.advice))


def _add_directory(basket: Basket, held: Holding, directory: str) -> None:
    """The regular files below a directory of the chroot; a directory that cannot be seen is told."""
    pattern = re.compile(held.rule.match) if held.rule.match is not None else None
    chroot = basket.jail.chroot
    pending = [directory]
    while pending:
        path = pending.pop()
        try:
            # By its own spelling: a merged /usr would otherwise be listed twice.
            names = chroot.names(path) if chroot.canonical(path) == path else []
        except PathError as error:
            basket.bar(held, error, held.because)
            continue
        for name, kind in names:
            below = f"{path.rstrip('/')}/{name}"
            if kind is FileType.DIRECTORY and pattern is None:
                pending.append(below)
            elif kind is FileType.FILE and (pattern is None or pattern.fullmatch(name)):
                place = basket.claim(held, below, held.because)
                if place is not None:
                    basket.add_file(place, Origin(source=below, optional=True))


def _add_file(basket: Basket, held: Holding, path: str, origin: Origin) -> None:
    if basket.holds(held, path) and (place := basket.claim(held, path, held.because)) is not None:
        basket.add_file(place, origin)
