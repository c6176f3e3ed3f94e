"""The benchmark's JSON lines: one fact a line, appended, each with the name of the environment it was measured in."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models import WORK

from headway.measure.environment import environment
from headway.records import to_plain

Line = dict[str, Any]
QUICK = WORK / "quick.jsonl"
RESULTS = Path(__file__).parent / "results.jsonl"
REPOSITORY = Path(__file__).parent.parent.parent


def anonymous(text: str) -> str:
    """Without this machine's folders."""
    return text.replace(str(REPOSITORY), ".").replace(str(Path.home()), "~").replace(tempfile.gettempdir(), "TMP")


@dataclass(frozen=True)
class Lines:
    """A file of facts."""

    path: Path

    def read(self) -> list[Line]:
        """Every line, oldest first."""
        return [json.loads(text) for text in self.path.read_text().splitlines()] if self.path.exists() else []

    def add(self, line: Line) -> None:
        """Append a fact, with the day."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(anonymous(json.dumps({**line, "measured": time.strftime("%Y-%m-%d", time.gmtime())})) + "\n")

    def environment(self) -> str:
        """The short name of this machine and its packages, written down when it is new; how noisy it was just now is left out."""
        found = {name: value for name, value in to_plain(environment()).items() if name != "noise_ratio"}
        name = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:8]
        if not any(line["stage"] == "environment" and line["name"] == name for line in self.read()):
            self.add({"stage": "environment", "name": name, "environment": found})
        return name
