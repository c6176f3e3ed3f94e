"""The hill climbing of Triton Model Analyzer's quick search, written anew from its documentation and source, to be played on recorded figures.

Source: docs/config_search.md ("Quick Search Mode") and model_analyzer/config/generate (quick_run_config_generator, neighborhood, search_dimension) of
triton-inference-server/model_analyzer at 63a0fec. A coordinate is (i, j): max_batch_size 2^i and instance count j + 1, from (0, 0), unbounded above; values
beyond the limits given are clamped, as its ``run_config_search_max_*`` options do. Constants as there: radius 3, three neighbours before a step, steps by
the relative gain (above 0.09, 0.3 and 1.0: one, two and three cells).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

RADIUS = 3
FEWEST = 3
BOUNDS = (0.09, 0.3, 1.0)
MOST_VISITS = 2
Cell = tuple[int, int]
Measure = Callable[[int, int], float]
"""``measure(max_batch, instances)``: throughput within the constraint [1/s]; 0 when the constraint fails."""


@dataclass
class Climb:
    """One search: what it measured, in order, and what it would report.

    Attributes:
        measured: by (max_batch, instances); what is measured twice costs once.
    """

    measure: Measure
    most_batch: int
    most_instances: int
    measured: dict[tuple[int, int], float] = field(default_factory=dict)
    _cells: dict[Cell, float] = field(default_factory=dict)
    _visits: dict[Cell, int] = field(default_factory=dict)

    def run(self) -> tuple[int, int]:
        """The best (max_batch, instances) found; the search ends when a step leads nowhere, or twice to one place."""
        home: Cell = (0, 0)
        target, slow, passed = home, False, False
        while True:
            rate = self._look(target)
            passed = passed or (target == home and rate > 0)
            if target == home and rate <= 0 and passed:
                new = min(self._around(home), key=lambda cell: _distance(cell, self._best()))
                done, home, slow = new == home, new, True
                self._visits[home] = self._visits.get(home, 0) + 1
                target = home
            elif self._enough(home, slow):
                new = self._step(home, slow)
                done = new == home or self._visits.get(new, 0) >= MOST_VISITS
                home, slow = new, False
                self._visits[home] = self._visits.get(home, 0) + 1
                target = home
            else:
                following = self._unseen(home, slow)
                done, target = following is None, following or target
            if done:
                return max(self.measured, key=lambda values: self.measured[values])

    def _look(self, cell: Cell) -> float:
        values = (min(2 ** cell[0], self.most_batch), min(cell[1] + 1, self.most_instances))
        if values not in self.measured:
            self.measured[values] = self.measure(*values)
        self._cells[cell] = self.measured[values]
        return self._cells[cell]

    def _best(self) -> Cell:
        return max(self._cells, key=lambda cell: self._cells[cell])

    def _seen(self, home: Cell) -> list[Cell]:
        return [cell for cell in self._around(home) if cell != home and cell in self._cells]

    def _is_slow(self, home: Cell, forced: bool) -> bool:
        """Near the edge of the constraint, where some around hold it and some do not, every direct neighbour is looked at."""
        if forced or home not in self._cells:
            return forced
        holding = [self._cells[cell] > 0 for cell in self._seen(home)]
        return not all(holding) if self._cells[home] > 0 else any(holding)

    def _enough(self, home: Cell, forced: bool) -> bool:
        if self._is_slow(home, forced):
            return all(cell in self._cells for cell in _beside(home))
        return len(self._seen(home)) >= FEWEST

    def _unseen(self, home: Cell, forced: bool) -> Cell | None:
        """What to look at next: a direct neighbour, or the cell in reach with most values that no cell seen shares."""
        if self._is_slow(home, forced):
            return next((cell for cell in _beside(home) if cell not in self._cells), None)
        seen = self._seen(home)
        fresh = [cell for cell in self._around(home) if cell not in self._cells]
        return max(fresh, key=lambda cell: sum(all(cell[axis] != other[axis] for other in seen) for axis in (0, 1)), default=None)

    def _step(self, home: Cell, forced: bool) -> Cell:
        """The best seen around the home when slow; else along the mean relative gain of each axis."""
        if self._is_slow(home, forced):
            holding = [cell for cell in (home, *self._seen(home)) if self._cells[cell] > 0]
            return max(holding, key=lambda cell: self._cells[cell], default=home)
        here = self._cells[home]
        moves = []
        for axis in (0, 1):
            gain, weight = 0.0, 0
            for cell in self._seen(home):
                offset = cell[axis] - home[axis]
                if offset:
                    gain += (1 if offset > 0 else -1) * _gain(here, self._cells[cell])
                    weight += abs(offset)
            moves.append(_cells(gain / weight if weight else 0.0))
        return max(0, home[0] + moves[0]), max(0, home[1] + moves[1])

    @staticmethod
    def _around(home: Cell) -> list[Cell]:
        """All cells within the radius, those of small steps along the first axis first."""
        found = []
        for i in range(RADIUS + 1):
            for j in range(RADIUS + 1):
                if i * i + j * j <= RADIUS**2:
                    found += [(home[0] + a, home[1] + b) for a in dict.fromkeys((i, -i)) for b in dict.fromkeys((j, -j))]
        return [cell for cell in found if min(cell) >= 0]


def _beside(home: Cell) -> list[Cell]:
    near = [(home[0] - 1, home[1]), (home[0] + 1, home[1]), (home[0], home[1] - 1), (home[0], home[1] + 1)]
    return [cell for cell in near if min(cell) >= 0]


def _distance(one: Cell, other: Cell) -> float:
    return ((one[0] - other[0]) ** 2 + (one[1] - other[1]) ** 2) ** 0.5


def _gain(here: float, there: float) -> float:
    """Their difference in units of their mean."""
    return 2 * (there - here) / (there + here) if there + here > 0 else 0.0


def _cells(gain: float) -> int:
    return (1 if gain > 0 else -1) * sum(abs(gain) > bound for bound in BOUNDS)
