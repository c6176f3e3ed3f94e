"""``headway plan`` on run folders made by hand: figures that can be checked, several machines, the picture, and every mistake."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from evidence import candidate, point, quality
from headway.api.planning import PlanAsked, plan_fleet
from headway.cli import main
from headway.predict import mm1_response_percentile_s, predict_capacity
from headway.records import (
    BatchTiming,
    Candidate,
    Capacity,
    Choice,
    FleetPlan,
    LoadRun,
    Percentile,
    Prediction,
    Record,
    RunFinished,
    RunStarted,
    ServiceCurve,
    from_json,
    parse_objective,
    to_json,
)
from test_report_example import started, variant, write

OBJECTIVE = parse_objective("p99<=150ms, drop<=1%")
ONE = candidate("model", max_batch=1)
"""Exponential service of 10 ms: an M/M/1 queue."""
PRICES = """currency = "EUR"
[[machine]]
name = "small"
cores = 2
memory_gib = 4
price_per_hour = 0.2
[[machine]]
name = "big"
cores = 32
memory_gib = 4
price_per_hour = 1.5
"""


def curve(name: str, samples_s: list[float], *, instances: int = 1) -> ServiceCurve:
    timings = (BatchTiming(batch=1, service_s=tuple(samples_s)),)
    return ServiceCurve(
        variant=name, runtime="onnx_runtime", device="cpu", instances=instances, threads=1, timings=timings, tau0_s=0.0, alpha_s=0.0, peak_bytes=0
    )  # fmt: skip


def exponential(mean_s: float) -> list[float]:
    return [float(x) for x in -mean_s * np.log1p(-(np.arange(5000) + 0.5) / 5000)]


def predicted(whom: Candidate) -> Prediction:
    return Prediction(candidate=whom, capacity_per_s=50.0, rate_per_s=40.0, latency_s=0.1, percentile=0.99)


def a_run(*more: Record, mean_s: float = 0.01, **changes: object) -> list[Record]:
    begun: RunStarted = started(objective=OBJECTIVE, **changes)
    return [
        begun, variant("model"), quality("model"), curve("model", exponential(mean_s)), predicted(ONE), *more,
        Choice(met=True, candidate=ONE, reasons=()), RunFinished(budget_s=None),
    ]  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    (tmp_path / "prices.toml").write_text(PRICES)
    write(tmp_path / "run", a_run())
    yield tmp_path


def said(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 0) -> tuple[str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["plan", *arguments])
    out, err = capsys.readouterr()
    assert (ended.value.code or 0) == code, err
    assert "Traceback" not in err
    return out, err


def planned(*runs: str, rate_per_s: float = 600.0, **more: object) -> FleetPlan:
    return plan_fleet(PlanAsked(runs=runs, rate_per_s=rate_per_s, prices=Path("prices.toml"), **more))  # type: ignore[arg-type]


def test_the_plan_of_an_m_m_1_is_that_of_the_formula(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = said(["run", "--rate", "600", "--prices", "prices.toml", "--json"], capsys)
    plan = from_json(out, FleetPlan)
    fleet = plan.fleets[0]
    closed = next(n for n in range(1, 100) if mm1_response_percentile_s(0.99, 600 / n, 0.01) <= 0.15)
    assert (fleet.needed, fleet.spare, fleet.replicas, fleet.cores) == (closed, 1, closed + 1, closed + 1)
    assert fleet.at_work.percentile_s == pytest.approx(mm1_response_percentile_s(0.99, 600 / (closed + 1), 0.01), rel=0.05)
    assert fleet.spare_failed is not None and fleet.spare_failed.percentile_s <= 0.15
    capacity_per_s = 1 / float(np.median(exponential(0.01)))  # mu is of medians
    assert fleet.capacity_per_s == pytest.approx(capacity_per_s)
    assert fleet.at_work.utilisation == pytest.approx(600 / (closed + 1) / capacity_per_s)
    assert (fleet.correction, fleet.front_s) == (1.0, 0.0) and "simulator alone" in fleet.correction_basis
    assert fleet.memory_bytes == fleet.replicas * 2 * variant("model").file_bytes and "2 times its file" in fleet.memory_basis
    held = next(rate for rate in np.arange(3000, 0, -1) if mm1_response_percentile_s(0.99, rate / fleet.replicas, 0.01) <= 0.15)
    assert fleet.headroom == pytest.approx(held / 600, rel=0.05)
    assert fleet.breaks_first.startswith("the latency bound")
    assert fleet.placement.machine.name == "small" and fleet.placement.machines == (closed + 2) // 2
    rule = fleet.autoscaling
    assert rule.target_in_flight == pytest.approx(rule.replica_rate_per_s * rule.mean_s)
    assert rule.replica_rate_per_s == pytest.approx(69.3, rel=0.05), "where p99 of M/M/1 is the bound"
    assert rule.mean_s == pytest.approx(0.01 / (1 - rule.replica_rate_per_s * 0.01), rel=0.1)
    assert from_json(to_json(plan), FleetPlan) == plan


def test_measured_capacity_and_latency_correct_the_simulated_replica(folder: Path) -> None:
    simulated = predict_capacity(curve("model", exponential(0.01)), ONE.plan, OBJECTIVE, jitter_s=(0.02,)).capacity_per_s
    half = Capacity(
        candidate=ONE, role="finalist", target="http", rate_per_s=simulated / 2, low_per_s=1.0, high_per_s=2.0, memory_bytes=300_000_000
    )
    median_s = float(np.log(2)) * 0.01 / (1 - 0.01 * 10)  # of M/M/1 at 10/s
    seen = point(10.0, 0.1)
    percentiles = (Percentile(q=0.5, latency_s=median_s + 0.02, low_s=0.0, high_s=1.0), *seen.percentiles)
    at_rate = LoadRun(
        candidate=ONE, role="finalist", round=1, point=msgspec.structs.replace(seen, percentiles=percentiles), purpose="at-rate"
    )
    other = candidate("model", max_batch=2)
    write(folder / "measured", a_run(at_rate, half, predicted(other)))
    fleet = planned("measured").fleets[0]
    assert fleet.candidate == ONE, "of two that cost the same it is the measured one"
    assert fleet.front_s == pytest.approx(0.02, abs=5e-4)
    assert fleet.correction == pytest.approx(0.5, rel=0.02) and "measured over HTTP" in fleet.correction_basis
    assert fleet.replica_memory_bytes == 300_000_000
    assert fleet.needed >= 2 * planned("run").fleets[0].needed
    assert fleet.budget[0].front_s == pytest.approx(fleet.front_s)


def test_an_unmeasured_candidate_is_not_beyond_what_the_front_end_lets_through(folder: Path) -> None:
    simulated = predict_capacity(curve("model", exponential(0.01)), ONE.plan, OBJECTIVE).capacity_per_s
    half = Capacity(candidate=ONE, role="candidate", target="in-process", rate_per_s=simulated / 2, low_per_s=1.0, high_per_s=2.0)
    trial = LoadRun(candidate=ONE, role="candidate", round=0, point=point(10.0, 0.1, target="in-process"))
    fast = candidate("fast", max_batch=1)
    write(folder / "fast", a_run(trial, half, curve("fast", exponential(0.001)), quality("fast"), predicted(fast)))
    fleet = planned("fast").fleets[0]
    mu = 1 / float(np.median(exponential(0.001)))
    assert fleet.candidate == fast and "longer than simulated" in fleet.correction_basis
    assert fleet.capacity_per_s == pytest.approx(1 / (1 / mu + 1 / simulated), rel=1e-6)


def test_what_lost_says_why(folder: Path) -> None:
    slow, broken, silent, hungry = (candidate(name, max_batch=1) for name in ("slow", "broken", "silent", "hungry"))
    late = candidate("late", max_batch=1)
    more = [
        line
        for whom, mean_s, verdict in ((slow, 0.03, "held"), (broken, 0.001, "violated"), (silent, 0.001, "held"), (hungry, 0.001, "held"))
        for line in (
            curve(whom.variant, exponential(mean_s)),
            quality(whom.variant, verdict=verdict, reason="lost 9 points"),
            predicted(whom),
        )
    ]
    never = LoadRun(candidate=silent, role="candidate", round=0, point=point(10.0, None, target="in-process"))
    nothing = Capacity(candidate=silent, role="candidate", target="in-process", rate_per_s=0.0, low_per_s=0.0, high_per_s=1.0)
    large = Capacity(candidate=hungry, role="naive", target="http", rate_per_s=9.0, low_per_s=9.0, high_per_s=9.0, memory_bytes=9 * 2**30)
    more += [never, nothing, large, curve("late", [0.2]), quality("late"), predicted(late)]
    write(folder / "many", a_run(*more))
    plan = planned("many")
    assert plan.fleets[0].candidate == ONE
    reasons = {lost.variant: lost.reason for lost in plan.rejected}
    assert set(reasons) == {"slow", "broken", "silent", "hungry", "late"}
    assert reasons["broken"] == "lost 9 points"
    assert "costs at least" in reasons["slow"]
    assert "held no rate" in reasons["silent"]
    assert "no machine of the list" in reasons["hungry"]
    assert "alone takes 200 ms" in reasons["late"]


def test_several_runs_compete_by_price(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder / "fast", a_run(mean_s=0.005))
    plan = planned("small=run", "big=fast")
    assert [fleet.placement.machine.name for fleet in plan.fleets] == ["small", "big"]
    assert plan.fleets[0].placement.price_per_hour < plan.fleets[1].placement.price_per_hour
    assert [Path(fleet.run).name for fleet in planned("small=run", "small=fast").fleets] == ["fast", "run"]
    assert any("measured with 2 cores, and big has 32" in note for note in plan.notes)
    assert any("machine that fails takes" in note for note in plan.notes)
    out, _ = said(["small=run", "big=fast", "--rate", "600", "--prices", "prices.toml"], capsys)
    assert "1 x big" in out and "EUR an hour" in out


def test_a_day_and_its_cold_starts() -> None:
    fleet = planned("run", arrivals="diurnal:peak=1.5", rate_per_s=600.0, cold_start_s=600.0, spare=2).fleets[0]
    rule = fleet.autoscaling
    each = rule.replica_rate_per_s
    assert rule.trough_replicas == int(np.ceil(300 / each)) + 2
    assert rule.peak_replicas == int(np.ceil(900 / each)) + 2
    assert rule.cold_start_replicas == int(np.ceil(600 * 0.5 * 2 * np.pi / 86_400 * 600 / each))
    assert fleet.needed > planned("run", spare=2).fleets[0].needed


def test_bursts_need_more_where_they_reach_a_replica() -> None:
    calm, burst = (planned("run", rate_per_s=60.0, arrivals=kind, spare=0).fleets[0] for kind in ("poisson", "bursty:c2=16"))
    assert burst.needed > calm.needed
    assert burst.failure is None and burst.spare_failed is None and burst.spare == 0


def test_the_picture(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = said(["run", "--rate", "600", "--explain", "--out", "plan.html"], capsys)
    bars = re.findall(r"^ *(mean|p99) ([▒░▓█]+) ([\d.]+) ms$", out, re.MULTILINE)
    assert [name for name, _, _ in bars] == ["mean", "p99"]
    lengths = {name: (len(bar), float(value)) for name, bar, value in bars}
    assert lengths["p99"][0] == 50
    assert lengths["mean"][0] == pytest.approx(50 * lengths["mean"][1] / lengths["p99"][1], abs=1)
    assert "not a quote" in out and "wrote plan.html" in out
    page = (folder / "plan.html").read_text("utf-8")
    outside = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert "://" not in outside and "not a quote" in outside
    spec = json.loads(re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL)[0])
    (rows,) = [rows for rows in spec["datasets"].values() if len(rows) > 1] if "datasets" in spec else [spec["layer"][0]["data"]["values"]]
    assert len(rows) == 8 and sum(row["ms"] for row in rows if row["at"] == "mean") == pytest.approx(lengths["mean"][1], rel=0.01)


def test_a_bound_that_nothing_meets_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = said(["run", "--rate", "10", "--slo", "p99<=1ms", "--json"], capsys, code=3)
    assert "the bound on latency binds" in err and "46" in err and "model | onnx_runtime" in err
    assert json.loads(out)["error"]["exit_code"] == 3
    _, err = said(["run", "--rate", "10", "--slo", "p99<=150ms, memory<=1MB"], capsys, code=3)
    assert "memory" in err and "the bound is 1 MB" in err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["none", "--rate", "10"], "run folder"),
        (["empty", "--rate", "10"], "has begun"),
        (["bare", "--rate", "10"], "service curves"),
        (["run", "--rate", "0"], "--rate"),
        (["run", "--rate", "nan"], "--rate"),
        (["run", "--rate", "-5"], "--rate"),
        (["run"], "--rate"),
        (["run", "--rate", "10", "--arrivals", "poison"], "poisson"),
        (["run", "--rate", "10", "--arrivals", "gamma:c2=0"], "c2"),
        (["run", "--rate", "10", "--spare", "-1"], "--spare"),
        (["run", "--rate", "10", "--router", "nearest"], "two_choices"),
        (["run", "--rate", "10", "--slo", "p99"], "objective"),
        (["run", "--rate", "10", "--slo", "p99<=1s, drop<=5%"], "drop was judged"),
        (["run", "--rate", "10", "--slo", "p99<=1s, rate>=5/s"], "--rate says 10/s"),
        (["run", "--rate", "10", "--slo", "memory<=1GB"], "bound on latency"),
        (["run", "--rate", "10", "--prices", "nowhere.toml"], "nowhere.toml"),
        (["run", "--rate", "10", "--prices", "run/records.jsonl"], "price list"),
        (["medium=run", "--rate", "10", "--prices", "prices.toml"], "known are small, big"),
        (["run", "run", "--rate", "10"], "MACHINE=RUN"),
        (["small=run", "big=free", "--rate", "10", "--prices", "prices.toml"], "one objective"),
        (["run", "--rate", "10", "--cold-start-s", "30"], "diurnal"),
        (["run", "--rate", "10", "--arrivals", "diurnal", "--cold-start-s", "0"], "--cold-start-s"),
        (["run", "--rate", "10", "--out", "plan.html"], "--explain"),
        (["run", "--rate", "10", "--explain", "--out", "nowhere/plan.html"], "writable"),
        (["run", "--rate", "10", "--seed", "-1"], "--seed"),
    ],
)
def test_a_mistake_is_a_sentence(arguments: list[str], word: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder / "empty", [RunFinished(budget_s=None)])
    write(folder / "bare", [started(objective=OBJECTIVE)])
    write(folder / "free", [*a_run()[1:], started(objective=parse_objective("p99<=20ms"))])
    _, err = said(arguments, capsys, code=2)
    assert word in err
    assert not (folder / "plan.html").exists()


def test_the_same_seed_gives_the_same_plan() -> None:
    asked = PlanAsked(runs=("run",), rate_per_s=300.0)
    assert plan_fleet(asked) == plan_fleet(asked)
    assert plan_fleet(asked).fleets[0].at_work != plan_fleet(dataclasses.replace(asked, seed=1)).fleets[0].at_work
