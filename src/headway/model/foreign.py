"""The near side of the workshop: a process started, its files read back, its failures told in one sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from headway.model.feeds import Samples
from headway.model.reference import Reference
from headway.model.workshop import ERRORS, REPLY, Exported, read_arrays, write_arrays
from headway.records import ModelError

SAMPLE_ROWS = 4
_QUIET = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "PYTHONIOENCODING": "utf-8"}


@contextmanager
def exported(reference: Reference, samples: Samples | None, exporters: Sequence[str] | None) -> Iterator[Exported]:
    """What the door gives, its files readable until the block ends.

    Raises:
        ModelError, MissingPackage: as the door says; a workshop that dies is a ModelError with the last line it printed.
    """
    with tempfile.TemporaryDirectory(prefix="headway-") as place:
        folder = Path(place)
        if samples is not None:
            write_arrays(folder, "samples", {name: _plain(name, array) for name, array in samples.items()})
        asked = {
            "door": reference.door,
            "source": reference.source,
            "exporters": exporters and list(exporters),
            "sampled": samples is not None,
        }
        (folder / "request.json").write_text(json.dumps(asked), "utf-8")
        last_line = _work(folder)
        yield _read(folder, reference, last_line)


def _work(folder: Path) -> str:
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    with (folder / "said.txt").open("wb") as said:
        subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "headway.model.workshop", str(folder)],
            stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, env={**os.environ, **_QUIET, "PYTHONPATH": path}, check=False,
        )  # fmt: skip
    lines = [line for line in (folder / "said.txt").read_text("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else "nothing"


def _read(folder: Path, reference: Reference, last_line: str) -> Exported:
    file = folder / REPLY
    if not file.is_file():
        raise ModelError(f"{reference.source}: the export must finish, but its process died; it last said: {last_line}")
    reply = json.loads(file.read_text("utf-8"))
    if "error" in reply:
        raise ERRORS.get(reply["error"], ModelError)(reply["message"])
    routes = {origin: Path(path) for origin, path in reply["routes"].items()}
    return Exported(routes, read_arrays(folder, "inputs"), read_arrays(folder, "expected"), tuple(reply["notes"]), tuple(reply["labels"]))


def _plain(name: str, array: np.ndarray) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype.kind not in "biuf":
        raise ModelError(
            f"samples: input {name!r} must be numeric for a PyTorch or TensorFlow model, got {array.dtype}; encode it as numbers"
        )
    return array[:SAMPLE_ROWS] if array.ndim else array
