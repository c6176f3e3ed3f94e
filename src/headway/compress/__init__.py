"""Compression: graph to graph, one technique a file, each step measured.

This room knows graphs and samples. It knows no runtime, no latency and no accuracy: which variant pays is for others to measure.
"""

from headway.compress.catalogue import CLEANING, MENDING, NARROWING_ORDER, get, mending, recipes, refusals, rescaled, techniques, unasked
from headway.compress.context import Context, LabelledRows
from headway.compress.layer_models import LayerQuery, layer_queries
from headway.compress.making import Made, check_order, make

__all__ = [
    "CLEANING",
    "MENDING",
    "NARROWING_ORDER",
    "Context",
    "LabelledRows",
    "LayerQuery",
    "Made",
    "check_order",
    "get",
    "layer_queries",
    "make",
    "mending",
    "recipes",
    "refusals",
    "rescaled",
    "techniques",
    "unasked",
]
