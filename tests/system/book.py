"""The commands and settings of docs/services.md, so that what is tried is what administrators read."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .image import PROJECT


@dataclass(frozen=True, kw_only=True, slots=True)
class Chapter:
    """What one section tells to do: shell commands in their order, and TOML texts."""

    commands: tuple[str, ...]
    settings: tuple[str, ...]


def chapter(title: str) -> Chapter:
    """The section of that title."""
    text = (PROJECT / "docs" / "services.md").read_text()
    [section] = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    blocks: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return Chapter(
        commands=tuple(block for language, block in blocks if language == "sh"),
        settings=tuple(block for language, block in blocks if language == "toml"),
    )
