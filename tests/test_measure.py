"""Curves, answers and in-process load against a runtime whose service times are known; ceilings and their cache."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.measure import ceilings as ceilings_file
from headway.measure import curve as curve_file
from headway.measure.ceilings import measure_ceilings
from headway.measure.curve import fit_line, measure_curve, warm_up
from headway.measure.in_process import InProcess, in_process
from headway.measure.rows import rows, stack
from headway.measure.scoring import answers
from headway.records import Ceilings, DataError, LoadPoint, MeasurementError, Objective, Plan, ServiceCurve, TensorSpec, from_json, to_json
from headway.testing.runtimes import onnx_case

TAU0_S, ALPHA_S = 0.004, 0.001
INPUTS = {"x": np.arange(30, dtype=np.float32).reshape(10, 3)}
PLAN = Plan(runtime="null", instances=2, max_batch=4)


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return null_graph(tmp_path)


def null_graph(folder: Path, tau0_s: float = TAU0_S, alpha_s: float = ALPHA_S) -> Path:
    path = folder / "it.null.json"
    tensors = {
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["n", 3]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": ["n", 1]}],
    }
    path.write_text(json.dumps({"tau0_s": tau0_s, "alpha_s": alpha_s, **tensors}))
    return path


# lines


@given(
    tau0_s=st.floats(0, 0.1),
    alpha_s=st.floats(1e-6, 0.1),
    sizes=st.lists(st.integers(1, 64), min_size=2, max_size=7, unique=True),
)
def test_a_line_is_found_again(tau0_s: float, alpha_s: float, sizes: list[int]) -> None:
    found = fit_line([(size, tau0_s + alpha_s * size) for size in sorted(sizes)])
    for size in sizes:
        assert found[0] + found[1] * size == pytest.approx(tau0_s + alpha_s * size, rel=1e-4)


@given(st.lists(st.tuples(st.integers(1, 64), st.floats(1e-6, 10)), min_size=1, max_size=8, unique_by=lambda point: point[0]))
def test_neither_part_of_a_line_is_negative(points: list[tuple[int, float]]) -> None:
    tau0, alpha = fit_line(sorted(points))
    assert tau0 >= 0 and alpha >= 0 and tau0 + alpha > 0


def test_one_point_and_impossible_slopes() -> None:
    assert fit_line([(4, 0.02)]) == (0.0, 0.005)
    assert fit_line([(1, 0.01), (8, 0.16)])[0] == 0
    assert fit_line([(1, 0.02), (8, 0.01)]) == (pytest.approx(0.015), 0.0)


# warm-up


@pytest.mark.parametrize(
    ("durations", "head"),
    [
        ([1.0] * 8, 0),
        ([9.0, 5.0, *[1.0] * 14], 2),
        ([9.0] * 6 + [1.0] * 10, 4),
        ([1.0, 9.0, *[1.0] * 10], 0),
        ([5.0], 0),
        ([1.4, *[1.0] * 9], 0),
    ],
)
def test_warm_up_is_the_slow_head_and_at_most_a_quarter(durations: list[float], head: int) -> None:
    assert warm_up(durations) == head


# curves


def test_a_curve_takes_at_least_the_known_times(graph: Path) -> None:
    curve = measure_curve(graph, "v", PLAN, INPUTS, batches=(1, 2, 4), seconds_a_batch=0.05)
    assert [timing.batch for timing in curve.timings] == [1, 2, 4]
    for timing in curve.timings:
        assert len(timing.service_s) >= 2 * 4
        assert min(timing.service_s) >= TAU0_S + ALPHA_S * timing.batch
    assert (curve.variant, curve.runtime, curve.instances, curve.threads) == ("v", "null", 2, 1)
    assert curve.peak_bytes >= 0 and from_json(to_json(curve), ServiceCurve) == curve


def test_a_curve_stops_where_nobody_would_wait(graph: Path) -> None:
    curve = measure_curve(graph, "v", Plan(runtime="null"), INPUTS, batches=(1, 2, 4), seconds_a_batch=0.01, stop_above_s=0.0055)
    assert [timing.batch for timing in curve.timings][:1] == [1]
    assert len(curve.timings) <= 2


class Session:
    """Runs only when all of its kind run at once, or else breaks the barrier."""

    inputs = outputs = (TensorSpec(name="x", dtype="float32", shape=("n", 3)),)

    def __init__(self, together: threading.Barrier, closed: list[int]) -> None:
        self._together, self._closed, self._runs = together, closed, 0

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self._runs += 1
        if self._runs <= 5:
            self._together.wait(10)
        time.sleep(1e-4)
        return {"x": feeds["x"]}

    def close(self) -> None:
        self._closed.append(1)


def test_instances_really_run_at_once(monkeypatch: pytest.MonkeyPatch, graph: Path) -> None:
    together, closed = threading.Barrier(3), []
    monkeypatch.setattr(curve_file, "open_session", lambda plan, path: Session(together, closed))
    measure_curve(graph, "v", Plan(runtime="null", instances=3), INPUTS, batches=(1,), seconds_a_batch=0.01)
    assert not together.broken
    assert len(closed) == 3


def test_a_session_that_fails_is_a_measurement_error_and_all_are_closed(monkeypatch: pytest.MonkeyPatch, graph: Path) -> None:
    closed: list[int] = []

    class Failing(Session):
        def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            raise DataError("rows of another size")

    kinds = iter([Session, Failing])
    monkeypatch.setattr(curve_file, "open_session", lambda plan, path: next(kinds)(threading.Barrier(1), closed))
    with pytest.raises(MeasurementError, match="batch of 2 must run on every instance, got: rows of another size"):
        measure_curve(graph, "v", PLAN, INPUTS, batches=(2,), seconds_a_batch=0.01)
    assert len(closed) == 2


# rows and answers


def test_rows_wrap_around_and_stack_again() -> None:
    assert rows(INPUTS, 8, 4)["x"][:, 0].tolist() == [24, 27, 0, 3]
    assert rows(INPUTS, 0, 23)["x"].shape == (23, 3)
    again = stack([rows(INPUTS, index, 1) for index in range(10)])
    np.testing.assert_array_equal(again["x"], INPUTS["x"])


@pytest.mark.parametrize("batch", [1, 4, 10, 16])
def test_answers_keep_row_order_with_a_smaller_last_batch(tmp_path: Path, batch: int) -> None:
    found = answers(null_graph(tmp_path, 0, 0), Plan(runtime="null"), INPUTS, batch=batch)
    np.testing.assert_array_equal(found["y"], INPUTS["x"].sum(axis=1, keepdims=True))


@pytest.mark.parametrize("runtime", ["onnx_runtime", "openvino"])
def test_answers_of_a_real_graph(tmp_path: Path, runtime: str) -> None:
    case = onnx_case("cnn", tmp_path)
    found = answers(case.path, Plan(runtime=runtime), case.feeds, batch=3)
    np.testing.assert_allclose(found["y"], case.answers["y"], rtol=1e-4, atol=1e-5)


# load inside the process


def test_load_in_process_counts_latency_from_the_due_time(graph: Path) -> None:
    with in_process(graph, PLAN, INPUTS) as held:
        point = held.load(100, 0.4, Objective(latency_s=1.0), seed=3)
    assert (point.target, point.arrivals, point.seed, point.offered_rate_per_s) == ("in-process", "poisson", 3, 100)
    assert point.sent == point.completed > 0 and point.failed == point.refused == 0
    assert point.mean_s >= TAU0_S + ALPHA_S and point.percentile(0.5).latency_s >= TAU0_S + ALPHA_S
    assert 1 <= point.mean_batch <= PLAN.max_batch
    assert from_json(to_json(point), LoadPoint) == point


def test_an_overload_ends_with_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Four hundred requests of 50 ms each: what is left in the queue after the wait is given up, not worked off for 20 s."""
    monkeypatch.setattr("headway.measure.in_process.DRAIN_S", 0.1)
    with in_process(null_graph(tmp_path, 0.05, 0), Plan(runtime="null"), INPUTS) as held:
        runs = []
        session = held._sessions[0]
        run = session.run
        monkeypatch.setattr(session, "run", lambda feeds: runs.append(1) or run(feeds))
        point = held.load(1000, 0.4, Objective(arrivals="constant"), seed=0)
    assert point.sent in {399, 400}
    assert len(runs) < 100, "the queue was worked off after the run"
    assert point.completed < point.sent and point.completed + point.failed == point.sent
    assert point.verdict in ("missed", "generator-bound") and point.little_ratio > 1.5
    assert point.mean_batch == 1
    assert from_json(to_json(point), LoadPoint) == point


