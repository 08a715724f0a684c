"""Has the next files read from the disk together, where they are not in memory yet.

One file after the other, a disk answers one question at a time; asked for sixteen pairs at once it takes less than half
of the time, with no second thread. In memory that would only cost: so the first pair of each batch tells which it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import TypeVar

from chrootsync.inventory.needs import FileNeed, Need
from chrootsync.model import PathError, Reader, Trust

N = TypeVar("N", bound=Need)

BATCH = 16  # needs; more gain nothing, and what is read too early may be gone again
PLACES = 4  # of each need; of a source with a hundred copies, asking for the others measured no gain


def read_ahead(root: Reader, needs: Iterable[N], trust: Trust) -> Iterator[N]:
    """The same needs; their files are on the way where they have to be waited for."""
    batch: list[N] = []
    for need in needs:
        batch.append(need)
        if len(batch) == BATCH:
            _ask(root, batch, trust)
            yield from batch
            batch.clear()
    yield from batch


def _ask(root: Reader, batch: Sequence[Need], trust: Trust) -> None:
    files = [need for need in batch if isinstance(need, FileNeed)]
    if not files or not _has_to_wait(root, files[0], trust):
        return
    for need in files:
        try:
            with closing(root.glance(need.origin.source)) as source:
                size = None if source.state.identity is None else source.state.identity[2]
                root.will_read(source)
                for place in need.places[:PLACES]:
                    copy = place.jail.chroot.look(place.path)
                    if copy.identity is not None and copy.identity[2] == size:
                        root.will_read(copy)
        except PathError:
            continue  # what is wrong with it is told when it is compared


def _has_to_wait(root: Reader, need: FileNeed, trust: Trust) -> bool:
    """Whether a file would have to be read, and is not in memory."""
    try:
        with closing(root.glance(need.origin.source)) as source:
            place = need.places[0]
            return not trust.knows(source, place.jail.chroot.look(place.path)) and not root.is_at_hand(source)
    except PathError:
        return False
