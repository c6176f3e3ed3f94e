"""Recover accuracy by training a graph: on labels, on what the model was before, or on both.

This room knows rows, losses and time. It does not know where rows come from, which technique did the damage, nor how quality is judged
in the end. Everything here works on lifted graphs, so quantization-aware training, distillation into a student and training after
pruning are the same function.
"""

from headway.train.history import Epoch, OutputScore, Progress
from headway.train.matching import matching_values
from headway.train.recovering import Recovered, distil, recover
from headway.train.settings import Attack, Distillation, FeaturePair, Schedule, Settings, Tasks
from headway.train.synthetic import Synthetic, synthetic_rows

__all__ = [
    "Attack",
    "Distillation",
    "Epoch",
    "FeaturePair",
    "OutputScore",
    "Progress",
    "Recovered",
    "Schedule",
    "Settings",
    "Synthetic",
    "Tasks",
    "distil",
    "matching_values",
    "recover",
    "synthetic_rows",
]
