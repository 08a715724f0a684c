"""Why a path is needed or not: entries and drift as a check finds them, and the rules that do not ask for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from posixpath import basename, dirname

from chrootsync import inventory, libraries, packages
from chrootsync.inventory.naming import Wanted
from chrootsync.model import (
    Entry,
    FileType,
    Instance,
    Kind,
    PathError,
    Presence,
    State,
)
from chrootsync.model.explanation import Answer, Explanation, Item, Mapped, Need, Sort, Subject
from chrootsync.pipeline import Task, check
from chrootsync.pipeline.asides import Place, asides

LIBRARY = re.compile(r".+\.so(\.[\w.]+)*")


def explain(task: Task, asked: Sequence[Instance | str]) -> Explanation:
    """Explain instances, absolute paths (of the host, or inside a chroot as seen from the root) and bare file names."""
    with ExitStack() as stack:
        view = _View(task, stack)
        subjects = tuple(view.instance(one) if isinstance(one, Instance) else view.path(one) for one in asked)
    items = [item for one in subjects for answer in one.answers for item in (*answer.items, *answer.below)]
    sources = {item.entry.source for item in items if item.entry.source is not None}
    sources |= {one.real for one in subjects if one.real is not None}
    owners = packages.owners(task.host, sorted(sources)) if sources else {}
    return Explanation(root=task.host.root.path, subjects=subjects, packages=owners)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Question:
    """A path or a bare name, the host's side of it, and whether only its exact place counts."""

    path: str | None
    name: str
    exact: bool
    real: str | None
    host: State | None


