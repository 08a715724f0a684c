"""Looks at what is wanted and at what is there, one source at a time."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import assert_never

from chrootsync import accounts, compare
from chrootsync.inventory.needs import FileNeed, Need, NodeNeed, Place, ProblemNeed, SurplusNeed, problem_of
from chrootsync.model import (
    AbsentError,
    Chroot,
    Copy,
    Entry,
    FileType,
    Kind,
    PathError,
    Problem,
    Reader,
    Rule,
    Source,
    State,
    UnsafeError,
)

GUARDED_LIMIT = 1 << 20  # bytes of a source whose guard wants to see all of it


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    """An entry as far as it is established, its copy to read, and the link that led to that copy, if any."""

    entry: Entry
    copy: Copy | None = None
    link: State | None = None


class Looker:
    """Turns needs into entries with their states."""

    def __init__(self, root: Reader) -> None:
        """Look through ``root``."""
        self._root = root

    def look(self, need: Need) -> Iterator[Entry]:
        """The entries of one need."""
        match need:
            case ProblemNeed():
                yield self._entry(need.place, None, problem=need.problem)
            case NodeNeed():
                yield replace(self._node(need.place, need.want), advice=need.advice)
            case SurplusNeed():
                yield from self._surplus(need.place)
            case FileNeed():
                yield from self._files(need)
            case _:
                assert_never(need)

    def _entry(self, place: Place, source: str | None, *, problem: Problem | None = None) -> Entry:
        return Entry(
            instance=place.jail.instance,
            rule=place.rule,
            path=place.path,
            source=source,
            because=place.because,
            severity=place.severity,
            problem=problem,
            evidence=place.evidence,
        )

    # --- Directories, devices, links, sockets ---

    def _node(self, place: Place, want: State) -> Entry:
        entry = self._entry(place, None)
        if want.type is FileType.SOCKET:
            return self._socket(entry, place, want)
        try:
            have = place.jail.chroot.look(place.path).state
            occupied = have is not None and have.type is FileType.DIRECTORY and want.type is not FileType.DIRECTORY
            if occupied and place.jail.chroot.names(place.path):
                return replace(entry, problem=_occupied(want.type))
        except PathError as error:
            return replace(entry, problem=problem_of(error, place))
        whole = self._node_want(place, want)
        if isinstance(whole, Problem):
            return replace(entry, problem=whole)
        return replace(entry, want=self._owned(whole, have), have=have)

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

    def _node_want(self, place: Place, want: State) -> State | Problem:
        """What is wanted of a node in full: the rule's owner and group, a directory's mode as the host has it."""
        numbers = self._numbers(place.rule)
        if isinstance(numbers, Problem):
            return numbers
        if want.type is FileType.DIRECTORY:
            return self._directory_want(place, want, numbers[1])
        # A link's mode and group mean nothing (symlink(7)); its owner tells whether it may be followed.
        return replace(want, uid=numbers[0], gid=None if want.type is FileType.LINK else numbers[1])

    def _directory_want(self, place: Place, want: State, gid: int) -> State | Problem:
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
            return self._inside(source, place) or replace(usual, mode=mode, gid=gid if gid == source.state.gid else 0)
        finally:
            source.close()

    def _owned(self, want: State, have: State | None) -> State:
        """Who runs this counts as root, as for the walk: where that is not root, nothing can be given to root."""
        own = max(self._root.owners)
        if own == 0:
            return want
        uid = have.uid if have is not None and have.uid in self._root.owners else own
        return replace(want, uid=uid if want.uid == 0 else want.uid, gid=None if want.gid == 0 else want.gid)

    # --- What should not be there ---

    def _surplus(self, place: Place) -> Iterator[Entry]:
        entry = replace(self._entry(place, None), surplus=True)
        try:
            copy = place.jail.chroot.look(place.path)
        except PathError as error:
            yield replace(entry, problem=problem_of(error, place))
            return
        have = copy.state
        if have is not None and have.type is FileType.FILE and (have.mode or 0) & 0o004:
            have = replace(have, sha256=self._root.sha256(copy))
        yield replace(entry, have=have)

    # --- Files ---

    def _files(self, need: FileNeed) -> Iterator[Entry]:
        try:
            source = self._root.source(need.origin.source)
        except AbsentError as error:
            if not need.origin.optional:
                yield from self._bad_source(need, Problem(kind=Kind.BAD_SOURCE, reason=f"the source {error.reason}"))
            return
        except PathError as error:
            yield from self._bad_source(
                need, Problem(kind=Kind.UNREADABLE, reason=f"the source cannot be seen: {error}")
            )
            return
        try:
            if need.origin.optional and not _readable_file(source):
                return
            problem = self._prepare(source, need)
            if problem is not None:
                yield from self._bad_source(need, problem)
                return
            yield from self._copies(source, need)
        finally:
            source.close()

    def _bad_source(self, need: FileNeed, problem: Problem) -> Iterator[Entry]:
        for place in need.places:
            yield self._entry(place, need.origin.source, problem=problem)

    def _prepare(self, source: Source, need: FileNeed) -> Problem | None:
        """Make a source ready for comparing: what is wrong with it as such, whoever needs it."""
        if source.state.type is not FileType.FILE:
            return Problem(kind=Kind.BAD_SOURCE, reason=f"the source is a {source.state.type}, not a file")
        try:
            if need.origin.filtered:
                accounts.hide_passwords(source)
            elif any(place.rule.guard is not None for place in need.places):
                source.stand_in(source.contents(GUARDED_LIMIT))
            source.readers()
        except PathError as error:
            return Problem(kind=Kind.UNREADABLE, reason=f"the source cannot be read: {error.reason}")
        return None

    def _copies(self, source: Source, need: FileNeed) -> Iterator[Entry]:
        """One entry for each place; contents are compared where sizes are equal, all of them in one reading."""
        seen = [self._compare_state(source, place, need) for place in need.places]
        if need.origin.optional:
            seen = [one for one in seen if self._covered(one.entry)]
        alike = [(index, one.copy) for index, one in enumerate(seen) if one.copy is not None and _same_size(one.entry)]
        results = self._root.same(source, [copy for _, copy in alike])
        for (index, _), result in zip(alike, results, strict=True):
            told = {"problem": result} if isinstance(result, Problem) else {"same": result}
            seen[index] = replace(seen[index], entry=replace(seen[index].entry, **told))
        for one in seen:
            entry = one.entry
            if one.link is not None and not compare.in_sync(entry):
                entry = replace(entry, have=one.link, same=None)
            yield self._with_checksums(entry, source, one.copy)

    def _compare_state(self, source: Source, place: Place, need: FileNeed) -> _Seen:
        entry = replace(self._entry(place, need.origin.source), filtered=need.origin.filtered)
        chroot = place.jail.chroot
        link = None
        try:
            copy = chroot.look(place.path)
            beside = self._beside(chroot, copy)
            if beside is not None:
                link, copy = copy.state, beside
            if copy.state is not None and copy.state.type is FileType.DIRECTORY and chroot.names(place.path):
                return _Seen(entry=replace(entry, problem=_occupied(FileType.FILE)))
        except PathError as error:
            return _Seen(entry=replace(entry, problem=problem_of(error, place)))
        problem = _unfit(source, place.rule, copy.state) or self._inside(source, place) or _is_itself(source, copy)
        want = self._want(source, place.rule, copy.state)
        if isinstance(want, Problem):
            return _Seen(entry=replace(entry, problem=problem or want))
        return _Seen(entry=replace(entry, want=want, have=copy.state, problem=problem), copy=copy, link=link)

    def _beside(self, chroot: Chroot, copy: Copy) -> Copy | None:
        """The file that a link of root's leads to in its own directory; None for whatever is no such link.

        Debian's configure-instance.sh copies certificates and makes such links to them, jailkit copies libraries with
        theirs: a daemon sees the right contents, and replacing them would only begin a tug-of-war.
        """
        link = copy.state
        if link is None or link.type is not FileType.LINK or link.uid not in self._root.owners or not link.target:
            return None
        if "/" in link.target or link.target in (".", ".."):
            return None
        found = chroot.look(f"{os.path.dirname(copy.path)}/{link.target}")
        return found if found.state is not None and found.state.type is FileType.FILE else None

    def _covered(self, entry: Entry) -> bool:
        """Whether an if-present rule speaks of this: root's own files only, not what a daemon made for itself."""
        if entry.problem is not None:
            return True
        return entry.have is not None and entry.have.type is FileType.FILE and entry.have.uid in self._root.owners

    def _inside(self, source: Source, place: Place) -> Problem | None:
        if not place.jail.chroot.holds(source.path):
            return None
        reason = f"the source {source.path} lies inside the chroot itself, so that a copy would overwrite it"
        return Problem(kind=Kind.UNSAFE, reason=f"{reason}; put the original outside")

    def _want(self, source: Source, rule: Rule, have: State | None) -> State | Problem:
        numbers = self._numbers(rule)
        if isinstance(numbers, Problem):
            return numbers
        uid, gid = numbers
        want = State(
            type=FileType.FILE,
            mode=copy_mode(source, rule.mode, uid, gid),
            uid=uid,
            gid=gid,
            size=source.state.size if source.data is None else len(source.data),
            identity=source.state.identity,
        )
        return self._owned(want, have)

    def _numbers(self, rule: Rule) -> tuple[int, int] | Problem:
        """The user and the group that a rule gives its copies to; root's where it says nothing."""
        uid = self._number(self._users, rule.owner)
        gid = self._number(self._groups, rule.group)
        if uid is None or gid is None:
            name = rule.owner if uid is None else rule.group
            return Problem(kind=Kind.METADATA, reason=f"its rule wants it to belong to {name}, who is not known here")
        return uid, gid

    def _number(self, known: dict[str, int], name: str | None) -> int | None:
        if name is None:
            return 0
        return int(name) if name.isdigit() else known.get(name)

    @cached_property
    def _users(self) -> dict[str, int]:
        return accounts.known(self._root, "/etc/passwd")

    @cached_property
    def _groups(self) -> dict[str, int]:
        return accounts.known(self._root, "/etc/group")

    def _with_checksums(self, entry: Entry, source: Source, copy: Copy | None) -> Entry:
        """Checksums of both sides of what drifted, where everybody may know them anyway."""
        if entry.want is None or compare.in_sync(entry) or not (source.state.mode or 0) & 0o004:
            return entry
        entry = replace(entry, want=replace(entry.want, sha256=self._root.sha256(source)))
        # What was looked at may be what a link leads to, and the link's own mode says nothing.
        if copy is None or copy.state is None or entry.have is None or not (copy.state.mode or 0) & 0o004:
            return entry
        if entry.have.type is not FileType.FILE:
            return entry
        return replace(entry, have=replace(entry.have, sha256=self._root.sha256(copy)))


