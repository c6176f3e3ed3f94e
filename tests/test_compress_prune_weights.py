"""Zeros among the weights: the pattern holds, the least go, nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from headway.compress import Context
from headway.compress.techniques import prune_weights, quantize_dynamic
from headway.model import Model
from headway.records import ConfigError, Unsupported
from headway.testing import wild_graphs
from headway.testing.small_graphs import GRAPHS, samples


def _model(name: str) -> Model:
    return Model.from_proto(GRAPHS[name](), name, "onnx")


def _arrays(model: Model) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.to_proto().graph.initializer}


@given(inputs=st.integers(1, 21), outputs=st.integers(1, 5), window=st.sampled_from([(), (3, 3)]), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_each_whole_group_loses_its_least(inputs: int, outputs: int, window: tuple[int, ...], seed: int) -> None:
    score = np.random.default_rng(seed).random((inputs, outputs, *window))
    mask = prune_weights._pattern(score, 2, 4)
    assert mask[inputs - inputs % 4 :].all()
    for start in range(0, inputs - inputs % 4, 4):
        part, kept = score[start : start + 4], mask[start : start + 4]
        assert (kept.sum(axis=0) == 2).all()
        assert (np.where(kept, part, np.inf).min(axis=0) >= np.where(kept, 0, part).max(axis=0)).all()


@pytest.mark.parametrize(("name", "weight", "axis"), [("mlp", "w0", 1), ("mlp", "w2", 0)])
@pytest.mark.parametrize("score", ["magnitude", "wanda"])
def test_the_pattern_runs_along_the_inputs(name: str, weight: str, axis: int, score: str) -> None:
    model = _model(name)
    after = prune_weights.apply(model, {"score": score}, Context(samples=samples(model.to_proto(), 16)))
    array = np.moveaxis(_arrays(after)[weight], axis, 0)
    assert ((array.reshape(-1, 4, array.shape[1]) == 0).sum(axis=1) == 2).all()
    kept = array != 0
    np.testing.assert_array_equal(array[kept], np.moveaxis(_arrays(model)[weight], axis, 0)[kept])


def test_one_threshold_serves_all_layers() -> None:
    model = _model("mlp")
    before, after = _arrays(model), _arrays(prune_weights.apply(model, {"pattern": "free", "share": 0.3}, Context()))
    touched = [name for name in before if before[name].size >= 256]
    gone = np.concatenate([np.abs(before[name][after[name] == 0]) for name in touched])
    kept = np.concatenate([np.abs(before[name][after[name] != 0]) for name in touched])
    assert len(gone) == int(0.3 * (len(gone) + len(kept))) and gone.max() <= kept.min()
    assert all((before[name] == after[name]).all() for name in before if name not in touched)


def test_wanda_looks_at_the_inputs() -> None:
    model = _model("mlp")
    rows = samples(model.to_proto(), 16)
    rows["x"][:, 0] = 0
    after = _arrays(prune_weights.apply(model, {"score": "wanda", "pattern": "free", "share": 0.1}, Context(samples=rows)))
    assert (after["w0"][:, 0] == 0).all(), "an input that is always zero loses its weights first"


def test_settings_are_checked() -> None:
    model = _model("mlp")
    with pytest.raises(ConfigError):
        prune_weights.apply(model, {"share": 1.0}, Context())
    with pytest.raises(ConfigError):
        prune_weights.apply(model, {"pattern": "3:4"}, Context())
    with pytest.raises(Unsupported, match="samples"):
        prune_weights.apply(model, {"score": "wanda"}, Context())


def test_a_refusal_names_the_node_and_what_it_reads_instead_of_a_weight() -> None:
    half, lstm = (Model.from_proto(wild_graphs.GRAPHS[name](), name, "onnx") for name in ("half_weights", "lstm"))
    assert "; node 'Gemm0' (Gemm) reads what node 'cast_w0' (Cast) makes" in str(prune_weights.refuse(half, Context()))
    assert "(MatMul) reads float weights of shape [32, 5]" in str(prune_weights.refuse(lstm, Context()))
    assert "node 'cast_w0' (Cast)" in str(quantize_dynamic.refuse(half, Context()))
