"""Guards: what inputs are, corruptions as stated, shift and attack against models whose answers are known, and refusals before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from headway.compress.session import batches, open_cpu
from headway.data import Dataset
from headway.model import Model
from headway.quality import asked, check_guards, guards, measure_guard, metric, remembering
from headway.quality.corrupting import corrupted, corruptions, fitting
from headway.quality.corruptions.contract import Text
from headway.quality.kinds import kinds
from headway.records import ConfigError, DataError, GuardResult, MeasurementError, MissingPackage, Objective, from_json, to_json

Arrays = Mapping[str, np.ndarray]
RANDOM = np.random.default_rng(0)
IDS = RANDOM.integers(5, 90, (40, 12))
MASK = (np.arange(12) < RANDOM.integers(4, 13, (40, 1))).astype(np.int64)
TOKENS = {"input_ids": np.where(MASK == 1, IDS, 1), "attention_mask": MASK, "token_type_ids": np.zeros_like(MASK)}
IMAGES = {"x": RANDOM.random((70, 3, 16, 16), dtype=np.float32)}
SERIES = {"x": RANDOM.normal(3, 2, (70, 50, 4)).astype(np.float32)}
ROOMS = {"image": IMAGES, "tokens": TOKENS, "series": SERIES}


@pytest.mark.parametrize(
    ("array", "word", "axis"),
    [
        (np.zeros((2, 3, 8, 8), np.float32), "image", 1),
        (np.full((2, 32, 32, 1), 7, np.uint8), "image", 3),
        (np.zeros((2, 64, 8, 8), np.float32), "none", 1),
        (np.zeros((2, 3, 4, 4), np.float32), "none", 1),
        (np.zeros((2, 99, 20), np.float32), "series", 1),
        (np.zeros((2, 20, 99), np.float32), "series", 2),
        (np.zeros((2, 16000), np.float32), "series", 1),
        (np.zeros((2, 30), np.float32), "none", 1),
        (np.arange(8).reshape(2, 4), "none", 1),
        (np.arange(2), "none", 1),
    ],
)
def test_what_an_array_is(array: np.ndarray, word: str, axis: int) -> None:
    kind = kinds({"x": array})["x"]
    assert kind.word == word
    assert (kind.axis == axis) if word != "none" else kind.why


def test_text_is_known_by_its_mask_or_its_name() -> None:
    found = kinds(TOKENS)
    assert {name: kind.word for name, kind in found.items()} == {"input_ids": "tokens", "attention_mask": "none", "token_type_ids": "none"}
    assert found["input_ids"].mask == "attention_mask"
    assert kinds({"a": IDS, "b": MASK})["a"].mask == "b"
    assert kinds({"tokens": IDS})["tokens"].word == "tokens"
    assert kinds({"user": IDS[:, 0], "items": IDS})["items"].word == "none"
    assert kinds({"items": IDS}, {"items": "tokens"})["items"].word == "tokens"
    assert kinds(IMAGES, {"x": "none"})["x"].word == "none"


@pytest.mark.parametrize("given", [{"y": "image"}, {"x": "picture"}, {"x": "tokens"}, {"x": "series"}])
def test_kinds_that_cannot_be(given: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="kinds: "):
        kinds(IMAGES, given)


@pytest.mark.parametrize("name", sorted(corruptions().present))
def test_every_corruption_keeps_the_contract(name: str) -> None:
    corruption = corruptions().present[name]
    inputs = {input_name: array.copy() for input_name, array in ROOMS[corruption.KIND].items()}
    found = kinds(inputs)
    assert name in fitting(found)
    assert len(corruption.SEVERITIES) == 5 and list(corruption.SEVERITIES) == sorted(corruption.SEVERITIES)
    moved = []
    for severity in range(1, 6):
        made = corrupted(inputs, found, name, corruption, severity, seed=3)
        again = corrupted(inputs, found, name, corruption, severity, seed=3)
        for input_name, array in made.items():
            assert (array.shape, array.dtype) == (inputs[input_name].shape, inputs[input_name].dtype)
            assert array.tobytes() == again[input_name].tobytes()
            assert np.array_equal(inputs[input_name], ROOMS[corruption.KIND][input_name])
        first = next(iter(made))
        moved.append(float(np.square(made[first].astype(float) - inputs[first]).mean()))
    assert moved[0] > 0
    assert moved[4] > moved[0]


@pytest.mark.parametrize("axis", [1, 3])
def test_images_keep_their_range(axis: int) -> None:
    pictures = (RANDOM.random((5, 3, 16, 16)) * 255).astype(np.uint8)
    normal = (pictures.astype(np.float32) - 120) / 60
    for array in (pictures, normal):
        given = array if axis == 1 else np.moveaxis(array, 1, 3)
        found = kinds({"x": given})
        for name, corruption in fitting(found).items():
            made = corrupted({"x": given}, found, name, corruption, 5, seed=0)["x"]
            assert made.min() >= array.min() - 1e-3 if array.dtype.kind == "f" else made.dtype == np.uint8
            assert made.max() <= max(array.max(), 255 * (array.dtype == np.uint8)) + 1e-3
    turned = corrupted(
        {"x": np.moveaxis(pictures, 1, 3)}, kinds({"x": np.moveaxis(pictures, 1, 3)}), "contrast", fitting(found)["contrast"], 5, seed=0
    )
    straight = corrupted({"x": pictures}, kinds({"x": pictures}), "contrast", fitting(found)["contrast"], 5, seed=0)
    assert np.array_equal(np.moveaxis(turned["x"], 3, 1), straight["x"])


def test_tokens_change_only_inside_their_mask() -> None:
    found = kinds(TOKENS)
    replaced = corrupted(TOKENS, found, "replaced_tokens", fitting(found)["replaced_tokens"], 5, seed=0)
    outside = MASK == 0
    assert np.array_equal(replaced["input_ids"][outside], TOKENS["input_ids"][outside])
    assert np.array_equal(replaced["attention_mask"], MASK)
    assert set(np.unique(replaced["input_ids"])) <= set(np.unique(TOKENS["input_ids"]))
    last = MASK.sum(1) - 1
    rows = np.arange(len(MASK))
    assert np.array_equal(replaced["input_ids"][:, 0], TOKENS["input_ids"][:, 0])
    assert np.array_equal(replaced["input_ids"][rows, last], TOKENS["input_ids"][rows, last])
    dropped = corrupted(TOKENS, found, "dropped_tokens", fitting(found)["dropped_tokens"], 5, seed=0)
    kept = dropped["attention_mask"].sum(1)
    assert (kept <= MASK.sum(1)).all() and (kept < MASK.sum(1)).any() and (kept >= 2).all()
    assert (dropped["input_ids"][dropped["attention_mask"] == 0] == 1).all()
    assert np.array_equal(dropped["input_ids"][rows, kept - 1], TOKENS["input_ids"][rows, last])


def test_rows_that_leave_nothing_free_stay() -> None:
    text = Text(np.array([[1, 2, 0, 0], [0, 0, 0, 0]]), np.array([[True, True, False, False], [False] * 4]), np.array([5]), 0)
    assert not text.free.any()


class Picture:
    """A model that says whether the left half of a picture is brighter; ``blind`` weakens it where ``weak`` says so."""

    def __init__(self, weak: Callable[[np.ndarray], np.ndarray] | None = None) -> None:
        self.weak, self.calls = weak, 0

    def __call__(self, inputs: Arrays) -> dict[str, np.ndarray]:
        self.calls += 1
        x = inputs["x"]
        left = x[..., :8].mean(axis=(1, 2, 3)) - x[..., 8:].mean(axis=(1, 2, 3))
        if self.weak is not None:
            left = np.where(self.weak(x), -left, left)
        return {"y": np.stack([-left, left], axis=1)}


def brighter(n: int = 300) -> Dataset:
    pictures = np.random.default_rng(1).random((n, 1, 16, 16), dtype=np.float32)
    labels = np.arange(n) % 2
    pictures[labels == 1, ..., :8] += 0.5
    return Dataset({"x": pictures / 1.5}, labels, source="here")


def shifted(answer: Picture, parent: Picture, data: Dataset, **more: object) -> GuardResult:
    found = measure_guard(
        "shift",
        variant="v",
        runtime="null",
        part="report",
        metric=metric("accuracy"),
        answer=answer,
        parent_answer=parent,
        dataset=data,
        **more,
    )  # type: ignore[arg-type]
    assert from_json(to_json(found), GuardResult) == found
    return found


def test_shift_finds_the_corruption_that_hurts() -> None:
    data = brighter()
    mean = data.inputs["x"].mean(axis=(1, 2, 3))
    weak = Picture(lambda x: x.mean(axis=(1, 2, 3)) > mean.max())  # fails in bright light only
    found = shifted(weak, Picture(), data, objective=Objective(shift_drop=0.05))
    assert (found.worst, found.verdict) == ("brightness", "violated")
    assert "under brightness accuracy lost" in found.reason
    assert {case.group for case in found.cases} == {"blur", "brightness", "contrast", "gaussian_noise", "jpeg", "occlusion"}
    assert found.settings == {"severity": 3}
    own = next(case.drop for case in found.cases if case.group == "brightness")
    assert found.drop.value == own.value and found.drop.high > own.high and found.drop.confidence > 0.99
    assert shifted(weak, Picture(), data).verdict == ""
    assert "the worst of 6" in shifted(weak, Picture(), data).reason
    assert shifted(weak, Picture(), data) == shifted(weak, Picture(), data)


def test_shift_of_the_same_answers_is_proven_harmless() -> None:
    found = shifted(Picture(), Picture(), brighter(), objective=Objective(shift_drop=0.0), settings={"severity": 5})
    assert (found.drop.value, found.verdict) == (0, "proven")


def test_a_parent_answers_once() -> None:
    parent = Picture()
    once = remembering(parent)
    for _ in range(3):
        shifted(Picture(), once, brighter(60))  # type: ignore[arg-type]
    assert parent.calls == 6


def test_shift_refuses_what_it_cannot_judge() -> None:
    ids = Dataset({"user": np.arange(50), "items": np.ones((50, 9), np.int64) * np.arange(9)}, np.zeros(50, np.int64), source="here")
    with pytest.raises(DataError, match="a bound on shift_drop cannot be judged here: no input is a picture"):
        check_guards(Objective(shift_drop=0.1), metric("accuracy"), ids)
    check_guards(Objective(shift_drop=0.1), metric("accuracy"), ids, given={"items": "tokens"})
    check_guards(Objective(drop=0.1, ece=0.1), metric("accuracy"), ids)
    with pytest.raises(ConfigError, match="severity"):
        shifted(Picture(), Picture(), brighter(20), settings={"severity": 9})
    with pytest.raises(ConfigError, match="must be one of severity"):
        shifted(Picture(), Picture(), brighter(20), settings={"force": 9})
    with pytest.raises(ConfigError, match="a guard must be known"):
        check_guards(Objective(drop=0.1), metric("accuracy"), ids, more=["shrift"])
    broken = Picture()
    with pytest.raises(MeasurementError, match="NaN or infinity in 20 rows"):
        shifted(lambda inputs: {"y": broken(inputs)["y"] * np.nan}, Picture(), brighter(20))  # type: ignore[arg-type]


def test_which_guards_an_objective_asks() -> None:
    assert asked(Objective(ece=0.1, shift_drop=0.1, attack_drop=0.1)) == ("shift", "attack")
    assert Objective(ece=0.1).guards == ("ece",)
    assert set(guards().present) | set(guards().missing) == {"attack", "shift"}


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = type(guards())(present={}, missing={"attack": "needs the package torch, which is not installed"})
    monkeypatch.setattr("headway.quality.guarding.discover", lambda package: found)
    with pytest.raises(MissingPackage, match="attack_drop out"):
        check_guards(Objective(attack_drop=0.1), metric("accuracy"), brighter())


def answering(proto: ModelProto) -> Callable[[Arrays], dict[str, np.ndarray]]:
    session = open_cpu(proto)
    name = session.get_outputs()[0].name

    def answer(inputs: Arrays) -> dict[str, np.ndarray]:
        return {name: np.concatenate([session.run(None, feeds)[0] for feeds in batches(session, inputs, rows=10**6, size=64)])}

    return answer


def attacked(digits: Path, samples: dict[str, np.ndarray], change: float, rows: int = 200, **more: object) -> GuardResult:
    pytest.importorskip("torch")
    parent = Model.from_proto(open_proto(digits / "model.onnx"), "digits", "onnx")
    proto = parent.to_proto()
    head = next(tensor for tensor in proto.graph.initializer if tensor.name == "head_weight")
    weight = numpy_helper.to_array(head)
    head.CopyFrom(
        numpy_helper.from_array(
            weight + change * np.random.default_rng(0).normal(size=weight.shape).astype(np.float32) * weight.std(), "head_weight"
        )
    )
    variant = Model.from_proto(proto, "variant", "onnx")
    data = Dataset({"image": samples["image"][:rows]}, samples["label"][:rows], source="here")
    found = measure_guard(
        "attack", variant="v", runtime="onnx_runtime", part="report", metric=metric("accuracy"), answer=answering(variant.to_proto()),
        parent_answer=answering(parent.to_proto()), dataset=data, model=variant, parent_model=parent, **more,
    )  # type: ignore[arg-type] # fmt: skip
    assert from_json(to_json(found), GuardResult) == found
    return found


def open_proto(path: Path) -> ModelProto:
    proto = ModelProto()
    proto.ParseFromString(path.read_bytes())
    return proto


def test_an_attack_hurts_and_a_stronger_one_hurts_more(digits: Path, digits_samples: dict[str, np.ndarray]) -> None:
    robust = [attacked(digits, digits_samples, 0.0, settings={"epsilon": epsilon}).parent_value for epsilon in (1e-6, 0.02, 0.1)]
    assert robust[0] > robust[1] > robust[2]
    flat = attacked(digits, digits_samples, 0.0, settings={"epsilon": 0.5}, objective=Objective(attack_drop=0.5))
    assert flat.verdict == "held" and "so little is left to lose: lower epsilon" in flat.reason
    fast, slow = (attacked(digits, digits_samples, 0.0, settings={"epsilon": 0.04, "steps": steps}).parent_value for steps in (1, 5))
    assert slow <= fast


def test_the_same_model_loses_nothing_and_a_spoilt_one_does(digits: Path, digits_samples: dict[str, np.ndarray]) -> None:
    same = attacked(digits, digits_samples, 0.0, objective=Objective(attack_drop=0.01))
    assert (same.drop.value, same.verdict, same.n) == (0, "proven", 128)
    spoilt = attacked(digits, digits_samples, 4.0, objective=Objective(attack_drop=0.01))
    assert spoilt.verdict == "violated"
    assert {case.group for case in spoilt.cases} == {"white box", "transfer", "either"}
    assert spoilt == attacked(digits, digits_samples, 4.0, objective=Objective(attack_drop=0.01))


def test_attack_refuses_what_has_no_gradient() -> None:
    pytest.importorskip("torch")
    text = Dataset(dict(TOKENS), np.arange(40) % 2, source="here")
    with pytest.raises(DataError, match="tokens and ids have none"):
        check_guards(Objective(attack_drop=0.1), metric("accuracy"), text)
    with pytest.raises(DataError, match="no right and wrong class"):
        check_guards(Objective(attack_drop=0.1), metric("mse"), brighter())
    with pytest.raises(ConfigError, match="give model and parent_model"):
        measure_guard(
            "attack", variant="v", runtime="null", part="report", metric=metric("accuracy"), answer=Picture(), parent_answer=Picture(),
            dataset=brighter(),
        )  # fmt: skip
