"""Recipes mild to harsh, carried out in order, each step measured; and the errors when they cannot be."""

from __future__ import annotations

import pytest

from headway.compress import Context, check_order, get, make, recipes, techniques
from headway.model import Model
from headway.records import ConfigError, Step, Unsupported
from headway.testing.small_graphs import cnn, mlp, samples, transformer

EVERY = frozenset({"avx512_vnni", "avx512_bf16"})


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.from_proto(mlp(), "m", "onnx")


@pytest.fixture(scope="module")
def context() -> Context:
    return Context(samples(mlp(), 24), EVERY)


def names(recipe: tuple[Step, ...]) -> tuple[str, ...]:
    return tuple(step.technique for step in recipe)


def test_recipes_start_with_the_model_as_it_came_and_grow_harsher(model: Model, context: Context) -> None:
    offered = [names(recipe) for recipe in recipes(model, context)]
    assert offered[:4] == [(), ("fold",), ("fold", "precision"), ("fold", "quantize_dynamic")]
    assert ("fold", "quantize_static", "precision") in offered
    assert not any({"quantize_static", "quantize_dynamic"} <= set(recipe) for recipe in offered)
    assert offered.index(("fold", "quantize_dynamic")) < offered.index(("fold", "quantize_static"))


def test_recipes_are_the_same_every_time_and_all_can_be_made(model: Model, context: Context) -> None:
    offered = recipes(model, context)
    assert offered == recipes(model, context)
    for recipe in offered:
        check_order(recipe)
    attention = Model.from_proto(transformer(), "t", "onnx")
    attention_context = Context(samples(transformer(), 24), EVERY)
    for recipe in recipes(attention, attention_context):
        made = make(attention, recipe, attention_context)
        assert names(recipe) == tuple(effect.step.split("(")[0] for effect in made.effects)


def test_only_limits_the_techniques(model: Model, context: Context) -> None:
    assert {step.technique for recipe in recipes(model, context, only=["quantize_dynamic"]) for step in recipe} == {"quantize_dynamic"}
    with pytest.raises(ConfigError, match=r"did you mean 'quantize_static'\? known are drop_blocks, fold"):
        recipes(model, context, only=["quantise_static"])


def test_a_technique_that_refuses_is_left_out(context: Context) -> None:
    convolutional = Model.from_proto(cnn(), "m", "onnx")
    offered = {step.technique for recipe in recipes(convolutional, Context(samples(cnn(), 8), EVERY)) for step in recipe}
    assert "quantize_dynamic" not in offered and "quantize_static" in offered


def test_each_step_is_measured_against_the_one_before(model: Model, context: Context) -> None:
    attention = Model.from_proto(transformer(), "t", "onnx")
    recipe = (Step(technique="fold"), Step(technique="quantize_static"), Step(technique="precision"))
    made = make(attention, recipe, Context(samples(transformer(), 24), EVERY))
    fold, static, precision = made.effects
    assert (static.nodes_before, static.weight_bytes_before) == (fold.nodes_after, fold.weight_bytes_after)
    assert static.weight_bytes_after < static.weight_bytes_before and static.changed_weights > 0
    assert static.output_error is not None and 0 < static.output_error < 0.05
    assert not precision.did_nothing and precision.output_error == 0.0 and "bfloat16" in precision.message
    assert made.precision == "int8"
    assert make(model, (Step(technique="precision"),), context).precision == "bfloat16"
    assert make(model, (), context).precision == "float32"


def test_nothing_left_in_float_leaves_precision_nothing_to_do(model: Model, context: Context) -> None:
    with pytest.raises(Unsupported, match="nothing to speed up"):
        make(model, (Step(technique="quantize_static"), Step(technique="precision")), context)


def test_making_leaves_the_model_alone_and_repeats_itself(model: Model, context: Context) -> None:
    before = model.to_bytes()
    recipe = (Step(technique="fold"), Step(technique="quantize_dynamic"))
    first = make(model, recipe, context).model.to_bytes()
    again = make(Model.from_proto(mlp(), "m", "onnx"), recipe, Context(samples(mlp(), 24), EVERY)).model.to_bytes()
    assert first == again and model.to_bytes() == before


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (("precision", "fold"), "fold must come before precision; write it as fold, precision"),
        (("fold", "quantize_static", "quantize_dynamic"), "exclude each other"),
        (("fold", "fold"), "must come once"),
        (("fould",), "did you mean 'fold'"),
    ],
)
def test_an_impossible_recipe_is_a_clear_error(model: Model, context: Context, recipe: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(model, tuple(Step(technique=name) for name in recipe), context)


def test_a_refusing_step_is_unsupported(model: Model, context: Context) -> None:
    with pytest.raises(Unsupported, match="already"):
        quantized = make(model, (Step(technique="quantize_static"),), context).model
        make(quantized, (Step(technique="quantize_dynamic"),), context)


def test_every_technique_says_what_it_does_in_one_line() -> None:
    assert all((module.__doc__ or "").split("\n")[0].endswith(".") for module in techniques().present.values())
    assert get("fold").ORDER < get("quantize_static").ORDER < get("precision").ORDER
