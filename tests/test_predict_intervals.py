"""How wrong a prediction may be: from samples that agree or do not; and what a front end takes away."""

from __future__ import annotations

import io
import math
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from evidence import measured
from headway.predict import md1_mean_wait_s, predict_capacity, predict_plan
from headway.predict.capacity import Engine, highest
from headway.predict.interval import BLOCKS, UNSTABLE, halves
from headway.records import BatchTiming, FrontEnd, Objective, Plan, Prediction, ServiceCurve, from_json, to_json
from headway.report.fold import gather
from headway.report.page import page
from headway.report.terminal import print_summary
from test_report_example import summary

PLAN = Plan(runtime="null")
BOUND = Objective(latency_s=0.05)


def curve(*samples_s: tuple[float, ...], instances: int = 1, unstable: bool = False) -> ServiceCurve:
    timings = tuple(BatchTiming(batch=2**power, service_s=service_s) for power, service_s in enumerate(samples_s))
    return ServiceCurve(
        variant="v", runtime="null", device="cpu", instances=instances, threads=1, timings=timings, tau0_s=0.0, alpha_s=0.0, peak_bytes=0,
        unstable=unstable,
    )  # fmt: skip


def front(cpu_s: float, *jitter_s: float) -> FrontEnd:
    return FrontEnd(source="model", cpu_s=cpu_s, jitter_s=jitter_s or (0.0,), payload_bytes=100, rate_per_s=200.0)


def told(measured: ServiceCurve, plan: Plan = PLAN, objective: Objective = BOUND) -> tuple[float, float, float]:
    """The low end, the prediction, the high end."""
    found = predict_plan(measured, plan, objective)
    assert found.low_per_s is not None and found.high_per_s is not None
    return found.low_per_s, found.capacity_per_s, found.high_per_s


