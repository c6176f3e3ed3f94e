"""An export behind its real server: answers, SLO capacity predicted and measured, and what a request costs beside the model.

    python benchmarks/exports triton [--only digits] [--rounds 2]    # about 6 minutes a round for digits, 12 for vision
    python benchmarks/exports front                                  # CPU of a request by its size, behind Triton's Python backend; 8 minutes
    python benchmarks/exports ray [--rounds 2]                       # behind one replica of Ray Serve and behind the own server; 14 minutes a round
    python benchmarks/exports engine                                 # the engine in a replica and the own server, in turn; 5 minutes
    python benchmarks/exports drill                                  # a replica killed under load, then an update; 5 minutes
    python benchmarks/exports table

Appends to ``results.jsonl``; ``--quick`` shows that everything works, into ``quick.jsonl`` of the work folder. The server sits on one core and the
generator spins on the other. Needs a ``tritonserver`` with its Python backend: on the path, or named by the variable ``HEADWAY_TRITON``
(``nvidia-pytriton`` holds one: ``pytriton/tritonserver/bin/tritonserver``).

Three predictions stand beside the measured capacity: with the front end as the export states it (``ServerPolicy.front_s``: what ``headway export``
predicts with), with the same figures but a batch's share added to each batch, and with the front end measured here, with a model that takes no time and
the same payloads. All rest on the service curve, measured before and after the load on the server's core. Nothing is fitted to the loads that are predicted.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

HERE = Path(__file__).parent
sys.path += [str(HERE.parent / room) for room in ("prediction", "compression", "serving")]

from behind_ray import compare, engines  # noqa: E402
from behind_triton import PATIENT_S, checked, exported, front, full, nothing_like, nothing_model, started  # noqa: E402
from cases import Bench, prepare  # noqa: E402
from lines import Lines  # noqa: E402
from models import NAMES, onnx_file  # noqa: E402
from models import rows as tiny_rows  # noqa: E402
from ray_drill import drill  # noqa: E402
from served import Target, both, curve  # noqa: E402
from served import front as own_front  # noqa: E402
from tables import table  # noqa: E402

from headway.deploy.targets.triton import BATCH_S, HALF  # noqa: E402
from headway.load import find_capacity, summarise  # noqa: E402
from headway.measure.rows import Feeds  # noqa: E402
from headway.predict import predict_capacity  # noqa: E402
from headway.records import LoadPoint, Objective, Plan, ServiceCurve  # noqa: E402

RESULTS = HERE / "results.jsonl"
QUICK = Path.home() / ".cache" / "headway" / "exports" / "quick.jsonl"
MODELS = ("digits", "vision")
PLAN = Plan(runtime="onnx_runtime", max_batch=16)
BOUNDS = ((1.5, 0.02), (3.0, 0.05))
"""Latency bounds: service times of a full batch with ``REST_S`` for the rest, and the least bound [s]: below it a shared machine's own delays decide."""
REST_S = 0.005
NICE = -10
"""Server and generator run before other work where the system allows it."""
TRIALS, FEWEST, SHORTEST_S, LONGEST_S = 8, 1500, 3.0, 30.0
AROUND_S = 0.5
"""A batch size of the curve, before the load and after it [s]."""
START = 0.7
SIZES, BATCHES = (256, 16_384, 150_528), (1, 4, 16, 64)
"""Numbers in a request (the last are those of an image of 224 by 224 in three colours), and largest batches."""
OUTPUTS = 10
PARTS = {"ray": compare, "engine": engines}
LIGHT = "tiny"
"""A model of benchmarks/serving whose weights fill the caches; it is none of those whose capacity is predicted."""
FULL_S = 4.0

Line = dict[str, Any]


