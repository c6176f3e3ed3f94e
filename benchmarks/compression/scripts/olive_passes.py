"""Olive's quantization passes with their default values, run as a workflow on an ONNX file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from job import Job, arrays, read_job
from olive.data.registry import Registry
from olive.workflows import run


class Rows(torch.utils.data.Dataset):
    """Calibration rows as (inputs by name, nothing)."""

    def __init__(self, path: Path) -> None:
        self._inputs, _ = arrays(path)

    def __len__(self) -> int:
        return len(next(iter(self._inputs.values())))

    def __getitem__(self, row: int) -> tuple[dict[str, torch.Tensor], int]:
        return {name: torch.as_tensor(array[row].copy() if array[row].ndim else array[row]) for name, array in self._inputs.items()}, 0


@Registry.register_dataset()
def npz_rows(path: str, **_: Any) -> Rows:
    """The rows of an ``.npz`` file."""
    return Rows(Path(path))


def passes(job: Job) -> dict[str, dict[str, Any]]:
    """The passes of the row, by name."""
    chosen: dict[str, dict[str, Any]] = {}
    for name in job.settings["passes"]:
        chosen[name] = {"type": name}
        if name == "OnnxStaticQuantization":
            chosen[name]["data_config"] = "calibration"
        if name == "OrtTransformersOptimization":
            chosen[name] |= {"model_type": "bert", "num_heads": 12, "hidden_size": 384}
    return chosen


def main() -> None:
    """Make the row."""
    job = read_job()
    data = {
        "name": "calibration",
        "type": "DataContainer",
        "load_dataset_config": {"type": "npz_rows", "params": {"path": str(job.calibration)}},
        "pre_process_data_config": {"type": "skip_pre_process"},
        "post_process_data_config": {"type": "skip_post_process"},
    }
    run(
        {
            "input_model": {"type": "ONNXModel", "model_path": str(job.model)},
            "systems": {
                "here": {"type": "LocalSystem", "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}]}
            },
            "data_configs": [data],
            "passes": passes(job),
            "host": "here",
            "target": "here",
            "cache_dir": str(job.out / "cache"),
            "output_dir": str(job.out / "olive"),
            "evaluate_input_model": False,
        }
    )
    found = sorted((job.out / "olive").rglob("*.onnx"))
    if not found:
        raise RuntimeError("Error: the workflow ended without a model")
    shutil.copy(found[0], job.onnx)
    for beside in found[0].parent.glob("*.onnx.data"):
        shutil.copy(beside, job.out / beside.name)


if __name__ == "__main__":
    main()