def wavering(middle_s: float, spread: float) -> tuple[float, ...]:
    """Samples in stretches: a slow one, then a fast one, four times."""
    return tuple(middle_s * (1 + sign * spread) for sign in (1, -1) * (BLOCKS // 2) for _ in range(4))


def test_samples_that_agree_leave_no_doubt() -> None:
    low, middle, high = told(curve((0.01,) * 16, (0.012,) * 16), Plan(runtime="null", max_batch=2))
    assert low == middle == high > 0


@settings(max_examples=15)
@given(
    st.lists(st.lists(st.floats(0.002, 0.02), min_size=1, max_size=30).map(tuple), min_size=1, max_size=3),
    st.integers(1, 2),
    st.sampled_from([None, 0.03, 0.001]),
)
def test_the_prediction_lies_between_its_ends(samples: list[tuple[float, ...]], instances: int, bound_s: float | None) -> None:
    measured = curve(*samples, instances=instances)
    low, middle, high = told(measured, Plan(runtime="null", instances=instances, max_batch=4), Objective(latency_s=bound_s))
    assert 0 <= low <= middle <= high <= 2 * max(measured.capacity_per_s(), instances * 4 / min(map(min, samples)))


@settings(max_examples=5)
@given(st.floats(0.02, 0.3), st.floats(1.3, 3))
def test_ends_move_apart_with_noisier_samples(spread: float, factor: float) -> None:
    _, _, _ = calm = told(curve(wavering(0.01, spread)))
    _, _, _ = noisy = told(curve(wavering(0.01, min(0.9, spread * factor))))
    assert noisy[2] / noisy[0] > calm[2] / calm[0] > 1


def test_a_bound_that_only_the_faster_samples_keep_has_an_upper_end() -> None:
    late = Objective(latency_s=0.0105)
    assert told(curve((0.02, 0.03) * 8), objective=late) == (0, 0, 0)
    low, middle, high = told(curve(wavering(0.01, 0.1)), objective=late)
    assert low == middle == 0 < high


def test_the_ends_are_what_each_half_alone_gives() -> None:
    slow, fast = (predict_capacity(curve((seconds,)), PLAN, BOUND).capacity_per_s for seconds in (0.012, 0.008))
    low, _, high = told(curve(wavering(0.01, 0.2)))
    assert (low, high) == (pytest.approx(slow, rel=0.08), pytest.approx(fast, rel=0.08))


def test_without_a_latency_bound_the_ends_are_those_of_mu() -> None:
    low, middle, high = told(curve(wavering(0.01, 0.2)), objective=Objective())
    assert middle == pytest.approx(0.9 * 100, rel=1e-6)
    assert (low, high) == (pytest.approx(0.9 / 0.012), pytest.approx(0.9 / 0.008))


def test_an_unstable_curve_is_doubted_though_what_was_kept_agrees() -> None:
    low, middle, high = told(curve((0.01,) * 16, unstable=True))
    assert (low, high) == (pytest.approx(middle / UNSTABLE), pytest.approx(middle * UNSTABLE))


@given(st.lists(st.floats(1e-4, 1.0), min_size=1, max_size=64))
def test_halves_hold_the_samples_of_the_slower_and_the_faster_blocks(samples: list[float]) -> None:
    slow, fast = (half.timings[0].service_s for half in halves(curve(tuple(samples))))
    assert set(slow) | set(fast) == set(samples)
    assert list(slow) == sorted(slow) and list(fast) == sorted(fast)
    if len(samples) <= BLOCKS:
        assert min(slow) >= max(fast) or len(samples) % 2 == 1


def test_the_order_of_time_counts() -> None:
    """The same samples: in stretches they are the machine's mood, shuffled they are the model's own spread."""
    stretches = wavering(0.01, 0.2)
    shuffled = tuple(np.random.default_rng(0).permutation(stretches).tolist())
    apart, close = told(curve(stretches)), told(curve(shuffled))
    assert apart[1] == pytest.approx(close[1], rel=0.03)
    assert apart[2] / apart[0] > 1.3 * (close[2] / close[0])


@pytest.mark.parametrize("instances", [1, 2])
def test_a_front_end_takes_away_and_more_so_without_a_core_of_its_own(instances: int) -> None:
    measured, plan = curve((0.002,), (0.0025,), instances=instances), Plan(runtime="null", instances=instances, max_batch=2)
    bare, own, stolen = (
        predict_plan(measured, plan, BOUND, front=front(cpu_s), cores=cores) for cpu_s, cores in ((0.0, 8), (4e-4, 8), (4e-4, instances))
    )
    assert bare.served_per_s is not None and own.served_per_s is not None and stolen.served_per_s is not None
    assert bare.served_per_s == pytest.approx(bare.capacity_per_s, rel=0.01)
    assert bare.capacity_per_s == own.capacity_per_s == stolen.capacity_per_s
    assert stolen.served_per_s < 0.95 * own.served_per_s <= own.capacity_per_s


def test_capacity_behind_a_front_end_in_closed_form() -> None:
    """Without a bound: one after another through the front, 1/c; out of the batches' time, 1/(1/mu + c/k)."""
    measured, free = curve((0.002,), instances=2), Objective()
    mu = 2 / 0.002
    for cpu_s, cores, law in ((2e-3, 4, 1 / 2e-3), (5e-4, 4, mu), (5e-4, 2, 1 / (1 / mu + 5e-4 / 2)), (4e-3, 2, 1 / 4e-3)):
        found = predict_plan(measured, Plan(runtime="null", instances=2), free, front=front(cpu_s), cores=cores)
        assert found.served_per_s == pytest.approx(0.9 * law)


def test_jitter_is_taken_from_the_bound() -> None:
    late = predict_plan(curve((0.01,)), PLAN, BOUND, front=front(0.0, 0.02), cores=8).served_per_s
    assert late == pytest.approx(predict_capacity(curve((0.01,)), PLAN, Objective(latency_s=0.03), refuses=False).capacity_per_s, rel=0.1)
    assert predict_plan(curve((0.01,)), PLAN, BOUND, front=front(0.0, 0.2), cores=8).served_per_s == 0


def test_without_a_front_end_nothing_is_said_of_http() -> None:
    assert predict_plan(curve((0.01,)), PLAN, BOUND).served_per_s is None


def test_a_plan_s_prediction_is_the_lone_one_with_fewer_requests() -> None:
    measured, plan = curve((0.005, 0.006), (0.007, 0.009)), Plan(runtime="null", max_batch=2)
    many, few = predict_capacity(measured, plan, BOUND), predict_plan(measured, plan, BOUND)
    assert few.capacity_per_s == pytest.approx(many.capacity_per_s, rel=0.06)
    assert predict_plan(measured, plan, BOUND) == few, "the same seed, the same figures"


@given(st.floats(0, 1), st.floats(0.01, 1), st.floats(0.005, 0.3), st.floats(0.002, 0.1))
def test_the_search_ends_next_to_the_edge_wherever_it_starts(edge: float, start: float, step: float, resolution: float) -> None:
    tried: list[float] = []

    def holds(rate: float) -> bool:
        tried.append(rate)
        return rate <= edge

    found = highest(holds, 1.0, start, step, resolution)
    assert found <= edge and (edge - found <= resolution or found == 1.0)
    assert all(0 < rate <= 1 for rate in tried)
    assert len(tried) < 4 + 2 * math.log2(1 / step + 2) + math.log2(1 / resolution)


def test_mean_latency_behind_a_front_end_is_two_queues() -> None:
    engine = partial(Engine, curve((0.0001,)), PLAN, Objective(latency_s=1.0))
    assert engine(front_end_s=0.001).mu_per_s == pytest.approx(1000)
    settled_s = engine(front_end_s=0.001)._settled_s(500.0, 40_000, math.inf)
    assert np.mean(settled_s) == pytest.approx(0.0001 + 0.001 + md1_mean_wait_s(500, 0.001), rel=0.06)


def test_records_of_older_runs_are_read() -> None:
    found = predict_plan(curve((0.01,)), PLAN, BOUND)
    plain = msgspec.json.decode(to_json(found))
    for name in ("served_per_s", "low_per_s", "high_per_s"):
        del plain[name]
    old = from_json(msgspec.json.encode(plain), Prediction)
    assert (old.served_per_s, old.low_per_s, old.high_per_s) == (None, None, None)
    assert old.capacity_per_s == found.capacity_per_s


def test_how_far_predictions_were_over_http_is_said_beside_in_process() -> None:
    console = Console(file=io.StringIO(), width=200, color_system=None)
    print_summary(console, msgspec.structs.replace(summary(), served_errors=(-0.1, 0.3)))
    said = console.file.getvalue()
    assert "Predicted capacity is off by 10% in the middle of 3 candidates, at worst by -21%." in said
    assert "Predicted capacity over HTTP is off by 30% in the middle of 2 candidates, at worst by +30%." in said


def test_the_page_takes_the_median_over_rounds(tmp_path: Path) -> None:
    one = msgspec.structs.replace(predict_plan(curve((0.01,)), PLAN, BOUND), served_per_s=110.0)
    lines = [one, *measured(one.candidate, [90.0, 100.0, 120.0], [0.01, 0.01, 0.01]), *measured(one.candidate, [7.0], [0.01], role="naive")]
    lines += measured(one.candidate, [one.capacity_per_s], [0.01], role="candidate", target="in-process")
    assert "over HTTP is off by 10% in the middle of 1 candidates, at worst by +10%" in page(gather(lines), tmp_path)
