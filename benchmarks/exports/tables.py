"""Markdown out of the lines: answers, capacities predicted and measured, and what a request costs beside the model."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

Line = dict[str, Any]
PREDICTED = ("stated_per_s", "batched_per_s", "predicted_per_s")
"""As exported; with a batch's share added to each batch; with the front end as measured beside it."""


def table(lines: list[Line]) -> str:
    """All tables."""
    capacities = [line for line in lines if line["stage"] == "capacity" and line["low_per_s"] > 0]
    fronts = [line for line in lines if line["stage"] == "front"]
    parts = [
        _markdown(
            ("model", "bound [ms]", "predicted as exported [1/s]", "by batch", "front end as measured here", "measured [1/s]", "errors"),
            [
                (
                    line["model"], f"{line['bound_s'] * 1e3:.3g}", *(f"{line[name]:.4g}" for name in PREDICTED),
                    f"{line['low_per_s']:.4g} to {line['high_per_s']:.4g}", ", ".join(f"{error(line, name):+.0%}" for name in PREDICTED),
                )
                for line in capacities
            ],
        ),
        _markdown(
            ("model", "difference from the golden set: the file, the server", "allowed"),
            [
                (line["model"], f"{line['model_difference']:.2g}, {line['server_difference']:.2g}", f"{line['tolerance']:g}")
                for line in lines
                if line["stage"] == "answers"
            ],
        ),
        _markdown(
            ("model", "bytes of a request", "largest batch", "mean batch", "requests/s", "CPU a request beside the model [us]", "Python process [us]"),
            [
                (
                    line["model"], str(line["bytes"]), str(line["max_batch"]), f"{line['batch']:.3g}", f"{line['rate_per_s']:.4g}",
                    f"{_cpu_s(line) * 1e6:.3g}",
                    f"{(line['stub_s'] - line['model_s']) * 1e6:.3g}",
                )
                for line in fronts
            ],
        ),
    ]  # fmt: skip
    if capacities:
        worst = {name: max(abs(error(line, name)) for line in capacities) for name in PREDICTED}
        middle = statistics.median(abs(error(line, "stated_per_s")) for line in capacities)
        parts.append(
            f"SLO capacity as exported: median absolute error {middle:.0%}, largest {worst['stated_per_s']:.0%}; "
            f"largest by batch {worst['batched_per_s']:.0%}, with the front end as measured here {worst['predicted_per_s']:.0%}."
        )
    if {line["model"] for line in fronts} > {"nothing"} and len({line["bytes"] for line in fronts}) > 2:
        request, batch, byte = _fitted(fronts)
        parts.append(f"Fitted: {request * 1e6:.3g} us a request, {batch * 1e6:.3g} us a batch, {byte * 1e9:.2g} ns a byte.")
    return "\n\n".join(part for part in parts if part)


def _cpu_s(line: Line) -> float:
    """Of a request, beside the model [s]."""
    return float(line["server_s"] + line["stub_s"] - line["model_s"])


def _fitted(lines: list[Line]) -> tuple[float, float, float]:
    """CPU time of a request and of a batch, beside a model that fills the caches; and of a byte, beside one that takes no time [s]."""
    *_, byte = _least([line for line in lines if line["model"] == "nothing"], lambda line: (1.0, 1 / line["batch"], line["bytes"]))
    real = [line for line in lines if line["model"] != "nothing"]
    request, batch = _least(real, lambda line: (1.0, 1 / line["batch"]))
    return request - byte * real[0]["bytes"], batch, byte


def _least(lines: list[Line], terms: Callable[[Line], tuple[float, ...]]) -> list[float]:
    """The factors of the terms whose sum is the CPU time of a request, by least squares on relative errors [s]."""
    cpu_s = np.array([_cpu_s(line) for line in lines])
    made = np.array([terms(line) for line in lines]) / cpu_s[:, None]
    return np.linalg.lstsq(made, np.ones(len(lines)), rcond=None)[0].tolist()


def error(line: Line, name: str) -> float:
    """Of a predicted capacity, against the middle of the measured bracket."""
    return float(line[name] / math.sqrt(line["low_per_s"] * line["high_per_s"]) - 1)


def _markdown(head: Iterable[str], rows: list[tuple[str, ...]]) -> str:
    head = tuple(head)
    body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(["| " + " | ".join(head) + " |", "|" + " --- |" * len(head), *body]) if rows else ""
