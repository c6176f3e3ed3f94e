"""Metrics by name."""

from __future__ import annotations

import difflib
import importlib
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace

from headway.quality import rowwise, whole
from headway.quality.answers import answers
from headway.quality.metric import Array, Metric
from headway.records import ConfigError, HeadwayError

METRICS: Mapping[str, str] = {
    "accuracy": "share of right answers",
    "topK": "share of rows whose label is among the K largest scores (top5)",
    "f1": "F1, unweighted mean over classes",
    "auc": "area under the ROC curve, unweighted mean over classes",
    "mse": "mean squared error; the drop is relative to the parent's",
    "mae": "mean absolute error; the drop is relative to the parent's",
    "cosine": "cosine between output and label vector",
    "recall@K": "share of a row's relevant items among the K best",
    "hr@K": "hit ratio: the right item (label: its column) is among the K best",
    "agreement": "same answer as the parent; needs no labels",
    "cosine_to_parent": "cosine between output and the parent's; needs no labels",
    "closeness_to_parent": "distance from the parent's output in units of its spread, from 1; needs no labels",
    "python:module:callable": "your function of (outputs by name, labels), a number; set .higher_is_better and .relative on it",
}
_NUMBERED = re.compile(r"^(top|recall@|hr@)([0-9]+)$")


def metric(reference: str) -> Metric:
    """The metric that ``reference`` names: ``NAME``, ``NAME@OUTPUT`` or ``python:module:callable``.

    Without ``@OUTPUT`` the model's first output is judged.

    Raises:
        ConfigError: an unknown name, K below one, or a function that cannot be had.
    """
    if reference.startswith("python:"):
        return _function(reference)
    name, at, output = _split(reference)
    numbered = _NUMBERED.match(name)
    made = _numbered(numbered.group(1), int(numbered.group(2))) if numbered else _plain(name)
    if made is None:
        known = [key for key in METRICS if ":" not in key]
        close = difflib.get_close_matches(name, [*known, "top5", "recall@10", "hr@10"], n=1)
        hint = f"did you mean {close[0]!r}?" if close else "write it as NAME or NAME@OUTPUT"
        raise ConfigError(f"metric: must be one of {', '.join(METRICS)}, got {reference!r}; {hint}")
    return replace(made, name=reference, output=output if at else None)


def _split(reference: str) -> tuple[str, str, str]:
    numbered = re.match(r"^((?:recall|hr)@[0-9]+)(@?)(.*)$", reference)
    if numbered:
        return numbered.group(1), numbered.group(2), numbered.group(3)
    return reference.partition("@")


def _plain(name: str) -> Metric | None:
    common = {"name": name, "needs_labels": False}
    known: dict[str, Metric] = {
        "accuracy": Metric(name=name, by_class=True, rows=rowwise.accuracy, hits=rowwise.accuracy_hits, answers=answers),
        "f1": Metric(name=name, by_class=True, whole=whole.f1, statistic=whole.f1_statistic, hits=whole.f1_hits, answers=answers),
        "auc": Metric(name=name, whole=whole.auc, statistic=whole.auc_statistic, answers=answers, resamples=400),
        "mse": Metric(name=name, higher_is_better=False, relative=True, rows=rowwise.squared_error),
        "mae": Metric(name=name, higher_is_better=False, relative=True, rows=rowwise.absolute_error),
        "cosine": Metric(name=name, rows=rowwise.cosine),
        "agreement": Metric(**common, rows=rowwise.agreement, answers=answers),  # type: ignore[arg-type]
        "cosine_to_parent": Metric(**common, rows=rowwise.cosine_to_parent),  # type: ignore[arg-type]
        "closeness_to_parent": Metric(**common, rows=rowwise.closeness_to_parent),  # type: ignore[arg-type]
    }
    return known.get(name)


def _numbered(kind: str, k: int) -> Metric:
    if k < 1:
        raise ConfigError(f"metric: {kind}K needs K of at least 1, got {k}; write {kind}5")
    if kind == "recall@":
        return Metric(name=f"{kind}{k}", rows=rowwise.recall(k), answers=answers)
    return Metric(name=f"{kind}{k}", by_class=kind == "top", rows=rowwise.top_rows(k), hits=rowwise.top(k), answers=answers)


def _function(reference: str) -> Metric:
    parts = reference.split(":")
    if len(parts) != 3 or not all(parts):
        raise ConfigError(f"metric: a function must be named python:module:callable, got {reference!r}")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(parts[1])
    except Exception as error:
        raise ConfigError(f"metric: module {parts[1]!r} must import, got {type(error).__name__}: {error}") from error
    function = getattr(module, parts[2], None)
    if not callable(function):
        raise ConfigError(f"metric: module {parts[1]!r} must have a callable {parts[2]!r}, got {type(function).__name__}")
    return Metric(
        name=reference,
        higher_is_better=bool(getattr(function, "higher_is_better", True)),
        relative=bool(getattr(function, "relative", False)),
        needs_labels=False,
        every_output=_guarded(reference, function),
        resamples=200,
    )


def _guarded(reference: str, function: Callable[..., object]) -> Callable[[Mapping[str, Array], Array | None], float]:
    def call(outputs: Mapping[str, Array], labels: Array | None) -> float:
        try:
            return float(function(outputs, labels))  # type: ignore[arg-type]
        except HeadwayError:
            raise
        except Exception as error:
            raise ConfigError(f"metric: {reference} must return a number, got {type(error).__name__}: {error}") from error

    return call
