"""Feasible or overloaded: what simulation says of random rates under random bounds, and what the server then did."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cases import Bench
from served import both, curve, front, share_of, target

from headway.load import summarise
from headway.load.generator import OK
from headway.predict import predict_capacity
from headway.records import Objective, Plan

BOUND, SHARE = (1.5, 6.0), (0.3, 1.5)
"""Between which a random latency bound lies, in service times of a full batch (and 5 ms for the rest); and a random rate, in mu of engine and front end."""
LEAST_S, LONGEST_S, FEWEST = 5.0, 20.0, 1000
"""A run is as long as ``FEWEST`` requests take, within these bounds."""
AROUND_S = 0.5
"""A batch size of the curve, before the run and after it."""


def grid(bench: Bench, plans: Sequence[Plan], draws: int, seed: int, say: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """A line for each random rate and bound: told and seen."""
    rng = np.random.default_rng(seed)
    inputs = bench.parts.selection.inputs
    for plan in plans:
        with tempfile.TemporaryDirectory(prefix="grid-") as scratch:
            mu = curve(bench.parent, plan, inputs, AROUND_S).capacity_per_s(plan.max_batch)
            beside = front(Path(scratch) / "null", bench.parent, plan, inputs, 0.5 * mu, 2.0)
            for draw in range(draws):
                before = curve(bench.parent, plan, inputs, AROUND_S)
                bound_s = rng.uniform(*BOUND) * before.tau_s(plan.max_batch) + 0.005
                rate_per_s = rng.uniform(*SHARE) / (1 / mu + (beside.joined_s or beside.cpu_s))
                objective = Objective(latency_s=bound_s)
                with target(Path(scratch) / f"draw-{draw}", bench.parent, plan, inputs, bound_s, None) as held:
                    held.run(rate_per_s, 0.5, 7)
                    raw = held.run(rate_per_s, min(LONGEST_S, max(LEAST_S, FEWEST / rate_per_s)), 1000 * seed + draw)
                around = both(before, curve(bench.parent, plan, inputs, AROUND_S))
                seen = summarise(raw, target="http", arrivals="poisson", rate_per_s=rate_per_s, objective=objective, seed=seed)
                told = predict_capacity(around, plan, objective, **share_of(beside))
                good = float(np.mean((raw.status == OK) & (raw.done_s - raw.due_s <= bound_s)))
                say(
                    f"{bench.name} {plan}: {rate_per_s:.4g}/s within {bound_s * 1e3:.3g} ms, told {told.capacity_per_s:.4g}/s, good {good:.1%}"
                )
                yield {
                    "stage": "grid", "plan": str(plan), "bound_s": bound_s, "rate_per_s": rate_per_s, "predicted_per_s": told.capacity_per_s,
                    "good_share": good, "verdict": seen.verdict, "told": rate_per_s <= told.capacity_per_s, "seen": good >= objective.percentile,
                }  # fmt: skip
