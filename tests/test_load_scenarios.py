"""MLPerf's scenarios on targets of known times and a clock of their own, and the early-stopping rule against closed forms and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import beta, binom

from headway.load import RawLoad, arrival_times
from headway.load.early_stopping import allowed_over, early_stopping_estimate, queries_for_estimate, queries_missing
from headway.load.generator import FAILED, OK, REFUSED
from headway.load.playing import play, scenario_rules, scenarios
from headway.load.scenarios.contract import Asked, Rules
from headway.load.streams import stream_latency_s
from headway.records import ConfigError

# --- early stopping


@pytest.mark.parametrize(("q", "queries"), [(0.9, 64), (0.95, 130), (0.97, 219), (0.99, 662)])
def test_the_fewest_queries_are_those_of_the_rules(q: float, queries: int) -> None:
    """The table of MLPerf's appendix for one query over the bound; 662 is LoadGen's own minimum of the multi-stream scenario."""
    assert queries_for_estimate(q) == queries


@pytest.mark.parametrize(
    ("queries", "over"), [(458, -1), (459, 0), (661, 0), (662, 1), (837, 1), (838, 2), (1001, 3), (2000, 9), (5000, 33), (10_000, 77)]
)
def test_so_many_may_be_over_p99(queries: int, over: int) -> None:
    assert allowed_over(queries, 0.99) == over


@given(st.integers(1, 20_000), st.sampled_from([0.5, 0.9, 0.99, 0.999]), st.sampled_from([0.9, 0.95, 0.99]))
@settings(max_examples=60)
def test_what_is_allowed_is_the_largest_that_proves(queries: int, q: float, confidence: float) -> None:
    """Against the binomial law itself, and against the beta form in which Clopper and Pearson state it."""
    over = allowed_over(queries, q, confidence)
    assert over < queries
    if over >= 0:
        assert binom.cdf(over, queries, 1 - q) <= 1 - confidence
        assert beta.ppf(confidence, over + 1, queries - over) <= 1 - q + 1e-9  # upper end of the share of queries over
    assert binom.cdf(over + 1, queries, 1 - q) > 1 - confidence


@given(st.integers(0, 40), st.integers(0, 6000))
def test_what_is_missing_is_just_enough(over: int, queries: int) -> None:
    missing = queries_missing(over, queries, 0.99)
    assert allowed_over(queries + missing, 0.99) >= over
    assert missing == 0 or allowed_over(queries + missing - 1, 0.99) < over


def test_the_estimate_is_the_slowest_one_that_may_be_stated() -> None:
    assert early_stopping_estimate(np.arange(661.0), 0.99) is None
    assert early_stopping_estimate(np.arange(662.0), 0.99) == (661.0, 1)
    assert early_stopping_estimate(np.arange(1001.0), 0.99) == (998.0, 3)


@pytest.mark.parametrize(("queries", "q"), [(64, 0.9), (500, 0.9), (700, 0.99), (3000, 0.99)])
def test_the_estimate_is_too_low_in_one_run_of_a_hundred_at_most(queries: int, q: float) -> None:
    """Coverage by simulation: 20,000 runs of exponential latencies; and the exact chance, which must be within the confidence."""
    runs, truth = 20_000, -math.log(1 - q)
    allowed = allowed_over(queries, q)
    exact = float(binom.cdf(allowed - 1, queries, 1 - q))
    assert exact <= 0.01
    slowest = np.sort(np.random.default_rng(1).standard_exponential((runs // 100, 100, queries)), axis=-1)[..., -allowed].ravel()
    too_low = int(np.count_nonzero(slowest < truth))
    assert too_low <= binom.isf(1e-6, runs, 0.01)
    assert too_low <= binom.isf(1e-6, runs, max(exact, 1e-4))
    assert early_stopping_estimate(np.sort(np.random.default_rng(2).standard_exponential(queries)), q) is not None


# --- a target on paper


class Paper:
    """One server of constant or given service times; nothing takes real time."""

    def __init__(self, service_s: float = 0.01, spread_s: float = 0.0, broken: int = 0, refuses: bool = False) -> None:
        self.service_s, self.spread_s, self.broken, self.refuses = service_s, spread_s, broken, refuses
        self.rng = np.random.default_rng(0)
        self.rows: list[int] = []
        self.calls: list[tuple[str, int]] = []

    def _served(self, due_s: NDArray[np.float64], rows: int) -> RawLoad:
        service_s = self.service_s * rows + self.spread_s * self.rng.standard_exponential(len(due_s))
        done_s, free_s = np.empty(len(due_s)), 0.0
        for number, at_s in enumerate(due_s.tolist()):
            free_s = done_s[number] = max(at_s, free_s) + service_s[number]
        status = np.full(len(due_s), REFUSED if self.refuses else OK, dtype=np.int8)
        status[: self.broken] = FAILED
        return RawLoad(due_s, due_s, done_s, status, float(done_s[-1]))

    def one_by_one(self, queries: int, rows: int) -> RawLoad:
        self.rows.append(rows)
        self.calls.append(("one by one", queries))
        return self._served(np.zeros(queries), rows)

    def at_once(self, queries: int) -> RawLoad:
        self.calls.append(("at once", queries))
        return self._served(np.zeros(queries), 1)

    def arriving(self, rate_per_s: float, seconds: float) -> RawLoad:
        return self._served(arrival_times("poisson", rate_per_s, seconds, 1), 1)

    def say(self, text: str) -> None:
        assert text


SHORT = Rules(seconds=5.0, queries=64, samples=64, q=0.9)


def test_the_scenarios_are_those_of_mlperf() -> None:
    assert set(scenarios().present) == {"single-stream", "multi-stream", "server", "offline"}
    assert scenarios().missing == {}
    with pytest.raises(ConfigError, match="did you mean 'single-stream'"):
        play("single_stream", Paper(), SHORT, Asked())


def test_the_rules_are_mlperf_s_and_quick_ones_are_shorter() -> None:
    for name in scenarios().present:
        full, quick = scenario_rules(name), scenario_rules(name, quick=True)
        assert full.seconds == 600 and quick.seconds < full.seconds and quick.samples <= full.samples
        assert (full.q, full.rows) == (quick.q, quick.rows)
        assert scenario_rules(name, seconds=3.0).seconds == 3.0
    assert scenario_rules("single-stream").q == 0.9
    assert (scenario_rules("multi-stream").q, scenario_rules("multi-stream").rows, scenario_rules("multi-stream").queries) == (0.99, 8, 662)
    assert scenario_rules("offline").samples == 24_576


def test_latency_of_a_closed_loop_counts_from_the_end_of_the_one_before() -> None:
    status = np.array([OK, FAILED, OK, OK], dtype=np.int8)
    raw = RawLoad(np.zeros(4), np.zeros(4), np.array([1.0, 1.5, 3.5, np.nan]), status, 4.0)
    assert stream_latency_s(raw).tolist() == [1.0, 2.0, 0.5]


@pytest.mark.parametrize(("name", "rows"), [("single-stream", 1), ("multi-stream", 8)])
def test_a_stream_lasts_as_long_and_holds_as_many_as_it_must(name: str, rows: int) -> None:
    paper = Paper(0.002)
    rules = scenario_rules(name, quick=True, seconds=7.0)
    found = play(name, paper, rules, Asked())
    assert set(paper.rows) == {rows}
    assert found.valid and not found.conforming
    assert found.value == pytest.approx(0.002 * rows)
    assert found.duration_s >= 7.0 and found.queries >= rules.queries and found.samples == rows * found.queries
    assert found.duration_s < 14.0 + 662 * 0.002 * rows
    assert len(found.reasons) == 1 and "at least 600 s" in found.reasons[0]


def test_a_full_stream_conforms() -> None:
    found = play("single-stream", Paper(0.5), scenario_rules("single-stream"), Asked())
    assert found.valid and found.conforming and found.reasons == ()
    assert found.duration_s >= 600
    slow = play("multi-stream", Paper(1.0), scenario_rules("multi-stream"), Asked())
    assert slow.conforming and slow.queries == 662, "a slow target needs as many queries as the estimate needs, however long they take"


def test_the_estimate_lies_above_the_plain_percentile_and_near_it() -> None:
    found = play("single-stream", Paper(0.001, 0.004), scenario_rules("single-stream", quick=True, seconds=20.0), Asked())
    plain = next(p.latency_s for p in found.percentiles if p.q == 0.9)
    assert plain <= found.value <= 1.1 * plain
    assert found.value == pytest.approx(0.001 + 0.004 * math.log(10), rel=0.1)


def test_failures_make_a_stream_invalid_and_a_dead_target_ends_it() -> None:
    found = play("single-stream", Paper(broken=2), SHORT, Asked())
    assert not found.valid and "failed or were refused" in found.reasons[0]
    dead = play("single-stream", Paper(refuses=True), SHORT, Asked())
    assert not dead.valid and dead.queries < 64 and dead.value == 0


def test_the_server_scenario_needs_a_rate_and_a_bound() -> None:
    for asked in (Asked(), Asked(rate_per_s=5.0), Asked(latency_s=0.1)):
        with pytest.raises(ConfigError, match="--rate R --slo"):
            play("server", Paper(), SHORT, asked)


def test_the_server_scenario_is_valid_below_the_capacity_and_not_above() -> None:
    rules = scenario_rules("server", quick=True)
    below = play("server", Paper(0.01), rules, Asked(rate_per_s=50.0, latency_s=0.1))
    assert below.valid and below.value == 50.0 and not below.conforming
    above = play("server", Paper(0.01), rules, Asked(rate_per_s=120.0, latency_s=0.1))
    assert not above.valid and above.value == 0 and "lower the rate" in above.reasons[0]
    refusing = play("server", Paper(refuses=True), rules, Asked(rate_per_s=50.0, latency_s=0.1))
    assert not refusing.valid


def test_a_slow_rate_runs_long_enough_to_prove_something() -> None:
    found = play("server", Paper(0.01), scenario_rules("server", quick=True), Asked(rate_per_s=5.0, latency_s=0.1))
    assert found.queries >= 459 and found.valid


def test_a_late_generator_makes_the_server_scenario_invalid() -> None:
    class Late(Paper):
        def arriving(self, rate_per_s: float, seconds: float) -> RawLoad:
            raw = super().arriving(rate_per_s, seconds)
            return RawLoad(raw.due_s, raw.due_s + 0.05, raw.done_s + 0.05, raw.status, raw.end_s)

    found = play("server", Late(0.001), scenario_rules("server", quick=True), Asked(rate_per_s=100.0, latency_s=0.1))
    assert not found.valid and "generator" in found.reasons[0]


def test_offline_hands_over_everything_and_divides_by_the_end() -> None:
    paper = Paper(0.001)
    found = play("offline", paper, scenario_rules("offline", quick=True, seconds=4.0), Asked())
    assert found.valid and not found.conforming
    assert found.value == pytest.approx(1000.0)
    assert found.samples == pytest.approx(4400, abs=1) and found.duration_s == pytest.approx(4.4, rel=1e-3)
    assert [kind for kind, _ in paper.calls] == ["at once"] * len(paper.calls)


def test_offline_tries_again_when_the_pilot_was_too_modest() -> None:
    class Warming(Paper):
        def at_once(self, queries: int) -> RawLoad:
            self.service_s = max(0.004, self.service_s * 0.5)
            return super().at_once(queries)

    found = play("offline", Warming(0.016), scenario_rules("offline"), Asked())
    assert found.conforming and found.duration_s >= 600 and found.value == pytest.approx(250.0)


def test_a_refused_sample_makes_offline_invalid() -> None:
    found = play("offline", Paper(broken=3), Rules(seconds=1.0, queries=1, samples=100), Asked())
    assert not found.valid and found.failed == 3
