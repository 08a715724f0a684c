"""Where the expressions of conditions are found: in parameters, in lookup tables, in lines of host files."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from chrootsync.inventory.facts import Facts
from chrootsync.model import Daemon, DoubtfulError, FileCondition, ParameterCondition, PathError, TableCondition
from chrootsync.model.frozen import frozen

_GLOB = re.compile(r"[*?[]")
_NAMED = 3  # more parameters than this are not told one by one


class Catch(NamedTuple):
    """Where an expression was found: ``setting`` is what it is part of, ``text`` all of that, ``value`` its group 1."""

    setting: str
    text: str
    value: str | None
    joint: str = " = "

    @property
    def clause(self) -> str:
        """The setting with its text, as far as that fits."""
        return f"{self.setting}{self.joint}{short(self.text)}" if self.text else f"{self.setting} is empty"


@frozen
class Finding:
    """What became of a condition.

    With a ``reason``, a clause, it does not hold. It holds where something was ``caught``, or where neither ``reason``
    nor ``errors`` tell otherwise; ``errors`` alone mean that nobody can tell, beside what was caught that there may be
    more. ``catching`` says whether it was ``$1`` that was caught.
    """

    caught: tuple[Catch, ...] = ()
    errors: tuple[PathError, ...] = ()
    reason: str | None = None
    catching: bool = False


def all_of(findings: Iterable[Finding]) -> Finding:
    """What became of several conditions together; after one that does not hold no more are asked for."""
    result = Finding()
    unseen: tuple[PathError, ...] = ()
    for finding in findings:
        if finding.reason is not None:
            return finding
        if finding.errors and not finding.caught:
            unseen += finding.errors
        elif finding.catching:
            result = finding
        elif not result.caught:
            result = Finding(caught=finding.caught)  # it holds, whatever else could not be seen
    return Finding(errors=unseen) if unseen else result


def in_parameters(condition: ParameterCondition, parameters: Mapping[str, str], facts: Facts) -> Finding:
    """Where a condition is met by a daemon's parameters."""
    caught = tuple(
        catch
        for name, text in _values(condition.names, condition.matches, parameters, facts)
        for catch in _matches(condition.matches, name, text)
    )
    return _finding(condition.matches, caught) or Finding(reason=_unmet(condition, parameters))


def in_tables(condition: TableCondition, daemon: Daemon, facts: Facts) -> Finding:
    """Where a condition is met by the tables that a daemon's parameters name without ``proxy:``."""
    opened: list[str] = []
    caught: list[Catch] = []
    errors: list[PathError] = []
    for table in _tables(condition, daemon.parameters, facts):
        try:
            values = daemon.tables.get(table)
        except DoubtfulError as error:
            # Mailing list managers and others keep tables of their own, which are no worry where they ask for nothing.
            if any(_in_table(condition, table, error.settings)):
                errors.append(error)
            opened.append(table)
            continue
        except PathError as error:
            errors.append(error)
            continue
        if values is not None:
            opened.append(table)
            caught += _in_table(condition, table, values)
    reason = f"no chrooted daemon opens a {' or '.join(condition.types)} table itself"
    if opened:
        reason = f"{', '.join(opened)} set no {' or '.join(condition.keys)} that matches {condition.matches}"
    return _finding(condition.matches, caught, errors) or Finding(reason=reason)


def in_files(condition: FileCondition, facts: Facts) -> Finding:
    """Where a condition is met by a line of a host file."""
    caught: list[Catch] = []
    errors: list[PathError] = []
    for path in condition.paths:
        try:
            caught += [catch for line in facts.lines(path) for catch in _matches(condition.matches, path, line, ": ")]
        except PathError as error:
            errors.append(error)
    reason = f"no line of {' or '.join(condition.paths)} matches {condition.matches}"
    return _finding(condition.matches, caught, errors) or Finding(reason=reason)


# Expressions are compiled where a text is there to be looked at: most conditions ask for what nobody has set. Which
# were compiled before, re knows.


def _finding(expression: str, caught: Iterable[Catch], errors: Iterable[PathError] = ()) -> Finding | None:
    """What was found; None where nothing was, and nothing could have been."""
    caught, errors = tuple(caught), tuple(errors)
    if not caught and not errors:
        return None
    return Finding(caught=caught, errors=errors, catching=re.compile(expression).groups > 0)


def _matches(expression: str, setting: str, text: str, joint: str = " = ") -> Iterator[Catch]:
    """Each place in a text; not where group 1 is in a part of the expression that took no part."""
    pattern = re.compile(expression)
    for match in pattern.finditer(text):
        value = match[1] if pattern.groups else None
        if value is not None or not pattern.groups:
            yield Catch(setting, text.strip(), value, joint)


def _values(
    names: Iterable[str], expression: str, parameters: Mapping[str, str], facts: Facts
) -> Iterator[tuple[str, str]]:
    """The parameters that shell patterns choose, with their values; of many only those with the expression in them."""
    for name in names:
        if not _GLOB.search(name):
            value = parameters.get(name)
            if value is not None:
                yield name, value
            continue
        settings = facts.settings(parameters)
        fitting = facts.fitting(re.compile(expression), settings)
        if fitting:
            chosen = [one for one, value in settings.values.items() if value in fitting]
            yield from ((one, settings.values[one]) for one in fnmatch.filter(chosen, name))


def _unmet(condition: ParameterCondition, parameters: Mapping[str, str]) -> str:
    """Why no parameter meets a condition: what it is; where it could be many, the expression has to do."""
    names = condition.names
    if len(names) <= _NAMED and not any(map(_GLOB.search, names)):
        return ", ".join(f"{name} is {short(parameters.get(name) or 'not set')}" for name in names)
    which = "" if "*" in names else f" {' or '.join(names)}"
    return f"no parameter{which} matches {condition.matches}"


def _tables(condition: TableCondition, parameters: Mapping[str, str], facts: Facts) -> Sequence[str]:
    """The tables of certain types that parameters name, each once; behind ``proxy:`` it is another daemon's."""
    known = facts.settings(parameters).tables
    asked = (condition.of, condition.types)
    if asked not in known:
        types = "|".join(map(re.escape, condition.types))
        expression = rf"(?<![\w:])(?:{types}):[^\s,{{}}]+"
        values = _values(condition.of, expression, parameters, facts)
        tables = (match[0] for _, value in values for match in re.finditer(expression, value))
        known[asked] = tuple(dict.fromkeys(tables))
    return known[asked]


def _in_table(condition: TableCondition, table: str, values: Mapping[str, str]) -> Iterator[Catch]:
    pattern = re.compile(condition.matches)
    # Text tables may have many thousand keys, of which few hold what is sought.
    fitting = [key for key, value in values.items() if pattern.search(value)]
    for key in dict.fromkeys(key for glob in condition.keys for key in fnmatch.filter(fitting, glob)):
        yield from _matches(condition.matches, f"{key} in {table}", values[key])


def short(text: str) -> str:
    """A text that fits into a clause."""
    return text if len(text) <= 60 else f"{text[:57]}..."
