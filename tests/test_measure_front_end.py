"""The front end alone: the real server with a model that takes no time; found again on resume, left out when time is short."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from evidence import quality
from headway.api import curves
from headway.api.config import TuneConfig
from headway.api.progress import Silent
from headway.api.run import Run
from headway.api.variants import Scored
from headway.deploy import Entry, package
from headway.measure import front_end
from headway.measure.environment import environment
from headway.measure.front_end import KEPT, measure_front_end, null_graph
from headway.measure.over_http import served
from headway.records import (
    BatchTiming,
    Failure,
    FrontEnd,
    Journal,
    MeasurementError,
    Noise,
    Objective,
    Plan,
    Prediction,
    Record,
    ServiceCurve,
    Variant,
    from_json,
    read_journal,
    to_json,
)
from headway.runtime import open_session
from headway.track import open_trackers
from serving import SOURCE

INPUTS = {"x": np.arange(24, dtype=np.float32).reshape(4, 2, 3), "n": np.arange(4, dtype=np.int64).reshape(4, 1)}
ANSWER = {"scores": np.zeros((1, 7), np.float32), "label": np.zeros((1,), np.int64)}
REQUEST = {name: array[:1] for name, array in INPUTS.items()}


def variant(name: str = "model", path: str = "") -> Variant:
    return Variant(
        name=name, source="model", origin="null", recipe=(), parent_digest="", digest="", path=path, parameters=1, flop=1, weight_bytes=1, file_bytes=1,
        precision="float32",
    )  # fmt: skip


def test_the_null_graph_has_the_model_s_tensors_and_takes_no_time(tmp_path: Path) -> None:
    file = tmp_path / "model.null.json"
    file.write_bytes(null_graph(REQUEST, ANSWER))
    session = open_session(Plan(runtime="null"), file)
    outputs = session.run(INPUTS)
    assert {name: (array.shape, array.dtype) for name, array in outputs.items()} == {
        "scores": ((4, 7), np.float32),
        "label": ((4,), np.int64),
    }
    assert {spec.name: spec.shape for spec in session.inputs} == {"x": ("n", 2, 3), "n": ("n", 1)}
    assert b'"tau0_s":0.0,"alpha_s":0.0' in file.read_bytes()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("null")
    file = folder / "model.null.json"
    file.write_bytes(null_graph(REQUEST, ANSWER))
    package(
        folder / "bundle", name="null", entries=[Entry(variant(), file, Plan(runtime="null", max_batch=8), {})], objective=Objective(),
        environment=environment(),
    )  # fmt: skip
    return folder / "bundle"


def arguments(folder: Path) -> tuple[str, ...]:
    return "headway", "serve", "--json", str(folder), "--http", "127.0.0.1:0", "--deadline", "none"


def test_the_front_end_of_the_real_server(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))
    found = measure_front_end(arguments(bundle), "null", INPUTS, source="model", rate_per_s=300.0, seconds=0.4)
    assert found.source == "model"
    assert found.joined_s is not None and 0 < found.joined_s <= found.cpu_s
    assert 0 < len(found.jitter_s) <= KEPT
    assert list(found.jitter_s) == sorted(found.jitter_s) and found.jitter_s[0] >= 0
    assert found.payload_bytes >= 24 + 8, "one row of both inputs"
    assert 0 < found.rate_per_s <= 300.0
    assert from_json(to_json(found), FrontEnd) == found


def test_a_server_that_never_answers_has_no_front_end(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))
    with served(arguments(bundle)) as server, pytest.raises(MeasurementError, match="must answer"):
        front_end.front_end_of(server, "another", INPUTS, source="model", rate_per_s=200.0, seconds=0.2)


@pytest.mark.parametrize("count", [1, 7, KEPT, KEPT + 1, 3 * KEPT])
def test_what_is_kept_is_spread_over_the_ordered_delays(count: int) -> None:
    places = front_end._spread(count)
    assert len(places) == min(KEPT, count)
    assert places[0] <= count / KEPT and places[-1] >= count - 1 - count / KEPT
    assert np.all(np.diff(places) >= 1)


# --- in a run


def begun(folder: Path, budget: str = "", slo: Objective | None = None) -> Run:
    folder.mkdir(exist_ok=True)
    config = TuneConfig(models=("m",), data="d", slo="p99<=50ms", budget=budget)
    return Run(folder, config, slo or Objective(latency_s=0.05), Journal(folder), Silent(), open_trackers((), folder, {}))


def prepared() -> Any:
    return SimpleNamespace(cores=2, environment=environment(), parts=SimpleNamespace(selection=SimpleNamespace(inputs=INPUTS)))


def curve(name: str = "model", service_s: float = 0.004) -> ServiceCurve:
    return ServiceCurve(
        variant=name, runtime="null", device="cpu", instances=1, threads=1, tau0_s=0.0, alpha_s=0.0, peak_bytes=0,
        timings=tuple(BatchTiming(batch=size, service_s=(service_s * size**0.5,) * 8) for size in (1, 2)),
    )  # fmt: skip


def scored(folder: Path, name: str = "model") -> Scored:
    file = folder / "variants" / "model.null.json"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(null_graph(REQUEST, ANSWER))
    return Scored(variant(name, "variants/model.null.json"), "null", quality(name))


def fake(calls: list[float]) -> Any:
    """In place of the measurement: 1 ms a request."""

    def measured(given: Any, model: str, inputs: Any, *, source: str, rate_per_s: float, seed: int) -> FrontEnd:
        assert (Path(given[3]) / "bundle.json").is_file()
        calls.append(rate_per_s)
        return FrontEnd(source=source, cpu_s=0.001, jitter_s=(0.0002,), payload_bytes=10, rate_per_s=rate_per_s)

    return measured


def test_it_is_measured_once_a_source_and_found_on_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[float] = []
    monkeypatch.setattr(curves, "measure_front_end", fake(calls))
    run = begun(tmp_path)
    given = [(scored(tmp_path), curve()), (scored(tmp_path, "model+fold"), curve("model+fold", 0.002))]
    found = curves.predictions(run, prepared(), given)
    assert calls == [pytest.approx(0.5 * 2 / (0.002 * 2**0.5))], "half of what the fastest could do"
    assert len(found) == 4 and all(p.served_per_s is not None and 0 < p.served_per_s < p.capacity_per_s for p in found)
    lines = read_journal(tmp_path)
    assert [line for line in lines if isinstance(line, Prediction)] == found
    assert curves.predictions(begun(tmp_path), prepared(), given) == found
    assert len(calls) == 1 and read_journal(tmp_path) == lines

    cut = begun(tmp_path / "cut")
    for line in lines[:2]:
        cut.add(line)
    scored(tmp_path / "cut")
    assert curves.predictions(cut, prepared(), given) == found, "from a front end that the journal holds"
    assert len(calls) == 1


def test_without_room_in_the_budget_it_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[float] = []
    monkeypatch.setattr(curves, "measure_front_end", fake(calls))
    run = begun(tmp_path, "5s")
    found = curves.predictions(run, prepared(), [(scored(tmp_path), curve())])
    assert not calls and all(p.served_per_s is None for p in found)
    assert run.left_out == ("1 front ends left out for lack of time: model",)


def test_a_front_end_that_cannot_be_measured_is_a_failure_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[str] = []

    def refuse(*given: Any, source: str, **more: Any) -> FrontEnd:
        tries.append(source)
        raise MeasurementError("no port")

    monkeypatch.setattr(curves, "measure_front_end", refuse)
    given = [(scored(tmp_path), curve())]
    run = begun(tmp_path)
    assert all(p.served_per_s is None and p.capacity_per_s > 0 for p in curves.predictions(run, prepared(), given))
    (failure,) = run.journal.of(Failure)
    assert failure.stage == "predict" and failure.variant == "model" and "no port" in failure.reason
    more = [*given, (scored(tmp_path, "model+fold"), curve("model+fold"))]
    curves.predictions(begun(tmp_path), prepared(), more)
    assert tries == ["model"]


def test_the_noise_of_the_curve_stage_is_recorded_with_what_was_measured(tmp_path: Path) -> None:
    run = begun(tmp_path)
    one_core = SimpleNamespace(cores=1, parts=prepared().parts)
    found = curves.measure_curves(run, one_core, [scored(tmp_path)])
    assert [c.variant for _, c in found] == ["model"]
    kinds: list[type[Record]] = [type(line) for line in read_journal(tmp_path)]
    assert kinds == [ServiceCurve, Noise]
    (noise,) = run.journal.of(Noise)
    assert noise.stage == "curve" and noise.noise_ratio >= 1 and 0 <= noise.others_fraction <= 1 and 0 <= noise.steal_fraction <= 1
    curves.measure_curves(begun(tmp_path), one_core, [scored(tmp_path)])
    assert [type(line) for line in read_journal(tmp_path)] == kinds, "nothing measured, nothing recorded"
