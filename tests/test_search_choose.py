"""From evidence to frontier and choice; every figure is made up, so that every answer is known."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence import candidate, evidence, measured, quality
from headway.records import BatchTiming, Journal, LoadRun, Objective, Record, ServiceCurve, read_journal
from headway.search import NAIVE, Evidence, choose, frontier, gather, nearest, order, shortfall

STATED = Objective(latency_s=0.02, rate_per_s=200.0, drop=0.01)
OPEN = Objective(latency_s=0.02, drop=0.01)

FIGURES = st.builds(
    evidence,
    st.text("abc", min_size=1, max_size=3),
    rate=st.one_of(st.none(), st.sampled_from([0.0, 100.0, 200.0, 250.0, 400.0])),
    latency=st.one_of(st.none(), st.sampled_from([0.001, 0.01, 0.019, 0.05])),
    drop=st.sampled_from([-0.01, 0.0, 0.005, 0.05]),
    verdict=st.sampled_from(["proven", "held", "violated", ""]),
    memory=st.integers(0, 10**9),
    instances=st.integers(1, 4),
    measured=st.booleans(),
)
ALL = st.lists(FIGURES, max_size=8, unique_by=lambda e: e.candidate)


@given(ALL)
def test_the_frontier_is_exactly_the_non_dominated_set(everything: list[Evidence]) -> None:
    known = [e for e in everything if e.rate_per_s is not None and e.latency_s is not None and e.quality is not None]

    def beats(a: Evidence, b: Evidence) -> bool:
        mine, other = ((e.latency_s or 0, -(e.rate_per_s or 0), e.quality.drop.value if e.quality else 0) for e in (a, b))
        return mine != other and all(x <= y for x, y in zip(mine, other, strict=True))

    expected = {e.candidate for e in known if not any(beats(other, e) for other in known)}
    found = frontier(everything).points
    assert {p.candidate for p in found} == expected
    assert len(found) == len(expected)
    assert [p.rate_per_s for p in found] == sorted((p.rate_per_s for p in found), reverse=True)


def test_the_frontier_uses_the_quality_that_was_confirmed() -> None:
    better = evidence("a", confirmed=quality("a", 0.02, part="report"))
    assert frontier([better]).points[0].drop == pytest.approx(0.02)


@given(
    ALL,
    st.sampled_from([STATED, OPEN, Objective(drop=0.01), Objective(rate_per_s=200.0), Objective(memory_bytes=10**8)]),
    st.randoms(use_true_random=False),
)
def test_any_choice_is_sound(everything: list[Evidence], objective: Objective, random: random.Random) -> None:
    choice = choose(everything, objective)
    holds = [e for e in everything if shortfall(e, objective) is None]
    assert choice.met == bool(holds)
    assert choice == choose(everything, objective)
    if choice.met:
        best = next(e for e in holds if e.candidate == choice.candidate)
        judged = best.confirmed or best.quality
        assert judged is not None and judged.verdict != "violated"
        assert best.rate_per_s is not None and best.rate_per_s > 0
        if objective.rate_per_s is None:
            assert best.rate_per_s == max(e.rate_per_s or 0 for e in holds)
        else:
            assert best.cores == min(e.cores for e in holds)
        assert choice.reasons and choice.failing_bound == choice.shortfall == ""
    elif everything:
        assert choice.candidate == nearest(everything, objective)[0].candidate
        assert choice.failing_bound and choice.shortfall
    shuffled = list(everything)
    random.shuffle(shuffled)
    assert choose(shuffled, objective) == choice, "the order of measuring decides nothing"


def test_with_a_rate_the_cheapest_that_holds_wins() -> None:
    small, wide, weak = evidence("small", rate=210), evidence("wide", rate=900, latency=0.001, instances=2), evidence("weak", rate=150)
    assert [e.candidate.variant for e in order([wide, weak, small], STATED)] == ["small", "wide"]
    choice = choose([wide, weak, small], STATED)
    assert choice.met and choice.candidate == small.candidate
    assert "cheapest of 2 candidates that hold the objective: 1 core, p99 10 ms" in choice.reasons
    assert choice.reasons[0] == "holds 210/s with p99 within 20 ms, measured over HTTP"


def test_of_equal_cores_the_smaller_memory_wins_but_not_by_a_hair_then_the_latency() -> None:
    lean, fat = evidence("lean", memory=100_000_000, latency=0.015), evidence("fat", memory=300_000_000, latency=0.005)
    assert order([fat, lean], STATED)[0] is lean
    alike, quick = evidence("alike", memory=129_000_000, latency=0.015), evidence("quick", memory=150_000_000, latency=0.005)
    assert order([alike, quick], STATED)[0] is quick


def test_without_a_rate_the_highest_wins() -> None:
    choice = choose([evidence("a", rate=100), evidence("b", rate=300, instances=2), evidence("c", rate=200)], OPEN)
    assert choice.candidate is not None and choice.candidate.variant == "b"
    assert "highest rate of 3 candidates that hold the objective" in choice.reasons


def test_what_the_objective_prefers_wins() -> None:
    small = evidence("small", rate=210, latency=0.015, memory=500_000_000)
    lean = evidence("lean", rate=250, latency=0.012, memory=100_000_000, instances=2)
    quick = evidence("quick", rate=300, latency=0.002, memory=900_000_000, instances=3)
    strong = evidence("strong", rate=900, latency=0.008, memory=800_000_000, instances=4)
    for preference, winner in (("cores", small), ("memory", lean), ("latency", quick), ("rate", strong), ("", small)):
        choice = choose([strong, quick, small, lean], msgspec.structs.replace(STATED, prefer=preference))
        assert choice.candidate == winner.candidate
    assert (
        "smallest of 4 candidates that hold the objective: 2 cores, 100 MB, p99 12 ms"
        in choose([strong, quick, small, lean], msgspec.structs.replace(STATED, prefer="memory")).reasons
    )


def test_a_violated_quality_never_wins_and_the_report_part_has_the_last_word() -> None:
    fast = evidence("fast", rate=9000, latency=0.001, drop=0.05, verdict="violated")
    fooled = evidence("fooled", rate=5000, confirmed=quality("fooled", 0.03, "violated", part="report"))
    honest = evidence("honest", rate=201)
    for objective in (STATED, OPEN):
        choice = choose([fast, fooled, honest], objective)
        assert choice.candidate == honest.candidate
    alone = choose([fast], OPEN)
    assert not alone.met
    assert (alone.failing_bound, alone.shortfall) == ("drop", "lost a little")


def test_quality_that_nobody_measured_is_not_good_quality() -> None:
    choice = choose([evidence(measured=False)], OPEN)
    assert not choice.met
    assert (choice.failing_bound, choice.shortfall) == ("drop", "its quality was not measured")


@pytest.mark.parametrize(
    ("e", "objective", "bound", "told"),
    [
        (evidence(rate=150), STATED, "rate", "holds 150/s with p99 within 20 ms, the bound is 200/s (25% short)"),
        (evidence(rate=0, latency=0.05, at=10), OPEN, "p99", "p99 is 50 ms at 10/s, 2.5 times the bound of 20 ms"),
        (
            evidence(rate=0, latency=None, at=None, best=(0.08, 5.0)),
            OPEN,
            "p99",
            "p99 is 80 ms at 5/s, 4.0 times the bound of 20 ms, and no better at any rate tried",
        ),
        (
            evidence(rate=0, latency=0.01),
            STATED,
            "p99",
            "more requests were late, lost or refused than p99 within 20 ms allows, at every rate tried",
        ),
        (evidence(rate=300, latency=0.03), STATED, "p99", "p99 is 30 ms at 200/s, 1.5 times the bound of 20 ms"),
        (evidence(rate=0), Objective(drop=0.1), "rate", "held no rate that was tried: requests were lost or refused"),
        (evidence(rate=None), OPEN, "rate", "was not load-tested"),
        (evidence(memory=700_000_000), Objective(memory_bytes=500_000_000), "memory", "uses 700 MB, the bound is 500 MB"),
        (evidence(drop=0.0, verdict="violated"), Objective(drop=0.01, group_drop=0.03), "group_drop", "lost a little"),
        (evidence(drop=0.2, verdict="violated"), Objective(drop=0.01, group_drop=0.03), "drop", "lost a little"),
        (evidence(drop=0.0, verdict="violated"), Objective(group_drop=0.03), "group_drop", "lost a little"),
    ],
)
def test_a_miss_names_the_bound_and_how_far(e: Evidence, objective: Objective, bound: str, told: str) -> None:
    assert shortfall(e, objective) == (bound, told)
    choice = choose([e], objective)
    assert not choice.met
    assert (choice.failing_bound, choice.shortfall) == (bound, told)
    assert choice.candidate == e.candidate
    assert choice.reasons == (f"nearest is {e.candidate}: {told}",)


def test_the_nearest_comes_first_when_nothing_holds() -> None:
    slow, near = evidence("slow", rate=50), evidence("near", rate=190)
    wrong = evidence("wrong", rate=9000, drop=0.5, verdict="violated")
    late, later = evidence("late", rate=0, latency=0.03), evidence("later", rate=0, latency=0.3)
    assert [e.candidate.variant for e in nearest([later, wrong, slow, late, near], STATED)] == ["near", "slow", "late", "later", "wrong"]


def test_no_evidence_is_a_choice_too() -> None:
    choice = choose([], STATED)
    assert not choice.met and choice.candidate is None
    assert choice.shortfall == "no candidate could be measured"


def lines() -> list[Record]:
    fast, slow = candidate("fast"), candidate("slow", instances=2)
    curve = ServiceCurve(
        variant="slow", runtime="onnx_runtime", device="cpu", instances=2, threads=1, timings=(BatchTiming(batch=1, service_s=(0.1,)),), tau0_s=0,
        alpha_s=0, peak_bytes=77,
    )  # fmt: skip
    unmeasured = [msgspec.structs.replace(c, memory_bytes=0) if hasattr(c, "memory_bytes") else c for c in measured(slow, [500.0], [0.004])]
    return [
        curve, quality("fast"), quality("fast", 0.01, part="report"), quality("slow"),
        *measured(fast, [300.0, 100.0, 200.0], [0.01, 0.03, 0.012]), *unmeasured,
        *measured(fast, [9999.0], [0.0001], target="in-process", role="candidate"), *measured(candidate("fast", max_batch=1), [5.0], [0.5], role=NAIVE),
    ]  # fmt: skip


def test_evidence_is_gathered_from_one_target_and_never_from_the_naive_deployment() -> None:
    fast, slow = gather(lines(), 0.99, "http")
    assert fast == Evidence(
        candidate=candidate("fast"), target="http", rate_per_s=200.0, latency_s=0.012, at_rate_per_s=200.0, quality=quality("fast"),
        confirmed=quality("fast", 0.01, part="report"), memory_bytes=3, best_latency_s=0.5, best_at_per_s=300.0,
        rounds=((1, 300.0), (2, 100.0), (3, 200.0)),
    )  # fmt: skip
    assert (slow.cores, slow.memory_bytes, slow.confirmed) == (2, 77, None)
    assert [e.rate_per_s for e in gather(lines(), 0.99, "in-process")] == [9999.0]


def test_a_run_whose_requests_were_all_refused_has_no_latency() -> None:
    (e,) = gather(measured(candidate("fast"), [0.0, 0.0], [None, None]), 0.99, "http")
    assert (e.latency_s, e.at_rate_per_s, e.rate_per_s) == (None, None, 0.0)
    (e,) = gather(measured(candidate("fast"), [10.0, 10.0], [None, 0.02]), 0.99, "http")
    assert e.latency_s == 0.02


def test_a_candidate_that_was_never_searched_has_no_rate() -> None:
    only_trials = [line for line in measured(candidate(), [10.0], [0.1]) if isinstance(line, LoadRun) and line.purpose == "trial"]
    (e,) = gather(only_trials, 0.99, "http")
    assert (e.rate_per_s, e.latency_s) == (None, None)


@pytest.mark.parametrize("objective", [STATED, OPEN, Objective(latency_s=1e-6)])
def test_records_read_back_give_the_same_choice(tmp_path: Path, objective: Objective) -> None:
    journal = Journal(tmp_path)
    for line in lines():
        journal.append(line)
    before = choose(gather(journal, 0.99, "http"), objective)
    again = read_journal(tmp_path)
    assert choose(gather(again, 0.99, "http"), objective) == before
    assert frontier(gather(again, 0.99, "http")) == frontier(gather(journal, 0.99, "http"))
