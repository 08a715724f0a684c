"""Providers discover instances: one function each, and one row in :data:`PROVIDERS`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from chrootsync.model import Config, ConfigError, Host, Instance, Provider, RuleSet
from chrootsync.providers import postfix, static

PROVIDERS: Final[Mapping[str, Provider]] = {
    "postfix": postfix.discover,
    "static": static.discover,
}


def discover_all(host: Host, config: Config, rule_sets: Sequence[RuleSet]) -> list[Instance]:
    """The instances of all providers, in their order; broken ones have their ``problem``.

    Raises ConfigError where a name is not unique, or where the configuration names what does not exist.
    """
    instances = [instance for discover in PROVIDERS.values() for instance in discover(host, config, rule_sets)]
    first: dict[str, Instance] = {}
    problems = []
    for instance in instances:
        other = first.setdefault(instance.name, instance)
        if other is not instance:
            problems.append(
                f"instance '{instance.name}' is there twice, as {other.service} ({other.found}) and as "
                f"{instance.service} ({instance.found}): give one of them another name"
            )
    if problems:
        raise ConfigError(*problems)
    return instances
