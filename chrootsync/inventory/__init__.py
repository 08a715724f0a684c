"""Rules x instances -> entries with their wanted and their actual state.

What every chroot needs is gathered first (``gather``: which rules hold by their ``conditions``, what is ``required``,
what is only kept fresh where it is ``present``), then looked at source by source (``state``): however many instances
share a source, it is read once, and every copy is compared with it while its bytes are at hand.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import chain

from chrootsync.inventory.ahead import read_ahead
from chrootsync.inventory.conditions import Failing, Holding, Undecided, holding
from chrootsync.inventory.facts import Facts
from chrootsync.inventory.files import NO_TRUST
from chrootsync.inventory.gather import gather
from chrootsync.inventory.jail import INSTANCE_RULE, Jail, open_jails
from chrootsync.inventory.needs import FileNeed, Need
from chrootsync.inventory.state import Looker
from chrootsync.model import Entry, Host, Instance, RuleSet, Trust

__all__ = ["INSTANCE_RULE", "NO_TRUST", "Failing", "Holding", "Jail", "Undecided", "entries", "open_jails", "verdicts"]


ALONE = 2000  # pairs, which take 0.1 s: beside that a second process, and what is copied for it, are little


def entries(
    host: Host,
    instances: Iterable[Instance],
    rule_sets: Sequence[RuleSet],
    *,
    keep_out: Sequence[str] = (),
    trust: Trust = NO_TRUST,
) -> Generator[Entry, None, None]:
    """Everything that the instances must hold, with what is there; instances that cannot be served as problems.

    ``keep_out`` are host paths that no chroot may contain or lie beneath. What ``trust`` knows to be in sync is not
    read.
    """
    jails, problems = open_jails(host.root, instances, keep_out)
    yield from problems
    try:
        yield from _entries_of(host, jails, rule_sets, trust)
    finally:
        for jail in jails:
            jail.close()


def _entries_of(host: Host, jails: Sequence[Jail], rule_sets: Sequence[RuleSet], trust: Trust) -> Iterator[Entry]:
    facts = Facts(host)
    looker = Looker(host.root, trust)
    needs = gather(jails, rule_sets, facts)
    for need in read_ahead(host.root, _first(needs), trust):
        yield from looker.look(need)
    following = next(needs, None)
    if following is not None:
        from chrootsync.inventory.halves import look_at_all  # most checks have less to do

        yield from look_at_all(host.root, chain([following], needs), looker.look, trust)


def _first(needs: Iterator[Need]) -> Iterator[Need]:
    """As many needs as are looked at by one process alone; behind them there are hardly any but files."""
    pairs = 0
    for need in needs:
        yield need
        pairs += len(need.places) if isinstance(need, FileNeed) else 0
        if pairs >= ALONE:
            return


def verdicts(
    host: Host, instances: Iterable[Instance], rule_sets: Sequence[RuleSet]
) -> Iterator[list[Holding | Failing | Undecided]]:
    """For each instance how each of its rules holds, once for each value that it catches, or why it does not."""
    facts = Facts(host)
    sets = {rule_set.name: rule_set for rule_set in rule_sets}
    for instance in instances:
        rules = [rule for name in instance.rule_sets for rule in sets[name].rules]
        yield list(holding(rules, instance, facts))
