"""Randomness that repeats and stays inside, and weights on disk: what the demos that train share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from headway.demo import store


@contextmanager
def seeded(seed: int) -> Iterator[torch.Generator]:
    """PyTorch's own randomness set to ``seed`` and restored afterwards, and a generator of the same seed on top."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield torch.Generator().manual_seed(seed)


def save(model: nn.Module, path: Path) -> None:
    """The weights at ``path``, whole or not at all."""
    store.kept(path, lambda file: torch.save(model.state_dict(), file))


def restore(model: nn.Module, path: Path) -> nn.Module:
    """The model with the weights of ``path``, in evaluation mode."""
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model.eval()
