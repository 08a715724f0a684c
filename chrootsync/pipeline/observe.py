"""What a run notices by the way: which sources there are, and how new the copies are that daemons read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chrootsync.model import Entry, FileType, Instance, OnChange, Reader, Record
from chrootsync.pipeline.recall import checksum

Identity = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Observed:
    """Sources with their identities, which of them are filtered, and by instance the newest ctime of a copy (ns)."""

    sources: dict[str, Identity] = field(default_factory=dict)
    filtered: set[str] = field(default_factory=set)
    newest: dict[str, int] = field(default_factory=dict)

    def see(self, entry: Entry) -> None:
        """Notice one entry."""
        want, have, name = entry.want, entry.have, entry.instance.name
        if entry.source is not None and want is not None and want.type is FileType.FILE and want.identity is not None:
            self.sources[entry.source] = want.identity
            if entry.filtered:
                self.filtered.add(entry.source)
        if have is not None and have.identity is not None and _is_read(entry):
            self.newest[name] = max(self.newest.get(name, 0), have.identity[4])


def _is_read(entry: Entry) -> bool:
    """Whether daemons read it once, so that a newer one is not seen before a reload."""
    return entry.rule.on_change is not OnChange.NOTHING and entry.source is not None


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


def suspect(observed: Observed, instances: Sequence[Instance], records: Mapping[str, Record]) -> dict[str, Record]:
    """The records without a memory of earlier repairs: a reload is due where a copy is newer than the daemons.

    Whether it is, is looked at before each reload (``reload.still_due``), where a process tells when it began.
    """
    found = dict(records)
    for instance in instances:
        ctime = observed.newest.get(instance.name)
        if instance.control.pid_file is not None and ctime is not None and instance.name not in found:
            found[instance.name] = Record(pending=True, since=ctime / 1e9)
    return found
