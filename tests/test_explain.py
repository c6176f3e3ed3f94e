"""``explain`` on runs of a small real model: where noise enters, what became of layers, whose answer changed, and what is missing told."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from headway.api.config import TuneConfig
from headway.api.explain import explain
from headway.api.layer_noise import layer_noise, state
from headway.api.prepare import begin, prepare
from headway.api.progress import Silent
from headway.api.run import Run, open_folder
from headway.api.variants import Recipe, Scorer, all_recipes, make_variant
from headway.cli import main
from headway.compress.graph import normalise
from headway.records import BundleError, ConfigError, DataError, Step, Variant, parse_objective, read_journal
from headway.track import open_trackers

WANTED = ("quantize_static", "quantize_dynamic")
FOLD = Step(technique="fold")


Pick = Callable[[Sequence[Recipe]], Sequence[Recipe]]


def made(folder: Path, digits: Path, pick: Pick) -> Path:
    """The folder with the samples, in groups, and the run folder ``run``: the model, and variants by those of the possible recipes that are picked."""
    with np.load(digits / "val.npz") as arrays:
        held = dict(arrays)
    held["group"] = np.array(["even", "odd"])[held["label"] % 2]
    np.savez(folder / "val.npz", **held)
    config = TuneConfig(
        models=(str(digits / "model.onnx"),),
        data=str(folder / "val.npz"),
        slo="drop<=50%",
        out=str(folder / "run"),
        runtimes=("onnx_runtime",),
    )
    prepared = prepare(config)
    run = Run(
        folder / "run",
        config,
        parse_objective(config.slo),
        open_folder(folder / "run", resume=False),
        Silent(),
        open_trackers((), folder, {}),
    )
    begin(run, prepared)
    source = prepared.sources[0]
    parent = make_variant(run, prepared, source, ())
    assert parent is not None
    scorer = Scorer(run, prepared, "selection", prepared.parts.selection, parent)
    for recipe in pick(all_recipes(prepared, source)):
        variant = make_variant(run, prepared, source, recipe)
        if variant is not None and variant.compressed:
            scorer.score(variant, "onnx_runtime", race=False)
    run.journal.release()
    return folder


@pytest.fixture(scope="module")
def work(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folded, quantized as it runs, and quantized before."""

    def pick(known: Sequence[Recipe]) -> Sequence[Recipe]:
        last = {recipe[-1].technique: recipe for recipe in known if recipe and recipe[-1].technique in WANTED}
        return [(FOLD,), *last.values()]

    return made(tmp_path_factory.mktemp("explained"), digits, pick)


def test_it_tells_where_noise_enters_and_what_became_of_layers(work: Path) -> None:
    found = explain(work / "run", "quantize_static")
    assert found.runtime == "onnx_runtime" and found.qualities[0].variant == found.variant
    assert [effect.step for effect in found.effects][-1].startswith("quantize_static")
    states = {layer.node: layer.state for layer in found.layers if layer.state}
    assert set(states) == {"conv0", "conv1", "head"}
    assert all("int8 weights" in words for words in states.values())
    assert found.entered and all(layer.noise for layer in found.entered)
    assert all(10 < layer.snr_db < 80 for layer in found.layers if layer.snr_db is not None)
    assert sum(len(layer.between) for layer in found.entered) >= 1


EQUALIZED = Step(technique="quantize_static", settings={"equalize": True})


def test_layers_of_an_equalized_model_are_compared_with_the_equalized_one(digits: Path, tmp_path: Path) -> None:
    folder = made(tmp_path, digits, lambda _: [(FOLD, EQUALIZED)])
    found = explain(folder / "run", "quantize_static")
    assert "scales moved" in found.layers_note
    assert {layer.node for layer in found.layers if layer.state} == {"conv0", "conv1", "head"}
    noises = [layer.noise for layer in found.layers if layer.noise is not None]
    assert len(noises) >= 4 and max(noises) < 0.01
    paths = {line.name: folder / "run" / line.path for line in read_journal(folder / "run") if isinstance(line, Variant)}
    model, variant = (normalise(onnx.load(str(paths[name]))) for name in (found.parent, found.variant))
    with np.load(folder / "val.npz") as arrays:
        wrong = layer_noise(model, variant, {"image": arrays["image"]})
    assert max(layer.noise or 0.0 for layer in wrong) > 0.05, "against the model itself the scales count as noise"


