"""NNCF post-training quantization on its ONNX and OpenVINO backends."""

from __future__ import annotations

from typing import Any

import nncf
import numpy as np
import onnx
import onnxruntime
import openvino
from job import Job, arrays, feeds, read_job

ROWS = 300  # NNCF's default subset
ACCURACY_ROWS = 400


def dataset(job: Job) -> nncf.Dataset:
    """Calibration rows one by one; the last axis of the items is what the model takes."""
    return nncf.Dataset(list(feeds(job.calibration, 1)))


def options(job: Job) -> dict[str, Any]:
    """What the documentation recommends for the kind of model: the Transformer scheme, or the mixed preset."""
    if job.settings.get("recommended"):
        if job.settings.get("transformer"):
            return {"model_type": nncf.ModelType.TRANSFORMER}
        return {"preset": nncf.QuantizationPreset.MIXED, "fast_bias_correction": False}
    return {}


def score(job: Job) -> Any:
    """A function of (model, items) that gives the share of right answers, as the accuracy control asks for."""

    def share(model: Any, items: Any) -> float:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        right = [np.argmax(session.run(None, feed)[0][0]) == label for feed, label in items]
        return float(np.mean(right))

    return share


def labelled(job: Job) -> nncf.Dataset:
    """Selection rows with their labels, for the accuracy control."""
    inputs, labels = arrays(job.selection)
    items = [
        ({name: array[row : row + 1] for name, array in inputs.items()}, labels[row]) for row in range(min(ACCURACY_ROWS, len(labels)))
    ]
    return nncf.Dataset(items, lambda item: item[0])


def main() -> None:
    """Make the row."""
    job = read_job()
    rows = min(ROWS, sum(1 for _ in feeds(job.calibration, 1)))
    if job.settings["backend"] == "openvino":
        model = openvino.Core().read_model(str(job.model))
        done = nncf.quantize(model, dataset(job), subset_size=rows, **options(job))
        openvino.save_model(done, str(job.out / "model.xml"), compress_to_fp16=False)
        return
    model = onnx.load(str(job.model))
    if job.settings.get("control"):
        done = nncf.quantize_with_accuracy_control(
            model, dataset(job), labelled(job), validation_fn=score(job), max_drop=0.01, subset_size=rows, **options(job)
        )
    else:
        done = nncf.quantize(model, dataset(job), subset_size=rows, **options(job))
    onnx.save(done, str(job.onnx))


if __name__ == "__main__":
    main()
