"""Looks at files and their copies: what is wanted, what is there, and whether the contents are the same."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence

from chrootsync import accounts, compare
from chrootsync.inventory.needs import FileNeed, Origin, Place, entry_at, entry_of, inside, occupied, problem_of
from chrootsync.inventory.owning import Owning
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
    ReplacedError,
    Rule,
    Source,
    State,
    Trust,
)
from chrootsync.model.frozen import record, replace

GUARDED_LIMIT = 1 << 20  # bytes of a source whose guard wants to see all of it
ATTEMPTS = 3  # looks at a source that is replaced meanwhile


class NoTrust:
    """Knows of no pair that it is in sync: then bytes are compared."""

    def knows(self, _source: Source, _copy: Copy) -> bool:
        """Nothing is known."""
        return False

    def learn(self, _source: Source, _copy: Copy) -> None:
        """Nothing is noted."""

    def news(self) -> list[bytes]:
        """Nothing was noted."""
        return []

    def believe(self, _news: Sequence[bytes]) -> None:
        """Nothing is believed."""


NO_TRUST = NoTrust()


@record
class _Draft:
    """What becomes an entry, as far as it is established: its copy to read, and the link that led to it, if any."""

    place: Place
    copy: Copy | None = None
    link: State | None = None
    same: bool | None = None
    problem: Problem | None = None
    want: State | None = None
    known: bool = False


class FileLooker:
    """Turns needs of files into entries with their states."""

    def __init__(self, root: Reader, trust: Trust, owning: Owning) -> None:
        """Look through ``root``; what ``trust`` knows to be in sync is not read."""
        self._root = root
        self._owners = root.owners
        self._owning = owning
        self._trust = trust

    def look(self, need: FileNeed) -> Sequence[Entry]:
        """The entries of one need; a source that is replaced meanwhile is looked at anew, and held the last time."""
        for _ in range(ATTEMPTS - 1):
            try:
                return self._look(need, self._root.glance)
            except ReplacedError:
                continue
        return self._look(need, self._root.source)

    def _look(self, need: FileNeed, find: Callable[[str], Source]) -> Sequence[Entry]:
        origin = need.origin
        try:
            source = find(origin.source)
        except AbsentError as error:
            if origin.optional:
                return []
            return _bad_source(need, Problem(kind=Kind.BAD_SOURCE, reason=f"the source {error.reason}"))
        except PathError as error:
            return _bad_source(need, Problem(kind=Kind.UNREADABLE, reason=f"the source cannot be seen: {error}"))
        try:
            if origin.optional and not _readable_file(source):
                return []
            drafts = self._drafts(source, need)
            if isinstance(drafts, Problem):
                return _bad_source(need, drafts)
            return [self._finished(draft, source, origin) for draft in drafts]
        finally:
            source.close()

    def _prepare(self, source: Source, need: FileNeed) -> Problem | None:
        """Make a source ready for comparing: what is wrong with it as such, whoever needs it. Raises ReplacedError."""
        if source.state.type is not FileType.FILE:
            return Problem(kind=Kind.BAD_SOURCE, reason=f"the source is a {source.state.type}, not a file")
        try:
            if need.origin.filtered:
                accounts.hide_passwords(source)
            elif _is_guarded(need.places):
                source.stand_in(source.contents(GUARDED_LIMIT))
        except ReplacedError:
            raise
        except PathError as error:
            return _unreadable(error)
        return None

    def _drafts(self, source: Source, need: FileNeed) -> list[_Draft] | Problem:
        """What is at all places, compared; or what is wrong with the source."""
        problem = self._prepare(source, need)
        if problem is not None:
            return problem
        drafts = [self._draft(source, place, need.origin) for place in need.places]
        if need.origin.optional:
            drafts = [draft for draft in drafts if self._covered(draft)]
        self._recognize(source, drafts)
        return self._compare(source, drafts) or drafts

    def _draft(self, source: Source, place: Place, origin: Origin) -> _Draft:
        """What is there, and what speaks against comparing it."""
        chroot, draft = place.jail.chroot, _Draft(place=place)
        try:
            copy = chroot.look(place.path)
            there = copy.state if copy.identity is None else None
            if there is not None:
                beside = self._beside(chroot, copy)
                if beside is not None:
                    draft.link, copy = there, beside
                elif there.type is FileType.DIRECTORY and chroot.names(place.path):
                    draft.problem = occupied(FileType.FILE)
                    return draft
        except PathError as error:
            draft.problem = problem_of(error, place)
            return draft
        draft.copy = copy
        if not source.state.size or place.rule.guard is not None:
            draft.problem = _unfit(source, place.rule, copy)
        if origin.optional or source.path != origin.source:  # else the rule would not have asked for it
            draft.problem = draft.problem or inside(source, place)
        draft.problem = draft.problem or _is_itself(source, copy)
        return draft

    def _compare(self, source: Source, drafts: Sequence[_Draft]) -> Problem | None:
        """What is wanted, and whether contents are the same where sizes are: all of them are compared in one reading.

        What is known to be in sync is not read. Gives what is wrong with the source. Raises ReplacedError.
        """
        try:
            source.readers()
        except ReplacedError:
            raise
        except PathError as error:
            return _unreadable(error)
        size = source.state.size if source.data is None else len(source.data)
        self._set_wanted(source, size, drafts)
        alike: list[_Draft] = []
        copies: list[Copy] = []
        for draft in drafts:
            copy = draft.copy
            if copy is None or draft.problem is not None or draft.known or copy.identity is None:
                continue
            if copy.identity[2] == size:
                alike.append(draft)
                copies.append(copy)
        if alike:
            for draft, result in zip(alike, self._root.same(source, copies), strict=True):
                if isinstance(result, Problem):
                    draft.problem = result
                else:
                    draft.same = result
        return None

    def _set_wanted(self, source: Source, size: int | None, drafts: Sequence[_Draft]) -> None:
        """Put into each draft what is wanted there, which is the same for all places of a rule."""
        rule, want = None, None
        for draft in drafts:
            if draft.copy is None:
                continue
            if want is None or draft.place.rule is not rule:
                rule = draft.place.rule
                want = self._want(source, size, rule)
            if isinstance(want, Problem):
                draft.problem = draft.problem or want
            else:
                draft.want = want

    def _recognize(self, source: Source, drafts: Sequence[_Draft]) -> None:
        """Find the copies that are known to be in sync: where all are, neither side has to be opened."""
        if self._trust is NO_TRUST or source.data is not None:
            return
        for draft in drafts:
            if draft.copy is not None and draft.problem is None and self._trust.knows(source, draft.copy):
                draft.same = draft.known = True
                source.vouch()
                draft.copy.vouch()

    def _want(self, source: Source, size: int | None, rule: Rule) -> State | Problem:
        numbers = self._owning.numbers(rule)
        if isinstance(numbers, Problem):
            return numbers
        uid, gid = numbers
        return State(
            type=FileType.FILE,
            mode=copy_mode(source, rule.mode, uid, gid),
            uid=uid,
            gid=gid,
            size=size,
            identity=source.state.identity,
        )

    def _finished(self, draft: _Draft, source: Source, origin: Origin) -> Entry:
        """The entry that a draft has become, with the checksums of what drifted."""
        place, copy, want = draft.place, draft.copy, draft.want
        have = None if copy is None or want is None else copy.state
        want = want if want is None else self._owning.owned(want, have)
        entry = entry_of(place, origin, want=want, have=have, same=draft.same, problem=draft.problem)
        if compare.in_sync(entry):
            if copy is not None and source.data is None and not draft.known:
                self._trust.learn(source, copy)
            return entry
        if draft.link is not None:
            entry = replace(entry, have=draft.link, same=None)
        return self._with_checksums(entry, source, copy)

    def _beside(self, chroot: Chroot, copy: Copy) -> Copy | None:
        """The file that a link of root's leads to in its own directory; None for whatever is no such link.

        Debian's configure-instance.sh copies certificates and makes such links to them, jailkit copies libraries with
        theirs: a daemon sees the right contents, and replacing them would only begin a tug-of-war.
        """
        link = copy.state
        if link is None or link.type is not FileType.LINK or link.uid not in self._owners or not link.target:
            return None
        if "/" in link.target or link.target in (".", ".."):
            return None
        found = chroot.look(f"{os.path.dirname(copy.path)}/{link.target}")
        return found if found.state is not None and found.state.type is FileType.FILE else None

    def _covered(self, draft: _Draft) -> bool:
        """Whether an if-present rule speaks of this: root's own files only, not what a daemon made for itself."""
        if draft.problem is not None or draft.copy is None:
            return True
        have = draft.copy.state
        return have is not None and have.type is FileType.FILE and have.uid in self._owners

    def _with_checksums(self, entry: Entry, source: Source, copy: Copy | None) -> Entry:
        """Checksums of both sides of what drifted, where everybody may know them anyway."""
        if entry.want is None or not (source.state.mode or 0) & 0o004:
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


