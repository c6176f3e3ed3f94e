"""ONNX Runtime's own quantization tools: what their defaults write, and what their documentation recommends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from job import Job, feeds, read_job
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from onnxruntime.quantization.shape_inference import quant_pre_process


class Reader(CalibrationDataReader):
    """Calibration rows one by one, as the documentation's examples give them."""

    def __init__(self, path: Path, most: int = 512) -> None:
        self._rows: Iterator[dict[str, np.ndarray]] = feeds(path, 1, most)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next row, or none."""
        return next(self._rows, None)


def prepared(job: Job) -> Path:
    """The model after the documentation's pre-processing; without symbolic shapes where those fail."""
    path = job.out / "prepared.onnx"
    try:
        quant_pre_process(str(job.model), str(path))
    except Exception:  # the documentation's advice for models that it cannot follow
        quant_pre_process(str(job.model), str(path), skip_symbolic_shape=True)
    return path


def reduce_range(job: Job) -> bool:
    """Seven bits only where the documentation asks for them: x86 without VNNI."""
    return not any("vnni" in name for name in job.instruction_sets)


def static(job: Job, method: str = "MinMax") -> None:
    """U8S8 with a scale per channel, as recommended for x86 with VNNI."""
    quantize_static(
        str(prepared(job)), str(job.onnx), Reader(job.calibration, int(job.settings.get("rows", 512))), activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8, per_channel=True, reduce_range=reduce_range(job), calibrate_method=CalibrationMethod[method],
    )  # fmt: skip


def dynamic(job: Job) -> None:
    """Weights per channel, after pre-processing."""
    quantize_dynamic(str(prepared(job)), str(job.onnx), per_channel=True, reduce_range=reduce_range(job), weight_type=QuantType.QInt8)


def main() -> None:
    """Make the row."""
    job = read_job()
    mode = job.settings["mode"]
    if mode == "static-defaults":
        quantize_static(str(job.model), str(job.onnx), Reader(job.calibration))
    elif mode == "static-recommended":
        static(job, job.settings.get("method", "MinMax"))
    elif mode == "dynamic-defaults":
        quantize_dynamic(str(job.model), str(job.onnx))
    elif mode == "dynamic-prepared":
        quantize_dynamic(str(prepared(job)), str(job.onnx))
    elif mode == "dynamic-recommended":
        dynamic(job)
    elif mode == "weights-4-bit":
        done = MatMulNBitsQuantizer(onnx.load(str(job.model)), bits=4, block_size=32, is_symmetric=True)
        done.process()
        done.model.save_model_to_file(str(job.onnx))


if __name__ == "__main__":
    main()
