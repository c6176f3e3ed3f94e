"""The roofline and what it promises of each technique: exact on small tables, and never a promise that arithmetic forbids."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.predict import explain, gains, roofline
from headway.records import Ceilings, Cost, OperatorCost

VNNI = ("avx2", "avx512_vnni", "avx512_bf16")
CEILINGS = Ceilings(
    flop_per_s={"float32": 2e11, "int8": 8e11, "bfloat16": 4e11},
    flop_per_s_one_thread={"float32": 1e11, "int8": 4e11, "bfloat16": 2e11},
    bytes_per_s=4e10,
    bytes_per_s_one_thread=2e10,
    overhead_s=1e-5,
)


def cost_of(*operators: OperatorCost, uncounted: tuple[str, ...] = ()) -> Cost:
    return Cost(
        parameters=sum(op.weight_bytes for op in operators) // 4,
        flop=sum(op.flop for op in operators),
        weight_bytes=sum(op.weight_bytes for op in operators),
        activation_bytes=sum(op.activation_bytes for op in operators),
        opset=17,
        inputs=(),
        outputs=(),
        operators=operators,
        uncounted=uncounted,
    )


def op(kind: str, flop: int, weights: int = 0, activations: int = 0) -> OperatorCost:
    return OperatorCost(node=kind.lower(), op_type=kind, flop=flop, weight_bytes=weights, activation_bytes=activations)


CONV = cost_of(op("Conv", 10**9, 4 * 10**6, 10**6), op("Relu", 10**6, 0, 2 * 10**6))
WIDE = cost_of(op("Gemm", 2 * 10**8, 4 * 10**8, 10**4))


def test_the_worked_example_by_measured_ceilings() -> None:
    """1e9 FLOP take 10 ms only at 1e11 FLOP/s; a fifth less work takes 8 ms only because this model is compute-bound."""
    before, after = (roofline(cost_of(op("Conv", flop)), CEILINGS) for flop in (10**9, 8 * 10**8))
    assert before.bound_s == pytest.approx(0.010 + 1e-5)
    assert after.bound_s == pytest.approx(0.008 + 1e-5)
    same = [roofline(cost_of(op("Gemm", flop, 400 * 10**6)), CEILINGS).bound_s for flop in (10**9, 8 * 10**8)]
    assert same == [pytest.approx(0.020 + 1e-5)] * 2


def test_bounds_of_the_whole_and_of_each_operator() -> None:
    found = roofline(CONV, CEILINGS, batch=4)
    assert found.compute_s == pytest.approx(4 * 1.001e9 / 1e11)
    assert found.memory_s == pytest.approx((4e6 + 4 * 3e6) / 2e10)
    assert found.bound_s == pytest.approx(1e-5 + found.compute_s)
    conv, relu = found.operators
    assert conv.compute_bound and conv.bound_s == pytest.approx(4e9 / 1e11)
    assert not relu.compute_bound and relu.bound_s == pytest.approx(4 * 2e6 / 2e10)
    assert found.unfused_s == pytest.approx(1e-5 + conv.bound_s + relu.bound_s) and found.unfused_s >= found.bound_s
    assert roofline(CONV, CEILINGS, all_cores=True).bound_s < roofline(CONV, CEILINGS).bound_s
    assert roofline(CONV, CEILINGS, precision="int8").compute_s == pytest.approx(1.001e9 / 4e11)


def test_the_crossover_is_where_the_sides_meet() -> None:
    found = roofline(WIDE, CEILINGS)
    assert not found.compute_bound
    assert found.crossover == pytest.approx((4e8 / 2e10) / (2e8 / 1e11 - 1e4 / 2e10))
    assert roofline(WIDE, CEILINGS, batch=math.ceil(found.crossover)).compute_bound
    assert not roofline(WIDE, CEILINGS, batch=math.floor(found.crossover)).compute_bound
    assert roofline(cost_of(op("Relu", 100, 0, 10**6)), CEILINGS).crossover == math.inf


def test_what_cannot_be_bounded_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="one of bfloat16, float32, int8"):
        roofline(CONV, CEILINGS, precision="int4")
    with pytest.raises(ValueError, match="batch must be at least 1"):
        roofline(CONV, CEILINGS, batch=0)


def best(cost: Cost, name: str, sets: tuple[str, ...] = VNNI, batch: int = 1) -> tuple[float, str]:
    return next((gain.at_best, gain.sentence) for gain in gains(cost, CEILINGS, sets, batch=batch) if gain.technique == name)


def test_int8_is_bounded_by_the_measured_rate_and_by_what_it_does_not_touch() -> None:
    assert best(CONV, "quantize_static")[0] == pytest.approx((1e-5 + 1.001e-2) / (1e-5 + 1e-2 / 4 + 1e-5), rel=0.05)
    half = cost_of(op("Conv", 10**9), op("Softmax", 10**9))
    assert 1.5 < best(half, "quantize_static")[0] < 1.61, "a half that is not touched bounds the whole (Amdahl)"
    assert best(CONV, "quantize_dynamic")[0] == 1.0, "dynamic quantization knows matrix products only"
    assert best(WIDE, "quantize_dynamic")[0] == pytest.approx(4.0, rel=0.01)


def test_what_the_processor_lacks_cannot_pay() -> None:
    for name, word in (
        ("quantize_static", "no 8-bit dot product"),
        ("quantize_dynamic", "no 8-bit dot product"),
        ("precision", "no bfloat16 arithmetic"),
    ):
        gain, sentence = best(CONV, name, ("avx2",))
        assert gain == 1.0 and word in sentence
    unmeasured = CEILINGS.__class__(
        flop_per_s={"float32": 1e11}, flop_per_s_one_thread={"float32": 1e11}, bytes_per_s=1e10, bytes_per_s_one_thread=1e10, overhead_s=0.0
    )
    assert all(
        "could not be measured" in gain.sentence
        for gain in gains(CONV, unmeasured, VNNI)
        if gain.technique in ("quantize_static", "precision")
    )


def test_weight_only_pays_below_the_ridge_and_not_above_or_in_cache() -> None:
    assert best(WIDE, "weight_only")[0] == pytest.approx(4.0, rel=0.01)
    assert "up to batch 10" in best(WIDE, "weight_only")[1]
    assert "already compute-bound" in best(WIDE, "weight_only", batch=64)[1]
    assert "stay in cache" in best(CONV, "weight_only")[1]


def test_zeros_never_pay_on_dense_kernels() -> None:
    assert best(WIDE, "unstructured") == (1.0, "unstructured zeros will not help speed: dense kernels multiply them like any other number")


def test_the_sentences_tell_the_whole_story_once() -> None:
    said = explain(CONV, CEILINGS, VNNI)
    assert len(said) == len(set(said))
    text = "\n".join(said)
    for phrase in (
        "at least 10 ms on one thread",
        "compute-bound",
        "on all cores",
        "int8 arithmetic can bring at most",
        "bfloat16 can bring at most",
        "unstructured",
    ):
        assert phrase in text, phrase
    said = explain(cost_of(*[op("Conv", 10**8)] * 9, op("Gemm", 10**9), uncounted=("Foo",)), CEILINGS, ("avx2",))
    text = "\n".join(said)
    assert "half of the operators' time lies in 1 of 10 (first Gemm 'gemm')" in text
    assert "not counted: Foo" in text
    assert len([line for line in said if "no 8-bit dot product" in line]) == 1


def test_a_tiny_model_is_mostly_its_call() -> None:
    assert "95% of that is the call itself" in "\n".join(explain(cost_of(op("Gemm", 50_000)), CEILINGS, VNNI))
    assert "call itself" not in "\n".join(explain(CONV, CEILINGS, VNNI))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Conv", "Gemm", "MatMul", "Relu", "LSTM"]),
            st.integers(0, 10**10),
            st.integers(0, 10**9),
            st.integers(0, 10**8),
        ),
        max_size=6,
    ),
    st.integers(1, 64),
)
def test_promises_stay_within_what_the_machine_can_do(rows: list[tuple[str, int, int, int]], batch: int) -> None:
    cost = cost_of(*[op(*row) for row in rows])
    found = gains(cost, CEILINGS, VNNI, batch=batch)
    assert {gain.technique for gain in found} >= {
        "fold",
        "quantize_static",
        "quantize_dynamic",
        "precision",
        "weight_only",
        "unstructured",
        "structured",
    }
    for gain in found:
        assert gain.at_best >= 1.0
        if gain.technique not in ("fold",):
            assert gain.at_best <= 4.0 + 1e-9
    line = roofline(cost, CEILINGS, batch=batch)
    assert line.unfused_s >= line.bound_s * (1 - 1e-12)
    assert explain(cost, CEILINGS, VNNI)
