"""Neural Compressor 3: PT2E quantization with its default settings, exported to ONNX."""

from __future__ import annotations

import copy

import torch
from job import Job, arrays, feeds, read_job
from neural_compressor.torch.export import export
from neural_compressor.torch.quantization import DynamicQuantConfig, StaticQuantConfig, convert, prepare


def example(job: Job) -> tuple[torch.Tensor, ...]:
    """Two rows, in the order of the module's arguments."""
    inputs, _ = arrays(job.calibration)
    return tuple(torch.from_numpy(array[:2].copy()) for array in inputs.values())


def main() -> None:
    """Make the row."""
    job = read_job()
    given = example(job)
    batch = torch.export.Dim("batch", min=1, max=1024)
    shapes = tuple({0: batch} for _ in given)
    graph = export(job.network(), given, dynamic_shapes=shapes)
    config = StaticQuantConfig() if job.settings["mode"] == "static" else DynamicQuantConfig()
    ready = prepare(graph, quant_config=config, example_inputs=given)
    with torch.no_grad():
        for feed in feeds(job.calibration, 1):
            ready(*(torch.from_numpy(array.copy()) for array in feed.values()))
    done = convert(ready)
    names = list(arrays(job.calibration)[0])
    program = torch.export.export(copy.deepcopy(done), given, dynamic_shapes=shapes)
    torch.onnx.export(program, args=(), dynamo=True, input_names=names, external_data=False).save(str(job.onnx))


if __name__ == "__main__":
    main()
