"""Headway's generator against MLPerf's LoadGen on the same target at the same arrivals; run where ``mlcommons_loadgen`` is installed."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.serving.generator_check import QUANTILES, RATE_PER_S, SERVICE_S, by_headway, by_loadgen

loadgen = pytest.importorskip("mlperf_loadgen")


@pytest.mark.slow
def test_percentiles_are_those_of_loadgen() -> None:
    theirs_s, due_s = by_loadgen(loadgen, SERVICE_S, RATE_PER_S, 5.0)
    raw = by_headway(SERVICE_S, due_s)
    ours_s = np.quantile(raw.done_s - raw.due_s, QUANTILES, method="inverted_cdf")
    assert ours_s == pytest.approx(np.array(list(theirs_s.values())), rel=0.05)
