"""Rules x jails -> needs: which rules hold for each chroot, and what they ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from chrootsync import libraries
from chrootsync.inventory.conditions import Failing, Holding, Undecided, holding
from chrootsync.inventory.facts import Facts
from chrootsync.inventory.jail import INSTANCE_RULE, Jail
from chrootsync.inventory.needs import Basket, FileNeed, Need, Origin, Place, ProblemNeed
from chrootsync.inventory.present import gather_present
from chrootsync.inventory.required import gather_required
from chrootsync.inventory.surplus import add_surplus
from chrootsync.model import Kind, LibrarySet, PathError, Presence, Problem, Rule, RuleSet, UnsafeError

Libraries = Callable[[Rule], LibrarySet]


def gather(jails: Iterable[Jail], rule_sets: Sequence[RuleSet], facts: Facts) -> Iterator[Need]:
    """All needs: nodes and problems, then files, each source once, then what is only kept fresh where it is present."""
    sets = {rule_set.name: rule_set for rule_set in rule_sets}
    find_libraries = _libraries(facts)
    required: dict[Origin, list[Place]] = {}
    present: dict[Origin, list[Place]] = {}
    for jail in jails:
        rules = [rule for name in jail.instance.rule_sets for rule in sets[name].rules]
        basket = _gather_jail(jail, rules, facts, find_libraries)
        if basket.swallowed:
            yield _refusal(jail, basket.swallowed[0])
            continue
        yield from basket.others
        basket.files.reverse()
        while basket.files:  # taken out one by one, so that none is held twice
            origin, place = basket.files.pop()
            files = present if origin.optional else required
            places = files.get(origin)
            if places is None:
                files[origin] = [place]  # a list that has room for one: most have no more
            else:
                places.append(place)
    for files in (required, present):
        for origin, places in files.items():
            yield FileNeed(origin=origin, places=places)


def _gather_jail(jail: Jail, rules: Sequence[Rule], facts: Facts, find_libraries: Libraries) -> Basket:
    """What is required first: what is only kept fresh is what no other rule names."""
    basket = Basket(jail=jail)
    present: list[Holding] = []
    undecided: dict[str, list[Undecided]] = {}
    for held in holding(rules, jail.instance, facts):
        if isinstance(held, Failing):
            continue
        if isinstance(held, Undecided):
            undecided.setdefault(held.error.path, []).append(held)
        elif held.rule.presence is Presence.IF_PRESENT:
            present.append(held)
        elif jail.instance.chrooted:
            gather_required(basket, held, facts, _find(basket, held, find_libraries))
    if jail.instance.chrooted:
        for alike in undecided.values():
            _tell_undecided(basket, alike)
    add_surplus(basket)
    for held in present:
        with_libraries = _find(basket, held, find_libraries)
        gather_present(basket, held, with_libraries)
    return basket


def _find(basket: Basket, held: Holding, find_libraries: Libraries) -> LibrarySet:
    try:
        return find_libraries(held.rule)
    except PathError as error:
        reason = f"what is needed cannot be told: {error} on the host"
        basket.tell(held, error.path, Kind.UNREADABLE, reason)
        return LibrarySet()


def _tell_undecided(basket: Basket, undecided: Sequence[Undecided]) -> None:
    """Tell, by the first of the rules, what cannot be seen that they ask for."""
    first, others = undecided[0], len(undecided) - 1
    rules = "the rule holds" if not others else f"this and {others} other rule{'s' * (others > 1)} hold"
    # What is unsafe is told with what to do about it, which nothing has to follow.
    where = "" if isinstance(first.error, UnsafeError) else " on the host"
    held = Holding(rule=first.rule, because="")
    reason = f"whether {rules} cannot be told: {first.error}{where}"
    basket.tell(held, first.error.path, Kind.UNREADABLE, reason)


def _libraries(facts: Facts) -> Libraries:
    """What the rules ask of nss and libraries, worked out once for all chroots."""
    known: dict[tuple[str, ...], LibrarySet] = {}

    def find(rule: Rule) -> LibrarySet:
        if not rule.nss and not rule.libraries:
            return LibrarySet()
        key = ("nss", *rule.nss, "libraries", *rule.libraries)
        if key not in known:
            root, cache = facts.host.root, facts.host.cache
            modules = libraries.needs_nss(root, cache, rule.nss) if rule.nss else LibrarySet()
            others = libraries.needs_libraries(root, cache, rule.libraries) if rule.libraries else LibrarySet()
            known[key] = LibrarySet(
                libraries=modules.libraries + others.libraries,
                unresolved=modules.unresolved + others.unresolved,
                sockets=modules.sockets + others.sockets,
            )
        return known[key]

    return find


def _refusal(jail: Jail, source: str) -> ProblemNeed:
    where = "lies in it" if jail.chroot.holds(source) else "has it inside"
    reason = f"the chroot {jail.chroot.path} is refused: {source}, which is to be copied, {where}"
    place = Place(jail=jail, rule=INSTANCE_RULE, path="/", because="")
    return ProblemNeed(place=place, problem=Problem(kind=Kind.BAD_INSTANCE, reason=reason))
