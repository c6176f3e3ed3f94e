"""The audit passes a target that is right and fails those that are not: rows mixed up, answers cached, one seed favoured."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import serving
from headway.api import load_audit
from headway.api.load_audit import audit_target
from headway.api.load_session import LoadAsked, Loading
from headway.api.progress import Silent
from headway.load import arrival_times
from headway.load.audit import Audited, Reference, Told, audit_answers, audit_cache, audit_seeds, difference
from headway.records import MeasurementError, TensorSpec
from paper_target import PaperTarget
from wrong_server import answering

SAMPLES = 20
RNG = np.random.default_rng(0)
OUTPUTS = [{"y": RNG.standard_normal((1, 8)).astype(np.float32), "top": np.array([at % 3])} for at in range(SAMPLES)]
EXPECTED = {"a": Reference(dict(enumerate(OUTPUTS)), 1e-2)}


def answers(mix: dict[int, int] | None = None, noise: float = 0.0, variant: str = "a") -> list[Told]:
    """200 answers; ``mix`` says which sample's answer stands for another's."""
    rng = np.random.default_rng(1)
    told = []
    for number in range(200):
        sample = number % SAMPLES
        given_ = OUTPUTS[(mix or {}).get(number, sample)]
        told.append(Told(sample, variant, {**given_, "y": given_["y"] * (1 + noise * rng.standard_normal((1, 8))).astype(np.float32)}))
    return told


# --- TEST01


def test_right_answers_pass_also_when_batches_round_them() -> None:
    for noise in (0.0, 1e-6, 1e-4):
        found = audit_answers(answers(noise=noise), EXPECTED, sent=210, refused=10)
        assert found.verdict == "passed", found.reason
        assert found.figures["wrong"] == 0 and found.figures["sent"] == 210
    assert audit_answers(answers(), EXPECTED, sent=200).test == "TEST01"


def test_one_answer_of_another_request_fails_and_is_named() -> None:
    found = audit_answers(answers({57: 3}), EXPECTED, sent=200)
    assert found.verdict == "failed"
    assert "1 of 200 answers are wrong: sample 17 was answered as sample 3" in found.reason


def test_a_wrong_answer_that_belongs_to_nobody_fails_too() -> None:
    told = answers()
    told[5] = Told(5, "a", {"y": np.zeros((1, 8), np.float32), "top": np.array([0])})
    assert "sample 5 was answered as no sample" in audit_answers(told, EXPECTED, sent=200).reason
    told[5] = Told(5, "a", {})
    assert audit_answers(told, EXPECTED, sent=200).verdict == "failed"


def test_a_mix_up_within_the_tolerance_fails_where_the_right_answer_lies_closer() -> None:
    """Two samples whose answers differ by less than the tolerance: the exact answer of the other one is still the wrong one."""
    near = {at: {"y": np.full((1, 4), 800 + 0.1 * at)} for at in range(SAMPLES)}
    expected = {"": Reference(near, 1e-2)}
    right = [Told(at, "", {"y": near[at]["y"] * (1 + 1e-7)}) for at in range(SAMPLES)]
    assert audit_answers(right, expected, sent=SAMPLES).verdict == "passed"
    mixed = [*right[:-1], Told(SAMPLES - 1, "", near[3])]
    assert audit_answers(mixed, expected, sent=SAMPLES).verdict == "failed"


def test_samples_that_are_all_answered_alike_prove_nothing() -> None:
    alike = {"a": Reference({at: {"y": np.ones(3)} for at in range(SAMPLES)}, 1e-2)}
    found = audit_answers([Told(at, "a", {"y": np.ones(3)}) for at in range(SAMPLES)], alike, sent=SAMPLES)
    assert found.verdict == "unproven" and "could not be seen" in found.reason


def test_every_variant_is_held_to_its_own_answers() -> None:
    other = {at: {**given_, "y": given_["y"] + 1} for at, given_ in enumerate(OUTPUTS)}
    both = {**EXPECTED, "b": Reference(other, 1e-2)}
    told = [*answers(), *[Told(at, "b", other[at]) for at in range(SAMPLES)]]
    found = audit_answers(told, both, sent=220)
    assert found.verdict == "passed" and "by a, b" in found.reason
    lying = [*answers(), *[Told(at, "b", OUTPUTS[at]) for at in range(SAMPLES)]]
    assert audit_answers(lying, both, sent=220).verdict == "failed"


def test_an_unknown_variant_and_no_answer_at_all_prove_nothing() -> None:
    found = audit_answers([*answers(), *answers(variant="b")], EXPECTED, sent=400)
    assert found.verdict == "unproven" and "200 of 400 answers came from 'b'" in found.reason
    assert audit_answers([], EXPECTED, sent=10, refused=10).verdict == "unproven"


def test_a_request_without_answer_or_refusal_fails() -> None:
    found = audit_answers(answers(), EXPECTED, sent=205, refused=3)
    assert found.verdict == "failed" and "2 of 205 requests got no answer and no refusal" in found.reason


@given(st.lists(st.integers(0, SAMPLES - 1), min_size=1, max_size=8, unique=True), st.integers(1, SAMPLES - 1))
def test_any_mix_up_is_found(places: list[int], shift: int) -> None:
    told = answers({place: (place + shift) % SAMPLES for place in places}, noise=1e-6)
    found = audit_answers(told, EXPECTED, sent=200)
    assert found.verdict == "failed" and found.figures["wrong"] == len(places)


def test_difference_knows_what_cannot_be_compared() -> None:
    one = {"y": np.array([1.0, np.nan, np.inf])}
    assert difference(one, one) == 0
    assert difference({"y": np.array([1.1, np.nan, np.inf])}, one) == pytest.approx(0.1)
    for other in ({}, {"z": one["y"]}, {"y": np.array([1.0, 0.0, np.inf])}, {"y": np.ones(2)}, {"y": np.ones(3, np.float32)}):
        assert difference(other, one) == math.inf
    assert difference({"y": np.array([1, 2])}, {"y": np.array([1, 3])}) == math.inf


# --- TEST04 and TEST05


def rounds(
    factor: float, count: int = 12, spread: float = 0.03, base_s: float = 0.01
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Latencies of two sides in ``count`` rounds, each with a level of its own as on a shared machine; the second ``factor`` times as long."""
    rng = np.random.default_rng(3)
    levels = rng.lognormal(0, 0.3, count)
    one = [base_s * level * rng.lognormal(0, 0.2, 200) for level in levels]
    two = [factor * base_s * level * rng.lognormal(0, spread) * rng.lognormal(0, 0.2, 200) for level in levels]
    return one, two


