"""Labels of channels: two channels that must go together have one label in the end (union-find, whole arrays at a time)."""

from __future__ import annotations

import numpy as np


class Labels:
    """Channels numbered from 0; ``unite`` couples them, ``pin`` forbids cutting them. -1 is a channel that never had a label."""

    def __init__(self) -> None:
        self._parents: list[int] = []
        self.sources: list[int] = []
        self.reasons: dict[int, str] = {}

    def new(self, count: int, source: int) -> np.ndarray:
        """Labels of ``count`` new channels that one layer makes."""
        first = len(self._parents)
        self._parents.extend(range(first, first + count))
        self.sources.extend([source] * count)
        return np.arange(first, first + count, dtype=np.int64)

    def root(self, label: int) -> int:
        """The label that stands for all coupled to this one."""
        while self._parents[label] != label:
            self._parents[label] = self._parents[self._parents[label]]
            label = self._parents[label]
        return label

    def roots(self, labels: np.ndarray) -> np.ndarray:
        """The standing label of each; -1 where there is none or where it is pinned."""
        found = [self.root(int(label)) if label >= 0 else -1 for label in labels.ravel()]
        return np.array([-1 if root in self.reasons else root for root in found], np.int64).reshape(labels.shape)

    def unite(self, left: np.ndarray, right: np.ndarray, why: str) -> None:
        """Couple two equally long rows of channels, one by one; a channel without a label pins its partner."""
        for one, other in zip(left.tolist(), right.tolist(), strict=True):
            if one < 0 or other < 0:
                self._pin(max(one, other), why)
                continue
            a, b = self.root(one), self.root(other)
            if a != b:
                low, high = min(a, b), max(a, b)
                self._parents[high] = low
                if high in self.reasons:
                    self.reasons.setdefault(low, self.reasons.pop(high))

    def pin(self, labels: np.ndarray, why: str) -> None:
        """Forbid cutting these channels; ``why`` names the node."""
        for label in labels.ravel().tolist():
            self._pin(label, why)

    def _pin(self, label: int, why: str) -> None:
        if label >= 0:
            self.reasons.setdefault(self.root(label), why)

    def __len__(self) -> int:
        return len(self._parents)
