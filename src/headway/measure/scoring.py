"""A graph's answers on samples, through the runtime session that would serve it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from headway.measure.rows import Feeds, rows
from headway.records import Plan
from headway.runtime import open_session


def answers(path: Path, plan: Plan, inputs: Feeds, *, batch: int = 16) -> dict[str, np.ndarray]:
    """Outputs by name for every row of ``inputs``, in order; the last batch may be smaller."""
    size = len(next(iter(inputs.values())))
    session = open_session(plan, path)
    try:
        parts = [session.run(rows(inputs, start, min(batch, size - start))) for start in range(0, size, batch)]
    finally:
        session.close()
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
