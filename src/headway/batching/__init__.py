"""The decision what to run next, as pure functions, and the one batcher around them.

This room knows items, rows and times. It is given a ``run`` callable, so it knows no runtime, no socket and no model.
"""

from headway.batching.batcher import Batcher, BatchTimes, Late, QueueFull
from headway.batching.overload import Demand, Spare
from headway.batching.pace import Pace
from headway.batching.pacing import measure_pace
from headway.batching.policy import Fit, Take, alike, batch_within, calm, capacity_per_s, done_by_s, finish_s, fit, level, overloaded, take

__all__ = [
    "BatchTimes", "Batcher", "Demand", "Fit", "Late", "Pace", "QueueFull", "Spare", "Take", "alike", "batch_within", "calm", "capacity_per_s",
    "done_by_s", "finish_s", "fit", "level", "measure_pace", "overloaded", "take",
]  # fmt: skip
