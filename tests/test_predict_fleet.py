"""Fleets on a virtual clock: routers, failures, the front end's share of the cores, and that machine code does what Python does."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from headway.load import arrival_times
from headway.predict import (
    ROUTERS,
    FleetRun,
    Outage,
    kernel,
    md1_mean_wait_s,
    mm1_mean_wait_s,
    mm1_response_percentile_s,
    simulate,
    simulate_fleet,
)
from headway.records import ConfigError, Plan
from headway.serve import turns
from test_predict_engine import curve_of, line


def interpreted(*arguments: Any) -> None:
    """The simulator in Python; structured arrays as Numba sees them, with their fields as attributes."""
    kernel.play(*[array.view(np.recarray) if isinstance(array, np.ndarray) and array.dtype.names else array for array in arguments])


SPREAD = curve_of({1: [0.004, 0.005, 0.009], 4: [0.007, 0.008], 8: [0.012, 0.02]}, 2)


def same(one: FleetRun, other: FleetRun) -> bool:
    parts = ("latency_s", "front_s", "wait_s", "service_s", "batch")
    return all(np.array_equal(getattr(one, part), getattr(other, part), equal_nan=True) for part in parts)


def settled(run: FleetRun, due_s: NDArray[np.float64]) -> None:
    """What must hold of every run."""
    answered = np.isfinite(run.latency_s)
    assert run.refused + run.lost == len(due_s) - answered.sum()
    assert (run.batch[~answered] == 0).all()
    assert (run.batch[answered] >= 1).all()
    assert (run.wait_s[answered] >= -1e-12).all()
    assert np.allclose(run.front_s[answered] + run.wait_s[answered] + run.service_s[answered], run.latency_s[answered])
    assert np.isnan(run.wait_s[~answered]).all()
    assert 0.0 <= run.busy <= 1.0 + 1e-9


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 100),
    rate_per_s=st.sampled_from([50.0, 400.0, 2000.0, 8000.0]),
    replicas=st.integers(1, 4),
    router=st.sampled_from(ROUTERS),
    plan=st.builds(
        Plan, runtime=st.just("null"), instances=st.integers(1, 2), max_batch=st.integers(1, 8), max_wait_s=st.sampled_from([0.0, 0.003])
    ),
    front_end_s=st.sampled_from([0.0, 0.0002]),
    front_steals=st.booleans(),
    deadline_s=st.sampled_from([math.inf, 0.05, 0.015]),
    fails=st.booleans(),
)
def test_machine_code_and_python_agree_and_nothing_is_forgotten(
    *,
    seed: int,
    rate_per_s: float,
    replicas: int,
    router: str,
    plan: Plan,
    front_end_s: float,
    front_steals: bool,
    deadline_s: float,
    fails: bool,
) -> None:
    due_s = arrival_times("poisson", rate_per_s, 120 / rate_per_s, seed)
    outages = (
        [Outage(replicas - 1, float(due_s[len(due_s) // 3]) + 1e-4, float(due_s[-len(due_s) // 3]))] if fails and len(due_s) > 9 else []
    )

    def play() -> FleetRun:
        return simulate_fleet(
            SPREAD, plan, due_s, replicas=replicas, router=router, seed=seed, front_end_s=front_end_s, front_steals=front_steals,
            deadline_s=deadline_s, outages=outages,
        )  # fmt: skip

    compiled = play()
    settled(compiled, due_s)
    assert compiled.refused == 0 or deadline_s < math.inf
    assert compiled.lost == 0 or outages
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "run", interpreted)
        assert same(play(), compiled)


def test_where_nothing_can_be_written_it_is_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    made = kernel.compiled(lambda array: None)
    made(np.zeros(1))
    assert kernel.run is not made


@pytest.mark.parametrize("router", ROUTERS)
def test_the_same_seed_gives_the_same_run_and_another_another(router: str) -> None:
    due_s = arrival_times("poisson", 900.0, 5.0, 1)
    runs = [
        simulate_fleet(SPREAD, Plan(runtime="null", instances=2, max_batch=8), due_s, replicas=3, router=router, seed=seed)
        for seed in (1, 1, 2)
    ]
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


@pytest.mark.parametrize("rho", [pytest.param(0.3, marks=pytest.mark.slow), pytest.param(0.7, marks=pytest.mark.slow), 0.9])
def test_chance_splits_a_stream_into_equal_queues(rho: float) -> None:
    """Poisson arrivals split by chance are Poisson: each replica is an M/D/1 queue, within 1%."""
    due_s = arrival_times("poisson", 10 * rho / 0.01, 4_000_000 * 0.001 / rho, 3)
    run = simulate_fleet(curve_of({1: [0.01]}), Plan(runtime="null"), due_s, replicas=10, router="random")
    assert np.mean(run.wait_s) == pytest.approx(md1_mean_wait_s(rho / 0.01, 0.01), rel=0.01 if rho < 0.9 else 0.02)
    assert run.busy == pytest.approx(rho, rel=0.01)


@pytest.mark.parametrize("rho", [0.3, 0.5, 0.7])
def test_m_m_1_within_a_hundredth(rho: float) -> None:
    samples = -0.01 * np.log1p(-(np.arange(20_000) + 0.5) / 20_000)
    due_s = arrival_times("poisson", rho / 0.01, 4_000_000 * 0.01 / rho, 2)
    latency_s = simulate(curve_of({1: samples.tolist()}), Plan(runtime="null"), due_s, seed=3)
    assert np.mean(latency_s) == pytest.approx(0.01 + mm1_mean_wait_s(rho / 0.01, 0.01), rel=0.01)
    for q in (0.5, 0.9, 0.99):
        assert np.quantile(latency_s, q) == pytest.approx(mm1_response_percentile_s(q, rho / 0.01, 0.01), rel=0.015)


def erlang_c_wait_s(rate_per_s: float, service_s: float, servers: int) -> float:
    """Mean wait in M/M/k (Erlang 1917)."""
    load = rate_per_s * service_s
    terms = [load**k / math.factorial(k) for k in range(servers)]
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (sum(terms) + last) * service_s / (servers - load)


def test_several_instances_are_m_m_k() -> None:
    samples = -0.01 * np.log1p(-(np.arange(20_000) + 0.5) / 20_000)
    due_s = arrival_times("poisson", 320.0, 8000.0, 2)
    run = simulate_fleet(curve_of({1: samples.tolist()}, 4), Plan(runtime="null", instances=4), due_s, seed=1)
    assert np.mean(run.wait_s) == pytest.approx(erlang_c_wait_s(320.0, 0.01, 4), rel=0.02)


def test_looking_shortens_the_queue() -> None:
    """By chance, two looked at, all looked at: each waits less (Mitzenmacher, The Power of Two Choices, 2001)."""
    due_s = arrival_times("poisson", 50 * 0.9 / 0.01, 60.0, 5)
    waits = [
        float(np.mean(simulate_fleet(curve_of({1: [0.01]}), Plan(runtime="null"), due_s, replicas=50, router=router).wait_s))
        for router in ("random", "two_choices", "least_loaded")
    ]
    assert waits[0] > 3 * waits[1] > 3 * waits[2]


@pytest.mark.parametrize("router", ROUTERS)
def test_a_failed_replica_loses_what_it_holds_and_nothing_else(router: str) -> None:
    due_s = arrival_times("poisson", 400.0, 10.0, 2)
    run = simulate_fleet(
        curve_of({1: [0.004]}), Plan(runtime="null"), due_s, replicas=3, router=router, outages=[Outage(1, 3.0, 6.0), Outage(1, 8.0, 9.0)]
    )
    settled(run, due_s)
    assert 0 < run.lost < 30
    lost_s = due_s[~np.isfinite(run.latency_s)]
    assert (((lost_s > 2.5) & (lost_s <= 3.0)) | ((lost_s > 7.5) & (lost_s <= 8.0))).all()


def test_when_all_are_gone_everything_is_lost_until_one_is_back() -> None:
    due_s = np.arange(1, 101) * 0.1
    run = simulate_fleet(
        curve_of({1: [0.001]}), Plan(runtime="null"), due_s, replicas=2, outages=[Outage(0, 2.05, 4.05), Outage(1, 2.05, 5.05)]
    )
    assert run.lost == 20
    assert np.isfinite(run.latency_s[:20]).all()
    assert np.isfinite(run.latency_s[40:]).all()


def test_a_front_end_without_a_core_of_its_own_lengthens_batches() -> None:
    """One core: a batch of 10 ms, during which ten requests take 0.5 ms each, ends 5 ms later."""
    due_s = np.concatenate([[0.0], 0.002 + 0.001 * np.arange(10)])
    curve, plan = line(0.01, 0.0, 16), Plan(runtime="null", max_batch=16)
    apart = simulate(curve, plan, due_s, front_end_s=0.0005)
    shared = simulate(curve, plan, due_s, front_end_s=0.0005, front_steals=True)
    assert apart[0] == pytest.approx(0.0105)
    assert shared[0] == pytest.approx(0.0155)


def test_who_joins_others_at_the_front_end_costs_less() -> None:
    """Five at once: the first wakes it up for 1 ms, each further one takes 0.2 ms; later one alone takes 1 ms again."""
    curve, plan = curve_of({1: [1e-9]}), Plan(runtime="null")
    latency_s = simulate(curve, plan, np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.01]), front_end_s=0.001, front_joined_s=0.0002)
    assert latency_s == pytest.approx([0.001, 0.0012, 0.0014, 0.0016, 0.0018, 0.001], rel=1e-4)


def test_a_front_end_that_waits_for_a_batch_takes_requests_together() -> None:
    """As above, where a request waits up to 2 ms for others while the batch runs: five times 0.5 ms and five times 0.1 ms."""
    due_s = np.concatenate([[0.0], 0.0021 + 0.001 * np.arange(10)])
    shared = simulate(
        line(0.01, 0.0, 16), Plan(runtime="null", max_batch=16), due_s, front_end_s=0.0005, front_joined_s=0.0001, front_steals=True
    )
    assert shared[0] == pytest.approx(0.0105 + 5 * 0.0005 + 5 * 0.0001)


def test_the_simulated_event_loop_rests_and_runs_batches_as_the_real_one() -> None:
    assert (kernel.REST_S, kernel.IN_LOOP_S) == (turns.LONGEST_PAUSE_S, turns.SHORT_S)


def test_what_comes_while_a_short_batch_runs_on_the_loop_wakes_nobody() -> None:
    """As above with a batch of 2 ms, which the event loop runs itself: three times 0.1 ms, where a loop beside it would be woken for the first."""
    due_s = np.concatenate([[0.0], 0.001 + 0.0004 * np.arange(3)])
    plan = Plan(runtime="null", max_batch=16)
    alone = simulate(line(0.002, 0.0, 16), plan, due_s, front_end_s=0.0005, front_joined_s=0.0001, front_steals=True)
    assert alone[0] == pytest.approx(0.0025 + 3 * 0.0001)
    two = simulate(
        line(0.002, 0.0, 16),
        msgspec.structs.replace(plan, instances=2),
        due_s[:2],
        front_end_s=0.0005,
        front_joined_s=0.0001,
        front_steals=True,
    )
    assert two[1] >= 0.0005 + 0.002


def test_sharing_the_core_costs_capacity_as_work_adds_up() -> None:
    """Service 1 ms and front end 0.25 ms on one core: 800/s and no more."""
    curve, plan = curve_of({1: [0.001]}), Plan(runtime="null")
    for rate_per_s, stable in ((760.0, True), (840.0, False)):
        due_s = arrival_times("poisson", rate_per_s, 200.0, 4)
        latency_s = simulate(curve, plan, due_s, front_end_s=0.00025, front_steals=True)
        assert (latency_s[-1000:].mean() < 0.1) == stable


@pytest.mark.parametrize(
    ("replicas", "router", "outages"),
    [(0, "random", []), (1, "nearest", []), (2, "random", [Outage(2, 0.0, 1.0)]), (1, "random", [Outage(0, 2.0, 1.0)])],
)
def test_a_fleet_that_cannot_be(replicas: int, router: str, outages: list[Outage]) -> None:
    with pytest.raises(ConfigError, match=r"at least one replica|an outage must be"):
        simulate_fleet(curve_of({1: [0.01]}), Plan(runtime="null"), np.ones(3), replicas=replicas, router=router, outages=outages)
