"""Single-layer models run at their sizes, and the table of their times holds what was asked; no time is judged."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest

import pruning_graphs
from headway.compress.coupling import couple
from headway.compress.layer_costs import Costs
from headway.compress.layer_models import layer_queries, widths
from headway.measure.latency_table import latency_table
from headway.model import Model
from headway.records import MeasurementError, Plan
from headway.runtime import open_session
from headway.testing import small_graphs

PLAN = Plan(runtime="onnx_runtime")


def made(name: str) -> tuple[Model, dict[str, np.ndarray]]:
    """A small model and samples."""
    module = small_graphs if name in small_graphs.GRAPHS else pruning_graphs
    proto = module.GRAPHS[name]()
    return Model.from_proto(proto, name, "onnx"), module.samples(proto, 4)


@pytest.mark.parametrize("name", ["cnn", "mlp", "transformer", "grouped", "joined", "lstm", "gru", "embedding"])
def test_every_layer_runs_alone_at_every_width(name: str, tmp_path: object) -> None:
    model, samples = made(name)
    queries = layer_queries(model, samples)
    assert not queries[0].layer and len(queries) > 2
    for query in queries:
        path = f"{tmp_path}/{abs(hash(query.key))}.onnx"
        onnx.save(onnx.load_from_string(query.build()), path)
        session = open_session(PLAN, path)
        output = next(iter(session.run(query.feeds(2)).values()))
        assert not query.layer or query.outside in output.shape
        session.close()


def test_a_table_is_what_the_budget_needs() -> None:
    model, samples = made("cnn")
    ticks = itertools.count()
    shares: list[float] = []
    table = latency_table(
        layer_queries(model, samples), PLAN, digest=model.digest, seconds=0.0, progress=shares.append, clock=lambda: float(next(ticks))
    )
    assert shares[-1] == 1 and shares == sorted(shares)
    assert table.overhead_s == 1 and all(time.time_s == 0 for time in table.times)  # every run takes one tick
    assert {time.layer for time in table.times} == {"Conv0", "Conv3", "Conv6", "Gemm14"}
    assert Costs(couple(model.to_proto(), samples), table).unit == "s"


def test_the_empty_graph_must_be_there() -> None:
    model, samples = made("mlp")
    with pytest.raises(MeasurementError, match="empty graph"):
        latency_table(layer_queries(model, samples)[1:], PLAN, digest=model.digest)


def test_what_follows_a_layer_is_timed_with_it() -> None:
    model, samples = made("cnn")
    first = next(query for query in layer_queries(model, samples) if query.layer == "Conv0")
    kinds = [node.op_type for node in onnx.load_from_string(first.build()).graph.node]
    assert kinds[0] == "Conv" and "Relu" in kinds and kinds.count("Conv") == 1


@pytest.mark.parametrize("whole", [1, 3, 8, 12, 16, 24, 40, 64, 96, 144, 1000, 1536])
def test_widths_rise_to_the_whole_in_blocks(whole: int) -> None:
    found = widths(whole)
    assert found[-1] == whole and list(found) == sorted(set(found)) and len(found) <= 9
    assert whole < 16 or all(width % (8 if whole <= 64 else 16) == 0 for width in found[:-1])