def main() -> None:
    """Parse, and carry out one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("triton", "front", *PARTS, "drill", "table"))
    parser.add_argument("--only", action="append", choices=MODELS)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    lines = Lines(QUICK if chosen.quick else RESULTS)
    if chosen.command == "table":
        print(table(lines.read()))
        return
    where = lines.environment()
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    for turn in range(chosen.rounds):
        for line in made(chosen.command, chosen.only or list(MODELS), turn, chosen.quick):
            lines.add({**line, "round": turn, "environment": where})
            say(" ".join(f"{name}={value:.5g}" if isinstance(value, float) else f"{name}={value}" for name, value in line.items()))


def made(command: str, names: list[str], turn: int, quick: bool) -> Iterator[Line]:
    """The lines of a command, one round of them."""
    if command == "front":
        yield from fronts(quick)
    elif command in PARTS:
        for model in (LIGHT,) if quick else NAMES:
            yield from PARTS[command](model, touched if quick else measured_capacity, turn, quick)
    elif command == "drill":
        yield drill(touched if quick else measured_capacity, turn, quick)
    else:
        yield from models(names, turn, quick)


def models(names: list[str], turn: int, quick: bool) -> Iterator[Line]:
    """The lines of every model."""
    for name in names[:1] if quick else names:
        yield from ({"model": name, **line} for line in judge(prepare(name, say), turn, quick))


def judge(bench: Bench, turn: int, quick: bool) -> Iterator[Line]:
    """A line for the answers of one model's export, and one for each bound's capacity."""
    inputs, seconds = bench.parts.selection.inputs, 0.1 if quick else AROUND_S
    with tempfile.TemporaryDirectory(prefix="exports-") as name:
        scratch = Path(name)
        nothing = nothing_like(scratch / "nothing.onnx", bench.parent, PLAN, inputs)
        beside = front(scratch / "front", nothing, PLAN, inputs, 1.0 if quick else FULL_S, turn)
        alone = curve(bench.parent, PLAN, inputs, seconds)
        own = own_front(scratch / "own", bench.parent, PLAN, inputs, HALF * alone.capacity_per_s(PLAN.max_batch), 0.5 if quick else FULL_S)
        full_s, own_s = alone.tau_s(PLAN.max_batch), own.joined_s or own.cpu_s
        for place, (times, least_s) in enumerate(BOUNDS[:1] if quick else BOUNDS):
            objective = Objective(latency_s=max(least_s, times * full_s + REST_S))
            folder = exported(scratch / f"bound-{place}", bench.parent, PLAN, inputs, objective.latency_s or 0.0)
            if place == 0:
                yield {"stage": "answers", **checked(folder)}
            with started(folder, inputs) as held:
                before, policy = curve(bench.parent, PLAN, inputs, seconds), held.export.policy
                assert policy.front_s is not None, "the Python backend's front end is stated"
                mu = 1 / (1 / before.capacity_per_s(PLAN.max_batch) + policy.front_s)
                found = measured_capacity(held.load, START * mu, objective, 2 if quick else TRIALS, turn)
                around = both(before, curve(bench.parent, PLAN, inputs, seconds))
            told = {"front_steals": policy.front_steals, "refuses": policy.refuses}
            front_s = policy.front_s * own_s / (policy.own_front_s or own_s)
            stated = predict_capacity(around, policy.plan, objective, front_end_s=front_s, **told)
            alone_s = front_s - BATCH_S / max(1.0, HALF * PLAN.max_batch)
            batched = predict_capacity(slowed(around, BATCH_S), policy.plan, objective, front_end_s=alone_s, **told)
            measured = predict_capacity(around, policy.plan, objective, front_end_s=beside.cpu_s, jitter_s=beside.jitter_s, **told)
            yield {
                "stage": "capacity", "plan": str(policy.plan), "bound_s": objective.latency_s, "stated_per_s": stated.capacity_per_s,
                "predicted_per_s": measured.capacity_per_s, "batched_per_s": batched.capacity_per_s, **found, "stated_front_s": front_s, "front_s": beside.cpu_s, "own_front_s": own_s,
                "mu_per_s": around.capacity_per_s(PLAN.max_batch),
            }  # fmt: skip


def slowed(curve: ServiceCurve, batch_s: float) -> ServiceCurve:
    """A curve whose every batch takes so much longer [s]."""
    timings = tuple(
        msgspec.structs.replace(timing, service_s=tuple(seconds + batch_s for seconds in timing.service_s)) for timing in curve.timings
    )
    return msgspec.structs.replace(curve, timings=timings, tau0_s=curve.tau0_s + batch_s)


def measured_capacity(load: Target, start_per_s: float, objective: Objective, trials: int, turn: int) -> dict[str, float]:
    """The rates that held and did not, by search."""

    def offer(rate_per_s: float) -> LoadPoint:
        raw = load.run(rate_per_s, min(LONGEST_S, max(SHORTEST_S, FEWEST / rate_per_s)), 1000 * turn + int(rate_per_s))
        point = summarise(raw, target="http", arrivals="poisson", rate_per_s=rate_per_s, objective=objective, seed=turn)
        say(f"{rate_per_s:.5g}/s: {point.miss_fraction:.2%} missed ({point.refused} refused, {point.failed} failed), {point.verdict}")
        return point

    bracket = find_capacity(offer, start_per_s=start_per_s, trials=trials, step=1.1)
    return {"low_per_s": bracket.low_per_s, "high_per_s": bracket.high_per_s}


def touched(load: Any, start_per_s: float, objective: Objective, trials: int, turn: int) -> dict[str, float]:
    """In the place of a search, where only the way is to be shown: one short run, and what it answered."""
    raw = load.run(start_per_s, SHORTEST_S, turn)
    return {"low_per_s": len(raw.due_s) / SHORTEST_S, "high_per_s": start_per_s}


def fronts(quick: bool) -> Iterator[Line]:
    """What a request costs beside the model at full load: by its size with a model that takes no time, and with one that fills the caches."""
    for size in SIZES[:1] if quick else SIZES:
        inputs = {"x": np.ones((4, size), np.float32)}
        with tempfile.TemporaryDirectory(prefix="exports-") as name:
            nothing = nothing_model(Path(name) / "nothing.onnx", inputs, {"y": np.zeros((1, OUTPUTS), np.float32)})
            yield from beside("nothing", nothing, inputs, quick)
    yield from beside(LIGHT, onnx_file(LIGHT), {"x": tiny_rows()}, quick)


def beside(model: str, file: Path, inputs: Feeds, quick: bool) -> Iterator[Line]:
    """A line for each largest batch; ``model_s`` is the model's own time of a request, by its service curve."""
    seconds = 0.1 if quick else AROUND_S
    for most in BATCHES[:1] if quick else BATCHES:
        plan = Plan(runtime="onnx_runtime", max_batch=most)
        with (
            tempfile.TemporaryDirectory(prefix="exports-") as name,
            started(exported(Path(name), file, plan, inputs, PATIENT_S), inputs) as held,
        ):
            before = curve(file, plan, inputs, seconds)
            found = full(held, 1.0 if quick else FULL_S, 0)
            around = both(before, curve(file, plan, inputs, seconds))
        yield {
            "stage": "front", "model": model, "bytes": sum(array[:1].nbytes for array in inputs.values()) + 4 * OUTPUTS, "max_batch": most,
            "batch": found.batch, "rate_per_s": found.rate_per_s, "server_s": found.cpu_s["server"], "stub_s": found.cpu_s["stub"],
            "model_s": around.tau_s(max(1, round(found.batch))) / found.batch,
        }  # fmt: skip


def say(text: str) -> None:
    """One line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    main()
