"""Inputs corrupted as use corrupts them: noise, blur, wrong words, lost packets; variant and parent answer the same corrupted rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from headway.quality.corrupting import corrupted, corruptions, fitting
from headway.quality.evidence import Evidence, Terms, weigh
from headway.quality.guards.contract import Case, Subject
from headway.quality.metric import Array
from headway.quality.pair import pair
from headway.records import ConfigError, MeasurementError, Setting

SETTINGS: Mapping[str, Setting] = {"severity": 3}
CASE = "corruption"
STRENGTH = "severity"


def refuse(subject: Subject) -> str | None:
    """Why no corruption fits; none when one does."""
    if fitting(subject.kinds):
        return None
    found = "; ".join(f"{name} {kind.why}" for name, kind in subject.kinds.items() if kind.why)
    missing = ", ".join(f"{name} {why}" for name, why in corruptions().missing.items())
    return f"no input is a picture, text or a series ({found or missing})"


def measure(subject: Subject) -> dict[str, Case]:
    """Evidence for every corruption that fits, at one severity (1 to 5).

    Raises:
        ConfigError: the severity is none of 1 to 5.
        MeasurementError: the variant's outputs are not finite under a corruption.
    """
    severity = subject.settings["severity"]
    if severity not in (1, 2, 3, 4, 5):
        raise ConfigError(f"severity must be 1, 2, 3, 4 or 5, got {severity!r}; 3 is usual")
    return {
        name: _case(subject, name, corrupted(subject.dataset.inputs, subject.kinds, name, corruption, int(severity), seed=subject.seed))
        for name, corruption in fitting(subject.kinds).items()
    }


def _case(subject: Subject, name: str, inputs: Mapping[str, Array]) -> Case:
    data, metric = subject.dataset, subject.metric
    both = pair(metric, subject.answer(inputs), subject.parent_answer(inputs), data.labels, len(data))
    if not both.finite.all():
        lost = int((~both.finite).sum())
        raise MeasurementError(f"under {name} outputs must be finite where the parent's are, got NaN or infinity in {lost} rows")

    def weighed(confidence: float) -> Evidence:
        found = weigh(both, np.arange(len(data)), Terms(data.clusters, subject.seed, confidence))
        if found is None:
            raise MeasurementError(f"under {name} metric {metric.name} does not exist on these {len(data)} rows; use more")
        return found

    return weighed
