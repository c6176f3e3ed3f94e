"""Inputs moved to where the loss is largest: projected gradient ascent (Madry et al., arXiv 1706.06083, section 2.1), largest-element norm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from headway.records import ConfigError, Unsupported
from headway.train.rows import Feeds, Rows
from headway.train.settings import Attack


@dataclass(frozen=True)
class Attacker:
    """An attack fitted to rows: the inputs it moves, each with the range it stays in."""

    attack: Attack
    ranges: Mapping[str, tuple[float, float]]

    @classmethod
    def for_rows(cls, attack: Attack, rows: Rows) -> Attacker:
        """The attack on float inputs of ``rows``.

        Raises:
            ConfigError: there is no float input, or one that is named is none.
        """
        floats = [name for name, array in rows.inputs.items() if array.dtype.kind == "f"]
        wrong = [name for name in attack.inputs if name not in floats]
        if wrong or not floats:
            raise ConfigError(
                f"attack.inputs: must be float inputs ({', '.join(floats) or 'the model has none'}), got {', '.join(wrong) or 'none'}"
            )
        ranges = {}
        for name in attack.inputs or floats:
            array = rows.inputs[name]
            low = float(array.min()) if attack.low is None else attack.low
            ranges[name] = (low, float(array.max()) if attack.high is None else attack.high)
        return cls(attack, ranges)

    def moved(self, feeds: Feeds, loss: Callable[[Feeds], Tensor], generator: torch.Generator) -> Feeds:
        """The inputs after a random start and ``steps`` steps uphill, never farther than ``radius``, never out of range."""
        radius, step = self.attack.radius, self.attack.step or 2.5 * self.attack.radius / self.attack.steps
        moved = dict(feeds)
        for name in self.ranges:
            noise = torch.rand(feeds[name].shape, generator=generator, dtype=feeds[name].dtype) * 2 - 1
            moved[name] = self._inside(name, feeds[name] + radius * noise, feeds[name])
        for _ in range(self.attack.steps):
            held = {name: moved[name].detach().requires_grad_(True) for name in self.ranges}
            height = loss({**moved, **held})
            if not height.requires_grad:
                raise Unsupported(
                    f"attack: the outputs must depend on {', '.join(held)} through float arithmetic, but no gradient comes back; leave it out"
                )
            uphill = torch.autograd.grad(height, list(held.values()), materialize_grads=True)
            for (name, value), slope in zip(held.items(), uphill, strict=True):
                moved[name] = self._inside(name, value.detach() + step * slope.sign(), feeds[name])
        return moved

    def _inside(self, name: str, value: Tensor, centre: Tensor) -> Tensor:
        low, high = self.ranges[name]
        return value.clamp(centre - self.attack.radius, centre + self.attack.radius).clamp(low, high)
