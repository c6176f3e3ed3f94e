"""Tokens left out: missing words. Strength: the share of tokens inside a row that are dropped."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from headway.quality.corruptions.contract import Text

KIND = "tokens"
SEVERITIES = (0.05, 0.1, 0.15, 0.2, 0.3)


def corrupt(text: Text, strength: float, generator: np.random.Generator) -> Text:
    """Each free token dropped with this chance; what follows moves up, and the end is filled. First and last token of a row stay."""
    kept = text.inside & ~(text.free & (generator.random(text.ids.shape) < strength))
    order = np.argsort(~kept, axis=1, kind="stable")
    inside = np.take_along_axis(kept, order, axis=1)
    ids = np.where(inside, np.take_along_axis(text.ids, order, axis=1), text.filling).astype(text.ids.dtype)
    return replace(text, ids=ids, inside=inside)
