"""Models in the folders and archives of other servers, for the tests of imports; and how a model answers."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from headway.model import Model
from headway.testing.small_graphs import mlp, samples

CONFIG = """
name: "dense"
platform: "onnxruntime_onnx"   # the older word for the backend
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 12 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] label_filename: "labels.txt" } ]
instance_group [ { count: 2 kind: KIND_CPU } ]
dynamic_batching {
  preferred_batch_size: [ 4, 8 ]
  max_queue_delay_microseconds: 100
  default_queue_policy { max_queue_size: 10 }
}
parameters { key: "intra_op_thread_count" value: { string_value: "1" } }
parameters { key: "execution_mode" value: { string_value: "0" } }
model_warmup { name: "one" batch_size: 1 inputs { key: "x" value: { data_type: TYPE_FP32 dims: 12 zero_data: true } } }
"""
LABELS = ("cat", "dog", "bird", "fish")
BATCHING = """
max_batch_size { value: 16 }
batch_timeout_micros { value: 2000 }
max_enqueued_batches { value: 100 }
num_batch_threads { value: 2 }
allowed_batch_sizes: 8
allowed_batch_sizes: 16
"""


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def graph_bytes() -> bytes:
    return bytes(mlp().SerializeToString())


def rows(count: int = 5) -> dict[str, np.ndarray]:
    return samples(mlp(), count)


def expected(feeds: Mapping[str, np.ndarray]) -> np.ndarray:
    """The answers of the graph that all folders here hold."""
    return answers(Model.from_proto(mlp(), "mlp", "onnx"), feeds)


def answers(model: Model, feeds: Mapping[str, np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.to_bytes(), providers=["CPUExecutionProvider"])
    made: np.ndarray = session.run(None, dict(feeds))[0]
    return made


def triton(folder: Path, config: str = CONFIG, files: Mapping[str, bytes | str] | None = None) -> Path:
    """A model's folder; by default the small graph in version 1."""
    write(folder / "config.pbtxt", config)
    write(folder / "labels.txt", "\n".join(LABELS))
    for name, content in (files if files is not None else {"1/model.onnx": graph_bytes()}).items():
        write(folder / name, content)
    return folder


def external(folder: Path) -> None:
    """The small graph with its weights beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save_model(mlp(), folder / "model.onnx", save_as_external_data=True, location="model.data", size_threshold=0)


def manifest(**model: Any) -> str:
    """What torch-model-archiver writes."""
    told = {"modelName": "dense", "modelVersion": "1.0", **model}
    return json.dumps({"createdOn": "17/11/2026 10:00:00", "runtime": "python", "model": told, "archiverVersion": "0.12.0"})


def mar_files(files: Mapping[str, bytes | str], **model: Any) -> dict[str, bytes | str]:
    return {"MAR-INF/MANIFEST.json": manifest(**model), **files}


def mar(path: Path, files: Mapping[str, bytes | str], **model: Any) -> Path:
    """An archive with a manifest."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in mar_files(files, **model).items():
            archive.writestr(name, content)
    return path


def mlserver(folder: Path, files: Mapping[str, bytes | str], **settings: Any) -> Path:
    write(folder / "model-settings.json", json.dumps({"name": "dense", "implementation": "runtime.Onnx", **settings}))
    for name, content in files.items():
        write(folder / name, content)
    return folder
