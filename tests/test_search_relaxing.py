"""What would hold when the objective does not: each proposal is really held, and moves one bound no farther than it must."""

from __future__ import annotations

import dataclasses
import random

import msgspec
from hypothesis import assume, given
from hypothesis import strategies as st

from evidence import evidence, prediction
from headway.records import Objective, parse_objective
from headway.search import Evidence, choose, shortfall
from headway.search.relaxing import relaxed, rounded

ASKED = Objective(latency_s=0.02, rate_per_s=200.0, drop=0.01)


def test_one_bound_each_the_nearest_first() -> None:
    slow = evidence("slow", rate=150.7, latency=0.015)
    slower = evidence("slower", rate=90, latency=0.015)
    lossy = evidence("lossy", rate=400, drop=0.0121, verdict="violated")
    found = relaxed([slower, lossy, slow], ASKED)
    assert [(str(near.objective), near.candidate.variant, near.measured) for near in found] == [
        ("p99<=20ms, rate>=200/s, drop<=1.3%", "lossy", True),
        ("p99<=20ms, rate>=150/s, drop<=1%", "slow", True),
    ]


def test_a_later_latency_is_predicted_for_those_without_other_faults() -> None:
    slow, wrong = evidence("slow", rate=150, latency=0.015), evidence("wrong", rate=150, drop=0.5, verdict="violated")
    told = [
        msgspec.structs.replace(prediction(name, 160.0), rate_per_s=200.0, latency_s=seconds)
        for name, seconds in (("slow", 0.0314), ("wrong", 0.021), ("unknown", 0.0205))
    ]
    found = relaxed([slow, wrong], ASKED, told)
    assert [(str(near.objective), near.measured) for near in found] == [
        ("p99<=20ms, rate>=150/s, drop<=1%", True),
        ("p99<=32ms, rate>=200/s, drop<=1%", False),
    ]


def test_a_bound_that_is_hopeless_is_not_proposed() -> None:
    assert relaxed([evidence("slow", rate=3.0)], ASKED) == ()
    assert relaxed([evidence("none", rate=0.0, latency=None)], ASKED) == ()


def test_the_choice_tells_them_and_a_choice_that_met_tells_none() -> None:
    assert choose([evidence(rate=150)], ASKED).feasible[0].objective.rate_per_s == 150
    assert choose([evidence(rate=250)], ASKED).feasible == ()


@given(st.floats(1e-6, 1e9), st.booleans())
def test_rounding_goes_one_way_and_not_far(value: float, up: bool) -> None:
    got = rounded(value, up=up)
    assert value * (0.9 - 1e-6) <= got <= value * (1.1 + 1e-6)
    assert got >= value * (1 - 1e-5) if up else got <= value * (1 + 1e-5)
    assert float(f"{got:.2g}") == got


FIGURES = st.builds(
    evidence,
    st.text("abc", min_size=1, max_size=3),
    rate=st.floats(0.0, 400.0),
    latency=st.floats(0.001, 0.1),
    drop=st.floats(-0.01, 0.3),
    verdict=st.just("held"),
    memory=st.integers(10**6, 10**9),
)


@given(st.lists(FIGURES, min_size=1, max_size=6, unique_by=lambda e: e.candidate), st.randoms(use_true_random=False))
def test_every_measured_proposal_holds(everything: list[Evidence], mixing: random.Random) -> None:
    objective = Objective(latency_s=0.02, rate_per_s=200.0, memory_bytes=10**8)
    assume(not choose(everything, objective).met)
    found = relaxed(everything, objective)
    for near in found:
        mine = next(e for e in everything if e.candidate == near.candidate)
        if near.objective.rate_per_s != objective.rate_per_s:  # then its latency was measured at another rate
            assert (mine.rate_per_s or 0) >= (near.objective.rate_per_s or 0)
            mine = dataclasses.replace(mine, latency_s=None)
        assert shortfall(mine, near.objective) is None
        assert str(parse_objective(str(near.objective))) == str(near.objective)
    mixed = list(everything)
    mixing.shuffle(mixed)
    assert relaxed(mixed, objective) == found
