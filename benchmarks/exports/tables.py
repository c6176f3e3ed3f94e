"""Markdown out of the lines: answers, capacities predicted and measured, and what a request costs beside the model."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from headway.stats import ratio_interval

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
        _behind_ray([line for line in lines if line["stage"] == "ray"]),
        _engines([line for line in lines if line["stage"] == "engine"]),
        _drills([line for line in lines if line["stage"] == "drill"]),
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


def _behind_ray(lines: list[Line]) -> str:
    """One row for each round of a model: both servers beside each other."""
    rounds: dict[tuple[str, int], dict[str, Line]] = {}
    for line in lines:
        rounds.setdefault((line["model"], line["round"]), {})[line["server"]] = line
    told = []
    for (model, turn), by in rounds.items():
        if set(by) >= {"own", "ray"}:
            own, behind = by["own"], by["ray"]
            parts = ", ".join(f"{name} {behind[f'{name}_cpu_s'] * 1e3:.3g}" for name in ("replica", "proxy", "others"))
            told.append(
                (
                    model, str(turn), f"{own['bound_s'] * 1e3:.3g}", _held(own), _held(behind), f"{own['cpu_s'] * 1e3:.3g}",
                    f"{behind['cpu_s'] * 1e3:.3g} ({parts})", f"{behind['idle_cores']:.2g}",
                )
            )  # fmt: skip
    return _markdown(
        (
            "model", "round", "bound [ms]", "own server holds [1/s]", "behind Ray Serve [1/s]", "CPU a request, own [ms]", "CPU a request, Ray [ms]",
            "Ray idle [cores]",
        ),
        told,
    )  # fmt: skip


def _held(line: Line) -> str:
    """The highest rate that held; the search ended before it found one that did not where both are the same."""
    return f"{'at least ' if line['high_per_s'] <= line['low_per_s'] else ''}{line['low_per_s']:.4g}"


def _engines(lines: list[Line]) -> str:
    """One row a model: the engine in a replica against the own server, by their rounds in turn."""
    told = []
    for model in dict.fromkeys(line["model"] for line in lines):
        held = {
            server: [line["low_per_s"] for line in lines if (line["model"], line["server"]) == (model, server)]
            for server in ("own", "engine")
        }
        pairs = [(engine, own) for engine, own in zip(held["engine"], held["own"], strict=True) if engine > 0 and own > 0]
        if pairs:
            ratio = ratio_interval([engine for engine, _ in pairs], [own for _, own in pairs])
            spread = {server: f"{statistics.median(rates):.4g} [{min(rates):.4g}, {max(rates):.4g}]" for server, rates in held.items()}
            told.append((model, str(len(pairs)), spread["own"], spread["engine"], f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"))
    return _markdown(("model", "rounds", "own server holds [1/s]", "engine in the replica [1/s]", "engine / own"), told)


def _drills(lines: list[Line]) -> str:
    return _markdown(
        (
            "model", "replicas", "rate [1/s]", "bound [ms]", "requests", "wrong", "refused", "errors at the kill", "errors at the update",
            "errors after the client's retry", "p99 back after the kill [s]", "p99 back after the update began [s]", "the update took [s]",
        ),
        [
            (
                line["model"], str(line["replicas"]), f"{line['rate_per_s']:.4g}", f"{line['bound_s'] * 1e3:.3g}", str(line["requests"]), str(line["wrong"]),
                str(line["refused"]), str(line["errors_killed"]), str(line["errors_updated"]), str(line["errors_after_retry"]),
                f"{line['killed_back_s']:.3g}", f"{line['updated_back_s']:.3g}", f"{line['update_s']:.3g}",
            )
            for line in lines
        ],
    )  # fmt: skip


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
