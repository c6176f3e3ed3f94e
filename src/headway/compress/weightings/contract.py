"""What a file in this folder must hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from onnx import ModelProto

from headway.compress.context import Context
from headway.compress.factors import Target


class Weighting(Protocol):
    """How much an error in each input of a layer matters."""

    def moments(self, proto: ModelProto, found: Sequence[Target], context: Context) -> dict[str, np.ndarray]:
        """A positive semidefinite matrix [inputs, inputs] by the name of a target's first node, in the place of the inputs' second moment."""
