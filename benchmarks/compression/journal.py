"""The benchmark's JSON lines: what was made, how it answered, how long it took, and on which machine.

One line a fact, appended; of two lines about the same fact the newest holds. ``stage`` is ``environment``, ``made``, ``scored`` or ``timed``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Line = dict[str, Any]


@dataclass(frozen=True)
class Key:
    """One row of the comparison: a model, the tool that compressed it, and the tool's setting."""

    model: str
    tool: str
    row: str

    def __str__(self) -> str:
        return f"{self.model} {self.tool} {self.row}"


FP32 = ("none", "float32")


@dataclass
class Journal:
    """All lines of a file, by what they are about.

    Attributes:
        path: the file; it need not exist.
        facts: newest line by (stage, model, tool, row, runtime, batch).
    """

    path: Path
    facts: dict[tuple[str, ...], Line] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path.exists():
            for text in self.path.read_text().splitlines():
                self._hold(json.loads(text))

    def add(self, line: Line) -> None:
        """Keep a line, in the file too."""
        self._hold(line)
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def find(self, stage: str, key: Key, runtime: str = "", batch: int = 0) -> Line | None:
        """The newest line about a fact, or none."""
        return self.facts.get((stage, key.model, key.tool, key.row, runtime, str(batch)))

    def rows(self, model: str) -> Iterator[tuple[Key, Line]]:
        """Every row of a model that was made or tried, in the order of the first trial."""
        for line in self.facts.values():
            if line["stage"] == "made" and line["model"] == model:
                yield Key(line["model"], line["tool"], line["row"]), line

    def environment(self, found: dict[str, Any]) -> str:
        """The short name of an environment, written down when it is new; its noise is left to the timed lines."""
        kept = {name: value for name, value in found.items() if name not in ("noise_ratio", "steal_fraction")}
        name = hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:8]
        if ("environment", name, "", "", "", "0") not in self.facts:
            self.add({"stage": "environment", "model": name, "environment": kept})
        return name

    def _hold(self, line: Line) -> None:
        about = (
            line["stage"],
            line["model"],
            line.get("tool", ""),
            line.get("row", ""),
            line.get("runtime", ""),
            str(line.get("batch", 0)),
        )
        self.facts[about] = line