def copy_mode(source: Source, mode: int | None, uid: int, gid: int) -> int:
    """The mode of a copy: the source's or the rule's, never more readable than the source, never set-id.

    For an owner or a group other than the source's (root aside) no more is granted than to everybody.
    """
    readers = source.readers() & 0o777
    others = readers & 0o007
    wanted = readers if mode is None else mode & (readers | 0o700)
    if gid != source.state.gid:
        # Who was in the source's group is now among the others, and may have been shut out on purpose.
        wanted &= ~0o007 | (readers >> 3 & 0o007)
    if gid not in (0, source.state.gid):
        wanted &= ~0o070 | others << 3
    if uid not in (0, source.state.uid):
        wanted &= ~0o700 | others << 6
    return wanted & 0o755


def _is_itself(source: Source, copy: Copy) -> Problem | None:
    """A copy that is its own source, by a mount: what is done to the one is done to the other."""
    there = copy.state
    if there is None or there.identity is None or source.state.identity is None:
        return None
    if there.identity[:2] != source.state.identity[:2]:
        return None
    reason = f"this is the source {source.path} itself, by a mount; unmount it, and check --fix makes a copy"
    return Problem(kind=Kind.UNSAFE, reason=reason)


def _readable_file(source: Source) -> bool:
    return source.state.type is FileType.FILE and bool((source.state.mode or 0) & 0o004)


def _same_size(entry: Entry) -> bool:
    want, have = entry.want, entry.have
    if entry.problem is not None or want is None or have is None:
        return False
    return have.type is FileType.FILE and have.size == want.size


def _unfit(source: Source, rule: Rule, have: State | None) -> Problem | None:
    """Why a source must not replace a copy: it is empty, or fails the rule's guard."""
    if have is not None and have.size and not source.state.size:
        return Problem(kind=Kind.BAD_SOURCE, reason="the source is empty; the copy is kept")
    if rule.guard is not None and source.data is not None:
        text = source.data.decode("utf-8", "surrogateescape")
        if re.search(rule.guard.matches, text, re.MULTILINE) is None:
            reason = f"the source has no line that matches {rule.guard.matches}"
            return Problem(kind=Kind.BAD_SOURCE, reason=f"{reason}; the copy is kept" if have else reason)
    return None


def _occupied(want: FileType) -> Problem:
    reason = f"a directory that is not empty stands where a {want} should; move it away"
    return Problem(kind=Kind.TYPE, reason=reason)
