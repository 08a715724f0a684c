"""Fill the tables of docs/rules.md from the JSON Schema of rule files: a filter from standard input to output.

A table stands between ``<!-- keys of TABLE: KEY ... -->`` and ``<!-- end of keys -->``; TABLE is a path in the schema,
such as ``rule.when``. What a key means is said once, in chrootsync/rules; ``make docs`` runs this.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

from chrootsync.rules.keys import schema

BLOCK = re.compile(r"(<!-- keys of (\S+): ([a-z_ ]+) -->\n).*?(<!-- end of keys -->)", re.DOTALL)
HEAD = "| key | value | meaning | example |\n|---|---|---|---|\n"


def properties(path: str) -> tuple[dict[str, Any], list[str]]:
    """The keys of a table by its path in the schema, and the names of those that it must have."""
    found: dict[str, Any] = schema()
    for name in path.split("."):
        found = found["properties"][name]
        # What may come by itself or in an array is said in this order.
        found = found.get("items", found["anyOf"][0] if "anyOf" in found else found)
    return found["properties"], found.get("required", [])


def value(key: dict[str, Any], *, plural: bool = False) -> str:
    """The kind of value that a key has, in words."""
    end = "s" if plural else ""
    if "title" in key:
        return re.sub(r"^(\w+(?: \w+)*?)(?= of |$)", rf"\1{end}", key["title"])
    match key:
        case {"enum": values}:
            return " or ".join(code(one) for one in values)
        case {"anyOf": [first, *_]}:
            return f"{value(first)}, or array of {value(first, plural=True)}"
        case {"type": "array", "items": item}:
            return f"array of {value(item, plural=True)}"
        case {"type": "object"}:
            return f"table{end}"
        case {"type": kind}:
            return f"{kind}{end}"
    raise ValueError(f"no word for {key}")


def toml(one: object) -> str:
    """A value as somebody would write it into a TOML file."""
    if isinstance(one, dict):
        return f"{{ {', '.join(f'{name} = {toml(item)}' for name, item in one.items())} }}"
    if isinstance(one, list):
        return f"[{', '.join(map(toml, one))}]"
    # Literal strings leave backslashes alone.
    return f"'{one}'" if isinstance(one, str) and "\\" in one else json.dumps(one)


def code(one: object) -> str:
    return f"`{toml(one)}`"


def row(name: str, key: dict[str, Any], *, required: bool) -> str:
    kind = value(key) + (f"; default {code(key['default'])}" if "default" in key else "")
    example = ", ".join(code(one) for one in key.get("examples", []))
    cells = [f"`{name}`", f"{kind}; required" if required else kind, key["description"], example]
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |\n"


def filled(block: re.Match[str]) -> str:
    begin, path, names, end = block.groups()
    keys, required = properties(path)
    return "".join([begin, HEAD, *(row(name, keys[name], required=name in required) for name in names.split()), end])


if __name__ == "__main__":
    sys.stdout.write(BLOCK.sub(filled, sys.stdin.read()))
