"""Where repairs put something, in a small file beside the state, so that a check in sync need not open the database.

It is a hint: what it names is looked up in the database, which decides. Where it is lost, a check tells of nothing that
is needed no more, until the next repair writes it anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chrootsync.state.cache import Store

NAME = "places"
FORMAT = "1"

Places = Mapping[str, Mapping[str, Sequence[str]]]
"""By root (its real path) and chroot the paths where something was put."""


def read(store: Store, root: str) -> dict[str, list[str]]:
    """By chroot of a root, where something was put; empty where nothing can be told."""
    known = store.get(NAME, FORMAT)
    chroots = known.get(root) if isinstance(known, dict) else None
    if not isinstance(chroots, dict):
        return {}
    return {
        str(chroot): [path for path in paths if isinstance(path, str)]
        for chroot, paths in chroots.items()
        if isinstance(paths, list)
    }


def write(store: Store, places: Places) -> None:
    """Let the hint say this of every root, if it does not already."""
    known = store.get(NAME, FORMAT)
    if known != places and (places or known is not None):
        store.put_on_disk(NAME, FORMAT, places)
