"""Providers discover instances: one function each, and one row in :data:`PROVIDERS`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Final

from chrootsync.model import Config, ConfigError, Host, Instance, Provider, RuleSet
from chrootsync.providers import postfix, static

if TYPE_CHECKING:
    from chrootsync.model.queues import QueueReader

PROVIDERS: Final[Mapping[str, Provider]] = {
    "postfix": postfix.discover,
    "static": static.discover,
}

READERS: Final[Mapping[str, str]] = {"postfix": "chrootsync.providers.postfix.queues"}
"""By provider the module whose ``Reader`` counts what ``Control.queue`` prints."""

ROLES: Final[Mapping[str, str]] = {"postfix": "chrootsync.providers.postfix.roles"}
"""By provider the module whose ``guess`` tells what an instance is for."""


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


def queue_reader(instance: Instance) -> QueueReader | None:
    """What counts the queues of an instance; None where it has none, or nobody knows how to ask for them."""
    if not instance.control.queue or instance.provider not in READERS:
        return None
    reader: QueueReader = import_module(READERS[instance.provider]).Reader()
    return reader


def role(instance: Instance) -> str:
    """What an instance is for; empty where nothing tells."""
    if instance.problem is not None or instance.provider not in ROLES:
        return ""
    guessed: str = import_module(ROLES[instance.provider]).guess(instance)
    return guessed