def test_layers_of_a_cut_and_then_equalized_model_are_not_compared(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = Step(technique="prune_channels", settings={"keep": 0.75})
    folder = made(tmp_path, digits, lambda _: [(FOLD, cut, EQUALIZED)])
    found = explain(folder / "run", "prune_channels")
    assert found.layers == () and "prune_channels had made" in found.layers_note
    with pytest.raises(SystemExit):
        main(["explain", str(folder / "run"), "prune_channels"])
    assert "not compared" in capsys.readouterr().out


def test_changed_answers_are_the_ones_that_quality_counts(work: Path) -> None:
    found = explain(work / "run", "quantize_static")
    quality = found.qualities[0]
    kinds = [row.change for row in found.changed]
    assert kinds.count("right to wrong") == quality.right_to_wrong
    assert kinds.count("wrong to right") == quality.wrong_to_right
    assert found.rows == quality.n and len(found.changed) == round((1 - quality.agreement) * quality.n)
    with np.load(work / "val.npz") as arrays:
        for row in found.changed:
            assert row.label == str(arrays["label"][row.row])
            assert row.group == ("odd" if int(row.label) % 2 else "even")
            assert row.before != row.after
    assert explain(work / "run", "quantize_static") == found


def test_the_model_itself_has_no_noise(work: Path) -> None:
    found = explain(work / "run", "model")
    assert found.entered == () and found.changed == ()
    assert {layer.state for layer in found.layers if layer.state} == {"float, as it was"}


def test_the_command(work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for more in ([], ["--changed", "--layers"]):
        with pytest.raises(SystemExit) as ended:
            main(["explain", str(work / "run"), "quantize_static", *more])
        assert not ended.value.code
        told = capsys.readouterr().out
        assert "where the error enters" in told.lower() or "--layers" in more
        assert "answers of the selection part changed" in told and "conv1" in told
    with pytest.raises(SystemExit):
        main(["explain", str(work / "run"), "quantize_static", "--json"])
    assert json.loads(capsys.readouterr().out)["rows"] > 100


def test_what_is_missing_is_told(work: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="must be a run folder"):
        explain(tmp_path, "x")
    with pytest.raises(ConfigError, match="'quantize_statik' is not there; some are: "):
        explain(work / "run", "quantize_statik")
    with pytest.raises(ConfigError, match="fits several"):
        explain(work / "run", "mode")
    with np.load(work / "val.npz") as arrays:
        held = dict(arrays)
    np.savez(tmp_path / "others.npz", **{**held, "image": held["image"] + 1})
    with pytest.raises(DataError, match="got others in"):
        explain(work / "run", "quantize_static", data=str(tmp_path / "others.npz"))
    os.rename(work / "val.npz", work / "moved.npz")
    try:
        with pytest.raises(DataError, match=r"no such file or folder.*--data"):
            explain(work / "run", "quantize_static")
        assert explain(work / "run", "quantize_static", data=str(work / "moved.npz")).rows > 100
    finally:
        os.rename(work / "moved.npz", work / "val.npz")
    os.rename(work / "run" / "variants", work / "run" / "gone")
    try:
        with pytest.raises(BundleError, match="must be the variant's file"):
            explain(work / "run", "quantize_static")
    finally:
        os.rename(work / "run" / "gone", work / "run" / "variants")


def chain(weights: Mapping[str, np.ndarray], nodes: list[tuple[str, str, str, str]]) -> ModelProto:
    made = [helper.make_node(kind, [value, *([weight] if weight else [])], [out], name=out) for kind, value, weight, out in nodes]
    width = next(reversed(weights.values())).shape[1]
    graph = helper.make_graph(
        made, "chain", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info(made[-1].output[0], TensorProto.FLOAT, ["n", width])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    return normalise(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def test_noise_in_closed_form() -> None:
    random = np.random.default_rng(0)
    eye = np.eye(8, dtype=np.float32)
    nodes = [("MatMul", "x", "a", "first"), ("Relu", "first", "", "between"), ("MatMul", "between", "b", "second")]
    parent = chain({"a": eye, "b": eye}, nodes)
    variant = chain({"a": 1.1 * eye, "b": eye}, nodes)
    found = {layer.value: layer for layer in layer_noise(parent, variant, {"x": random.random((30, 8), dtype=np.float32)})}
    assert [found[name].noise for name in ("first", "between", "second")] == pytest.approx([0.01] * 3, rel=1e-4)
    assert found["first"].snr_db == pytest.approx(20, abs=0.01)
    assert found["first"].entered == pytest.approx(0.01, rel=1e-4)
    assert found["second"].entered < 1e-6
    assert (found["first"].state, found["second"].state) == ("float, with new values", "float, as it was")


def test_states_of_layers_that_were_reshaped() -> None:
    random = np.random.default_rng(0)
    a, b = (random.normal(size=(8, 8)).astype(np.float32) for _ in range(2))
    nodes = [("MatMul", "x", "a", "first"), ("MatMul", "first", "b", "second")]
    parent = chain({"a": a, "b": b}, nodes)
    cut = chain({"a": a[:, :5], "b": b[:5]}, nodes)
    first, second = parent.graph.node
    assert state(first, parent.graph, cut.graph) == "cut from [8, 8] to [8, 5]"
    found = {layer.value: layer for layer in layer_noise(parent, cut, {"x": random.random((9, 8), dtype=np.float32)})}
    assert found["first"].noise is None and found["second"].noise is not None
    assert found["second"].between == ("first",)
    low = chain(
        {"a": a, "u": b[:, :2], "v": b[:2]},
        [("MatMul", "x", "a", "first"), ("MatMul", "first", "u", "thin"), ("MatMul", "thin", "v", "second")],
    )
    assert state(second, parent.graph, low.graph) == "two factors, [8, 2] and [2, 8]"
    gone = chain({"a": a}, [("MatMul", "x", "a", "first")])
    assert state(second, parent.graph, gone.graph) == "gone"
    scaled = helper.make_graph(
        [helper.make_node("MatMulInteger", ["q", "w"], ["sums"]), helper.make_node("Cast", ["sums"], ["wide"], to=TensorProto.FLOAT),
         helper.make_node("Mul", ["wide", "scale"], ["second"])], "scaled", [], [],
    )  # fmt: skip
    assert state(second, parent.graph, scaled) == "MatMulInteger on integers made as it runs"
