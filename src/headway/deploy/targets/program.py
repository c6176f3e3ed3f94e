"""One Python file beside the model, which needs nothing but onnxruntime: arrays in, arrays out."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np

from headway.deploy.exporting import Request, Written
from headway.records import BundleError, Export, ServerPolicy, Unsupported
from headway.serve import batchable

SETTINGS: Mapping[str, str] = {}
ASKED = "program.py, run here"
RUNTIME = "onnx_runtime"
PROGRAM = Path(__file__).parent.parent / "program_files" / "program.py"
RUN_S = 120.0
LAST_WORDS = 600
BASIS = "the program answers no requests"


def write(request: Request) -> Written:
    """``program.py`` with the plan's threads and batch size, and ``model.onnx``.

    Raises:
        Unsupported: the plan is for another device than the processor.
    """
    bundled = request.bundled
    if bundled.plan.device != "cpu":
        raise Unsupported(f"program: the plan must be for cpu, got {bundled.plan.device!r}; tune for cpu")
    plan = msgspec.structs.replace(bundled.plan, runtime=RUNTIME, instances=1)
    request.copy_model("model.onnx")
    text = PROGRAM.read_text("utf-8")
    for name, value in (("THREADS", plan.threads), ("MAX_BATCH", plan.max_batch if batchable(request.inputs, request.outputs) else 0)):
        text = re.sub(rf"^{name} = 1$", f"{name} = {value}", text, count=1, flags=re.MULTILINE)
    (request.folder / "program.py").write_text(text, "utf-8")
    notes = (
        []
        if bundled.plan.runtime == RUNTIME
        else [f"it was measured on {bundled.plan.runtime}; the program runs ONNX Runtime, at another speed"]
    )
    if bundled.plan.instances > 1:
        notes.append(f"the plan has {bundled.plan.instances} instances, the program is one; it may be started several times")
    return Written(
        model="model.onnx", policy=ServerPolicy(plan=plan, refuses=False, front_s=None, front_steals=False, basis=BASIS),
        start=("python program.py INPUTS.npz OUTPUTS.npz",), notes=tuple(notes),
    )  # fmt: skip


def answers(folder: Path, export: Export, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the program writes for the golden inputs, in a process of its own.

    Raises:
        BundleError: it failed, or took longer than two minutes.
    """
    with tempfile.TemporaryDirectory(prefix="headway-program-") as scratch:
        given, made = Path(scratch) / "inputs.npz", Path(scratch) / "outputs.npz"
        np.savez(given, **inputs)  # type: ignore[arg-type]  # numpy 1.26 has no allow_pickle here
        words = [sys.executable, "-B", str(folder / "program.py"), str(given), str(made)]
        try:
            done = subprocess.run(words, capture_output=True, timeout=RUN_S, check=False, cwd=scratch)
        except subprocess.TimeoutExpired as error:
            raise BundleError(f"{folder / 'program.py'}: must answer within {RUN_S:g} s, and did not") from error
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip()[-LAST_WORDS:]
            raise BundleError(f"{folder / 'program.py'}: must run, and ended with {done.returncode}; it said: {said}")
        with np.load(made, allow_pickle=False) as arrays:
            return {spec.name: arrays[spec.name] for spec in export.outputs}
