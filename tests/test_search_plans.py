"""Plans that a machine allows, and the few predictions that are worth a load run."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence import candidate, evidence, measured, prediction
from headway.records import BatchTiming, Noise, Objective, Prediction, ServiceCurve
from headway.search import MARGIN, Evidence, batch_sizes, gather, indistinct, margin, noise_warning, plans_for, shortlist
from headway.search.margin import MOST_DOUBT, doubt
from headway.search.shortlist import MOST

ANY_RATE = Objective(latency_s=0.02)


def curve(*medians_s: float, instances: int = 2, threads: int = 3) -> ServiceCurve:
    timings = tuple(BatchTiming(batch=2**power, service_s=(seconds,)) for power, seconds in enumerate(medians_s))
    return ServiceCurve(
        variant="v", runtime="null", device="cpu", instances=instances, threads=threads, timings=timings, tau0_s=0, alpha_s=0, peak_bytes=0
    )


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


def test_the_best_of_those_that_answer_as_the_original_is_there_too() -> None:
    crowd = [prediction(name, rate) for name, rate in (("a", 900), ("b", 800), ("c", 300), ("d", 250), ("model", 100))]
    faithful = {("c", "onnx_runtime"), ("d", "onnx_runtime"), ("model", "onnx_runtime"), ("a", "openvino")}

    def names(size: int) -> list[str]:
        return [p.candidate.variant for p in shortlist(crowd, ANY_RATE, size=size, uncompressed=PLAIN, faithful=faithful)]

    assert names(2) == ["a", "model", "b", "c"]
    assert names(3) == ["a", "model", "b", "c"], "it is among them already"


# --- machines that are not quiet


def noise(others: float = 0.0, steal: float = 0.0, ratio: float = 1.0) -> Noise:
    return Noise(stage="curve", noise_ratio=ratio, steal_fraction=steal, others_fraction=others)


def wide(told: Prediction, low: float, high: float) -> Prediction:
    """With ends at these shares of the capacity."""
    return msgspec.structs.replace(told, low_per_s=low * told.capacity_per_s, high_per_s=high * told.capacity_per_s)


BUSY_LOOP = (noise(others=0.5, ratio=1.9),)
NOISES = st.builds(noise, st.floats(0, 1), st.floats(0, 1), st.floats(0.9, 20))
SHARES = st.tuples(st.floats(0.1, 1), st.floats(1, 5))


def test_on_a_quiet_machine_the_margin_is_what_it_always_was() -> None:
    assert margin(prediction("a", 100)) == MARGIN == 0.75
    assert margin(wide(prediction("a", 100), 0.98, 1.02), [noise(0.02, 0.01, 1.2)], wide(prediction("b", 90), 0.98, 1.02)) == MARGIN


@given(NOISES, NOISES, SHARES, SHARES)
def test_the_margin_only_falls_with_noise_and_wider_ends(
    one: Noise, other: Noise, ends: tuple[float, float], theirs: tuple[float, float]
) -> None:
    told, rival = wide(prediction("a", 100), *ends), wide(prediction("b", 200), *theirs)
    found = margin(told, [one], rival)
    assert 0 < found <= MARGIN
    assert margin(told, [one, other], rival) <= found, "the worst counts"
    assert margin(wide(told, ends[0], 1.2 * ends[1]), [one], rival) <= found
    assert margin(told, [one], wide(rival, 0.8 * theirs[0], theirs[1])) <= found
    more = noise(one.others_fraction, min(1.0, one.steal_fraction + 0.1), one.noise_ratio + 0.5)
    assert margin(told, [more], rival) <= found
    assert 0 <= doubt([one]) <= doubt([more]) <= MOST_DOUBT


def test_the_margin_is_where_the_upper_end_reaches_the_rival_s_lower_end() -> None:
    told, rival = wide(prediction("a", 100), 0.9, 1.5), wide(prediction("b", 200), 0.8, 1.1)
    share = margin(told, (), rival)
    assert share * 1.5 == pytest.approx(0.8 * 0.9)
    assert margin(told, [noise(others=0.25)], rival) == pytest.approx(share * 0.75**2)


def test_predictions_of_older_runs_have_no_ends() -> None:
    assert margin(prediction("a", 100), (), prediction("b", 200)) == MARGIN
    assert margin(prediction("a", 0)) == MARGIN


def rivals(*rates: float) -> list[Prediction]:
    return [prediction(name, rate) for name, rate in zip("abcdefghijk", rates, strict=False)]


def test_a_noisy_machine_keeps_more_candidates_but_not_all() -> None:
    field = rivals(1000, 900, 800, 700, 650, 600, 550, 500, 100)
    quiet = shortlist(field, ANY_RATE, size=4, uncompressed=())
    noisy = shortlist(field, ANY_RATE, size=4, uncompressed=(), noise=BUSY_LOOP)
    assert [p.capacity_per_s for p in quiet] == [1000, 900, 800, 700]
    assert noisy[:4] == quiet and len(noisy) == MOST
    few = rivals(1000, 900, 800, 700, 100, 90)
    assert shortlist(few, ANY_RATE, size=4, uncompressed=(), noise=BUSY_LOOP) == shortlist(few, ANY_RATE, size=4, uncompressed=())


def test_one_shaky_curve_keeps_its_own_candidate() -> None:
    field = rivals(1000, 900, 800, 700, 600, 590)
    shaky = wide(field[-1], 0.5, 2.0)
    short = shortlist([*field[:-1], shaky], ANY_RATE, size=4, uncompressed=())
    assert short == (*field[:4], shaky)


def test_with_a_rate_noise_brings_in_those_that_a_quiet_machine_would_drop() -> None:
    objective = Objective(latency_s=0.02, rate_per_s=100)
    surely, doubtful, hopeless = prediction("a", 150), prediction("b", 60, instances=2), prediction("c", 10)
    assert doubtful not in shortlist([surely, doubtful, hopeless], objective, size=4, uncompressed=())
    assert set(shortlist([surely, doubtful, hopeless], objective, size=4, uncompressed=(), noise=BUSY_LOOP)) == {surely, doubtful}


def test_what_is_expected_behind_http_counts_where_all_are_known_there() -> None:
    lean = msgspec.structs.replace(prediction("a", 1000), served_per_s=900.0)
    greedy = msgspec.structs.replace(prediction("b", 1500, instances=2), served_per_s=800.0)
    assert shortlist([greedy, lean], ANY_RATE, size=2, uncompressed=()) == (lean, greedy)
    unknown = msgspec.structs.replace(greedy, served_per_s=None)
    assert shortlist([unknown, lean], ANY_RATE, size=2, uncompressed=()) == (unknown, lean)
    objective = Objective(latency_s=0.02, rate_per_s=1400)
    assert shortlist([greedy, lean], objective, size=2, uncompressed=())[0] == lean, "nobody holds it, so the strongest comes first"


@given(PREDICTIONS, st.one_of(st.none(), st.floats(1, 2000)), st.integers(1, 4), st.lists(NOISES, max_size=2))
def test_noise_only_adds_to_a_shortlist_without_a_rate(
    predictions: list[Prediction], rate: float | None, size: int, seen: list[Noise]
) -> None:
    objective = Objective(latency_s=0.02, rate_per_s=rate)
    quiet = shortlist(predictions, objective, size=size, uncompressed=PLAIN)
    noisy = shortlist(predictions, objective, size=size, uncompressed=PLAIN, noise=seen)
    assert 1 <= len(noisy) <= max(size, MOST) + 1 and len(set(noisy)) == len(noisy)
    if rate is None:
        assert set(quiet) <= set(noisy)


def test_a_busy_machine_is_told_of() -> None:
    told = [wide(prediction("a", 100), 0.9, 1.2), noise(others=0.34, ratio=1.9)]
    (warning,) = noise_warning(told)
    assert "34% of its CPU time went to other processes" in warning and "repeated work varied by a factor of 1.9" in warning
    assert "to other machines" not in warning
    factor = 1.2 / (0.66 * 1.3 / 1.9)
    assert f"uncertain by a factor of {min(factor, 1.2 / (1 - MOST_DOUBT)):.2g}" in warning
    (stolen,) = noise_warning([noise(steal=0.2), noise()])
    assert "20% to other machines" in stolen and "uncertain by a factor of 1.2" in stolen


@given(NOISES)
def test_who_is_told_has_wider_margins(seen: Noise) -> None:
    if noise_warning([seen]):
        assert margin(prediction("a", 100), [seen], prediction("b", 100)) < MARGIN


def test_a_quiet_machine_is_not_spoken_of() -> None:
    assert noise_warning([noise(0.03, 0.01, 1.25), prediction("a", 100)]) == ()
    assert noise_warning([]) == ()


def rounds(*rates: float) -> tuple[tuple[int, float], ...]:
    return tuple(enumerate(rates, start=1))


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ((100, 102, 98), (99, 101, 100), True),
        ((200, 205, 195), (100, 101, 99), False),
        ((100, 50, 200), (50, 25, 100), False),  # what disturbs both sides of a round cancels
        ((100, 180, 98), (90, 60, 110), True),
        ((104, 104, 104), (100, 100, 100), True),  # nearer than the search's resolution
        ((130,), (100,), True),  # one round does not tell how rounds differ
        ((160,), (100,), False),
        ((100, 100, 100), (0, 0, 0), False),
        ((0, 0), (0, 0), True),
        ((100, 0), (90, 80), True),
        ((), (100,), True),
    ],
)
def test_who_cannot_be_told_apart(one: tuple[float, ...], other: tuple[float, ...], alike: bool) -> None:
    first, second = _with_rounds("a", one), _with_rounds("b", other)
    assert indistinct(first, second) is alike
    assert indistinct(second, first) is alike


def _with_rounds(name: str, rates: tuple[float, ...]) -> Evidence:
    return dataclasses.replace(evidence(name), rounds=rounds(*rates))


def test_rounds_are_gathered_by_number() -> None:
    lines = [*measured(candidate("fast"), [300.0, 100.0, 200.0], [0.01, 0.03, 0.012]), *measured(candidate("slow"), [90.0], [0.01])]
    fast, slow = gather(lines, 0.99, "http")
    assert fast.rounds == ((1, 300.0), (2, 100.0), (3, 200.0)) and slow.rounds == ((1, 90.0),)
    assert not indistinct(fast, slow)