def test_with_a_bound_an_overload_is_refused_at_once_as_the_server_does(tmp_path: Path) -> None:
    with in_process(null_graph(tmp_path, 0.02, 0), Plan(runtime="null"), INPUTS) as held:
        point = held.load(1000, 0.4, Objective(latency_s=0.2, arrivals="constant"), seed=0)
    assert point.refused > 300 and point.failed == 0 and point.completed + point.refused == point.sent
    assert point.completed >= 5


def test_a_batch_that_fails_is_counted_failed(monkeypatch: pytest.MonkeyPatch, graph: Path) -> None:
    with in_process(graph, PLAN, INPUTS) as held:
        for session in held._sessions:
            monkeypatch.setattr(session, "run", lambda feeds: 1 / 0)
        point = held.load(100, 0.2, Objective(latency_s=0.1), seed=0)
    assert point.failed == point.sent > 0 and point.completed == 0 and point.miss_fraction == 1


def test_sessions_are_closed_when_the_second_cannot_be_opened(monkeypatch: pytest.MonkeyPatch, graph: Path) -> None:
    closed: list[int] = []
    given = iter([Session(threading.Barrier(1), closed)])

    def opened(plan: Plan, path: Path) -> Session:
        try:
            return next(given)
        except StopIteration:
            raise MeasurementError("no memory") from None

    for place in ("headway.measure.in_process.open_session", "headway.measure.curve.open_session"):
        monkeypatch.setattr(place, opened)
    with pytest.raises(MeasurementError, match="no memory"):
        InProcess(graph, PLAN, INPUTS)
    assert closed == [1]
    given = iter([Session(threading.Barrier(1), closed)])
    with pytest.raises(MeasurementError, match="no memory"):
        measure_curve(graph, "v", PLAN, INPUTS, batches=(1,))
    assert closed == [1, 1]


