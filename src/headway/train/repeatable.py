"""The same run twice gives the same bits: seeds, and kernels whose sums keep their order.

On one machine with one number of threads; another number may split sums elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from headway.model import Model
from headway.train.rows import Rows
from headway.train.settings import Settings


@contextmanager
def repeatable(seed: int) -> Iterator[torch.Generator]:
    """A generator of this seed; PyTorch's own randomness is seeded too, and everything is as before afterwards."""
    before = torch.are_deterministic_algorithms_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False
        try:
            yield torch.Generator().manual_seed(seed)
        finally:
            torch.use_deterministic_algorithms(before)
            torch.utils.deterministic.fill_uninitialized_memory = fill


def fingerprint(models: Sequence[Model], parts: Sequence[Rows | None], settings: Settings) -> str:
    """SHA-256 (hex) of all that decides the outcome; the wall time cap does not count."""
    digest = hashlib.sha256(torch.__version__.encode())
    for model in models:
        digest.update(model.digest.encode())
    for rows in parts:
        for name, array in () if rows is None else (*sorted(rows.inputs.items()), *sorted(rows.labels.items())):
            digest.update(f"{name}{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
        digest.update(b"|")
    digest.update(repr(replace(settings, schedule=replace(settings.schedule, limit_s=0.0))).encode())
    return digest.hexdigest()
