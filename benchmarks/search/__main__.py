"""The staged search against an exhaustive load test, against Triton Model Analyzer's quick search, a short budget against a long one, a busy machine against a quiet one.

    python benchmarks/search exhaustive            # about a quarter of an hour on a quiet machine with two cores
    python benchmarks/search analyzer              # a second: played on what ``exhaustive`` recorded
    python benchmarks/search budget [--short 2m] [--long 30m]
    python benchmarks/search noisy [--short 2m]    # tune beside a busy loop on every core, and without
    python benchmarks/search cluster [--model digits]    # tune by one process, and on two nodes of which one is killed; about ten minutes
    python benchmarks/search table

Appends to ``results.jsonl``; ``--quick`` shows that everything works, into ``quick.jsonl`` of the work folder, on a small model with short runs: its figures
mean nothing. Load is open-loop and in-process but for ``budget``, ``noisy`` and ``cluster``, which are over HTTP.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from budgets import ROUNDS, budgets, noisy
from exhaustive import affordable, every_plan, named, ratios, rematch, staged, who
from on_cluster import on_cluster
from quick_search import Climb
from space import FULL, QUICK, Size, Space, cases, space
from summary_tables import newest, table

from headway.measure.environment import environment, noise_ratio
from headway.records import Candidate

HERE = Path(__file__).parent
WORK = cases.CACHE / "search"
Line = dict[str, Any]


def main() -> None:
    """Parse, and carry out one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("exhaustive", "analyzer", "budget", "noisy", "cluster", "table"))
    parser.add_argument("--model", choices=cases.NAMES, help="another model than EfficientNet-Lite0")
    parser.add_argument("--slo", help="another bound on latency, such as 'p95<=40ms'")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", default="2m")
    parser.add_argument("--long", default="30m")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    file = WORK / "quick.jsonl" if chosen.quick else HERE / "results.jsonl"
    size = QUICK if chosen.quick else FULL
    size = replace(size, **{key: value for key in ("model", "slo") if (value := getattr(chosen, key))})
    if chosen.command == "exhaustive":
        exhaustive(file, size, chosen.seed)
    elif chosen.command == "analyzer":
        add(file, analyzer(read(file)))
    elif chosen.command == "budget":
        for line in budgets(size.model, chosen.short, chosen.long, WORK, chosen.rounds, say):
            add(file, {**line, "environment": asdict_environment()})
    elif chosen.command == "noisy":
        for line in noisy(size.model, chosen.short, WORK, chosen.rounds, say):
            add(file, {**line, "environment": asdict_environment()})
    elif chosen.command == "cluster":
        for line in on_cluster(chosen.model or "digits", WORK, chosen.rounds, say):
            add(file, {**line, "environment": asdict_environment()})
    else:
        print(table(read(file)))


def exhaustive(file: Path, size: Size, seed: int) -> None:
    """Every plan, the staged search, the rematch, and a last line that sums them up."""
    run = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    began_s = time.monotonic()
    with space(size, WORK / "exhaustive", seed, say) as held:
        trials = affordable(held)
        say(f"{len(held.plans)} plans, {trials} trials each")
        plans = []
        for line in every_plan(held, trials, seed, say):
            plans.append(add(file, {**line, "run": run}))
        measured = [line for line in plans if line.get("capacity_per_s")]
        first, chosen = staged(held, WORK / "staged", say)
        guesses = _rivals(held, measured, chosen)
        rounds = [add(file, {**line, "run": run}) for line in rematch(held, dict(guesses), say)]
        best = max(measured, key=lambda line: line["capacity_per_s"])
        means = {candidate: _mean(rounds, candidate) for candidate in guesses}
        summed = {
            "stage": "exhaustive", "run": run, "model": size.model, "slo": size.slo, "trials": trials, "plans": len(plans), "failed": len(plans) - len(measured),
            "runs": sum(line["runs"] for line in plans if "runs" in line), "load_s": round(sum(line.get("load_s", 0.0) for line in plans), 2),
            "best": {key: best[key] for key in (*named(chosen), "capacity_per_s")}, "staged": first, "ratio": ratios(rounds, named(chosen), best),
            "rematch_best_per_s": max(means.values()), "rematch_chosen_per_s": means[chosen], "noise_ratio": round(noise_ratio(), 3),
            "wall_s": round(time.monotonic() - began_s, 1), "environment": asdict_environment(),
        }  # fmt: skip
        add(file, summed)
    print(table(read(file)))


