"""Predicted against measured: percentiles at four utilisations and SLO capacity, of five real models under four plans, behind the real server.

    python benchmarks/prediction points [--only digits] [--rounds 1]   # about 25 minutes a round on a quiet machine
    python benchmarks/prediction grid [--only text]                    # told feasible or overloaded, at random; about 12 minutes
    python benchmarks/prediction speed                                 # of the simulator; half a minute
    python benchmarks/prediction replicas [--rounds 3]                 # one and two replicas, plan against reality; two minutes a round
    python benchmarks/prediction table

Appends to ``results.jsonl``; ``--quick`` shows that everything works, into ``quick.jsonl`` of the work folder. The server sits on one core and the
generator spins on the other. A prediction knows the model's service curve, measured before and after the load on the server's core, and the front
end: CPU a request and its delays, measured with a model that takes no time behind the same server, with the same payloads. Nothing is fitted to
the loads that are predicted.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "compression"))

from cases import NAMES, Bench, prepare  # noqa: E402
from grid import grid  # noqa: E402
from replicas import replicas  # noqa: E402
from served import Target, both, curve, front, share_of, target  # noqa: E402
from speed import speeds  # noqa: E402
from tables import table  # noqa: E402

from headway.load import RawLoad, arrival_times, find_capacity, summarise  # noqa: E402
from headway.predict import predict_capacity, simulate  # noqa: E402
from headway.records import FrontEnd, LoadPoint, Objective, Plan, ServiceCurve  # noqa: E402

RESULTS = HERE / "results.jsonl"
QUICK = Path.home() / ".cache" / "headway" / "prediction" / "quick.jsonl"
PLANS = tuple(Plan(runtime=runtime, max_batch=size) for runtime in ("onnx_runtime", "openvino") for size in (1, 16))
UTILISATIONS = (0.3, 0.5, 0.7, 0.85)
QUANTILES = (0.5, 0.9, 0.99)
MEASURED_S, FEWEST, LONGEST_S = 5.0, 1500, 30.0
DRAWS, TRIALS = 20, 8
GRID = 3
"""Random rates a model and plan."""
BOUND = 3.0
"""The latency bound of a capacity, in service times of a full batch, and 5 ms for the rest."""


def main() -> None:
    """Parse, and carry out one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("points", "grid", "speed", "replicas", "table"))
    parser.add_argument("--only", action="append", choices=NAMES)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    file = QUICK if chosen.quick else RESULTS
    if chosen.command == "table":
        print(table([json.loads(text) for text in file.read_text().splitlines()]))
        return
    if chosen.command == "speed":
        for line in speeds(1.0 if chosen.quick else 60.0):
            add(file, line)
        return
    if chosen.command == "replicas":
        for turn in range(chosen.rounds):
            for line in replicas(turn, 2.0 if chosen.quick else 15.0):
                add(file, line)
        return
    for turn in range(chosen.rounds):
        for name in chosen.only or NAMES:
            bench = prepare(name, say)
            if chosen.command == "grid":
                for line in grid(bench, PLANS[:1] if chosen.quick else PLANS, 1 if chosen.quick else GRID, turn, say):
                    add(file, {"model": name, "round": turn, **line})
                continue
            for plan in PLANS[:1] if chosen.quick else PLANS:
                for line in judge(bench, plan, turn, chosen.quick):
                    add(file, {"model": name, "plan": str(plan), "round": turn, **line})


