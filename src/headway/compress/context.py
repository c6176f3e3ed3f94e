"""What a technique may look at besides the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from headway.model import Model
from headway.records import LatencyTable


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """Rows to train on or to judge by; labels are none when nobody gave any.

    Attributes:
        inputs: one array per model input, first axis is the row.
        labels: of the first output, or one array an output; first axis is the row.
    """

    inputs: Mapping[str, np.ndarray]
    labels: np.ndarray | Mapping[str, np.ndarray] | None = None

    def __len__(self) -> int:
        return min((len(array) for array in self.inputs.values()), default=0)


@dataclass(frozen=True, eq=False)
class Context:
    """Calibration samples, the target's instruction sets, and the seed. Two contexts are equal only when they are the same object.

    Attributes:
        samples: one array per model input, first axis is the sample; only the calibration part of the data. May be empty.
        instruction_sets: as in ``Environment`` (``avx512_vnni``, ``amx_int8``, ``avx512_bf16``, ``asimddp``...).
        seed: every random choice starts here.
        train: rows to learn from; none: no technique may train.
        selection: rows that tell when to stop learning; never the report part.
        parent: the teacher: the model that the recipe started from, which ``make`` fills in; or the model whose student that one is.
        latency: measured times of single layers on the runtime that will serve; none: techniques count multiply-adds,
            and refuse a setting that asks for time.
    """

    samples: Mapping[str, np.ndarray] = field(default_factory=dict)
    instruction_sets: frozenset[str] = frozenset()
    seed: int = 0
    train: LabelledRows | None = None
    selection: LabelledRows | None = None
    parent: Model | None = None
    latency: LatencyTable | None = None

    @property
    def rows(self) -> int:
        """Number of samples."""
        return min((len(array) for array in self.samples.values()), default=0)