def _is_guarded(places: Sequence[Place]) -> bool:
    for place in places:  # noqa: SIM110 -- a generator takes three times as long, and most needs have one place
        if place.rule.guard is not None:
            return True
    return False


def _bad_source(need: FileNeed, problem: Problem) -> list[Entry]:
    return [entry_at(place, need.origin.source, problem) for place in need.places]


def _is_itself(source: Source, copy: Copy) -> Problem | None:
    """A copy that is its own source, by a mount: what is done to the one is done to the other."""
    there, own = copy.identity, source.state.identity
    if there is None or own is None or there[1] != own[1] or there[0] != own[0]:
        return None
    reason = f"this is the source {source.path} itself, by a mount; unmount it, and check --fix makes a copy"
    return Problem(kind=Kind.UNSAFE, reason=reason)


def _readable_file(source: Source) -> bool:
    return source.state.type is FileType.FILE and bool((source.state.mode or 0) & 0o004)


def _unreadable(error: PathError) -> Problem:
    return Problem(kind=Kind.UNREADABLE, reason=f"the source cannot be read: {error.reason}")


def _unfit(source: Source, rule: Rule, copy: Copy) -> Problem | None:
    """Why a source must not replace a copy: it is empty, or fails the rule's guard."""
    if not source.state.size and copy.identity is not None and copy.identity[2]:
        return Problem(kind=Kind.BAD_SOURCE, reason="the source is empty; the copy is kept")
    if rule.guard is not None and source.data is not None:
        text = source.data.decode("utf-8", "surrogateescape")
        if re.search(rule.guard.matches, text, re.MULTILINE) is None:
            reason = f"the source has no line that matches {rule.guard.matches}"
            there = copy.state is not None
            return Problem(kind=Kind.BAD_SOURCE, reason=f"{reason}; the copy is kept" if there else reason)
    return None
