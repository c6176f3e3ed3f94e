"""``explain``: why a variant answers as it does, from a finished run: where the error enters, what became of the layers, whose answer changed."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

import headway.data
from headway.api.config import TuneConfig
from headway.api.layer_noise import Arrays, LayerNoise, layer_noise
from headway.api.progress import Progress, Silent
from headway.compress import CLEANING, Context, rescaled
from headway.compress.graph import normalise
from headway.data import Dataset
from headway.data.split import Shares, split_indices
from headway.measure.scoring import answers
from headway.model import Model
from headway.quality import Metric, metric
from headway.quality.pair import Pair, pair
from headway.records import (
    BundleError,
    Census,
    Choice,
    ConfigError,
    DataError,
    Effect,
    GuardResult,
    Plan,
    Quality,
    Record,
    Rejection,
    RunStarted,
    Variant,
    read_journal,
)

SCORING_BATCH = 16
CHANGES = {
    (True, False): "right to wrong",
    (False, False): "wrong to wrong",
    (False, True): "wrong to right",
    (True, True): "right both times",
}
"""By whether parent and variant are right."""
R = TypeVar("R", bound=Record)


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """A sample of the selection part whose answer is not the parent's.

    Attributes:
        row: its row in the data as given, from 0.
        label, before, after: right answer, parent's, variant's: the class's name or number; where rows have no single answer, the
            metric's value of the row before and after.
        change: ``right to wrong``, ``wrong to right``, ``wrong to wrong`` (or ``right both times``, where several
            answers are right), or empty without right and wrong.
    """

    row: int
    group: str
    label: str
    before: str
    after: str
    change: str


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """All that a run's files say about one variant.

    Attributes:
        parent: the model it was made from; answers are compared with it.
        reference: the graph that layers are compared with: the parent, or the parent folded, whose answers are the same to rounding.
        runtime: what both answered through.
        layers: every value both graphs have, in the reference's order.
        layers_note: how the reference was changed before, so that its values can be compared, or why none is; empty without anything to say.
        changed: samples whose answer changed, those that were right before first.
        rows: samples looked at.
    """

    variant: str
    parent: str
    reference: str
    runtime: str
    effects: tuple[Effect, ...]
    census: tuple[Census, ...]
    qualities: tuple[Quality, ...]
    guards: tuple[GuardResult, ...]
    rejected: tuple[Rejection, ...]
    layers: tuple[LayerNoise, ...]
    layers_note: str
    changed: tuple[Changed, ...]
    rows: int

    @property
    def entered(self) -> tuple[LayerNoise, ...]:
        """Layers where noise enters, the most first."""
        return tuple(sorted((layer for layer in self.layers if layer.entered > 0), key=lambda layer: -layer.entered))


def explain(folder: Path, name: str, *, data: str = "", runtime: str = "", progress: Progress | None = None) -> Explained:
    """Why a variant of a finished run answers as it does.

    Args:
        name: the variant's name, or a part of it that no other has.
        data: the samples, where they lie elsewhere now; they must be the same.
        runtime: the one to answer through; by default the chosen plan's, else one that scored the variant.

    Raises:
        BundleError: no run, or its variants are gone.
        ConfigError: no such variant.
        DataError: the samples are gone or are others.
        Unsupported: a graph does not run.
    """
    progress = progress or Silent()
    progress.stage("explain", 3)
    lines = read_journal(folder)
    started = next((line for line in lines if isinstance(line, RunStarted)), None)
    if started is None:
        raise BundleError(f"{folder}: must hold a run that has begun, got no first record; tune again")
    variants = {line.name: line for line in lines if isinstance(line, Variant)}
    variant = _named(name, variants)
    parent = _parent(variant, variants)
    reference = next(
        (v for v in variants.values() if v.source == variant.source and v.kind == "fold" and variant.kind.startswith("fold")), parent
    )
    progress.step("read the samples")
    calibration, selection, rows = _samples(started, data, _model(folder, parent))
    progress.step("run every layer")
    ours, note = _compared(folder, reference, variant, calibration)
    layers = () if ours is None else layer_noise(ours, _proto(folder, variant), calibration.inputs)
    progress.step("answer every sample")
    through = runtime or _runtime(lines, variant)
    paths = _path(folder, parent), _path(folder, variant)
    cores = min(started.environment.cores, os.cpu_count() or 1)
    changed = _changed(paths, through, cores, metric(started.data.metric), selection, rows)
    return Explained(
        variant=variant.name, parent=parent.name, reference=reference.name, runtime=through, effects=variant.effects,
        census=_of(lines, Census, variant), qualities=_of(lines, Quality, variant), guards=_of(lines, GuardResult, variant),
        rejected=_of(lines, Rejection, variant), layers=layers, layers_note=note, changed=changed, rows=len(selection),
    )  # fmt: skip


def _of(lines: Sequence[Record], kind: type[R], variant: Variant) -> tuple[R, ...]:
    return tuple(line for line in lines if isinstance(line, kind) and line.variant == variant.name)  # type: ignore[attr-defined]


def _named(name: str, variants: Mapping[str, Variant]) -> Variant:
    if name in variants:
        return variants[name]
    able = [known for known in variants if name in known or variants[known].digest.startswith(name)]
    if len(able) == 1:
        return variants[able[0]]
    close = able or difflib.get_close_matches(name, variants, n=3, cutoff=0.3) or list(variants)
    what = "fits several" if able else "is not there"
    raise ConfigError(f"VARIANT must name one variant of the run, but {name!r} {what}; some are: {', '.join(close[:6])}")


def _parent(variant: Variant, variants: Mapping[str, Variant]) -> Variant:
    found = next((v for v in variants.values() if v.digest == variant.parent_digest), None)
    if found is None:
        raise BundleError(
            f"{variant.name}: the run must hold the model it was made from, got no variant with digest {variant.parent_digest[:16]}"
        )
    return found


def _path(folder: Path, variant: Variant) -> Path:
    path = folder / variant.path
    if not path.is_file():
        raise BundleError(f"{path}: must be the variant's file, got none; restore it, or tune again into a new folder")
    return path


def _proto(folder: Path, variant: Variant) -> ModelProto:
    return normalise(onnx.load(str(_path(folder, variant))))


def _compared(folder: Path, reference: Variant, variant: Variant, calibration: Dataset) -> tuple[ModelProto | None, str]:
    """The graph whose values the variant's are compared with, and what to say of it; none where a technique moved scales between layers of a graph that
    an earlier step had changed, since that graph is not kept."""
    model, context = _model(folder, reference), Context(samples=calibration.inputs)
    before: list[str] = []
    for step in variant.recipe:
        moved = rescaled(model, step, context)
        if moved is not None and before:
            made = " and ".join(before)
            return None, f"not compared: {step} moved scales between the layers of what {made} had made, and that is not kept"
        if moved is not None:
            return normalise(moved), "scales moved between layers as the recipe does, which changes no answer"
        if step.technique != CLEANING:
            before.append(step.technique)
    return _proto(folder, reference), ""


def _model(folder: Path, variant: Variant) -> Model:
    return Model.from_proto(onnx.load(str(_path(folder, variant))), variant.name, variant.origin)


def _samples(started: RunStarted, data: str, model: Model) -> tuple[Dataset, Dataset, NDArray[np.intp]]:
    """The calibration and selection parts as the run had them, and the rows of the selection part."""
    config = msgspec.convert(started.config, TuneConfig, strict=False)
    place = data or config.data
    try:
        whole = headway.data.check(headway.data.load(place, inputs=model.inputs, images=config.images), model.inputs, outputs=model.outputs)
    except DataError as error:
        raise DataError(f"explain needs the samples of the run: {error}. If they moved, say where they are with --data.") from error
    if whole.digest != started.data.digest:
        raise DataError(f"explain needs the samples of the run, got others in {place}; give the file as it was with --data")
    calibration, selection, _ = split_indices(whole, seed=started.seed, shares=Shares())
    return whole.take(calibration), whole.take(selection), selection


def _runtime(lines: Sequence[Record], variant: Variant) -> str:
    chosen = next((line.candidate for line in lines if isinstance(line, Choice) and line.candidate is not None), None)
    if chosen is not None and chosen.variant == variant.name:
        return chosen.plan.runtime
    return next((line.runtime for line in lines if isinstance(line, Quality) and line.variant == variant.name), "onnx_runtime")


def _changed(
    paths: tuple[Path, Path], runtime: str, cores: int, judged: Metric, selection: Dataset, rows: NDArray[np.intp]
) -> tuple[Changed, ...]:
    before = answers(paths[0], Plan(runtime="onnx_runtime", threads=cores), selection.inputs, batch=SCORING_BATCH)
    after = answers(paths[1], Plan(runtime=runtime, threads=cores), selection.inputs, batch=SCORING_BATCH)
    outputs = dict(zip(before, after.values(), strict=True))
    both = pair(judged, outputs, before, selection.labels, len(selection))
    said = _said(judged, both, outputs, before)
    found = [
        Changed(
            row=int(rows[at]),
            group="" if selection.groups is None else str(selection.groups[at]),
            label="" if selection.labels is None else _word(selection.labels[at], selection),
            before=_word(said[0][at], selection),
            after=_word(said[1][at], selection),
            change="" if both.hits is None else CHANGES[bool(both.hits[1][at]), bool(both.hits[0][at])],
        )
        for at in np.flatnonzero(~both.same)
    ]
    order = [*CHANGES.values(), ""]
    return tuple(sorted(found, key=lambda row: (order.index(row.change), row.row)))


def _said(judged: Metric, both: Pair, outputs: Arrays, before: Arrays) -> tuple[NDArray[Any], NDArray[Any]]:
    """What parent and variant say in each row: answers, else the metric's value of the row, else the first number of the output."""
    scores, reference = judged.select(outputs), judged.select(before)
    if judged.answers is not None:
        return judged.answers(reference, reference), judged.answers(np.nan_to_num(scores), reference)
    if both.rows is not None:
        return both.rows[1], both.rows[0]
    return reference.reshape(len(reference), -1)[:, 0], scores.reshape(len(scores), -1)[:, 0]


def _word(value: object, data: Dataset) -> str:
    """A class by its name, a fraction in four digits, an array in short."""
    array = np.asarray(value)
    if array.size > 1:
        return np.array2string(array.ravel()[:8], precision=4, separator=" ", threshold=8)
    one = array.reshape(-1)[0]
    if array.dtype.kind in "iub":
        return data.class_names[int(one)] if 0 <= int(one) < len(data.class_names) else str(int(one))
    return f"{float(one):.4g}"