class _View:
    """All instances with their entries, chroots and rules, each looked at once."""

    def __init__(self, task: Task, stack: ExitStack) -> None:
        """Compare everything, and open the chroots until ``stack`` ends."""
        self._task = task
        self._root = task.host.root
        self._items = _compared(task)
        jails, _ = inventory.open_jails(self._root, task.instances, task.keep_out)
        for jail in jails:
            stack.callback(jail.close)
        self._jails = {id(jail.instance): jail for jail in jails}
        self._reals: dict[str, str | None] = {}
        self._needed: dict[str, frozenset[str] | None] = {}

    @cached_property
    def _verdicts(self) -> dict[int, list[inventory.Holding | inventory.Failing | inventory.Undecided]]:
        served = [one for one in self._task.instances if id(one) in self._jails]
        found = inventory.verdicts(self._task.host, served, self._task.rule_sets)
        return {id(instance): verdicts for instance, verdicts in zip(served, found, strict=True)}

    # --- What was asked about ---

    def instance(self, instance: Instance, asked: str | None = None) -> Subject:
        """Everything that one instance must hold."""
        return Subject(asked=asked or instance.name, sort=Sort.INSTANCE, answers=(self._whole(instance),))

    def _whole(self, instance: Instance) -> Answer:
        problem = self._problem(instance)
        if problem is not None:
            return Answer(instance=instance, need=Need.NOT_SERVED, reason=problem)
        items = sorted(self._items[id(instance)], key=lambda item: item.entry.path)
        need = Need.NEEDED if instance.chrooted else Need.KEPT_FRESH if items else Need.NOT_NEEDED
        reason = "" if instance.chrooted else "no service of it runs chrooted"
        marked = tuple(self._with_mapped(item) for item in items)
        return Answer(instance=instance, need=need, reason=reason, path="/", items=marked)

    def path(self, asked: str) -> Subject:
        """What each instance has to do with a path or a bare name."""
        if not asked.startswith("/"):
            question = self._question(None, asked, exact=False)
            answers = tuple(self._answer(one, question) for one in self._task.instances)
            return self._subject(asked, question, answers)
        owner, inner = self._inside(asked)
        if owner is not None and inner == "/":
            return self.instance(owner, asked)
        question = self._question(inner, basename(inner), exact=owner is not None)
        concerned = self._task.instances if owner is None else [owner]
        return self._subject(asked, question, tuple(self._answer(one, question) for one in concerned))

    def _subject(self, asked: str, question: _Question, answers: tuple[Answer, ...]) -> Subject:
        sort = Sort.NAME if question.path is None else Sort.PATH
        return Subject(asked=asked, sort=sort, answers=answers, host=question.host, real=question.real)

    def _question(self, path: str | None, name: str, *, exact: bool) -> _Question:
        source = path
        if source is None and LIBRARY.fullmatch(name):
            try:
                source = libraries.locations(self._root, [name]).get(name)
            except PathError:
                source = None
        host = None if source is None else self._host_state(source)
        real = None if source is None or host is None else self._real(source)
        return _Question(path=path, name=name, exact=exact, real=real, host=host)

    def _inside(self, path: str) -> tuple[Instance | None, str]:
        """The instance whose chroot a path lies in, and the path inside it; else the path itself."""
        spellings = [path]
        try:
            directory = self._root.resolve(dirname(path)).rstrip("/")
            spellings.append(f"{directory}/{basename(path)}")
        except PathError:
            pass
        found = [
            (chroot, instance, spelling.removeprefix(chroot) or "/")
            for instance in self._task.instances
            for spelling in spellings
            for chroot in self._chroots(instance)
            if f"{spelling}/".startswith(f"{chroot}/")
        ]
        if not found:
            return None, path
        _, instance, inner = max(found, key=lambda one: len(one[0]))
        return instance, inner

    def _chroots(self, instance: Instance) -> set[str]:
        """The spellings of an instance's chroot."""
        jail = self._jails.get(id(instance))
        spellings = {instance.chroot.rstrip("/")} | ({jail.chroot.path.rstrip("/")} if jail is not None else set())
        return spellings - {""}

    # --- One instance's answer ---

    def _problem(self, instance: Instance) -> str | None:
        """Why an instance is not served."""
        problems = (
            item.entry.problem for item in self._items[id(instance)] if item.entry.rule is inventory.INSTANCE_RULE
        )
        return next((problem.reason for problem in problems if problem is not None), None)

    def _answer(self, instance: Instance, question: _Question) -> Answer:
        problem = self._problem(instance)
        if problem is not None:
            return Answer(instance=instance, need=Need.NOT_SERVED, reason=problem)
        spell = _speller(self._jails[id(instance)])
        path = None if question.path is None else spell(question.path)
        there, unseen = self._there(instance, path)
        items = self._at(instance, path, question)
        inside = "/" if path == "/" else f"{path}/"
        below = [one for one in self._items[id(instance)] if path and one.entry.path.startswith(inside)]
        answer = Answer(
            instance=instance,
            need=Need.UNDECIDED if self._tells_undecided(instance, items) else _need(items or below),
            path=path,
            there=there,
            unseen=unseen,
            items=tuple(self._with_mapped(item) for item in items),
            below=tuple(below),
        )
        if answer.need in (Need.NEEDED, Need.SURPLUS, Need.UNDECIDED):
            return answer
        directory = FileType.DIRECTORY in {state.type for state in (there, question.host) if state is not None}
        wanted = Wanted(name=question.name, path=path, directory=directory, spell=spell)
        return self._unneeded(answer, wanted, question)

    def _tells_undecided(self, instance: Instance, items: Sequence[Item]) -> bool:
        """Whether entries only tell that a host file cannot be read, on which it hangs what rules ask for."""
        if not items or any(item.entry.problem is None for item in items):
            return False
        verdicts = self._verdicts[id(instance)]
        unseen = {one.error.path for one in verdicts if isinstance(one, inventory.Undecided)}
        holding = {one.rule.id for one in verdicts if isinstance(one, inventory.Holding)}
        return all(item.entry.path in unseen and item.entry.rule.id not in holding for item in items)

    def _unneeded(self, answer: Answer, wanted: Wanted, question: _Question) -> Answer:
        """The answer with what keeps rules from asking for what is not needed."""
        barred = self._barred(answer)
        place = Place(host=self._task.host, there=answer.there, source=question.host, barred=barred)
        verdicts = self._verdicts[id(answer.instance)]
        asking = {item.entry.rule.id for item in (*answer.items, *answer.below)}
        told = asides(place, wanted, verdicts, chrooted=answer.instance.chrooted)
        found = tuple(one for one in told if one.rule.id not in asking)
        need, reason = answer.need, ""
        named = [one for one in found if not one.loose and one.rule.presence is Presence.REQUIRED]
        undecided = {one.rule.id for one in verdicts if isinstance(one, inventory.Undecided)}
        if any(one.holds and one.rule.presence is Presence.REQUIRED for one in found):
            need = Need.NEEDED
        elif not answer.instance.chrooted:
            reason = "no service of it runs chrooted"
        elif need is Need.NOT_NEEDED and any(one.rule.id in undecided for one in named):
            need = Need.UNDECIDED
        elif not named:
            reason = "no rule names it"
        return replace(answer, need=need, reason=reason, asides=found)

    def _barred(self, answer: Answer) -> str:
        """Why the way to a path of a chroot cannot be walked, as an entry above it tells; empty where it can."""
        for item in self._items[id(answer.instance)]:
            problem, inside = item.entry.problem, f"{item.entry.path.rstrip('/')}/"
            barring = problem is not None and problem.kind in (Kind.UNREADABLE, Kind.UNSAFE)
            if problem is not None and barring and answer.path is not None and answer.path.startswith(inside):
                return f"the way there is barred at {item.entry.path}: {problem.reason}"
        return ""

    def _there(self, instance: Instance, path: str | None) -> tuple[State | None, str]:
        """What is at a path of a chroot, or why that cannot be seen."""
        if path is None:
            return None, ""
        try:
            return self._jails[id(instance)].chroot.look(path).state, ""
        except PathError as error:
            return None, error.reason

    def _at(self, instance: Instance, path: str | None, question: _Question) -> list[Item]:
        """The entries of a path or of a bare name; else those whose source is the same file of the host."""
        items = [one for one in self._items[id(instance)] if one.entry.rule is not inventory.INSTANCE_RULE]
        if path is None:
            named = [one for one in items if basename(one.entry.path) == question.name]
            return named or [one for one in items if basename(self._origin(one) or "") == question.name]
        exact = [one for one in items if one.entry.path == path]
        if exact or question.exact or question.host is None or question.host.type is FileType.DIRECTORY:
            return exact
        return [one for one in items if self._origin(one) == question.real]

    def _origin(self, item: Item) -> str | None:
        """The source of an entry without links."""
        return None if item.entry.source is None else self._real(item.entry.source)

    # --- The host's side ---

    def _real(self, path: str) -> str | None:
        if path not in self._reals:
            try:
                self._reals[path] = self._root.resolve(path)
            except PathError:
                self._reals[path] = None
        return self._reals[path]

    def _host_state(self, path: str) -> State | None:
        try:
            return self._root.state(path)
        except PathError:
            return None

    def _with_mapped(self, item: Item) -> Item:
        """A library with the chrooted programs that have mapped it before chroot; not a socket that one talks to."""
        chain, want = item.entry.evidence.chain, item.entry.want
        if not chain or not LIBRARY.fullmatch(chain[0]) or (want is not None and want.type is FileType.SOCKET):
            return item
        programs = {one.program: one.command for one in item.entry.instance.daemons if one.chrooted}
        known = {program: self._needed_by(command) for program, command in sorted(programs.items())}
        mapped = Mapped(
            by=tuple(program for program, names in known.items() if names is not None and chain[0] in names),
            others=tuple(program for program, names in known.items() if names is not None and chain[0] not in names),
            unknown=tuple(program for program, names in known.items() if names is None),
        )
        return replace(item, mapped=mapped)

    def _needed_by(self, command: str | None) -> frozenset[str] | None:
        """The libraries that a program has mapped once it is started; None where that cannot be told.

        None at all means that the program is not there, or no ELF file with libraries.
        """
        if command is None:
            return None
        if command not in self._needed:
            try:
                self._needed[command] = libraries.mapped(self._root, self._task.host.cache, command) or None
            except PathError:
                self._needed[command] = None
        return self._needed[command]