# ceilings

KNOWN = Ceilings(
    flop_per_s={"float32": 2e10}, flop_per_s_one_thread={"float32": 1e10}, bytes_per_s=2e10, bytes_per_s_one_thread=1e10, overhead_s=1e-5
)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Notes each measurement, and measures nothing."""
    calls: list[int] = []

    def measure(cores: int) -> Ceilings:
        calls.append(cores)
        return KNOWN

    monkeypatch.setattr(ceilings_file, "measure", measure)
    return calls


@pytest.mark.parametrize("content", [b"", b"{", b'{"record": "Ceilings"}', b"\xff\xfe"])
def test_a_damaged_cache_is_replaced(measured: list[int], tmp_path: Path, content: bytes) -> None:
    measure_ceilings(tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    assert measure_ceilings(tmp_path) == KNOWN
    assert len(measured) == 2
    assert from_json(file.read_bytes(), Ceilings) == KNOWN


def test_another_library_version_is_another_cache(monkeypatch: pytest.MonkeyPatch, measured: list[int], tmp_path: Path) -> None:
    measure_ceilings(tmp_path)
    monkeypatch.setattr("headway.measure.environment.versions", lambda: {"onnxruntime": "0"})
    measure_ceilings(tmp_path)
    assert len(measured) == 2


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(measured: list[int], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert measure_ceilings(tmp_path / "file" / "below") == KNOWN
