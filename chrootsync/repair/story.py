"""Tells the journal what a repair of one instance is about to do, and what came of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from chrootsync.model import Copy, Drift, FileType, Instance, Outcome, State, Status
from chrootsync.model.frozen import replace
from chrootsync.model.memory import Change, Journal, Step
from chrootsync.root.steps import Staged

PLANNED = Outcome(status=Status.UNKNOWN, reason="it was planned")


class Story:
    """What the journal is told of one instance's repair, from its plan to its end."""

    def __init__(self, journal: Journal, instance: Instance, drifts: Sequence[Drift]) -> None:
        """Choose the names of all temporaries; nobody could guess them."""
        token = os.urandom(6).hex()
        self._journal = journal
        self._instance = instance
        self._drifts = drifts
        self._names = {id(drift): f".chrootsync-{token}-{index}" for index, drift in enumerate(drifts)}
        self._kept: dict[int, str] = {}
        self._staged: dict[int, Staged] = {}
        self._open = False

    def temporary(self, drift: Drift) -> str:
        """The name that what is staged for a drift has."""
        return self._names[id(drift)]

    def plan(self) -> None:
        """Write down the names of all temporaries, before the first is made."""
        self._journal.plan([self._step(drift) for drift in self._drifts])

    def keep(self, drift: Drift, copy: Copy) -> None:
        """Keep the contents that a drift's remedy is going to replace."""
        digest = self._journal.keep(copy)
        if digest is not None:
            self._kept[id(drift)] = digest

    def can_bring_back(self, drift: Drift) -> bool:
        """Whether a rollback could bring back what a drift's remedy is going to replace."""
        have = drift.entry.have
        is_file = have is not None and have.type is FileType.FILE
        return self._journal.remembers and (not is_file or id(drift) in self._kept)

    def intend(self, staged: Sequence[tuple[Drift, Staged]]) -> None:
        """Write down what is about to take effect."""
        self._staged |= {id(drift): one for drift, one in staged}
        self._journal.intend([self._step(drift) for drift, _ in staged])

    def leave_open(self) -> None:
        """Something is left that the next run has to clear away."""
        self._open = True

    def settle(self, results: Mapping[int, Outcome]) -> None:
        """Write down what came of it: from here on nothing is left to clear away, unless it was left open."""
        if not self._open:
            self._journal.settle([self._change(drift, results[id(drift)]) for drift in self._drifts if results])

    def _step(self, drift: Drift) -> Step:
        staged, have = self._staged.get(id(drift)), drift.entry.have
        step = Step(change=self._change(drift, PLANNED), temporary=self.temporary(drift))
        if staged is None:
            return step
        old = have.identity[:2] if have is not None and have.identity is not None else None
        return replace(step, inode=staged.inode, old=old)

    def _change(self, drift: Drift, outcome: Outcome) -> Change:
        entry, kept = drift.entry, self._kept.get(id(drift))
        staged = self._staged.get(id(drift))
        before = entry.have
        if before is not None and kept is not None:
            before = replace(before, sha256=kept)
        after = entry.want
        if after is not None and staged is not None and staged.sha256 is not None:
            after = replace(after, sha256=staged.sha256)
        return Change(
            instance=self._instance.name,
            chroot=self._instance.chroot,
            path=entry.path,
            source=entry.source,
            rule=entry.rule.id,
            kind=drift.kind,
            package=drift.package,
            before=before,
            after=_remembered(after),
            outcome=outcome,
            kept=kept is not None,
        )


def _remembered(after: State | None) -> State | None:
    """What was put, without the source's identity: that is no property of the copy."""
    return None if after is None else replace(after, identity=None)
