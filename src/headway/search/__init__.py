"""Which plans deserve measuring; measurements to a frontier and a choice with reasons.

This room decides and never measures: everything here is a pure function of records, so a choice can be replayed from a run's file.
"""

from headway.search.choose import choose, nearest, order
from headway.search.evidence import NAIVE, Evidence, gather
from headway.search.frontier import frontier
from headway.search.halving import MOST_RUNS, SHORTEST_S, Ends, Halving, Offer
from headway.search.margin import MARGIN, indistinct, margin, noise_warning
from headway.search.plans import batch_sizes, plans_for, splits
from headway.search.shortfall import shortfall
from headway.search.shortlist import shortlist

__all__ = [
    "MARGIN",
    "MOST_RUNS",
    "NAIVE",
    "SHORTEST_S",
    "Ends",
    "Evidence",
    "Halving",
    "Offer",
    "batch_sizes",
    "choose",
    "frontier",
    "gather",
    "indistinct",
    "margin",
    "nearest",
    "noise_warning",
    "order",
    "plans_for",
    "shortfall",
    "shortlist",
    "splits",
]
