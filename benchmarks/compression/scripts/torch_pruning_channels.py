"""Torch-Pruning: channels of the torch module cut by its dependency graph, trained with the budget that Headway's own rows get, exported.

The training is Headway's too (labels and the uncut module's answers, half each; AdamW with a cosine rate; the epoch that is best on the
selection rows is kept), so that rows differ by what was cut and not by who trains better.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import ort
import torch
import torch_pruning
from job import Job, arrays, read_job
from torch import nn
from torch.nn import functional

TEMPERATURE, LEARNING_RATE, BATCH, SEED = 2.0, 5e-4, 64, 0
ROWS_FOR_GRADIENTS = 256
Rows = tuple[list[torch.Tensor], torch.Tensor | None]


def tensors(path: Any) -> Rows:
    """Inputs in the module's order, and labels."""
    inputs, labels = arrays(path)
    return [torch.from_numpy(array) for array in inputs.values()], None if labels is None else torch.from_numpy(labels)


def heads(model: nn.Module) -> dict[nn.Module, int]:
    """Heads of every attention layer's three projections, as the documentation's Transformer example names them."""
    found: dict[nn.Module, int] = {}
    for layer in model.modules():
        if hasattr(layer, "num_attention_heads") and hasattr(layer, "query"):
            found |= dict.fromkeys((layer.query, layer.key, layer.value), layer.num_attention_heads)
    return found


def last_layers(model: nn.Module, rows: Rows) -> list[nn.Module]:
    """Linear layers as wide as the output: the classifier stays as it is."""
    with torch.no_grad():
        width = model(*(array[:2] for array in rows[0])).shape[-1]
    return [layer for layer in model.modules() if isinstance(layer, nn.Linear) and layer.out_features == width]


def prune(model: nn.Module, rows: Rows, settings: dict[str, Any]) -> None:
    """Cut the share of channels that the settings ask for."""
    taylor = settings["importance"] == "taylor" and rows[1] is not None
    kind = torch_pruning.importance.GroupTaylorImportance if taylor else torch_pruning.importance.GroupMagnitudeImportance
    options: dict[str, Any] = {"pruning_ratio": settings["ratio"], "ignored_layers": last_layers(model, rows)}
    if settings.get("recommended"):
        options |= {"global_pruning": True, "isomorphic": True, "round_to": 8, "max_pruning_ratio": 0.9}
    if attention := heads(model):
        options |= {"num_heads": attention, "prune_num_heads": True, "prune_head_dims": False, "head_pruning_ratio": settings["ratio"]}
        options |= {"output_transform": lambda out: out.sum()}
    pruner = torch_pruning.pruner.BasePruner(model, tuple(array[:2] for array in rows[0]), importance=kind(), **options)
    if taylor:
        model.zero_grad()
        few = [array[:ROWS_FOR_GRADIENTS] for array in rows[0]]
        functional.cross_entropy(model(*few), rows[1][:ROWS_FOR_GRADIENTS]).backward()  # type: ignore[index]
    pruner.step()
    for layer in model.modules():
        if hasattr(layer, "num_attention_heads") and hasattr(layer, "query"):
            layer.num_attention_heads = pruner.num_heads[layer.query]
            layer.all_head_size = layer.query.out_features
            layer.attention_head_size = layer.all_head_size // layer.num_attention_heads


def train(model: nn.Module, teacher: nn.Module, rows: Rows, selection: Rows, epochs: int) -> nn.Module:
    """The module after training; the best epoch on the selection rows."""
    torch.manual_seed(SEED)
    optimiser = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=0.0)
    count = len(rows[0][0])
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * -(-count // BATCH))
    with torch.no_grad():
        wanted = torch.cat([teacher(*part) for part in zip(*(array.split(BATCH) for array in rows[0]), strict=True)])
    best, kept = -1.0, copy.deepcopy(model)
    for epoch in range(epochs):
        model.train()
        for picked in torch.randperm(count).split(BATCH):
            answer = model(*(array[picked] for array in rows[0]))
            loss = distance(answer, wanted[picked])
            if rows[1] is not None:
                loss = 0.5 * loss + 0.5 * functional.cross_entropy(answer, rows[1][picked])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rate.step()
        share = right(model, selection)
        print(f"epoch {epoch + 1} of {epochs}: {share:.4f} of the selection rows right", flush=True)
        if share > best:
            best, kept = share, copy.deepcopy(model)
    return kept.eval()


def distance(answer: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Divergence of softened answers (Hinton et al. 2015)."""
    soft = functional.log_softmax(answer / TEMPERATURE, 1), functional.softmax(wanted / TEMPERATURE, 1)
    return functional.kl_div(*soft, reduction="batchmean") * TEMPERATURE**2


def right(model: nn.Module, rows: Rows) -> float:
    """Share of right answers."""
    model.eval()
    with torch.inference_mode():
        parts = zip(*(array.split(BATCH) for array in rows[0]), strict=True)
        answers = torch.cat([model(*part).argmax(1) for part in parts])
    return float(np.mean((answers == rows[1]).numpy()))


def export(model: nn.Module, job: Job) -> None:
    """The module as ONNX with a free batch size; the older exporter where the newer one fails."""
    inputs, _ = arrays(job.calibration)
    given = tuple(torch.from_numpy(array[:2].copy()) for array in inputs.values())
    names = list(inputs)
    path = str(job.out / "pruned.onnx" if job.settings.get("quantize") else job.onnx)
    try:
        shapes = tuple({0: torch.export.Dim("batch", min=1, max=1024)} for _ in given)
        torch.onnx.export(model, given, path, dynamo=True, input_names=names, dynamic_shapes=shapes, external_data=False)
    except Exception as error:
        print(f"newer exporter: {error}"[:300])
        axes = {name: {0: "batch"} for name in names}
        torch.onnx.export(model, given, path, dynamo=False, input_names=names, output_names=["output"], dynamic_axes=axes)


def quantize(job: Job) -> None:
    """ONNX Runtime's quantization of the pruned model with the settings that its documentation recommends."""
    pruned = Job(**{**{name: getattr(job, name) for name in job.__dataclass_fields__}, "model": job.out / "pruned.onnx"})
    if job.settings["quantize"] == "static":
        ort.static(pruned)
    else:
        ort.dynamic(pruned)


def main() -> None:
    """Make the row."""
    job = read_job()
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    teacher = job.network()
    model = copy.deepcopy(teacher)
    rows = tensors(job.train or job.calibration)
    prune(model, rows, job.settings)
    model = train(model, teacher, rows, tensors(job.selection), int(job.settings["epochs"]))
    export(model, job)
    if job.settings.get("quantize"):
        quantize(job)


if __name__ == "__main__":
    main()
