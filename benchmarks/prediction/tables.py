"""Markdown out of the lines: errors by percentile and utilisation, capacities, and what was promised."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

import numpy as np

Line = dict[str, Any]
PERCENTILES = ("p50", "p90", "p99")


def table(lines: list[Line]) -> str:
    """All tables."""
    points = [line for line in lines if line["stage"] == "point" and line["verdict"] != "generator-bound"]
    capacities = [line for line in lines if line["stage"] == "capacity" and line["low_per_s"] > 0]
    fleets = [line for line in lines if line["stage"] == "replicas"]
    parts = [
        _markdown(
            ("utilisation", "points", *(f"{name}: median error, 90% within" for name in PERCENTILES), "p99 intervals meet"),
            [_by_share(points, share) for share in sorted({line["utilisation"] for line in points})] + ([_by_share(points, None)] if points else []),
        ),
        _markdown(
            ("model", "plan", "bound [ms]", "predicted [1/s]", "measured [1/s]", "error"),
            [
                (line["model"], line["plan"], f"{line['bound_s'] * 1e3:.3g}", f"{line['predicted_per_s']:.4g}",
                 f"{line['low_per_s']:.4g} to {line['high_per_s']:.4g}", f"{capacity_error(line):+.0%}")
                for line in capacities
            ],
        ),
        _markdown(
            ("replicas", "utilisation", "p50: predicted, measured [ms]", "p99: predicted, measured [ms]", "p99 error"),
            [_replicas([line for line in fleets if (line["replicas"], line["utilisation"]) == key]) for key in sorted({(line["replicas"], line["utilisation"]) for line in fleets})],
        ),
        _markdown(
            ("simulator", "requests/s", "wall [s]"),
            [(line["what"], f"{line.get('requests_per_s', 0):,.0f}", f"{line['wall_s']:.3g}") for line in lines if line["stage"] == "speed"],
        ),
    ]  # fmt: skip
    if capacities:
        errors = [abs(capacity_error(line)) for line in capacities]
        parts.append(f"SLO capacity: median absolute error {statistics.median(errors):.1%}, 90% within {np.quantile(errors, 0.9):.1%}.")
    grid = [line for line in lines if line["stage"] == "grid" and line["verdict"] != "generator-bound"]
    if grid:
        right = [line["told"] == line["seen"] for line in grid]
        sure = [line["told"] == line["seen"] for line in grid if line["verdict"] in {"held", "missed"}]
        parts.append(
            f"Feasible or overloaded: told rightly {sum(right)} of {len(right)} times; of those that the run itself proves, {sum(sure)} of {len(sure)}."
        )
    return "\n\n".join(part for part in parts if part)


def capacity_error(line: Line) -> float:
    """Of the predicted capacity, against the middle of the measured bracket."""
    return float(line["predicted_per_s"] / np.sqrt(line["low_per_s"] * line["high_per_s"]) - 1)


def _by_share(points: list[Line], share: float | None) -> tuple[str, ...]:
    chosen = [line for line in points if share is None or line["utilisation"] == share]
    cells = []
    for name in PERCENTILES:
        errors = [abs(line[name]["predicted_s"][0] / line[name]["measured_s"][0] - 1) for line in chosen]
        cells.append(f"{statistics.median(errors):.0%}, {np.quantile(errors, 0.9):.0%}")
    meet = [
        line["p99"]["predicted_s"][1] <= line["p99"]["measured_s"][2] and line["p99"]["measured_s"][1] <= line["p99"]["predicted_s"][2]
        for line in chosen
    ]
    return ("all" if share is None else f"{share:.0%}", str(len(chosen)), *cells, f"{sum(meet)} of {len(meet)}")


def _replicas(rounds: list[Line]) -> tuple[str, ...]:
    """One number of replicas at one utilisation, the medians over rounds."""
    cells = []
    for name in ("p50", "p99"):
        told, seen = (statistics.median(line[name][which] for line in rounds) * 1e3 for which in ("predicted_s", "measured_s"))
        cells.append(f"{told:.3g}, {seen:.3g}")
    errors = [line["p99"]["predicted_s"] / line["p99"]["measured_s"] - 1 for line in rounds]
    return (str(rounds[0]["replicas"]), f"{rounds[0]['utilisation']:.0%}", *cells, ", ".join(f"{error:+.0%}" for error in errors))


def _markdown(head: Iterable[str], rows: list[tuple[str, ...]]) -> str:
    head = tuple(head)
    body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(["| " + " | ".join(head) + " |", "|" + " --- |" * len(head), *body]) if rows else ""
