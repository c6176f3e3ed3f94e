"""Compression: graph to graph, one technique a file, each step measured.

This room knows graphs and samples. It knows no runtime, no latency and no accuracy: which variant pays is for others to measure.
"""

from headway.compress.catalogue import get, recipes, refusals, techniques
from headway.compress.context import Context
from headway.compress.making import Made, check_order, make

__all__ = ["Context", "Made", "check_order", "get", "make", "recipes", "refusals", "techniques"]
