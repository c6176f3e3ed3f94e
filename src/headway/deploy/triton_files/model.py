"""An ONNX model in Triton's Python backend: the batch that Triton formed is joined, run once by ONNX Runtime, and cut again.

Threads come from ``config.pbtxt``. A request that the model cannot take gets the error; the others of its batch are answered.

Tensors pass by DLPack and not as Triton's own numpy arrays: under numpy 2 those are silently wrong in Triton releases up to 24.10 at least
(triton-inference-server/python_backend, pull request 384).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance of the model: a process of its own."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the session."""
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config.get("parameters", {}).items()}
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(parameters.get("intra_op_thread_count", "1"))
        options.inter_op_num_threads = int(parameters.get("inter_op_thread_count", "1"))
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
        options.add_session_config_entry("mlas.enable_gemm_fastmath_arm64_bfloat16", "0")
        file = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._ranks = {value.name: len(value.shape) for value in self._session.get_inputs()}
        self._outputs = [entry["name"] for entry in config["output"]]
        self._joins = int(config["max_batch_size"]) > 0
        self._space: dict[str, np.ndarray] = {}

    def execute(self, requests: list[Any]) -> list[Any]:
        """A response to each request of a batch, in their order."""
        feeds = [self._feeds(request) for request in requests]
        if len(feeds) > 1 and self._joins:
            try:
                return self._together(feeds)
            except Exception:  # whose fault it is, running them one by one shows
                pass
        return [self._alone(one) for one in feeds]

    def _feeds(self, request: Any) -> dict[str, np.ndarray]:
        """A request's inputs; a row without dimensions comes from Triton with none or with one."""
        feeds = {}
        for name, rank in self._ranks.items():
            array = np.from_dlpack(pb_utils.get_input_tensor_by_name(request, name))
            feeds[name] = array if array.ndim == rank else array.reshape(array.shape[:rank])
        return feeds

    def _together(self, feeds: list[dict[str, np.ndarray]]) -> list[Any]:
        joined = {name: self._join(name, [one[name] for one in feeds]) for name in self._ranks}
        counts = [len(next(iter(one.values()))) for one in feeds]
        results = self._session.run(self._outputs, joined)
        if any(len(result) != sum(counts) for result in results):
            raise ValueError("an output has another number of rows than the inputs")
        responses, first = [], 0
        for count in counts:
            responses.append(self._response([result[first : first + count] for result in results]))
            first += count
        return responses

    def _alone(self, feeds: dict[str, np.ndarray]) -> Any:
        try:
            aligned = {name: array if array.flags.aligned else self._join(name, [array]) for name, array in feeds.items()}
            return self._response(self._session.run(self._outputs, aligned))
        except Exception as error:  # ONNX Runtime raises types that share no base
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"the model could not run on this input: {error}"))

    def _join(self, name: str, arrays: list[np.ndarray]) -> np.ndarray:
        """Arrays in one, in memory that is kept: fresh memory for a large batch costs a page fault every 4 KiB."""
        rows = sum(map(len, arrays))
        space = self._space.get(name)
        if space is None or len(space) < rows or space.shape[1:] != arrays[0].shape[1:]:
            space = self._space[name] = np.empty((rows, *arrays[0].shape[1:]), arrays[0].dtype)
        return np.concatenate(arrays, out=space[:rows])

    def _response(self, arrays: list[np.ndarray]) -> Any:
        tensors = [pb_utils.Tensor.from_dlpack(name, array) for name, array in zip(self._outputs, arrays, strict=True)]
        return pb_utils.InferenceResponse(output_tensors=tensors)
