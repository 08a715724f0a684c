"""What was measured, as it travels from the container to the report: JSON there and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.measure import Sample, Samples


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """Commands that did the same work in turn: their runs by name. ``facts`` tell the size of the work."""

    name: str
    samples: Mapping[str, Samples]
    facts: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As JSON has it."""
        runs = {name: [[run.ms, run.cpu_ms, run.mb] for run in one.runs] for name, one in self.samples.items()}
        return {"name": self.name, "facts": dict(self.facts), "samples": runs}


def from_json(value: Mapping[str, Any]) -> Measurement:
    """The same from JSON."""
    samples = {
        name: Samples([Sample(ms=ms, cpu_ms=cpu, mb=mb) for ms, cpu, mb in runs])
        for name, runs in value["samples"].items()
    }
    return Measurement(name=value["name"], samples=samples, facts=value["facts"])
