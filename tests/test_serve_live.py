"""What the live page is told: second by second, bounded, and true to the requests."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.serve.live import BINS, Live
from headway.serve.seen import Batch, Refused


def batch(at_s: float, *times_s: float, variant: str = "v", failed: int = 0, version: str = "1") -> Batch:
    arrived = tuple(at_s - time_s for time_s in times_s)
    return Batch("m", version, variant, 2 * len(times_s), arrived, at_s - 0.002, at_s - 0.001, at_s, failed)


def test_a_second_holds_its_rates_times_and_means() -> None:
    live = Live(20)
    refused = [Refused("m", "1", "queue_full", 429, 100.2), Refused("evil", "", "unknown", 404, 100.3)]
    live.fold([batch(100.5, 0.01, 0.01), batch(100.6, 0.01, 0.02, variant="w", failed=1)], refused)
    told = live.snapshot(101.2, {"ready": True})
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    one, whole = told["models"][0], told["all"]
    assert one["series"]["answered_per_s"] == [0.0] * 19 + [3.0]
    assert (one["series"]["failed_per_s"][-1], one["series"]["refused_per_s"][-1], whole["series"]["refused_per_s"][-1]) == (1, 1, 2)
    assert one["series"]["rows"][-1] == 4
    assert one["series"]["queue_s"][-1] == pytest.approx(0.0105, rel=1e-3)
    assert one["series"]["service_s"][-1] == pytest.approx(0.001, rel=1e-3)
    assert one["series"]["p50"][-1] == pytest.approx(0.01, rel=0.03)
    assert one["series"]["p50"][0] is None
    assert one["recent"]["variants"] == {"v": 0.5, "w": 0.5}
    assert one["recent"]["answered_per_s"] == 0.3
    assert whole["recent"]["refused_by_reason"] == {"queue_full": 0.1, "unknown": 0.1}
    assert told["gauges"] == {"ready": True}
    assert [entry["model"] for entry in told["models"]] == ["m"]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(2e-5, 900.0), min_size=1, max_size=200))
def test_percentiles_are_within_the_resolution(times_s: list[float]) -> None:
    live = Live(20)
    live.fold([batch(5000.5, *times_s)], [])
    told = live.snapshot(5001.0, {})["all"]["recent"]["percentiles"]
    for name, q in (("p50", 0.5), ("p99", 0.99)):
        assert told[name] == pytest.approx(np.quantile(times_s, q, method="inverted_cdf"), rel=0.03)


def test_old_seconds_leave_and_memory_does_not_grow() -> None:
    live = Live(10)
    for second in range(50):
        live.fold([batch(second + 0.5, *[0.01] * 1000)], [])
    assert live._windows["m", "1"].times.shape == (10, BINS)
    assert live.snapshot(50.0, {})["all"]["series"]["answered_per_s"] == [1000.0] * 10
    live.fold([batch(3.0, 0.01)], [])
    assert sum(live.snapshot(50.0, {})["all"]["series"]["answered_per_s"]) == 10_000
    assert live.snapshot(70.0, {})["models"] == []
    assert live._windows == {}


def test_versions_are_told_apart_and_added() -> None:
    live = Live(20)
    live.fold([batch(10.5, 0.01), batch(10.6, 0.01, 0.01, version="2")], [])
    told = live.snapshot(11.0, {})
    assert [entry["series"]["answered_per_s"][-1] for entry in told["models"]] == [1.0, 2.0]
    assert told["all"]["series"]["answered_per_s"][-1] == 3.0
