"""One network through three doors: the digits demo's CNN as torch program, Keras file and ONNX file, each tuned alike.

    python benchmarks/doors.py

The weights are the same, so the answers must be, and the choices should be comparable: same quality within the bound, SLO capacity within
the noise of the machine. Appends one line a door to ``benchmarks/results/doors.jsonl``. Needs the extras ``keras``, ``torch`` and ``demo``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import onnxruntime
import torch

from headway.api.demo import cache_folder
from headway.demo import find_demo
from headway.demo.demos.digits import network
from headway.model import load

RESULTS = Path(__file__).parent / "results" / "doors.jsonl"
BUDGET = "90s"
BATCH_NORM_EPSILON = 1e-5  # torch's; the default of Keras differs


def keras_twin(reader: torch.nn.Module) -> keras.Model:
    """The same network, channels last inside: ``image`` float32 [N, 1, 28, 28] to logits [N, 10]."""
    image = keras.Input((1, 28, 28), name="image")
    value = keras.layers.Permute((2, 3, 1))(image)
    for layer in reader.features:
        if isinstance(layer, torch.nn.Conv2d):
            made = keras.layers.Conv2D(layer.out_channels, 3, padding="same", use_bias=False)
            value = made(value)
            made.set_weights([layer.weight.detach().numpy().transpose(2, 3, 1, 0)])
        elif isinstance(layer, torch.nn.BatchNorm2d):
            made = keras.layers.BatchNormalization(epsilon=BATCH_NORM_EPSILON)
            value = made(value)
            made.set_weights([part.detach().numpy() for part in (layer.weight, layer.bias, layer.running_mean, layer.running_var)])
        else:
            value = keras.layers.ReLU()(value) if isinstance(layer, torch.nn.ReLU) else keras.layers.MaxPooling2D(2)(value)
    value = keras.layers.Flatten()(keras.layers.Permute((3, 1, 2))(value))
    linears = [layer for layer in reader.classify if isinstance(layer, torch.nn.Linear)]
    for place, layer in enumerate(linears):
        made = keras.layers.Dense(layer.out_features, activation=None if layer is linears[-1] else "relu", name=f"dense_{place}")
        value = made(value)
        made.set_weights([layer.weight.detach().numpy().T, layer.bias.detach().numpy()])
    return keras.Model(image, value)


def write(folder: Path) -> dict[str, Path]:
    """The three files by door."""
    reader = network()
    example = torch.zeros(2, 1, 28, 28)
    paths = {"torch": folder / "digits.pt2", "keras": folder / "digits.keras", "onnx": folder / "digits.onnx"}
    program = torch.export.export(reader, (example,), dynamic_shapes={"image": {0: torch.export.Dim("batch", min=1, max=4096)}})
    torch.export.save(program, paths["torch"])
    keras_twin(reader).save(paths["keras"])
    torch.onnx.export(
        reader,
        (example,),
        paths["onnx"],
        input_names=["image"],
        output_names=["scores"],
        dynamic_axes={"image": {0: "batch"}, "scores": {0: "batch"}},
        dynamo=False,
    )
    return paths


def answers(path: Path, rows: np.ndarray) -> np.ndarray:
    """What ONNX Runtime answers to the first export of a model."""
    model = load(str(path), {"image": rows[:4]}).models[0]
    return onnxruntime.InferenceSession(model.to_bytes(), providers=["CPUExecutionProvider"]).run(None, {"image": rows})[0]


def main() -> None:
    """Write, compare and tune all three."""
    case = find_demo("digits").present["digits"].build(cache_folder(), print)
    RESULTS.parent.mkdir(exist_ok=True)
    with np.load(case.data) as data:
        rows = data["image"][:64]
    with tempfile.TemporaryDirectory(prefix="headway-doors-") as name:
        folder = Path(name)
        paths = write(folder)
        expected = answers(paths["onnx"], rows)
        for door, path in paths.items():
            difference = float(np.abs(answers(path, rows) - expected).max())
            command = [
                sys.executable, "-m", "headway", "tune", str(path), "--data", str(case.data), "--slo", case.objective, "--out",
                str(folder / f"run-{door}"), "--techniques", "fold", "--techniques", "quantize_static", "--budget", BUDGET, "--no-compare", "--json",
            ]  # fmt: skip
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            if done.returncode not in (0, 3):
                raise SystemExit(f"tune of {path.name} ended with exit code {done.returncode}")
            choice = json.loads(done.stdout)["choice"]
            line = {"door": door, "measured": time.strftime("%Y-%m-%d"), "largest_difference": difference, "choice": choice}
            with RESULTS.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(door, f"difference {difference:.1e}", choice["candidate"], choice["rate_per_s"], flush=True)


if __name__ == "__main__":
    main()
