"""One option per item within a budget, at the least loss: the multiple-choice knapsack that latency pruning solves.

HALP (Shen et al., arXiv 2110.10811, sec. 3) spends a latency budget over layers the same way. An option is any (cost, loss): a width, a rank or
a precision of a layer can stand side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headway.records import ConfigError

STATES = 4000


@dataclass(frozen=True)
class Option:
    """One way to build an item: what it costs (any unit) and what it loses."""

    cost: float
    loss: float


def choose(items: Sequence[Sequence[Option]], budget: float, *, states: int = STATES) -> tuple[int, ...]:
    """The position of the chosen option of each item.

    The sum of costs is at most ``budget`` and the sum of losses is the least possible, exactly while no more than ``states`` partial
    answers are worth keeping; beyond that one answer is kept per ``budget / states`` of cost, and the budget still holds. When nothing
    fits, the cheapest options are returned.

    Raises:
        ConfigError: an item has no option.
    """
    if any(not options for options in items):
        raise ConfigError("every item must have an option, got one without")
    cheapest = tuple(min(range(len(options)), key=lambda i: (options[i].cost, options[i].loss)) for options in items)
    rest = [0.0] * (len(items) + 1)
    for index in range(len(items) - 1, -1, -1):
        rest[index] = rest[index + 1] + items[index][cheapest[index]].cost
    slack = 1e-9 * max(abs(budget), 1.0)
    front: list[tuple[float, float, tuple[int, ...]]] = [(0.0, 0.0, ())]
    for index, options in enumerate(items):
        grown = [
            (cost + option.cost, loss + option.loss, (*chosen, position))
            for cost, loss, chosen in front
            for position, option in enumerate(options)
            if cost + option.cost + rest[index + 1] <= budget + slack
        ]
        if not grown:
            return cheapest
        front = _thinned(_undominated(grown), budget, states)
    return min(front, key=lambda state: (state[1], state[0]))[2]


def _undominated(states: list[tuple[float, float, tuple[int, ...]]]) -> list[tuple[float, float, tuple[int, ...]]]:
    kept: list[tuple[float, float, tuple[int, ...]]] = []
    for state in sorted(states):
        if not kept or state[1] < kept[-1][1]:
            kept.append(state)
    return kept


def _thinned(front: list[tuple[float, float, tuple[int, ...]]], budget: float, states: int) -> list[tuple[float, float, tuple[int, ...]]]:
    """One state, that of least loss, in each of ``states`` equal ranges of cost; the cheapest state always stays."""
    if len(front) <= states:
        return front
    ranges = {int(state[0] / budget * states) if budget else 0: state for state in front[1:]}
    return [front[0], *ranges.values()]
