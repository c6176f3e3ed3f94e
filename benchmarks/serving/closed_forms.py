"""The load tool on a real clock against closed forms: a target whose service times are known, in this process and behind the server.

    python benchmarks/serving/closed_forms.py [--target in-process|http] [--check one|batch] [--seeds 3] [--seconds 4]

``one``: batches of one, so that the queue is M/D/1; ``batch``: greedy batching with tau(b) = tau0 + alpha b. The null runtime takes exactly these
times. For each load and seed one line goes to ``closed_forms.jsonl``: the mean latency measured, that of the simulator **for the same arrivals**
(chance of the arrivals drops out), and the closed form (Pollaczek and Khinchine; Inoue's bound). No engine is free: a request alone takes a little
longer than the model. So the simulator runs a second time with that overhead in every batch; what is measured should lie
between the two, give or take what the machine disturbs.
Real time decides no test: these figures are looked at, and ``tests/test_load_truth.py`` holds the same laws on a virtual clock.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from headway.api.load_bundle import opened_bundle
from headway.api.load_http import HttpTarget
from headway.api.load_inputs import Samples
from headway.api.load_target import Target
from headway.deploy import Entry, package
from headway.load import arrival_times, summarise
from headway.load.streams import stream_latency_s
from headway.measure.environment import environment
from headway.measure.over_http import served
from headway.predict import batch_mean_response_s, md1_mean_wait_s, simulate
from headway.records import BatchTiming, Objective, Plan, ServiceCurve, Variant

RESULTS = Path(__file__).parent / "closed_forms.jsonl"
ALONE = 60
SIZES = (1, 2, 4, 8, 16, 32, 64)
CHECKS = {"one": (0.005, 0.0, 1, (0.3, 0.5, 0.7)), "batch": (0.005, 0.001, 64, (0.3, 0.5, 0.7))}
"""tau0 and alpha [s], largest batch, and loads rho (of the largest rate that the formula knows)."""


def bundle(folder: Path, tau0_s: float, alpha_s: float, max_batch: int) -> Path:
    """A bundle whose model takes tau0 + alpha b."""
    graph = {
        "tau0_s": tau0_s, "alpha_s": alpha_s, "inputs": [{"name": "x", "dtype": "float32", "shape": ["n", 4]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": ["n", 1]}],
    }  # fmt: skip
    file = folder / "m.null.json"
    file.write_text(json.dumps(graph))
    variant = Variant(
        name="null", source="null", origin="null", recipe=(), parent_digest="", digest="", path="", parameters=0, flop=0, weight_bytes=0, file_bytes=0,
        precision="float32",
    )  # fmt: skip
    entry = Entry(variant, file, Plan(runtime="null", max_batch=max_batch), {})
    package(folder / "bundle", name="null", entries=[entry], objective=Objective(latency_s=1.0), environment=environment())
    return folder / "bundle"


@contextlib.contextmanager
def opened(kind: str, path: Path) -> Iterator[Target]:
    """The bundle in this process, or behind the server."""
    if kind == "in-process":
        with opened_bundle(path) as target:
            yield target
    else:
        with served(["headway", "serve", "--json", str(path), "--http", "127.0.0.1:0"]) as server:
            yield HttpTarget(f"http://127.0.0.1:{server.port}", "")


def curve(tau0_s: float, alpha_s: float, max_batch: int) -> ServiceCurve:
    """The service curve tau0 + alpha b, without spread."""
    timings = tuple(BatchTiming(batch=size, service_s=(tau0_s + alpha_s * size,)) for size in SIZES if size <= max_batch)
    return ServiceCurve(
        variant="null", runtime="null", device="cpu", instances=1, threads=1, tau0_s=tau0_s, alpha_s=alpha_s, peak_bytes=0, timings=timings
    )  # fmt: skip


def measure(kind: str, check: str, seeds: int, seconds: float) -> None:
    """All loads and seeds of one check, seeds outermost, so that what disturbs the machine disturbs all loads alike."""
    tau0_s, alpha_s, max_batch, loads = CHECKS[check]
    with tempfile.TemporaryDirectory() as folder, opened(kind, bundle(Path(folder), tau0_s, alpha_s, max_batch)) as target:
        requests = Samples(target.inputs, "", 0).requests()
        target.run(requests, arrival_times("poisson", 50.0, 0.5, 99))
        alone = target.run(requests, np.zeros(ALONE), most_in_flight=1)
        alone_s = float(np.median(stream_latency_s(alone.raw)))
        overhead_s = max(0.0, alone_s - tau0_s - alpha_s)
        for seed in range(seeds):
            for rho in loads:
                rate_per_s = rho / (alpha_s or tau0_s)
                due_s = arrival_times("poisson", rate_per_s, seconds, seed)
                ran = target.run(requests, due_s)
                point = summarise(
                    ran.raw, target=kind, arrivals="poisson", rate_per_s=rate_per_s, objective=Objective(latency_s=1.0), seed=seed,
                    steal_fraction=ran.steal_fraction,
                )  # fmt: skip
                plan = Plan(runtime="null", max_batch=max_batch)
                simulated_s, slower_s = (
                    float(np.mean(simulate(curve(tau0_s + more_s, alpha_s, max_batch), plan, due_s))) for more_s in (0.0, overhead_s)
                )
                closed_s = batch_mean_response_s(rate_per_s, tau0_s, alpha_s) if alpha_s else tau0_s + md1_mean_wait_s(rate_per_s, tau0_s)
                line = {
                    "check": check, "target": kind, "rho": rho, "seed": seed, "sent": point.sent, "mean_s": point.mean_s, "simulated_s": simulated_s,
                    "simulated_with_overhead_s": slower_s, "alone_s": alone_s, "closed_form_s": closed_s, "measured_over_simulated": point.mean_s / simulated_s, "lateness_p99_s": point.lateness_p99_s,
                    "little_ratio": point.little_ratio, "steal_fraction": point.steal_fraction, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                }  # fmt: skip
                with RESULTS.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                print(
                    f"{kind} {check} rho {rho}: {point.mean_s * 1e3:.2f} ms measured, {simulated_s * 1e3:.2f} to {slower_s * 1e3:.2f} simulated, {closed_s * 1e3:.2f} closed form"
                )


def main() -> None:
    """Parse and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=("in-process", "http"), default="in-process")
    parser.add_argument("--check", choices=tuple(CHECKS), default="one")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    chosen = parser.parse_args()
    measure(chosen.target, chosen.check, chosen.seeds, chosen.seconds)


if __name__ == "__main__":
    main()
