"""What training wins back of the loss that 4-bit weights cost: quantization-aware training against rounding after training.

    python benchmarks/compression/four_bits.py [--only digits] [--seed 0]

Every weight of two or more axes that a Conv, Gemm, MatMul or LSTM reads takes 4 bits with **one scale a tensor**, that of least squared error: with
a scale a channel or a block these models lose next to nothing, and there would be nothing to win back. Then the technique ``recover`` trains it with
learned scales. One JSON line a model and seed in ``results.jsonl``; scored on the report rows, which nobody saw.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, replace
from pathlib import Path

import msgspec
import numpy as np
from cases import NAMES, WORK, Bench, prepare
from journal import Journal, Key
from onnx import ModelProto, TensorProto, helper, numpy_helper
from recipes import FOLD, recover
from score import RUNTIMES, score

from headway.compress import make
from headway.compress.graph import fresh_name, initializers, sort_nodes, value_names
from headway.compress.graph import replace as replace_items
from headway.compress.opset import raised
from headway.measure.environment import environment
from headway.model import Model
from headway.records import Step

RESULTS = Path(__file__).parent / "results.jsonl"
MODELS = tuple(name for name in NAMES if name in ("digits", "text", "speech"))
ROW = "4-bit weights, one scale a tensor"
OPSET = 21
READERS = {"Conv": (1,), "Gemm": (0, 1), "MatMul": (0, 1), "LSTM": (1, 2)}
FRACTIONS = np.linspace(0.1, 1.0, 46)
LOWEST, HIGHEST = -8, 7


def main() -> None:
    """Parse, and measure each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=MODELS)
    parser.add_argument("--seed", type=int, action="append")
    chosen = parser.parse_args()
    journal = Journal(RESULTS)
    for name in chosen.only or MODELS:
        bench = prepare(name, print)
        for seed in chosen.seed or [0]:
            key = Key(name, "headway", f"{ROW}, seed {seed}")
            if journal.find("four_bits", key) is None:
                journal.add({"stage": "four_bits", **asdict(key), **measured(bench, seed), **here(journal)})


def here(journal: Journal) -> dict[str, str]:
    """The environment's name."""
    return {"environment": journal.environment(msgspec.to_builtins(environment()))}


def measured(bench: Bench, seed: int) -> dict[str, object]:
    """Drops of both, and the share of the loss that training closes."""
    context = replace(bench.context(), seed=seed)
    folded = make(bench.model, (step(*FOLD),), context).model
    narrow = Model.from_proto(four_bits(raised(folded.to_proto(), OPSET, "four_bits")), bench.model.name, bench.model.origin)
    started = time.perf_counter()
    technique, settings = recover(bench.name)
    trained = make(narrow, (step(technique, settings),), replace(context, parent=folded)).model
    spent_s = time.perf_counter() - started
    found = {name: scored(bench, model, f"{name}-{seed}") for name, model in (("rounded", narrow), ("trained", trained))}
    lost = {name: line["drop"]["value"] for name, line in found.items()}
    closed = 1 - lost["trained"] / lost["rounded"] if lost["rounded"] > 0 else None
    print(f"{bench.name}, seed {seed}: {lost}, closed {closed}", flush=True)
    return {**found, "settings": settings, "closed": closed, "trained_s": round(spent_s, 1)}


def step(technique: str, settings: dict) -> Step:
    """A step as the records hold it."""
    return Step(technique=technique, settings=dict(settings))


def scored(bench: Bench, model: Model, name: str) -> dict:
    """Quality on the report rows through ONNX Runtime."""
    path = WORK / bench.name / "four-bits" / name / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save(path)
    return score(bench, path, RUNTIMES[0])


def four_bits(proto: ModelProto) -> ModelProto:
    """Every weight behind a DequantizeLinear from int4."""
    graph = proto.graph
    fixed, taken = initializers(graph), value_names(graph)
    done: dict[str, str] = {}
    for node in list(graph.node):
        for place in READERS.get(node.op_type, ()):
            name = node.input[place] if place < len(node.input) else ""
            if name not in fixed or len(fixed[name].dims) < 2:
                continue
            if name not in done:
                done[name] = fresh_name(f"{name}_4", taken)
                scale = best_scale(numpy_helper.to_array(fixed[name]))
                parts = [fresh_name(f"{name}_{word}", taken) for word in ("codes", "scale")]
                codes = np.clip(np.round(numpy_helper.to_array(fixed[name]) / scale), LOWEST, HIGHEST).astype(np.int8)
                graph.initializer.append(helper.make_tensor(parts[0], TensorProto.INT4, codes.shape, codes.ravel().tolist()))
                graph.initializer.append(numpy_helper.from_array(np.float32(scale), parts[1]))
                graph.node.append(helper.make_node("DequantizeLinear", parts, [done[name]], done[name]))
            node.input[place] = done[name]
    replace_items(graph.initializer, [tensor for tensor in graph.initializer if tensor.name not in done])
    sort_nodes(graph)
    return proto


def best_scale(weight: np.ndarray) -> float:
    """The scale of least squared error."""
    whole = float(np.abs(weight).max()) / HIGHEST
    errors = [np.square(np.clip(np.round(weight / s), LOWEST, HIGHEST) * s - weight).sum() for s in whole * FRACTIONS]
    return whole * float(FRACTIONS[int(np.argmin(errors))])


if __name__ == "__main__":
    main()
