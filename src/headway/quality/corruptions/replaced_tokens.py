"""Tokens replaced by others: wrong words. Strength: the share of tokens inside a row that are replaced."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from headway.quality.corruptions.contract import Text

KIND = "tokens"
SEVERITIES = (0.05, 0.1, 0.15, 0.2, 0.3)


def corrupt(text: Text, strength: float, generator: np.random.Generator) -> Text:
    """Each free token replaced with this chance by one drawn from all tokens seen; first and last token of a row stay."""
    hit = text.free & (generator.random(text.ids.shape) < strength)
    drawn = generator.choice(text.pool, size=text.ids.shape).astype(text.ids.dtype)
    return replace(text, ids=np.where(hit, drawn, text.ids))
