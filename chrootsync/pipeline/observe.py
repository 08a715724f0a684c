"""What a run notices by the way: which sources there are."""

from __future__ import annotations

from collections.abc import Mapping

from chrootsync.model import Entry, FileType, Reader
from chrootsync.model.frozen import field, frozen
from chrootsync.pipeline.recall import checksum

Identity = tuple[int, ...]


@frozen
class Observed:
    """Sources with their identities, and which of them are filtered."""

    sources: dict[str, Identity] = field(default_factory=dict)
    filtered: set[str] = field(default_factory=set)

    def see(self, entry: Entry) -> None:
        """Notice one entry."""
        want = entry.want
        if entry.source is not None and want is not None and want.type is FileType.FILE and want.identity is not None:
            self.sources[entry.source] = want.identity
            if entry.filtered:
                self.filtered.add(entry.source)


def new_checksums(root: Reader, observed: Observed, known: Mapping[str, Identity]) -> dict[str, tuple[Identity, str]]:
    """The checksums of all sources that are not the ones whose checksums are ``known``."""
    found = {}
    for source, identity in observed.sources.items():
        if known.get(source) == identity:
            continue
        digest = checksum(root, source, filtered=source in observed.filtered, identity=identity)
        if digest is not None:
            found[source] = (identity, digest)
    return found
