"""What a mirrored directory of the chroot holds beyond the host's: a certificate that is trusted no more."""

from __future__ import annotations

import re

from chrootsync.inventory.needs import Basket, Mirror, SurplusNeed
from chrootsync.model import FileType, Kind, PathError


def add_surplus(basket: Basket) -> None:
    """Put what is beyond all mirrored directories into the basket, once everything that is required is in it."""
    for mirror in basket.mirrors:
        _add_surplus(basket, mirror)


def _add_surplus(basket: Basket, mirror: Mirror) -> None:
    held, directory = mirror.held, mirror.directory.rstrip("/")
    pattern = re.compile(held.rule.match or ".*", re.DOTALL)
    try:
        names = basket.jail.chroot.names(mirror.directory)
        beyond = [
            name
            for name, kind in names
            if name not in mirror.there and kind is not FileType.DIRECTORY and pattern.fullmatch(name)
        ]
        used = _led_to(basket, directory, [name for name, kind in names if kind is FileType.LINK]) if beyond else set()
    except PathError as error:
        basket.bar(held, error, f"leads to {mirror.directory}")
        return
    for name in beyond:
        place = None if name in used else basket.claim(held, f"{directory}/{name}", held.because)
        if place is None:
            continue
        if mirror.there:
            basket.others.append(SurplusNeed(place=place))
        else:
            # It may be in the middle of being filled anew, as by update-ca-certificates.
            reason = "the host has no such file any more; kept, since the host's directory has none at all that matches"
            basket.tell(held, place.path, Kind.ORPHAN, reason)


def _led_to(basket: Basket, directory: str, links: list[str]) -> set[str]:
    """The names that needed links of a directory lead to beside them. Raises PathError."""
    used = set()
    for name in links:
        path = f"{directory}/{name}"
        if basket.jail.is_named(path):
            state = basket.jail.chroot.look(path).state
            used.add("" if state is None else state.target or "")
    return used
