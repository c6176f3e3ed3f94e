"""The decision what to run next, as pure functions, and the one batcher around them.

This room knows items, rows and times. It is given a ``run`` callable, so it knows no runtime, no socket and no model.
"""

from headway.batching.batcher import Batcher, BatchTimes, QueueFull
from headway.batching.policy import Take, take

__all__ = ["BatchTimes", "Batcher", "QueueFull", "Take", "take"]
