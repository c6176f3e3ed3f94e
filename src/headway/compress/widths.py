"""Which units to cut so that the layers cost a share of what they cost now: a knapsack over the widths of all families."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from headway.compress.coupling import Coupling, Family
from headway.compress.knapsack import Option, choose
from headway.compress.layer_costs import Costs

SWEEPS = 8
BLOCK, WIDE = 16, 64
"""Measured time falls in steps of a kernel's block: wide families are cut to multiples of the widest in use, 16 floats of AVX-512."""


def counts(family: Family, round_to: int, floor: float) -> tuple[int, ...]:
    """How many units may stay, falling: all, then multiples of ``round_to`` channels where the family is wide enough, down to a share ``floor``."""
    whole = len(family.units)
    step = max(round_to // family.width, 1)
    step = step if whole >= 3 * step else max(whole // 8, 1)
    least = max(math.ceil(floor * whole), 1)
    return (whole, *(count for count in range((whole - 1) // step * step, 0, -step) if count >= least))


def uniform(coupling: Coupling, scores: Mapping[int, float], keep: float, round_to: int, floor: float) -> set[int]:
    """The same share of every family, such that the product of two widths is about ``keep``."""
    gone: set[int] = set()
    for family in coupling.families:
        wanted = math.sqrt(keep) * len(family.units)
        gone |= _least(family, scores, min(counts(family, round_to, floor), key=lambda count: (abs(count - wanted), -count)))
    return _alive(coupling, scores, gone)


def budgeted(coupling: Coupling, costs: Costs, scores: Mapping[int, float], keep: float, round_to: int, floor: float) -> set[int]:
    """The units of least loss whose absence brings the cost down to ``keep`` of the whole.

    Two families that meet in a layer save less together than each alone; so the knapsack is solved again from where it stands until the
    true cost is within the budget, or nothing more may go.
    """
    budget = keep * costs.total(set())
    gone: set[int] = set()
    for _ in range(SWEEPS):
        now = costs.total(gone)
        if now <= budget * (1 + 1e-9):
            break
        chosen = _sweep(coupling, costs, scores, gone, now - budget, round_to, floor)
        if chosen == gone:
            break
        gone = chosen
    return _alive(coupling, scores, gone)


def _sweep(
    coupling: Coupling, costs: Costs, scores: Mapping[int, float], gone: set[int], excess: float, round_to: int, floor: float
) -> set[int]:
    items, sets = [], []
    for family in coupling.families:
        lost = gone & set(family.units)
        layers = costs.touching(family.units)
        wide = costs.unit == "s" and len(family.units) * family.width > WIDE
        multiple = max(round_to, BLOCK) if wide else round_to
        options, ways = [], []
        for count in counts(family, multiple, floor):
            if count > len(family.units) - len(lost):
                continue
            way = _least(family, scores, count)
            options.append(Option(sum(costs.layer(e, gone | way) for e in layers), sum(scores[unit] for unit in way)))
            ways.append(way)
        if not options:
            options, ways = [Option(sum(costs.layer(e, gone) for e in layers), 0.0)], [lost]
        items.append(options)
        sets.append(ways)
    start = sum(options[0].cost for options in items)
    picked = choose(items, start - excess)
    return set().union(gone, *(ways[index] for ways, index in zip(sets, picked, strict=True)))


def _least(family: Family, scores: Mapping[int, float], count: int) -> set[int]:
    order = sorted(family.units, key=lambda unit: (scores[unit], unit))
    return set(order[: len(order) - count])


def _alive(coupling: Coupling, scores: Mapping[int, float], gone: set[int]) -> set[int]:
    """Give back the most important channel of every row that would be empty."""
    for row in coupling.rows:
        if gone and np.isin(row, np.fromiter(gone, np.int64)).all():
            gone = gone - {max(row.tolist(), key=lambda unit: (scores[unit], unit))}
    return gone