def _rivals(held: Space, measured: Sequence[Line], chosen: Candidate) -> dict[Candidate, float]:
    """The exhaustive test's best few and the staged search's choice, with a rate to begin at [1/s]."""
    by = {who(line): line["capacity_per_s"] for line in measured}
    candidates = sorted((p.candidate for p in held.plans if who(named(p.candidate)) in by), key=lambda c: -by[who(named(c))])
    predicted = {p.candidate: p.capacity_per_s for p in held.plans}
    rivals = dict.fromkeys([*candidates[: held.size.top], chosen])
    return {rival: by.get(who(named(rival))) or predicted[rival] for rival in rivals}


def _mean(rounds: Sequence[Line], candidate: Candidate) -> float:
    """Geometric mean over the rounds in which it held something; 0 without any [1/s]."""
    rates = [line["capacity_per_s"] for line in rounds if who(line) == who(named(candidate)) and line["capacity_per_s"] > 0]
    return math.exp(sum(math.log(rate) for rate in rates) / len(rates)) if rates else 0.0


def analyzer(lines: list[Line]) -> Line:
    """Quick search played on the newest exhaustive test: each variant on each runtime is a model to it, with all cores in its instances."""
    last = newest(lines, "exhaustive")
    if last is None:
        raise SystemExit("run `exhaustive` first: the climb is played on what it recorded")
    plans = [line for line in lines if line["stage"] == "plan" and line["run"] == last["run"]]
    rates = {who(line): line.get("capacity_per_s", 0.0) for line in plans}
    cores = max(line["instances"] * line["threads"] for line in plans)
    pairs = []
    for variant, runtime in dict.fromkeys((line["variant"], line["runtime"]) for line in plans):

        def measure(batch: int, instances: int, variant: str = variant, runtime: str = runtime) -> float:
            return rates.get((variant, runtime, instances, cores // instances, batch), 0.0)

        climb = Climb(measure, max(line["max_batch"] for line in plans), cores)
        batch, instances = climb.run()
        pairs.append(
            {"variant": variant, "runtime": runtime, "max_batch": batch, "instances": instances, "capacity_per_s": measure(batch, instances),
             "measurements": len(climb.measured) + 1}
        )  # fmt: skip
    seconds = last["load_s"] / max(1, last["runs"])
    count = sum(pair["measurements"] for pair in pairs)
    ours = last["staged"]
    return {
        "stage": "analyzer", "run": last["run"], "pairs": pairs, "measurements": count, "seconds_a_run": round(seconds, 3), "load_s": round(count * seconds, 1),
        "found_per_s": max(pair["capacity_per_s"] for pair in pairs), "ours_per_s": rates.get(who(ours["chosen"]), 0.0), "our_runs": ours["runs"],
        "our_load_s": ours["load_s"],
    }  # fmt: skip


def asdict_environment() -> Line:
    """The machine, as plain values."""
    held = environment()
    return {
        "cpu": held.cpu,
        "cores": held.cores,
        "instruction_sets": list(held.instruction_sets),
        "python": held.python,
        "versions": held.versions,
    }


def read(file: Path) -> list[Line]:
    """All lines so far."""
    return [json.loads(text) for text in file.read_text().splitlines()] if file.exists() else []


def add(file: Path, line: Line) -> Line:
    """Append a line; gives it back."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as out:
        out.write(json.dumps(line) + "\n")
    return line


def say(text: str) -> None:
    """One line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    main()
