"""What a file in this folder offers. The file name is the importance's name; there is no list to edit."""

from __future__ import annotations

from typing import Protocol

from headway.compress.context import Context
from headway.compress.coupling import Coupling


class Importance(Protocol):
    """Scores units: what is lost when a unit goes.

    Attributes:
        NEEDS_SAMPLES: whether the context must hold calibration samples.
    """

    NEEDS_SAMPLES: bool

    def score(self, coupling: Coupling, context: Context) -> dict[int, float]:
        """Units to a loss of at least 0; the higher the more is lost. The losses of several units are added."""
