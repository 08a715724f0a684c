"""Instances that the configuration file lists."""

from __future__ import annotations

from collections.abc import Iterable

from chrootsync.model import Config, ConfigError, Control, Host, Instance, RuleSet


def discover(host: Host, config: Config, rule_sets: Iterable[RuleSet]) -> list[Instance]:  # noqa: ARG001 - Provider
    """The ``[[instance]]`` tables as instances; the first rule set that one names tells the kind of service.

    Raises ConfigError where a rule set does not exist.
    """
    services = {rule_set.name: rule_set.service for rule_set in rule_sets}
    problems = []
    instances = []
    for table in config.instances:
        unknown = [name for name in table.rules if name not in services]
        if unknown or not table.rules:
            known = ", ".join(sorted(services)) or "none"
            complaints = [f"no rule set is named '{name}'" for name in unknown] or ["rules names no rule set"]
            problems += [f"instance '{table.name}': {complaint}; known: {known}" for complaint in complaints]
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