def test_a_cache_is_found_and_none_is_not() -> None:
    assert audit_cache(*rounds(1.0)).verdict == "passed"
    assert audit_cache(*rounds(0.5)).verdict == "failed"
    assert audit_cache(*rounds(1.2)).verdict == "passed", "a repeated sample may be slower"
    found = audit_cache(*rounds(0.9))
    assert found.verdict == "unproven" and found.figures["low"] < 1.1 < found.figures["high"]


def test_a_favoured_seed_is_found_either_way() -> None:
    assert audit_seeds(*rounds(1.0)).verdict == "passed"
    assert audit_seeds(*rounds(1.5)).verdict == "failed"
    assert audit_seeds(*rounds(0.6)).verdict == "failed"
    assert audit_seeds(*rounds(1.0, spread=0.3)).verdict == "unproven"


def test_very_short_latencies_have_a_wider_limit() -> None:
    assert audit_cache(*rounds(1 / 1.14, spread=0.01)).verdict == "failed"
    assert audit_cache(*rounds(1 / 1.14, spread=0.01, base_s=1e-4)).verdict == "passed"


def test_one_round_is_judged_by_its_own_spread_and_more_by_their_disagreement() -> None:
    """A verdict of ``passed`` on a target that caches would need the interval to miss: it must not happen in more than its confidence allows."""
    rng = np.random.default_rng(9)
    passed = 0
    for _ in range(400):
        one = [0.01 * rng.lognormal(0, 0.1, 50) for _ in range(6)]
        two = [0.01 / 1.12 * rng.lognormal(0, 0.1, 50) for _ in range(6)]
        passed += audit_cache(one, two).verdict == "passed"
    assert passed <= 400 * 0.005 + 4 * math.sqrt(400 * 0.005) + 1


