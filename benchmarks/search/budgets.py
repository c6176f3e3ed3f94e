"""``tune`` with a short budget against a longer one, or on a quiet machine against a busy one, and the two bundles side by side over HTTP."""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from space import Say, cases

from headway.api.config import TuneConfig
from headway.api.progress import Progress
from headway.api.tune import tune
from headway.load import find_capacity, trial_s
from headway.measure.over_http import OverHttp, served
from headway.records import LoadPoint, Objective, parse_objective
from headway.stats import ratio_interval

SLO = "p99<=40ms, drop<=1%"
ROUNDS, TRIALS, TRIAL_S, STEP = 5, 4, 2.0, 1.2
Line = dict[str, Any]


def budgets(model: str, short: str, long: str, work: Path, rounds: int, say: Say) -> Iterator[Line]:
    """A line for each budget, then one for the comparison."""
    bench = cases.prepare(model, say)
    folders = {word: work / f"budget-{word}" for word in (short, long)}
    for word, folder in folders.items():
        yield {"stage": "budget", **tuned(bench, model, word, folder, say)}
    yield {
        "stage": "budgets",
        "model": model,
        "slo": SLO,
        "short": short,
        "long": long,
        **side_by_side(folders, bench.parts.selection.inputs, rounds, say),
    }


def noisy(model: str, budget: str, work: Path, rounds: int, say: Say) -> Iterator[Line]:
    """A line for a run on the machine as it is, one for a run beside a busy loop on every core, then one for the comparison."""
    bench = cases.prepare(model, say)
    folders = {word: work / f"noisy-{word}" for word in ("busy", "quiet")}
    with _busy_loops():
        yield {"stage": "noisy", "beside": "busy", **tuned(bench, model, budget, folders["busy"], say)}
    yield {"stage": "noisy", "beside": "quiet", **tuned(bench, model, budget, folders["quiet"], say)}
    yield {
        "stage": "noisy-pair",
        "model": model,
        "slo": SLO,
        "budget": budget,
        **side_by_side(folders, bench.parts.selection.inputs, rounds, say),
    }


@contextlib.contextmanager
def _busy_loops() -> Iterator[None]:
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def tuned(bench: cases.Bench, model: str, budget: str, folder: Path, say: Say, progress: Progress | None = None, **more: Any) -> Line:
    """One run, and what it chose and said."""
    began_s = time.monotonic()
    config = TuneConfig(
        models=(str(bench.parent),), data=str(bench.case.data), slo=SLO, out=str(_empty(folder)), budget=budget, compare=False,
        train="" if more else str(bench.case.train or ""), **more,
    )  # fmt: skip
    summary = tune(config, progress=progress)
    wall_s, choice = round(time.monotonic() - began_s, 1), summary.choice
    say(f"{folder.name}: {choice.candidate}, {choice.rate_per_s} over HTTP, {wall_s} s; {'; '.join(summary.warnings) or 'no warnings'}")
    return {
        "model": model, "slo": SLO, "budget": budget, "wall_s": wall_s, "met": choice.met, "chosen": str(choice.candidate), "rate_per_s": choice.rate_per_s,
        "reasons": list(choice.reasons), "warnings": list(summary.warnings), "left_out": list(summary.left_out),
    }  # fmt: skip


def _empty(folder: Path) -> Path:
    """A folder name that is free; older runs are kept."""
    if not folder.exists():
        return folder
    folder.rename(folder.with_name(f"{folder.name}-until-{time.strftime('%Y%m%d-%H%M%S')}"))
    return folder


def side_by_side(folders: dict[str, Path], inputs: Any, rounds: int, say: Say) -> Line:
    """SLO capacities of both bundles in interleaved rounds, and the ratio of the short budget's to the long one's."""
    objective = parse_objective(SLO)
    rates: dict[str, list[float]] = {word: [] for word in folders}
    with contextlib.ExitStack() as stack:
        loads = {}
        for word, folder in folders.items():
            manifest = json.loads((folder / "bundle" / "bundle.json").read_text())
            server = stack.enter_context(served(["headway", "serve", "--json", str(folder / "bundle"), "--http", "127.0.0.1:0"]))
            loads[word] = OverHttp.to(server, manifest["name"], inputs)
            loads[word].load(20.0, 0.5, objective, 0)
        guesses = {word: _guess(folder) for word, folder in folders.items()}
        for number in range(1, rounds + 1):
            for word in list(loads) if number % 2 else list(reversed(loads)):
                found = _capacity(loads[word], objective, guesses[word], number)
                rates[word].append(found)
                guesses[word] = found or guesses[word]
                say(f"round {number}, {word}: {found:.4g}/s")
    (short, ours), (_, theirs) = rates.items()
    held = [(a, b) for a, b in zip(ours, theirs, strict=True) if a > 0 and b > 0]
    ratio = ratio_interval([a for a, _ in held], [b for _, b in held]) if held else None
    figures = {} if ratio is None else {"ratio": {"value": ratio.value, "low": ratio.low, "high": ratio.high}}
    return {"rates_per_s": rates, "rounds": len(held), "over": short, **figures}


def _guess(folder: Path) -> float:
    """What the bundle's own manifest promises [1/s]."""
    return float(json.loads((folder / "bundle" / "bundle.json").read_text())["variants"][0].get("rate_per_s") or 50.0)


def _capacity(load: OverHttp, objective: Objective, start_per_s: float, number: int) -> float:
    count = 0

    def trial(rate_per_s: float) -> LoadPoint:
        nonlocal count
        count += 1
        return load.load(rate_per_s, trial_s(rate_per_s, TRIAL_S), objective, 1000 * number + count)

    found = find_capacity(trial, start_per_s=start_per_s, trials=TRIALS, percentile=objective.percentile, step=STEP)
    return found.low_per_s if found.open_above else math.sqrt(found.low_per_s * found.high_per_s)
