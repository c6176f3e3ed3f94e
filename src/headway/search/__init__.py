"""Which plans deserve measuring; measurements to a frontier and a choice with reasons.

This room decides and never measures: everything here is a pure function of records, so a choice can be replayed from a run's file.
"""

from headway.search.choose import choose, nearest, order, shortfall
from headway.search.evidence import NAIVE, Evidence, gather
from headway.search.frontier import frontier
from headway.search.plans import batch_sizes, plans_for, splits
from headway.search.shortlist import MARGIN, shortlist

__all__ = [
    "MARGIN",
    "NAIVE",
    "Evidence",
    "batch_sizes",
    "choose",
    "frontier",
    "gather",
    "nearest",
    "order",
    "plans_for",
    "shortfall",
    "shortlist",
    "splits",
]
