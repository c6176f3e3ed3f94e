"""What a peer's script is given and what it must leave: read from the JSON file named on the command line.

A script runs in the peer's own environment and imports nothing of Headway except, where a peer needs the torch module, the demo that builds
it. It leaves ``model.onnx`` (or ``model.xml`` and ``model.bin``) in ``out``; an exception is a result too, and its last line is kept.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Job:
    """One row to make.

    Attributes:
        name: of the model.
        model: the float32 ONNX file.
        calibration, selection, train: ``.npz`` with the model's inputs and, but for calibration, ``label``; train may be none.
        reference: ``python:module:callable`` of the torch module behind the ONNX file.
        instruction_sets: of the machine that will serve.
        out: folder for the result.
        settings: of the row.
    """

    name: str
    model: Path
    calibration: Path
    selection: Path
    train: Path | None
    reference: str
    instruction_sets: tuple[str, ...]
    out: Path
    settings: dict[str, Any]

    @property
    def onnx(self) -> Path:
        """Where the result goes."""
        return self.out / "model.onnx"

    def network(self) -> Any:
        """The torch module, in evaluation mode."""
        _, module, function = self.reference.split(":")
        return getattr(importlib.import_module(module), function)().eval()


def read_job() -> Job:
    """The job named on the command line."""
    held = json.loads(Path(sys.argv[1]).read_text())
    paths = {name: Path(held[name]) for name in ("model", "calibration", "selection", "out")}
    rest = {"train": Path(held["train"]) if held["train"] else None, "instruction_sets": tuple(held["instruction_sets"])}
    return Job(**paths, **rest, **{name: held[name] for name in ("name", "reference", "settings")})


def arrays(path: Path) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Inputs by name, and labels where there are any."""
    with np.load(path, allow_pickle=False) as archive:
        held = {name: archive[name] for name in archive.files}
    return {name: array for name, array in held.items() if name != "label"}, held.get("label")


def feeds(path: Path, size: int = 1, most: int = 512) -> Iterator[dict[str, np.ndarray]]:
    """Inputs in batches of ``size`` rows, at most ``most`` rows; the last batch is left out when it is smaller."""
    inputs, _ = arrays(path)
    rows = min(most, len(next(iter(inputs.values()))))
    for start in range(0, rows - size + 1, size):
        yield {name: array[start : start + size] for name, array in inputs.items()}
