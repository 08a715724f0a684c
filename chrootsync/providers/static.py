"""Instances that the configuration file lists."""

from __future__ import annotations

from collections.abc import Iterable

from chrootsync.model import Config, ConfigError, Control, Host, Instance, RuleSet, When


def discover(host: Host, config: Config, rule_sets: Iterable[RuleSet]) -> list[Instance]:  # noqa: ARG001 - Provider
    """The ``[[instance]]`` tables as instances; the first rule set that one names tells the kind of service.

    Raises ConfigError where a rule set does not exist, or cannot be used for an instance that is only listed.
    """
    known_sets = {rule_set.name: rule_set for rule_set in rule_sets}
    services = {name: rule_set.service for name, rule_set in known_sets.items()}
    problems = []
    instances = []
    for table in config.instances:
        unknown = [name for name in table.rules if name not in services]
        if unknown or not table.rules:
            known = ", ".join(sorted(services)) or "none"
            complaints = [f"no rule set is named '{name}'" for name in unknown] or ["rules names no rule set"]
            problems += [f"instance '{table.name}': {complaint}; known: {known}" for complaint in complaints]
            continue
        asking = [name for name in table.rules if _asks_for_daemons(known_sets[name])]
        if asking:
            reason = "asks which daemons run chrooted, which is known of Postfix alone; write a rule set for it"
            problems += [f"instance '{table.name}': rule set '{name}' {reason}" for name in asking]
            continue
        instances.append(
            Instance(
                name=table.name,
                service=services[table.rules[0]],
                provider="static",
                chroot=table.chroot,
                found="listed in the configuration file",
                rule_sets=table.rules,
                control=Control(reload=table.reload, running=table.running, unit=table.unit),
            )
        )
    if problems:
        raise ConfigError(*problems)
    return instances


def _asks_for_daemons(rule_set: RuleSet) -> bool:
    """Whether a rule of a set could never hold for an instance of which no daemons are known."""
    return any(rule.when and all(map(_of_daemons, rule.when)) for rule in rule_set.rules)


def _of_daemons(when: When) -> bool:
    return bool(when.chrooted or when.parameters or when.table)
