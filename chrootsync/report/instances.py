"""What was discovered, for people and for programs."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from chrootsync.model import Instance
from chrootsync.report.text import clean, command_line

WIDTH = 80
LABEL = 12


def render(instances: Sequence[Instance], *, as_json: bool, sought: str = "") -> str:
    """The instances as blocks of lines, or as JSON; where there is none, ``sought`` says where they were looked for."""
    if as_json:
        return json.dumps({"schema": 1, "instances": [_object(one) for one in instances]}, indent=2) + "\n"
    if not instances:
        return f"no instance found: {clean(sought)}\n"
    return "\n".join("".join(f"{line}\n" for line in _block(one)) for one in instances)


def _block(instance: Instance) -> Iterator[str]:
    yield f"{clean(instance.name)}{'' if instance.enabled else ' (disabled)'}"
    if instance.problem is not None:
        yield from _field("problem", clean(instance.problem))
    yield from _field("chroot", clean(instance.chroot))
    if instance.config is not None:
        yield from _field("config", clean(instance.config))
    yield from _field("found", clean(instance.found))
    if instance.version is not None:
        yield from _field("version", f"{clean(instance.service)} {clean(instance.version)}")
    if instance.problem is None:
        yield from _field("chrooted", _chrooted(instance))
    yield from _field("rule sets", ", ".join(map(clean, instance.rule_sets)))
    if instance.control.reload:
        yield from _field("reload", command_line(instance.control.reload))


def _chrooted(instance: Instance) -> str:
    if not instance.chrooted:
        return "no service runs chrooted: this instance needs nothing"
    names = [clean(daemon.name) for daemon in instance.daemons if daemon.chrooted]
    return ", ".join(names) if names else "the service as a whole"


def _field(label: str, text: str) -> Iterator[str]:
    lines = textwrap.wrap(text, WIDTH - LABEL - 2, break_long_words=False, break_on_hyphens=False) or [""]
    for index, line in enumerate(lines):
        yield f"  {label if index == 0 else '':<{LABEL}}{line}".rstrip()


def _object(instance: Instance) -> dict[str, Any]:
    return {
        "name": clean(instance.name),
        "service": instance.service,
        "provider": instance.provider,
        "chroot": clean(instance.chroot),
        "config": None if instance.config is None else clean(instance.config),
        "found": clean(instance.found),
        "version": None if instance.version is None else clean(instance.version),
        "enabled": instance.enabled,
        "chrooted": [
            {"service": clean(daemon.name), "program": clean(daemon.program)}
            for daemon in instance.daemons
            if daemon.chrooted
        ],
        "needs_chroot": instance.chrooted,
        "rule_sets": list(instance.rule_sets),
        "reload": [clean(part) for part in instance.control.reload],
        "problem": None if instance.problem is None else clean(instance.problem),
    }
