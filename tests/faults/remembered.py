"""What is remembered of repairs, held against what is there: no change is made up, none is forgotten, none is lost."""

from __future__ import annotations

import hashlib
import json
import stat
from typing import Any

from .place import Picture, Place, Thing

TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFCHR: "character-device",
    stat.S_IFIFO: "fifo",
}
BUILT = 1  # the number of the repair that filled the chroots


def lies(place: Place, old: Picture, new: Picture) -> list[str]:
    """What is wrong with the history after everything was repaired that was ``old`` and is ``new``."""
    ended = place.warm.run("history", "--limit", "0", "--format", "json", *place.arguments)
    if ended.code != 0:
        return [f"history ended {ended.code}: {ended.output[-300:]}{ended.errors}"]
    repairs = json.loads(ended.output)["repairs"]
    wrong = [f"repair {repair['id']} never ended" for repair in repairs if not repair["finished"]]
    told = changes([repair for repair in repairs if repair["id"] > BUILT])
    wrong += [f"history has {path} as {after}" for path, after in told.items() if not is_told(new.get(path), after)]
    changed = [path for path in sorted({*old, *new}) if old.get(path) != new.get(path)]
    wrong += [f"history forgot {path}" for path in changed if path not in told and not is_directory(new.get(path))]
    return wrong


def changes(repairs: list[dict[str, Any]]) -> dict[str, dict[str, Any] | None]:
    """What was put at each path last, as the history has it; repairs come newest first."""
    found: dict[str, dict[str, Any] | None] = {}
    for repair in reversed(repairs):
        for instance in repair["instances"]:
            for change in instance["changes"]:
                if change["outcome"]["status"] == "repaired":
                    found[instance["chroot"] + change["path"]] = change["after"]
    return found


def is_told(thing: Thing | None, after: dict[str, Any] | None) -> bool:
    """Whether something is what the history says that it is."""
    if thing is None or after is None:
        return thing is None and after is None
    same = bool(after["type"] == TYPES[thing.kind])
    if stat.S_ISREG(thing.kind):
        same = same and after["sha256"] in (None, hashlib.sha256(thing.contents or b"").hexdigest())
    if stat.S_ISLNK(thing.kind):
        return same and bool(after["target"] == (thing.contents or b"").decode())
    return same and int(after["mode"], 8) == thing.mode


def is_directory(thing: Thing | None) -> bool:
    """Whether something is a directory: where a run is cut short, nobody knows which of them it has made."""
    return thing is not None and stat.S_ISDIR(thing.kind)


def lost(place: Place, old: Picture, new: Picture) -> list[str]:
    """The files that were replaced and whose contents are nowhere any more."""
    kept = {path.read_bytes() for path in place.state.rglob("*") if path.is_file()}
    return [
        f"what {path} held is lost"
        for path, thing in old.items()
        if stat.S_ISREG(thing.kind) and thing != new.get(path) and thing.contents not in {*kept, contents(new, path)}
    ]


def contents(picture: Picture, path: str) -> bytes | None:
    """The contents that a path has."""
    thing = picture.get(path)
    return None if thing is None else thing.contents
