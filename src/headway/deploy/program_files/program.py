"""A model by ONNX Runtime, in one file: needs onnxruntime and numpy, which comes with it.

    python program.py INPUTS.npz OUTPUTS.npz

INPUTS.npz holds an array for each input, by its name, rows first; OUTPUTS.npz gets the outputs. In a program of your own:

    from program import Model
    outputs = Model().run({"name of an input": array})
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime

FILE = Path(__file__).with_name("model.onnx")
THREADS = 1
MAX_BATCH = 1
"""Rows that are run at once; 0: all, for rows cannot be parted."""


class Model:
    """The model, ready to run; its ``run`` may be called from several threads."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
        options.add_session_config_entry("mlas.enable_gemm_fastmath_arm64_bfloat16", "0")
        self._session = onnxruntime.InferenceSession(str(FILE), options, providers=["CPUExecutionProvider"])
        self.inputs = [value.name for value in self._session.get_inputs()]
        self.outputs = [value.name for value in self._session.get_outputs()]

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name; rows in parts of the batch size that was measured to be good."""
        missing = [name for name in self.inputs if name not in inputs]
        if missing:
            raise SystemExit(f"every input must be given, and {', '.join(missing)} is missing")
        feeds = {name: np.ascontiguousarray(inputs[name]) for name in self.inputs}
        rows = {len(array) if array.ndim else 0 for array in feeds.values()}
        if MAX_BATCH == 0 or rows == {0}:
            return dict(zip(self.outputs, self._session.run(self.outputs, feeds), strict=True))
        if len(rows) != 1:
            raise SystemExit(f"all inputs must have the same number of rows, got {sorted(rows)}")
        parts = [
            self._session.run(self.outputs, {name: array[first : first + MAX_BATCH] for name, array in feeds.items()})
            for first in range(0, rows.pop(), MAX_BATCH)
        ]
        return {name: np.concatenate([part[place] for part in parts]) for place, name in enumerate(self.outputs)}


def main(arguments: list[str]) -> None:
    """From one file of arrays to another."""
    if len(arguments) != 2:
        raise SystemExit("usage: python program.py INPUTS.npz OUTPUTS.npz")
    with np.load(arguments[0], allow_pickle=False) as arrays:
        outputs = Model().run(dict(arrays))
    np.savez(arguments[1], **outputs)


if __name__ == "__main__":
    main(sys.argv[1:])
