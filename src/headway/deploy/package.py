"""A bundle folder from chosen variants and plans, written beside its place and moved there whole."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from headway import __version__
from headway.deploy.staging import staged
from headway.deploy.synthetic import ROWS, synthetic_inputs
from headway.records import Bundle, BundledVariant, Environment, InputError, Objective, Plan, TensorSpec, Variant, to_json
from headway.runtime import Session, open_session
from headway.serve import FORMAT, MANIFEST, TOLERANCE, batchable, datatype, file_digest, model_digest, model_files, open_bundle

GOLDEN = "golden.npz"
MODELS = "models"
Expected = Mapping[str, float | None]
"""What was measured for an entry: ``latency_s``, ``rate_per_s`` and ``drop``, each optional."""


class Entry(NamedTuple):
    """One variant to bundle, its ONNX file, the plan to run it by, and what was measured for it."""

    variant: Variant
    path: Path
    plan: Plan
    expected: Expected


def package(
    folder: Path,
    *,
    name: str,
    entries: Sequence[tuple[Variant, Path, Plan, Expected]],
    objective: Objective,
    environment: Environment,
    labels: Sequence[str] = (),
    samples: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
) -> Bundle:
    """The manifest of a bundle written to ``folder``; the first entry is served, the others are fallen back to in order.

    Each variant runs on the golden inputs in its own runtime session here, and the outputs go into the golden set that a server
    replays. The folder appears whole or not at all, and replaces an older bundle.

    Args:
        name: the model's name in URLs; what cannot stand there becomes ``-``.
        samples: real golden inputs (rows of the model's inputs); none, the default: synthetic ones, so that nobody's data is
            in the bundle.

    Raises:
        InputError: an entry cannot be bundled, or the folder cannot be written; an older bundle is then untouched.
    """
    given = [Entry(*entry) for entry in entries]
    _check(given)
    folder = Path(folder)
    with staged(folder, MANIFEST, "a bundle") as stage:
        bundled = [_copy(stage, index, entry) for index, entry in enumerate(given)]
        inputs, outputs, specs = _golden(stage, bundled, samples, seed)
        arrays = {f"input/{key}": array for key, array in inputs.items()}
        for index, output in enumerate(outputs):
            arrays.update({f"output/{index}/{key}": array for key, array in output.items()})
        np.savez_compressed(stage / GOLDEN, **arrays)  # type: ignore[arg-type]  # numpy 1.26 has no allow_pickle here
        manifest = Bundle(
            format=FORMAT,
            name=_url_name(name),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            version=__version__,
            objective=objective,
            inputs=specs[0],
            outputs=specs[1],
            labels=tuple(labels),
            variants=tuple(bundled),
            golden=GOLDEN,
            golden_digest=file_digest(stage / GOLDEN),
            golden_synthetic=samples is None,
            tolerance=max(TOLERANCE.get(entry.variant.precision, max(TOLERANCE.values())) for entry in given),
            environment=environment,
        )
        (stage / MANIFEST).write_bytes(to_json(manifest) + b"\n")
        open_bundle(stage)
    return manifest


def _url_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:128] or "model"


def _check(entries: Sequence[Entry]) -> None:
    if not entries:
        raise InputError("package: at least one variant must be given, got none.")
    for entry in entries:
        if not entry.path.is_file():
            raise InputError(f"package: the file of variant {entry.variant.name!r} must exist, and {entry.path} does not.")
        unknown = set(entry.expected) - {"latency_s", "rate_per_s", "drop"}
        if unknown:
            raise InputError(f"package: expected figures must be among latency_s, rate_per_s, drop, got {sorted(unknown)}.")


def _copy(stage: Path, index: int, entry: Entry) -> BundledVariant:
    """Put a variant's files into a folder of their own: an ONNX file names its external data files relative to itself."""
    file = f"{MODELS}/{index}/{entry.path.name}"
    for source in model_files(entry.path.parent, entry.path.name):
        place = stage / MODELS / str(index) / source.relative_to(entry.path.parent)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place)
    return BundledVariant(variant=entry.variant, file=file, digest=model_digest(stage, file), plan=entry.plan, **entry.expected)


def _golden(
    stage: Path, bundled: Sequence[BundledVariant], samples: Mapping[str, np.ndarray] | None, seed: int
) -> tuple[Mapping[str, np.ndarray], list[dict[str, np.ndarray]], tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]]:
    """Golden inputs, each variant's outputs on them, and the specs that all variants share."""
    inputs: Mapping[str, np.ndarray] | None = samples
    outputs: list[dict[str, np.ndarray]] = []
    specs: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]] | None = None
    for entry in bundled:
        session = open_session(entry.plan, stage / entry.file)
        try:
            _check_specs(entry, session, specs)
            specs = specs or (session.inputs, session.outputs)
            if inputs is None:
                inputs, _ = synthetic_inputs(session, seed)
            elif samples is not None and not outputs:
                inputs = _first_rows(samples, session)
            outputs.append({key: np.asarray(array) for key, array in session.run(inputs).items()})
            _check_rows(entry, session, inputs, outputs[-1])
        finally:
            session.close()
    assert inputs is not None and specs is not None, "entries were checked not to be empty"
    return inputs, outputs, specs


def _first_rows(samples: Mapping[str, np.ndarray], session: Session) -> dict[str, np.ndarray]:
    missing = [spec.name for spec in session.inputs if spec.name not in samples]
    if missing:
        raise InputError(f"package: golden samples must hold every input, missing {missing}.")
    rows = ROWS if batchable(session.inputs, session.outputs) else 1
    return {spec.name: np.ascontiguousarray(samples[spec.name][:rows], dtype=np.dtype(spec.dtype)) for spec in session.inputs}


def _check_specs(entry: BundledVariant, session: Session, shared: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]] | None) -> None:
    name = entry.variant.name
    for spec in (*session.inputs, *session.outputs):
        datatype(spec)
    if entry.plan.max_batch > 1 and not batchable(session.inputs, session.outputs):
        raise InputError(
            f"package: variant {name!r} has a fixed first dimension, so its plan must have max_batch 1, got {entry.plan.max_batch}."
        )
    facts = tuple({spec.name: (spec.dtype, len(spec.shape)) for spec in side} for side in (session.inputs, session.outputs))
    if shared is not None and facts != tuple({spec.name: (spec.dtype, len(spec.shape)) for spec in side} for side in shared):
        raise InputError(f"package: all variants of a bundle must have the same inputs and outputs, and those of {name!r} differ: {facts}.")


def _check_rows(entry: BundledVariant, session: Session, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
    if not batchable(session.inputs, session.outputs):
        return
    rows = len(next(iter(inputs.values())))
    for name, output in outputs.items():
        if output.shape[:1] != (rows,):
            raise InputError(
                f"package: output {name!r} of {entry.variant.name!r} must have a row for each input row ({rows}), got shape {output.shape}."
            )
