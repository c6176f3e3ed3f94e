"""Triton's Python backend: the whole batch that Triton formed is joined, run once and cut again, as its examples do."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """The model behind Triton's interface."""

    def initialize(self, args: dict[str, Any]) -> None:
        """Open the session."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """One batch."""
        inputs = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        answers = self.session.run(None, {"x": np.concatenate(inputs)})[0]
        responses, first = [], 0
        for rows in inputs:
            part = answers[first : first + len(rows)]
            first += len(rows)
            responses.append(pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("y", part)]))
        return responses