# --- the whole audit, on targets made of arithmetic


def verdicts(target: PaperTarget, **more: Any) -> dict[str, Audited]:
    opened = Loading(LoadAsked(target="paper"), target)
    return {found.test: found for found in audit_target(opened, progress=Silent(), **more)}


def test_an_honest_target_passes() -> None:
    found = verdicts(PaperTarget())
    assert {test: one.verdict for test, one in found.items()} == {"TEST01": "passed", "TEST04": "passed", "TEST05": "passed"}
    assert found["TEST01"].figures["sent"] > 500


def test_a_target_that_answers_another_request_s_row_fails_test01_alone() -> None:
    found = verdicts(PaperTarget(mixes=True))
    assert {test: one.verdict for test, one in found.items()} == {"TEST01": "failed", "TEST04": "passed", "TEST05": "passed"}
    assert "was answered as sample" in found["TEST01"].reason


def test_a_target_that_caches_fails_test04_though_it_has_seen_all_the_usual_samples() -> None:
    found = verdicts(PaperTarget(caches=True))
    assert found["TEST04"].verdict == "failed"
    assert found["TEST04"].figures["ratio"] == pytest.approx(10, rel=0.05)
    assert found["TEST01"].verdict == "passed"


def test_a_target_that_knows_the_seed_fails_test05_alone() -> None:
    rate = 60.0
    usual = arrival_times("poisson", rate, 100 / rate, 0)
    found = verdicts(PaperTarget(favours=usual), rate_per_s=rate)
    assert {test: one.verdict for test, one in found.items()} == {"TEST01": "passed", "TEST04": "passed", "TEST05": "failed"}


def test_answers_of_several_variants_are_each_held_to_their_own() -> None:
    found = verdicts(PaperTarget(variants=("a", "b", "b")))
    assert found["TEST01"].verdict == "passed" and "by a, b" in found["TEST01"].reason


def test_a_target_that_refuses_everything_is_an_error_in_words() -> None:
    with pytest.raises(MeasurementError, match="must answer a single request"):
        verdicts(PaperTarget(refuses=True))


def test_inputs_that_cannot_be_made_different_prove_nothing_about_a_cache() -> None:
    class Flags(PaperTarget):
        inputs = (TensorSpec(name="x", dtype="int64", shape=("n", 4)),)

    found = verdicts(Flags())
    assert found["TEST04"].verdict == "unproven" and "give --data" in found["TEST04"].reason


# --- over a real socket


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds that end in a second; real time decides nothing below."""
    for name, value in {
        "LEAST_ROUNDS": 1,
        "MOST_ROUNDS": 1,
        "LEAST_REPEATED": 3,
        "MOST_REPEATED": 3,
        "SEED_ROUND_S": 0.1,
        "SEED_ROUND_REQUESTS": 2,
    }.items():
        monkeypatch.setattr(load_audit, name, value)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(("mixes", "verdict"), [(False, "passed"), (True, "failed")])
def test_a_server_that_mixes_up_rows_is_found_over_http(mixes: bool, verdict: str) -> None:
    with answering(mixes=mixes) as url:
        found = load_audit.audit(LoadAsked(target=url), rate_per_s=150.0, seconds=1.0)
    assert found[0].verdict == verdict, found[0].reason
    assert found[0].figures["answered"] > 20


@pytest.mark.usefixtures("short")
def test_a_reference_finds_a_server_that_is_always_wrong(tmp_path: Path) -> None:
    """Answers of the model ``y = 2 x + 1`` held against a bundle of ``y = 3 x + 1``, and against its own."""
    bundles = [tmp_path / name for name in ("right", "wrong")]
    for folder, scale in zip(bundles, (2.0, 3.0), strict=True):
        serving.bundle(folder, serving.entry(serving.affine_model(tmp_path / f"{folder.name}.onnx", scale)))
    verdicts_ = [
        load_audit.audit(LoadAsked(target=str(bundles[0])), rate_per_s=100.0, seconds=0.5, reference=str(b))[0].verdict for b in bundles
    ]
    assert verdicts_ == ["passed", "failed"]