def _compared(task: Task) -> dict[int, list[Item]]:
    """Every entry with its drift, by the id of its instance."""
    entries: list[Entry] = []

    def seen(entry: Entry) -> None:
        task.seen(entry)
        entries.append(entry)

    reports = check(replace(task, seen=seen))
    drifts = [finding.drift for report in reports for finding in report.findings]
    by_entry = {id(drift.entry): drift for drift in drifts}
    items: dict[int, list[Item]] = {id(instance): [] for instance in task.instances}
    for entry in entries:
        items[id(entry.instance)].append(Item(entry=entry, drift=by_entry.pop(id(entry), None)))
    # What only memory knows of is no entry of any rule: what was put there once and is not needed any more. What is
    # only kept fresh there is of no account then.
    for drift in by_entry.values():
        known = items[id(drift.entry.instance)]
        known[:] = [one for one in known if one.entry.path != drift.entry.path]
        known.append(Item(entry=drift.entry, drift=drift))
    return items


def _speller(jail: inventory.Jail) -> Callable[[str], str]:
    """Gives a path the spelling that it has in a chroot; its own where the way there is barred."""

    def spell(path: str) -> str:
        try:
            return jail.canonical(path) if path != "/" else "/"
        except PathError:
            return path

    return spell


def _need(items: Iterable[Item]) -> Need:
    """What entries amount to: a required one counts most."""
    needs = {_need_of(item) for item in items}
    return next((need for need in (Need.NEEDED, Need.SURPLUS, Need.KEPT_FRESH) if need in needs), Need.NOT_NEEDED)


def _need_of(item: Item) -> Need:
    if item.entry.surplus or (item.drift is not None and item.drift.kind is Kind.ORPHAN):
        return Need.SURPLUS
    return Need.KEPT_FRESH if item.entry.rule.presence is Presence.IF_PRESENT else Need.NEEDED
