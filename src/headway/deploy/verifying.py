"""An export folder checked: digests, the model against the golden set, and the real server's answers where one can be asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

import msgspec
import numpy as np

from headway.deploy.exporting import FORMAT, MANIFEST, digests, target_module
from headway.records import BundleError, Export, HeadwayError, RecordError, Verified, from_json
from headway.runtime import open_session
from headway.serve.golden import INTEGER_TOLERANCE, difference

MANIFEST_BYTES = 8 * 2**20
Arrays = Mapping[str, np.ndarray]
Ask = Callable[[Export, Arrays], Arrays]
"""Sends the golden inputs to a server and gives its answers, by output name."""


def read_export(folder: Path) -> Export:
    """The manifest of an export folder whose files are as they were written.

    Raises:
        BundleError: it is no export, or a file was changed, added or removed.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise BundleError(
            f"{folder}: must be an export folder, and has no {MANIFEST}; make one with: headway export BUNDLE --to TARGET {folder}"
        )
    if path.stat().st_size > MANIFEST_BYTES:
        raise BundleError(f"{path}: must be at most {MANIFEST_BYTES} bytes, got {path.stat().st_size}")
    try:
        export = from_json(path.read_bytes(), Export, str(path))
    except RecordError as error:
        raise BundleError(str(error)) from error
    if export.format != FORMAT:
        raise BundleError(f"{path}: the format must be {FORMAT}, got {export.format}. Use the version of Headway that made it.")
    found = digests(folder)
    for name in sorted({*found, *export.files}):
        if found.get(name) != export.files.get(name):
            state = "is missing" if name not in found else "was added" if name not in export.files else "was changed"
            raise BundleError(f"{folder}: every file must be as it was exported, and {name!r} {state}. Export again.")
    for name in (export.golden, export.file):
        if name and name not in export.files:
            raise BundleError(f"{path}: names the file {PurePosixPath(name)}, which is not among those exported. Export again.")
    return export


def verify(folder: Path, ask: Ask | None = None, where: str = "") -> Verified:
    """An export's answers against its golden set: by its model file, run here, and by the real server.

    Args:
        ask: how to ask a server that is running; none: the target's own way to start one here, where there is such a way.
        where: that server, in words.

    Raises:
        BundleError: the folder was changed, or answers lie further apart than the tolerance; the message says which output and how far.
    """
    export = read_export(folder)
    inputs, expected = _golden(folder, export)
    by_model = _by_model(folder, export, inputs)
    apart = None if by_model is None else _compare(by_model, expected, export.tolerance, f"{folder / export.file}")
    answers, asked = _by_server(folder, export, inputs, ask, where)
    server = None if answers is None else _compare(answers, expected, export.tolerance, asked)
    return Verified(
        target=export.target, files=len(export.files), model_difference=apart, server_difference=server, asked=asked, tolerance=export.tolerance
    )  # fmt: skip


def _golden(folder: Path, export: Export) -> tuple[Arrays, Arrays]:
    try:
        with np.load(folder / export.golden, allow_pickle=False) as arrays:
            return (
                {spec.name: arrays[f"input/{spec.name}"] for spec in export.inputs},
                {spec.name: arrays[f"output/{spec.name}"] for spec in export.outputs},
            )
    except (KeyError, ValueError, OSError, EOFError) as error:
        raise BundleError(f"{folder / export.golden}: must hold every input and output, got: {error}. Export again.") from error


def _by_model(folder: Path, export: Export, inputs: Arrays) -> Arrays | None:
    if not export.file:
        return None
    session = open_session(msgspec.structs.replace(export.policy.plan, instances=1), folder / export.file)
    try:
        return {name: np.asarray(array) for name, array in session.run(inputs).items()}
    finally:
        session.close()


def _by_server(folder: Path, export: Export, inputs: Arrays, ask: Ask | None, where: str) -> tuple[Arrays | None, str]:
    if ask is not None:
        return ask(export, inputs), where
    module = target_module(export.target)
    start = getattr(module, "answers", None)
    if start is None:
        return None, "no server was asked: this target cannot be started here; start it and give --url"
    try:
        return start(folder, export, inputs), getattr(module, "ASKED", f"{export.target}, started here")
    except HeadwayError as error:
        if isinstance(error, BundleError):
            raise
        return None, f"no server was asked: {error}"


def _compare(got: Arrays, expected: Arrays, allowed: float, who: str) -> float:
    """The largest difference of all outputs."""
    worst = 0.0
    for name, reference in expected.items():
        if name not in got:
            raise BundleError(f"{who}: must answer with every output, and {name!r} is missing")
        distance = difference(np.asarray(got[name]), reference)
        bound = allowed if reference.dtype.kind == "f" else INTEGER_TOLERANCE
        if not distance <= bound:
            raise BundleError(f"{who}: output {name!r} must be within {bound:g} of the golden set, and lies {distance:.3g} away")
        worst = max(worst, distance)
    return worst
