"""Looks at what is wanted and at what is there of directories, devices, links and sockets: what has no source."""

from __future__ import annotations

from chrootsync.inventory.needs import NodeNeed, Place, entry_at, inside, occupied, problem_of
from chrootsync.inventory.owning import Owning
from chrootsync.model import Entry, FileType, PathError, Problem, Reader, State, UnsafeError
from chrootsync.model.frozen import replace


class NodeLooker:
    """Turns needs of nodes into entries with their states."""

    def __init__(self, root: Reader, owning: Owning) -> None:
        """Look through ``root``."""
        self._root = root
        self._owning = owning

    def look(self, need: NodeNeed) -> Entry:
        """The entry of one need."""
        return replace(self._node(need.place, need.want), advice=need.advice)

    def _node(self, place: Place, want: State) -> Entry:
        entry = entry_at(place, None)
        if want.type is FileType.SOCKET:
            return self._socket(entry, place, want)
        try:
            have = place.jail.chroot.look(place.path).state
            taken = have is not None and have.type is FileType.DIRECTORY and want.type is not FileType.DIRECTORY
            if taken and place.jail.chroot.names(place.path):
                return replace(entry, problem=occupied(want.type))
        except PathError as error:
            return replace(entry, problem=problem_of(error, place))
        whole = self._wanted(place, want)
        if isinstance(whole, Problem):
            return replace(entry, problem=whole)
        return replace(entry, want=self._owning.owned(whole, have), have=have)

    def _socket(self, entry: Entry, place: Place, want: State) -> Entry:
        """A socket, or what stands in its place; where only others than root could have laid the way, nothing does."""
        chroot = place.jail.chroot
        try:
            if chroot.has_socket(place.path):
                return replace(entry, want=want, have=want)
            have = chroot.look(place.path).state
        except UnsafeError:
            have = None
        except PathError as error:
            return replace(entry, problem=problem_of(error, place))
        return replace(entry, want=want, have=have)

    def _wanted(self, place: Place, want: State) -> State | Problem:
        """What is wanted of a node in full: the rule's owner and group, a directory's mode as the host has it."""
        numbers = self._owning.numbers(place.rule)
        if isinstance(numbers, Problem):
            return numbers
        if want.type is FileType.DIRECTORY:
            return self._directory(place, want, numbers[1])
        # A link's mode and group mean nothing (symlink(7)); its owner tells whether it may be followed.
        return replace(want, uid=numbers[0], gid=None if want.type is FileType.LINK else numbers[1])

    def _directory(self, place: Place, want: State, gid: int) -> State | Problem:
        """A directory as the host has it, without write for others; the rule's group where the host's has that too."""
        usual = replace(want, mode=0o755, uid=0, gid=0)
        try:
            source = self._root.source(place.path)
        except PathError:
            return usual
        try:
            if source.state.type is not FileType.DIRECTORY:
                return usual
            mode = (source.state.mode or 0) & 0o755
            return inside(source, place) or replace(usual, mode=mode, gid=gid if gid == source.state.gid else 0)
        finally:
            source.close()
