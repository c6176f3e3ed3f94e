"""``python -m headway.model.workshop REQUEST``: one door opened in a process of its own.

Foreign frameworks, and code that users wrote, run here and not in the process that measures: it keeps its memory and threads, its standard
output stays clean, and an exporter that dies takes nobody with it. What comes back is files: ONNX graphs, the rows tried, and the
original's answers on them.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from headway.records import HeadwayError, InputError, MissingPackage, ModelError

REPLY = "reply.json"
EXTRAS = {"torch": "torch", "onnxscript": "torch", "keras": "keras", "tensorflow": "keras", "tf2onnx": "keras"}
ERRORS = {kind.__name__: kind for kind in (ModelError, MissingPackage, InputError)}


@dataclass(frozen=True)
class Request:
    """What a door is asked for: samples (a few rows, or none), the export routes wanted (none: all), and a folder for its files."""

    source: str
    samples: Mapping[str, np.ndarray] | None
    exporters: Sequence[str] | None
    folder: Path


@dataclass(frozen=True)
class Exported:
    """What a door gives: ONNX files by origin, preferred first; rows by input name and the original's answers by output name."""

    routes: Mapping[str, Path]
    inputs: Mapping[str, np.ndarray]
    expected: Mapping[str, np.ndarray]
    notes: tuple[str, ...] = ()
    labels: tuple[str, ...] = field(default=())


def write_arrays(folder: Path, kind: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Arrays into ``KIND.npz`` with their names, which may be any text, into ``KIND.json``."""
    np.savez(folder / f"{kind}.npz", **{f"a{index}": array for index, array in enumerate(arrays.values())})  # type: ignore[arg-type]
    (folder / f"{kind}.json").write_text(json.dumps(list(arrays)), "utf-8")


def read_arrays(folder: Path, kind: str) -> dict[str, np.ndarray]:
    """What ``write_arrays`` wrote."""
    names = json.loads((folder / f"{kind}.json").read_text("utf-8"))
    with np.load(folder / f"{kind}.npz", allow_pickle=False) as arrays:
        return {name: arrays[f"a{index}"] for index, name in enumerate(names)}


def open_door(door: str, request: Request) -> Exported:
    """What the door's file makes of the request.

    Raises:
        MissingPackage: the framework is not installed; the message names the extra.
    """
    try:
        module = importlib.import_module(f"headway.model.doors.{door}")
    except ImportError as error:
        raise missing(error.name or str(error), door) from error
    done: Exported = module.export(request)
    return done


def missing(package: str, what: str) -> MissingPackage:
    """The error for a package that is not installed, with the command that installs it."""
    root = package.split(".", maxsplit=1)[0]
    command = f"pip install 'headway[{EXTRAS[root]}]'" if root in EXTRAS else f"pip install {root}"
    return MissingPackage(f"{what}: the package {root!r} must be installed, got none; run: {command}")


def main(folder: Path) -> None:
    """Answer the request in ``folder`` with a reply in the same folder."""
    asked = json.loads((folder / "request.json").read_text("utf-8"))
    samples = read_arrays(folder, "samples") if asked["sampled"] else None
    try:
        done = open_door(asked["door"], Request(asked["source"], samples, asked["exporters"], folder))
        write_arrays(folder, "inputs", done.inputs)
        write_arrays(folder, "expected", done.expected)
        reply = {"routes": {origin: str(path) for origin, path in done.routes.items()}, "notes": done.notes, "labels": done.labels}
    except HeadwayError as error:
        reply = {"error": type(error).__name__, "message": str(error)}
    (folder / REPLY).write_text(json.dumps(reply), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
