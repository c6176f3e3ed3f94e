"""Successive halving on targets whose capacities are known: it finds the best within its runs, and never trusts a single stall."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence import point, prediction
from headway.load.find import RESOLUTION, STALL_SHARE
from headway.records import Candidate, LoadPoint, Objective, Prediction
from headway.search import MOST_RUNS, Halving, Offer

ANY_RATE = Objective(latency_s=0.02)
SLOW_S, FAST_S = 0.05, 0.01


def field(*figures: tuple[float, float], cores: Sequence[int] = ()) -> dict[Prediction, float]:
    """Predictions with the capacity that is true of each, out of (predicted, true)."""
    widths = cores or [1] * len(figures)
    return {prediction(f"v{n}", told, threads=width): true for n, ((told, true), width) in enumerate(zip(figures, widths, strict=True))}


def seen(rate_per_s: float, capacity: float, more: float = 0.0) -> LoadPoint:
    """What a run at a rate gives: beyond the capacity the surplus is refused."""
    missed = min(1.0, max(0.001, 1.02 - capacity / rate_per_s if rate_per_s > capacity else 0.0) + more)
    made = point(rate_per_s, SLOW_S if missed > 0.01 else FAST_S, target="in-process")
    return msgspec.structs.replace(made, miss_fraction=missed, achieved_rate_per_s=min(rate_per_s, 1.02 * capacity))


class Searched:
    """A search played to its end: what was offered, by rung, and what was told."""

    def __init__(
        self,
        rivals: dict[Prediction, float],
        objective: Objective = ANY_RATE,
        most: int = MOST_RUNS,
        more: Callable[[int, Candidate], float] = lambda n, c: 0.0,
    ) -> None:
        self.true = {p.candidate: capacity for p, capacity in rivals.items()}
        self.search = Halving(list(rivals), objective, most_runs=most)
        self.rungs: list[tuple[Offer, ...]] = []
        self.told: list[tuple[Candidate, float, LoadPoint]] = []
        while offers := self.search.next_runs():
            self.rungs.append(offers)
            for offer in offers:
                made = seen(offer.rate_per_s, self.true[offer.candidate], more(len(self.told), offer.candidate))
                self.told.append((offer.candidate, offer.rate_per_s, made))
                self.search.tell(*self.told[-1])

    @property
    def best(self) -> Candidate:
        return self.search.ranking[0]

    @property
    def regret(self) -> float:
        """How many times more the true best holds."""
        return max(self.true.values()) / self.true[self.best]


ERRORS = st.floats(0.75, 1.3)
FIELDS = st.lists(st.tuples(st.floats(5, 5000), ERRORS), min_size=1, max_size=6).map(
    lambda found: field(*[(true * error, true) for true, error in found])
)


@given(FIELDS, st.sampled_from([None, 20.0, 400.0]), st.sampled_from(["", "rate"]))
def test_any_search_stays_within_its_runs_offers_alike_and_leaves_brackets_that_hold_the_truth(
    rivals: dict[Prediction, float], stated: float | None, prefer: str
) -> None:
    played = Searched(rivals, Objective(latency_s=0.02, rate_per_s=stated, prefer=prefer))
    assert played.search.runs == len(played.told) <= MOST_RUNS
    assert [rung[0].draw for rung in played.rungs] == list(range(len(played.rungs)))
    for rung in played.rungs:
        assert len({(offer.rate_per_s, offer.duration_s, offer.draw) for offer in rung}) == 1
        assert len({offer.candidate for offer in rung}) == len(rung)
    assert {offer.candidate for offer in played.rungs[0]} == set(played.true)
    ranking = played.search.ranking
    assert sorted(map(str, ranking)) == sorted(map(str, played.true))
    assert set(played.search.survivors) <= set(ranking) and played.search.survivors
    for candidate, capacity in played.true.items():
        ends = played.search.ends(candidate)
        assert ends is not None and ends.low_per_s <= capacity
        assert ends.open_above == (ends.low_per_s == ends.high_per_s) and (ends.open_above or capacity < ends.high_per_s)
    assert played.search.next_runs() == ()


@given(FIELDS)
def test_nobody_stands_behind_one_that_failed_a_rate_it_held(rivals: dict[Prediction, float]) -> None:
    played = Searched(rivals)
    ends = [played.search.ends(candidate) for candidate in played.search.ranking]
    for number, above in enumerate(ends):
        for below in ends[number + 1 :]:
            assert above is not None and below is not None
            assert above.open_above or above.high_per_s > below.low_per_s


@given(st.lists(st.floats(5, 5000), min_size=1, max_size=6))
def test_with_exact_predictions_the_best_is_found(capacities: list[float]) -> None:
    played = Searched(field(*[(true, true) for true in capacities]))
    assert played.regret == 1.0


def lots(count: int, size: int, error: float, stalls: float) -> list[float]:
    """Regrets of many searches over random fields, predictions off by ``error`` (a standard deviation) and some runs stalled."""
    regrets = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        true = 400.0 * np.exp(rng.normal(0, 0.25, size))
        told = true * 1.1 * np.exp(rng.normal(0, error, size))
        stalled = {int(number): float(rng.uniform(0.03, 0.25)) for number in np.flatnonzero(rng.random(3 * MOST_RUNS) < stalls)}
        rivals = dict(sorted(field(*zip(told.tolist(), true.tolist(), strict=True)).items(), key=lambda pair: -pair[0].capacity_per_s))
        regrets.append(Searched(rivals, more=lambda number, candidate, stalled=stalled: stalled.get(number, 0.0)).regret)
    return regrets


def test_random_fields_with_wrong_predictions_lose_little() -> None:
    regrets = np.array(lots(300, 5, 0.1, 0.0))
    assert np.mean(regrets <= 1.03) > 0.9
    assert np.mean(regrets - 1) < 0.01


def test_stalls_of_a_shared_machine_cost_little_more() -> None:
    regrets = np.array(lots(300, 5, 0.1, 0.15))
    assert np.mean(regrets <= 1.03) > 0.8
    assert np.mean(regrets - 1) < 0.04


@given(st.integers(0, MOST_RUNS - 1))
def test_one_stall_does_not_drop_the_best(when: int) -> None:
    rivals = field((900, 820), (700, 640), (500, 450), (300, 280))
    best = next(iter(rivals)).candidate
    played = Searched(rivals, more=lambda number, candidate: 0.2 if number == when else 0.0)
    assert played.best == best


def test_a_failure_that_no_stall_explains_or_that_was_expected_is_believed_at_once() -> None:
    drowned = Searched(field((1000, 1000), (990, 400), (300, 300)), most=3)
    assert len(drowned.rungs) == 1, "the second was predicted to hold, but missed far too much"
    expected = Searched(
        field((1000, 1000), (500, 500), (900, 900)), more=lambda number, candidate: 0.05 if candidate.variant == "v1" else 0.0
    )
    assert [len(rung) for rung in expected.rungs][:2] == [3, 2], "nobody thought that the second would hold it"
    surprised = Searched(field((1000, 1000), (900, 900), (500, 500)), more=lambda number, candidate: 0.1 if number == 1 else 0.0)
    assert [len(rung) for rung in surprised.rungs][:2] == [3, 1]
    assert surprised.rungs[1][0].rate_per_s == surprised.rungs[0][0].rate_per_s


def test_runs_grow_as_the_field_shrinks_and_turn_their_order() -> None:
    played = Searched(field((1000, 1000), (950, 950), (500, 500), (400, 400)))
    lengths = [rung[0].duration_s for rung in played.rungs]
    assert lengths == [1.2 * 2**number for number in range(len(lengths))][: len(lengths)] or max(lengths) == 8.0
    assert lengths == sorted(lengths) and lengths[1] == 2 * lengths[0]
    assert [offer.candidate.variant for offer in played.rungs[0]] == ["v0", "v1", "v2", "v3"]
    assert [offer.candidate.variant for offer in played.rungs[1]] == ["v1", "v0"]


# --- with a stated rate


@given(st.lists(st.tuples(st.floats(10, 2000), ERRORS, st.sampled_from([1, 2, 4])), min_size=1, max_size=6), st.floats(20, 1000))
def test_the_cheapest_that_holds_the_stated_rate_wins_and_else_the_strongest(found: list[tuple[float, float, int]], stated: float) -> None:
    rivals = field(*[(true * error, true) for true, error, _ in found], cores=[width for _, _, width in found])
    played = Searched(rivals, Objective(latency_s=0.02, rate_per_s=stated))
    assert all(offer.rate_per_s == stated for offer in played.rungs[0])
    able = [candidate for candidate, capacity in played.true.items() if capacity >= stated]
    if able:
        assert played.best.plan.threads == min(candidate.plan.threads for candidate in able)
        assert {rate for _, rate, _ in played.told} == {stated}, "holding it is enough"
        return
    ends = [played.search.ends(candidate) for candidate in played.search.ranking]
    assert ends[0] is not None and ends[0].low_per_s == max(e.low_per_s for e in ends if e is not None)


def test_a_cheap_one_that_holds_the_rate_is_confirmed_not_outbid() -> None:
    rivals = field((2000, 2000), (210, 205), (1500, 1500), cores=[2, 1, 2])
    played = Searched(rivals, Objective(latency_s=0.02, rate_per_s=200))
    assert played.best.variant == "v1"
    assert [len(rung) for rung in played.rungs] == [3, 2, 1]
    assert [rung[0].duration_s for rung in played.rungs] == pytest.approx([1.25, 2.5, 5.0])


def test_who_fails_the_longer_run_gives_way_to_the_next() -> None:
    rivals = field((210, 205), (1500, 1500), (1400, 1400), cores=[1, 2, 2])
    played = Searched(
        rivals,
        Objective(latency_s=0.02, rate_per_s=200),
        more=lambda number, candidate: 0.1 if candidate.variant == "v0" and number > 2 else 0.0,
    )
    assert played.best.variant in ("v1", "v2")
    ends = played.search.ends(next(iter(rivals)).candidate)
    assert ends is not None and (ends.low_per_s, ends.high_per_s) == (0, 200)


def test_equals_in_cores_are_ordered_by_memory_then_latency() -> None:
    rivals = list(field((500, 500), (400, 400), (450, 450)))
    memory = {rivals[0].candidate: 900_000_000, rivals[1].candidate: 100_000_000, rivals[2].candidate: 110_000_000}
    search = Halving(rivals, Objective(latency_s=0.02, rate_per_s=200), memory_bytes=memory)
    for offer in search.next_runs():
        search.tell(offer.candidate, offer.rate_per_s, point(200, 0.009 if offer.candidate.variant == "v2" else 0.012, target="in-process"))
    assert [candidate.variant for candidate in search.ranking] == ["v2", "v1", "v0"]


def test_a_preferred_rate_climbs_beyond_the_stated_one() -> None:
    played = Searched(field((900, 900), (700, 700), (150, 150)), Objective(latency_s=0.02, rate_per_s=200, prefer="rate"))
    assert played.best.variant == "v0"
    ends = played.search.ends(played.best)
    assert ends is not None and ends.low_per_s > 700


def test_a_field_far_below_its_predictions_is_found_by_what_it_still_answered() -> None:
    played = Searched(field((1000, 90), (900, 120), (800, 60)))
    ends = played.search.ends(played.best)
    assert played.best.variant == "v1" and ends is not None and ends.low_per_s > 60


# --- stopped, resumed, or with a candidate that cannot be run


@given(FIELDS, st.integers(0, MOST_RUNS))
def test_a_replay_of_the_first_runs_asks_the_same_questions_again(rivals: dict[Prediction, float], stop: int) -> None:
    whole = Searched(rivals)
    again = Halving(list(rivals), ANY_RATE)
    for candidate, rate_per_s, made in whole.told[:stop]:
        asked = again.next_runs()
        assert (candidate, rate_per_s) == (asked[0].candidate, asked[0].rate_per_s)
        again.tell(candidate, rate_per_s, made)
    if stop >= len(whole.told):
        assert again.ranking == whole.search.ranking and again.next_runs() == ()


@given(FIELDS, st.integers(1, MOST_RUNS))
def test_stopped_anywhere_it_names_one_that_was_run(rivals: dict[Prediction, float], stop: int) -> None:
    whole = Searched(rivals)
    search = Halving(list(rivals), ANY_RATE)
    for candidate, rate_per_s, made in whole.told[:stop]:
        search.next_runs()
        search.tell(candidate, rate_per_s, made)
    assert search.ends(search.ranking[0]) is not None


def test_a_rung_that_was_not_finished_punishes_nobody() -> None:
    rivals = list(field((1000, 1000), (990, 990), (400, 400)))
    search = Halving(rivals, ANY_RATE)
    for offer in search.next_runs():
        search.tell(offer.candidate, offer.rate_per_s, seen(offer.rate_per_s, 700 if offer.candidate.variant == "v0" else 690))
    before = search.ranking
    (one, *_) = search.next_runs()
    search.tell(one.candidate, one.rate_per_s, seen(one.rate_per_s, 10))
    assert search.ranking == before


def test_a_candidate_that_cannot_be_run_is_forgotten() -> None:
    rivals = list(field((1000, 1000), (900, 900), (800, 800)))
    search = Halving(rivals, ANY_RATE)
    search.lose(rivals[0].candidate)
    assert rivals[0].candidate not in {offer.candidate for offer in search.next_runs()} | set(search.ranking)
    assert search.ends(rivals[0].candidate) is None
    for left in rivals[1:]:
        search.lose(left.candidate)
    assert search.next_runs() == () and search.ranking == ()


def test_a_run_that_nobody_asked_for_tells_about_its_candidate_alone() -> None:
    played = Searched(field((1000, 1000), (400, 400)))
    search, loser = played.search, played.search.ranking[1]
    before = search.ends(loser)
    assert before is not None and before.low_per_s == 0
    search.tell(loser, 280.0, seen(280.0, 400))
    after = search.ends(loser)
    assert after is not None and (after.low_per_s, after.high_per_s, after.open_above) == (280.0, before.high_per_s, False)
    assert search.ranking[0] == played.best and search.next_runs() == ()


def test_the_bracket_ends_narrow_when_two_are_alike() -> None:
    played = Searched(field((1000, 800), (1000, 799), (300, 200)), most=30)
    ends = played.search.ends(played.best)
    assert (ends is not None and ends.high_per_s <= ends.low_per_s * RESOLUTION * (1 + 1e-9)) or len(played.search.survivors) == 1
    assert not math.isinf(ends.high_per_s) and STALL_SHARE < 1


def test_a_guess_is_the_prediction_within_what_the_runs_say() -> None:
    rivals = list(field((900, 0), (450, 0), (100, 0), (1000, 0)))
    search = Halving(rivals, Objective(latency_s=0.02, rate_per_s=300))
    for offer, capacity in zip(search.next_runs(), (310, 310, 310, 150), strict=True):
        search.tell(offer.candidate, offer.rate_per_s, seen(offer.rate_per_s, capacity))
    assert [search.guess_per_s(p.candidate) for p in rivals] == [900, 450, 300, pytest.approx(1.02 * 150)]
    assert search.guess_per_s(prediction("stranger", 5.0).candidate) == 100


def test_where_no_capacity_is_predicted_it_begins_where_the_engine_idles() -> None:
    rivals = [msgspec.structs.replace(one, capacity_per_s=0.0, rate_per_s=700.0) for one in field((10, 0), (10, 0))]
    assert {offer.rate_per_s for offer in Halving(rivals, ANY_RATE).next_runs()} == {70.0}