def judge(bench: Bench, plan: Plan, turn: int, quick: bool) -> list[dict[str, Any]]:
    """One model under one plan: a line a utilisation, and one for the capacity."""
    inputs, seconds = bench.parts.selection.inputs, 0.1 if quick else 0.5
    lines = []
    with tempfile.TemporaryDirectory(prefix="prediction-") as scratch:
        before = curve(bench.parent, plan, inputs, seconds)
        mu = before.capacity_per_s(plan.max_batch)
        beside = front(Path(scratch) / "null", bench.parent, plan, inputs, 0.5 * mu, 0.5 if quick else 2.0)
        bound_s = BOUND * before.tau_s(plan.max_batch) + 0.005
        for share in UTILISATIONS[1:2] if quick else UTILISATIONS:
            rate_per_s = share / (1 / mu + (beside.joined_s or beside.cpu_s))
            with target(Path(scratch) / f"patient-{share}", bench.parent, plan, inputs, bound_s) as held:
                held.run(rate_per_s, 0.5, 7)
                first = curve(bench.parent, plan, inputs, seconds)
                raw = held.run(
                    rate_per_s, 1.0 if quick else min(LONGEST_S, max(MEASURED_S, FEWEST / rate_per_s)), 100 * turn + int(100 * share)
                )
                both_curves = both(first, curve(bench.parent, plan, inputs, seconds))
            lines.append(point(both_curves, plan, beside, rate_per_s, raw, share))
        with target(Path(scratch) / "refusing", bench.parent, plan, inputs, bound_s, None) as held:
            first = curve(bench.parent, plan, inputs, seconds)
            found = measured_capacity(held, 0.7 * mu, bound_s, 2 if quick else TRIALS, turn)
            both_curves = both(first, curve(bench.parent, plan, inputs, seconds))
        told = predict_capacity(both_curves, plan, Objective(latency_s=bound_s), **share_of(beside))
        lines.append({"stage": "capacity", "bound_s": bound_s, "predicted_per_s": told.capacity_per_s, **found, "front_s": beside.cpu_s})
    return lines


def point(measured: ServiceCurve, plan: Plan, beside: FrontEnd, rate_per_s: float, raw: RawLoad, share: float) -> dict[str, Any]:
    """Percentiles of both, with intervals: of the measured by order statistics, of the predicted by simulations of as many requests."""
    seen = summarise(raw, target="http", arrivals="poisson", rate_per_s=rate_per_s, objective=Objective(latency_s=10.0), seed=0)
    count = len(raw.due_s)
    drawn = np.array(
        [
            np.quantile(
                simulate(
                    measured, plan, arrival_times("poisson", rate_per_s, count / rate_per_s, seed), seed=seed, **share_of(beside)
                ),
                QUANTILES,
            )
            for seed in range(DRAWS)
        ]
    )  # fmt: skip
    parts = {
        f"p{q * 100:g}": {
            "predicted_s": [float(np.median(drawn[:, place])), *np.quantile(drawn[:, place], [0.025, 0.975]).tolist()],
            "measured_s": [seen.percentile(q).latency_s, seen.percentile(q).low_s, seen.percentile(q).high_s],
        }
        for place, q in enumerate(QUANTILES)
    }
    return {
        "stage": "point", "utilisation": share, "rate_per_s": rate_per_s, "requests": count, "front_s": beside.cpu_s, "joined_s": beside.joined_s, "verdict": seen.verdict,
        "lateness_p99_s": seen.lateness_p99_s, **parts,
    }  # fmt: skip


def measured_capacity(held: Target, start_per_s: float, bound_s: float, trials: int, turn: int) -> dict[str, float]:
    """The rates that held and did not, by search."""

    def offer(rate_per_s: float) -> LoadPoint:
        raw = held.run(rate_per_s, min(LONGEST_S, max(3.0, FEWEST / rate_per_s)), 1000 * turn + int(rate_per_s))
        return summarise(raw, target="http", arrivals="poisson", rate_per_s=rate_per_s, objective=Objective(latency_s=bound_s), seed=turn)

    bracket = find_capacity(offer, start_per_s=start_per_s, trials=trials, step=1.1)
    return {"low_per_s": bracket.low_per_s, "high_per_s": bracket.high_per_s}


def add(file: Path, line: dict[str, Any]) -> None:
    """Append a line, and say it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**line, "measured": time.strftime("%Y-%m-%d", time.gmtime())})
    with file.open("a") as out:
        out.write(text + "\n")
    say(text[:300])


def say(text: str) -> None:
    """One line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    main()
