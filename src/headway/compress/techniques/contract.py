"""What a file in this folder offers. The file name is the technique's name; there is no list to edit.

The module's docstring starts with one line that says what the technique does, and names its source.
``headway.testing.techniques`` is the contract as tests; every file here passes it.
"""

from __future__ import annotations

from typing import Protocol

from headway.compress.context import Context
from headway.model import Model
from headway.records import Setting


class Technique(Protocol):
    """A pure function from graph to graph, with its ladder of settings.

    Attributes:
        ORDER: steps of a recipe come in rising order; two techniques of one order exclude each other. None for a technique that mends
            what the step before it cost (``recover``): it may stand anywhere, more than once in a recipe, but not twice in a row.
        HARSHNESS: how much of the answers a step may cost, to list mild recipes first: 0 none, 1 rounding to 16-bit floats,
            2 8-bit weights with activations measured as they come, 3 8-bit everything, higher for what removes weights; 9 for what makes nothing faster and is tried only when asked for.
        FOLLOWS: names of the techniques it may be combined with, besides ``fold``, in recipes that are offered unasked.
    """

    ORDER: int | None
    HARSHNESS: int
    FOLLOWS: tuple[str, ...]

    def ladder(self, model: Model, context: Context) -> tuple[dict[str, Setting], ...]:
        """Settings to try, mild to harsh; empty exactly when ``refuse`` gives a reason."""

    def refuse(self, model: Model, context: Context) -> str | None:
        """Why the technique cannot work or cannot pay on this model here, in one sentence; none when it can."""

    def apply(self, model: Model, settings: dict[str, Setting], context: Context) -> Model:
        """A new model; the given one is untouched. Same arguments, same bytes. Missing settings take their defaults.

        Raises:
            ConfigError: a setting is not known or out of range.
            Unsupported: the graph cannot be changed; the sentence names the node.
        """
