"""The models, their data in disjoint parts, and where the files of a comparison lie: the demos' models, scored on rows nobody calibrated on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import headway.data
import headway.model
from headway.compress import Context, LabelledRows
from headway.data import Dataset, Parts
from headway.demo import Case, find_demo
from headway.measure.environment import instruction_sets
from headway.model import Model

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headway"
WORK = CACHE / "compression"
NAMES = ("digits", "vision", "text", "speech", "recommend")
EXPORTERS = {"text": "torch-script"}
"""The export that ONNX Runtime runs fastest uncompressed, so that nobody wins by a slow start; elsewhere both are level."""
TITLES = {
    "digits": "digits CNN",
    "vision": "EfficientNet-Lite0",
    "text": "MiniLM classifier",
    "speech": "speech LSTM",
    "recommend": "NeuMF",
}
BATCHES = {"digits": (1, 32), "vision": (1,), "text": (1,), "speech": (1,), "recommend": (1, 32)}
"""Batch sizes that are timed: below 0.1 ms a call costs as much as the arithmetic, so the small models are timed in batches too."""
SEED = 0


@dataclass(frozen=True)
class Bench:
    """One model ready to be compressed and scored.

    Attributes:
        name: the demo's name.
        folder: its files: ``parent.onnx``, ``calibration.npz``, ``selection.npz`` and, where there are rows to learn from, ``train.npz``.
    """

    name: str
    case: Case
    model: Model
    parts: Parts
    folder: Path

    @property
    def parent(self) -> Path:
        """The float32 model."""
        return self.folder / "parent.onnx"

    def context(self) -> Context:
        """What Headway's techniques may look at: the same rows that the peers get."""
        parts = self.parts
        return Context(
            samples=parts.calibration.inputs, instruction_sets=frozenset(instruction_sets()), seed=SEED, train=_rows(parts.train),
            selection=_rows(parts.selection),
        )  # fmt: skip


def prepare(name: str, progress: Callable[[str], None]) -> Bench:
    """The demo's model exported, its data split, and both written for the peers."""
    found = find_demo(name)
    if name not in found.present:
        raise SystemExit(f"the demo {name} cannot be built here: {found.missing.get(name, 'there is no such demo')}")
    case: Case = found.present[name].build(CACHE / "demo", progress)
    dataset = headway.data.load(str(case.data))
    samples = {key: array[:4] for key, array in dataset.inputs.items()}
    (model, *_) = headway.model.load(case.model, samples, exporters=(EXPORTERS.get(name, "torch-dynamo"),)).models
    dataset = headway.data.check(dataset, model.inputs)
    train = headway.data.check(headway.data.load(str(case.train)), model.inputs) if case.train else None
    bench = Bench(name, case, model, headway.data.split(dataset, seed=SEED, train=train), WORK / name)
    _write(bench)
    return bench


def job(bench: Bench, settings: dict, out: Path) -> Path:
    """The file that tells a peer's script what to do (``scripts/job.py``)."""
    out.mkdir(parents=True, exist_ok=True)
    held = {
        "name": bench.name, "model": str(bench.parent), "calibration": str(bench.folder / "calibration.npz"),
        "selection": str(bench.folder / "selection.npz"), "train": str(bench.folder / "train.npz") if bench.parts.train else None,
        "reference": bench.case.model, "instruction_sets": list(instruction_sets()), "out": str(out), "settings": settings,
    }  # fmt: skip
    path = out / "job.json"
    path.write_text(json.dumps(held))
    return path


def _write(bench: Bench) -> None:
    bench.folder.mkdir(parents=True, exist_ok=True)
    bench.model.save(bench.parent)
    np.savez(bench.folder / "calibration.npz", **bench.parts.calibration.inputs)  # type: ignore[arg-type]
    for name, part in (("selection", bench.parts.selection), ("train", bench.parts.train)):
        if part is not None:
            np.savez(bench.folder / f"{name}.npz", label=part.labels, **part.inputs)  # type: ignore[arg-type]


def _rows(dataset: Dataset | None) -> LabelledRows | None:
    return None if dataset is None else LabelledRows(dataset.inputs, dataset.labels)
