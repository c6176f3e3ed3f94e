"""Plans that a machine allows, and the few predictions that are worth a load run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence import prediction
from headway.records import BatchTiming, Objective, Prediction, ServiceCurve
from headway.search import MARGIN, batch_sizes, plans_for, shortlist, splits

ANY_RATE = Objective(latency_s=0.02)


def curve(*medians_s: float, instances: int = 2, threads: int = 3) -> ServiceCurve:
    timings = tuple(BatchTiming(batch=2**power, service_s=(seconds,)) for power, seconds in enumerate(medians_s))
    return ServiceCurve(
        variant="v", runtime="null", device="cpu", instances=instances, threads=threads, timings=timings, tau0_s=0, alpha_s=0, peak_bytes=0
    )


@pytest.mark.parametrize(
    ("cores", "expected"),
    [
        (1, ((1, 1),)),
        (2, ((1, 1), (1, 2), (2, 1))),
        (4, ((1, 1), (1, 4), (2, 2), (4, 1))),
        (6, ((1, 1), (1, 6), (2, 3), (3, 2), (6, 1))),
        (7, ((1, 1), (1, 7), (7, 1))),
    ],
)
def test_cores_are_split_evenly(cores: int, expected: tuple[tuple[int, int], ...]) -> None:
    assert splits(cores) == expected


@given(st.integers(1, 256))
def test_no_split_oversubscribes_the_cores(cores: int) -> None:
    found = splits(cores)
    assert found[0] == (1, 1)
    assert len(set(found)) == len(found)
    assert all(instances * threads in (1, cores) for instances, threads in found)


def test_batch_sizes_are_powers_of_two() -> None:
    assert batch_sizes(1) == (1,)
    assert batch_sizes(32) == (1, 2, 4, 8, 16, 32)
    assert batch_sizes(33) == (1, 2, 4, 8, 16, 32)
    assert batch_sizes(31) == (1, 2, 4, 8, 16)
    assert batch_sizes()[-1] == 64


def test_plans_of_a_curve_keep_its_split_and_only_batches_that_fit() -> None:
    plans = plans_for(curve(0.001, 0.002, 0.004, 0.03), 0.02)
    assert [plan.max_batch for plan in plans] == [1, 2, 4]
    assert {(plan.runtime, plan.instances, plan.threads, plan.max_wait_s) for plan in plans} == {("null", 2, 3, 0.0)}
    assert [plan.max_batch for plan in plans_for(curve(0.001, 0.002, 0.004, 0.03), None)] == [1, 2, 4, 8]


def test_a_curve_that_fits_nowhere_still_gives_one_plan() -> None:
    assert [plan.max_batch for plan in plans_for(curve(0.1, 0.2), 0.02)] == [1]


PREDICTIONS = st.lists(
    st.builds(
        prediction,
        st.sampled_from(["model", "model+fold", "a", "b", "c"]),
        st.floats(1, 1000),
        instances=st.sampled_from([1, 2]),
        threads=st.sampled_from([1, 2]),
        max_batch=st.sampled_from([1, 8, 32]),
    ),
    min_size=1,
    max_size=25,
    unique_by=lambda p: p.candidate,
)
PLAIN = frozenset({"model", "model+fold"})


@given(PREDICTIONS, st.one_of(st.none(), st.floats(1, 2000)), st.integers(1, 6), st.integers(1, 3))
def test_any_shortlist_is_short_spread_and_fair(predictions: list[Prediction], rate: float | None, size: int, most: int) -> None:
    objective = Objective(latency_s=0.02, rate_per_s=rate)
    short = shortlist(predictions, objective, size=size, uncompressed=PLAIN, plans_per_kind=most)
    assert 1 <= len(short) <= size + 1
    assert len(set(short)) == len(short)
    assert set(short) <= set(predictions)
    names = [p.candidate.variant for p in short]
    assert max(names.count(name) for name in names) <= most + 1
    plain = [p for p in predictions if p.candidate.variant in PLAIN]
    if plain:
        best = max(p.capacity_per_s for p in plain)
        assert max((p.capacity_per_s for p in short if p.candidate.variant in PLAIN), default=0.0) >= 0.95 * best
    assert short == shortlist(predictions, objective, size=size, uncompressed=PLAIN, plans_per_kind=most)


def test_without_a_rate_the_highest_capacity_comes_first() -> None:
    given_ = [prediction("a", 100), prediction("b", 300, instances=2), prediction("model", 50), prediction("c", 200)]
    assert [p.candidate.variant for p in shortlist(given_, ANY_RATE, size=2, uncompressed=PLAIN)] == ["b", "model", "c"]


def test_with_a_rate_the_fewest_cores_come_first_then_the_strongest() -> None:
    objective = Objective(latency_s=0.02, rate_per_s=100)
    cheap, wide, strong = prediction("a", 150), prediction("a", 400, instances=2), prediction("b", 500, instances=2)
    hopeless = prediction("c", MARGIN * 100 - 1)
    short = shortlist([strong, hopeless, wide, cheap, prediction("model", 90)], objective, size=4, uncompressed=PLAIN)
    assert short == (cheap, prediction("model", 90), strong, wide)
    assert hopeless not in short


def test_plans_that_may_just_hold_the_rate_come_after_those_that_surely_do() -> None:
    objective = Objective(latency_s=0.02, rate_per_s=100)
    perhaps, surely = prediction("a", 110), prediction("b", 140, instances=2)
    assert shortlist([perhaps, surely], objective, size=1, uncompressed=()) == (surely,)


def test_when_nothing_can_hold_the_rate_the_strongest_are_tried() -> None:
    objective = Objective(latency_s=0.02, rate_per_s=1000)
    short = shortlist([prediction("a", 10), prediction("b", 30), prediction("c", 20)], objective, size=2, uncompressed=())
    assert [p.candidate.variant for p in short] == ["b", "c"]


def test_of_equal_plans_the_smallest_batch_limit_is_kept() -> None:
    family = [prediction("a", 97, max_batch=8), prediction("a", 100, max_batch=32), prediction("a", 60, max_batch=1)]
    assert [p.candidate.plan.max_batch for p in shortlist(family, ANY_RATE, size=4, uncompressed=())] == [8]


def test_one_good_variant_does_not_crowd_out_the_others() -> None:
    crowd = [prediction("a", 500 + extra, instances=extra, threads=2) for extra in (1, 2, 3, 4)]
    short = shortlist([*crowd, prediction("b", 10)], ANY_RATE, size=3, uncompressed=())
    assert [p.candidate.variant for p in short] == ["a", "a", "b"]
