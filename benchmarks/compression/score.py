"""How a compressed model answers: through the runtime that would serve it, on the report rows, paired with the float32 model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from cases import Bench

from headway.measure.scoring import answers
from headway.quality import compare, metric
from headway.records import HeadwayError, Interval, Plan, Quality

RUNTIMES = ("onnx_runtime", "openvino")


def outputs(bench: Bench, path: Path, runtime: str) -> dict[str, np.ndarray]:
    """The model's outputs on every report row, kept beside the file.

    Raises:
        HeadwayError: the runtime does not take the file, or fails on the rows.
    """
    kept = path.parent / f"outputs-{path.stem}-{runtime}.npz"
    if not kept.exists() or kept.stat().st_mtime < path.stat().st_mtime:
        found = answers(path, Plan(runtime=runtime), bench.parts.report.inputs)
        np.savez(kept, **found)  # type: ignore[arg-type]
    with np.load(kept) as archive:
        return {name: archive[name] for name in archive.files}


def score(bench: Bench, path: Path, runtime: str) -> dict[str, Any]:
    """Quality against the float32 model in ONNX Runtime, or the reason why there is none."""
    if path.suffix == ".xml" and runtime != "openvino":
        return {"reason": "only OpenVINO reads this format"}
    try:
        mine = outputs(bench, path, runtime)
        found = _against(bench, mine, outputs(bench, bench.parent, RUNTIMES[0]), runtime)
    except HeadwayError as error:
        return {"reason": str(error)[:240]}
    return {
        "metric": found.metric, "rows": found.n, "value": found.value.value, "parent_value": found.parent_value, "drop": _plain(found.drop),
        "agreement": found.agreement, "right_to_wrong": found.right_to_wrong, "wrong_to_right": found.wrong_to_right,
    }  # fmt: skip


def drop_between(bench: Bench, better: Path, worse: Path, runtime: str) -> Interval:
    """What ``worse`` loses against ``better`` on the same rows."""
    return _against(bench, outputs(bench, worse, runtime), outputs(bench, better, runtime), runtime).drop


def _against(bench: Bench, mine: dict[str, np.ndarray], parent: dict[str, np.ndarray], runtime: str) -> Quality:
    named = dict(zip(parent, mine.values(), strict=True))  # tools rename outputs; their order stays
    judged = metric(bench.case.metric)
    return compare(
        variant="compressed",
        runtime=runtime,
        part="report",
        metric=judged,
        outputs=named,
        parent_outputs=parent,
        dataset=bench.parts.report,
    )


def _plain(interval: Interval) -> dict[str, float]:
    return {name: float(value) for name, value in msgspec.structs.asdict(interval).items() if name != "confidence"}
