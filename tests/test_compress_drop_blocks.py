"""Residual blocks: where they are, and what dropping one does."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from headway.compress import Context
from headway.compress.blocks import blocks, chains, without
from headway.compress.graph import copied, normalise
from headway.compress.session import answers, relative_error
from headway.compress.techniques import drop_blocks
from headway.model import Model
from headway.records import ConfigError, Unsupported
from headway.testing.small_graphs import GRAPHS, Sketch, samples

WIDTH = 16


def _ready(name: str) -> tuple:
    proto = normalise(copied(GRAPHS[name]()))
    return proto, samples(proto, 24)


def _norm(sketch: Sketch, value: str, written_out: bool = False, output: str = "") -> str:
    ones, zeros = sketch.constant(np.ones(WIDTH, np.float32)), sketch.constant(np.zeros(WIDTH, np.float32))
    if not written_out:
        return sketch.add("LayerNormalization", value, ones, zeros, axis=-1, output=output)
    centred = sketch.add("Sub", value, sketch.add("ReduceMean", value, axes=[-1]))
    spread = sketch.add("ReduceMean", sketch.add("Mul", centred, centred), axes=[-1])
    root = sketch.add("Sqrt", sketch.add("Add", spread, sketch.constant(np.array(1e-5, np.float32))))
    return sketch.add("Add", sketch.add("Mul", sketch.add("Div", centred, root), ones), zeros, output=output)


def _stack(scales: tuple[float, ...], *, post: bool, written_out: bool = False) -> Model:
    """Feed-forward sublayers with a norm before or after each Add; ``scales`` of their last matrices (0: the block adds nothing)."""
    sketch = Sketch(7)
    value = _norm(sketch, "x")
    for scale in scales:
        inner = value if post else _norm(sketch, value)
        inner = sketch.add("Relu", sketch.add("MatMul", inner, sketch.weight(WIDTH, 32)))
        inner = sketch.add("MatMul", inner, sketch.weight(32, WIDTH, scale=scale))
        value = sketch.add("Add", value, inner)
        value = _norm(sketch, value, written_out) if post else value
    sketch.add("ReduceMean", value, axes=[1], keepdims=0, output="y")
    return Model.from_proto(sketch.model((6, WIDTH), WIDTH), "stack", "onnx")


def _context(model: Model) -> Context:
    return Context(samples=samples(model.to_proto(), 24))


def test_attention_and_feed_forward_are_two_blocks() -> None:
    proto, rows = _ready("transformer")
    first, second = blocks(proto, rows)
    assert first.entry == "x" and second.entry == first.exit and first.norm is None
    assert len(chains((first, second), 2)) == 1


def test_a_projection_shortcut_is_no_block_and_an_identity_shortcut_is_one() -> None:
    proto, rows = _ready("residual")
    assert len(blocks(proto, rows)) == 1
    assert blocks(proto) == blocks(proto, rows) or blocks(proto) == ()


@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_a_graph_without_residuals_is_refused(name: str) -> None:
    model = Model.from_proto(GRAPHS[name](), name, "onnx")
    assert "no residual block" in (drop_blocks.refuse(model, _context(model)) or "")


@pytest.mark.parametrize("written_out", [False, True])
def test_the_norm_after_an_add_is_found_in_both_forms(written_out: bool) -> None:
    model = _stack((1.0, 1.0), post=True, written_out=written_out)
    found = blocks(normalise(model.to_proto()), _context(model).samples)
    assert len(found) == 2 and all(block.norm for block in found)
    assert found[1].entry == found[0].norm
    assert len(chains(found, 2)) == 1


@pytest.mark.parametrize("post", [False, True])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_block_that_adds_nothing_goes_and_the_answers_stay(post: bool, place: int, caplog: pytest.LogCaptureFixture) -> None:
    model = _stack(tuple(0.0 if index == place else 1.0 for index in range(3)), post=post)
    context = _context(model)
    with caplog.at_level(logging.INFO):
        after = drop_blocks.apply(model, {"drop": 1.0}, context)
    error = relative_error(answers(model.to_proto(), context.samples, 8), answers(after.to_proto(), context.samples, 8))
    assert error < 1e-4
    assert sum(node.op_type == "MatMul" for node in after.to_proto().graph.node) == 4
    assert blocks(normalise(model.to_proto()), context.samples)[place].name in caplog.text


def test_counts_and_shares_and_spans() -> None:
    model = _stack((1.0, 0.5, 0.2, 0.1), post=False)
    context = _context(model)

    def left(settings: dict) -> int:
        return len(blocks(normalise(drop_blocks.apply(model, settings, context).to_proto()), context.samples))

    assert [left({"drop": 2.0}), left({"drop": 0.5}), left({"drop": 1, "span": 2}), left({"drop": 9})] == [2, 2, 2, 0]


def test_a_block_whose_inside_is_read_elsewhere_is_none() -> None:
    sketch = Sketch(1)
    inner = sketch.add("MatMul", "x", sketch.weight(WIDTH, WIDTH))
    sketch.add("Mul", sketch.add("Add", "x", inner), inner, output="y")
    proto = sketch.model((6, WIDTH), (6, WIDTH))
    assert blocks(proto, samples(proto, 4)) == ()


def test_a_block_inside_a_block() -> None:
    sketch = Sketch(1)
    inner = sketch.add("MatMul", "x", sketch.weight(WIDTH, WIDTH))
    middle = sketch.add("Add", inner, sketch.add("MatMul", sketch.add("Relu", inner), sketch.weight(WIDTH, WIDTH)))
    sketch.add("Add", "x", middle, output="y")
    proto = sketch.model((6, WIDTH), (6, WIDTH))
    rows = samples(proto, 4)
    found = blocks(proto, rows)
    assert [block.entry for block in found] == [inner, "x"]
    whole = without(proto, [found[1]])
    assert [node.op_type for node in whole.graph.node] == ["Identity"]
    np.testing.assert_array_equal(answers(whole, rows, 4)[0][0], rows["x"])


def test_settings_and_samples_are_checked() -> None:
    model = _stack((1.0, 1.0), post=False)
    for wrong in ({"drop": 0.0}, {"drop": 1.5}, {"span": 0}):
        with pytest.raises(ConfigError):
            drop_blocks.apply(model, wrong, _context(model))
    with pytest.raises(Unsupported, match="samples"):
        drop_blocks.apply(model, {}, Context())
    with pytest.raises(Unsupported, match="span"):
        drop_blocks.apply(model, {"span": 3}, _context(model))


def test_the_graph_is_analysed_once_for_the_offer_and_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = _stack((1.0, 0.5, 0.2), post=False), []
    context = _context(model)
    monkeypatch.setattr(drop_blocks, "blocks", lambda *given: asked.append(given) or blocks(*given))
    settings = drop_blocks.ladder(model, context)[0]
    assert drop_blocks.refuse(model, context) is None and settings == {"drop": 1.0}
    drop_blocks.apply(model, settings, context)
    assert len(asked) == 1
    drop_blocks.apply(model, {"drop": 3.0}, context)
    assert len(asked) == 3  # the graph after each drop is another one
