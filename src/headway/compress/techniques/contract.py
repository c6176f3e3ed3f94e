"""What a file in this folder offers. The file name is the technique's name; there is no list to edit.

The module's docstring starts with one line that says what the technique does, and names its source.
``headway.testing.techniques`` is the contract as tests; every file here passes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from onnx import ModelProto

from headway.compress.context import Context
from headway.model import Model
from headway.records import Setting


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers that a setting may take, ends included.

    Attributes:
        low, high: numbers of the type that the setting has.
        whole: whether only whole numbers count.
        when: another setting of the same space and its value, without which this one means nothing and is left out.
    """

    low: float
    high: float
    whole: bool = False
    when: tuple[str, Setting] | None = None

    def holds(self, value: Setting) -> bool:
        """Whether a value lies in it."""
        if isinstance(value, bool | str):
            return False
        return self.low <= value <= self.high and (not self.whole or value == int(value))


Space = Mapping[str, Range | tuple[Setting, ...]]
"""Settings that may be searched, by name: a range, or the values to choose from, the default first."""


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


class Searchable(Technique, Protocol):
    """A technique that also says what lies between its rungs. The offer is optional: without it the rungs are all there is."""

    def space(self, model: Model, context: Context) -> Space:
        """The settings that may be searched; empty exactly when ``refuse`` gives a reason.

        It holds the whole ladder. A rung that leaves a setting out stands at the first value or the low end, and must mean the same
        with it written out. Every combination is a legal ``settings`` for ``apply``, which may still refuse the graph.
        """


class Rescaling(Technique, Protocol):
    """A technique that moves scales between layers before it changes anything. The offer is optional: without it values keep their meaning."""

    def rescaled(self, model: Model, settings: Mapping[str, Setting], context: Context) -> ModelProto | None:
        """The graph with the model's answers, up to float rounding, whose inner values those of ``apply`` are to be compared with; none where these
        settings leave them as they are."""


def placed(space: Space, settings: Mapping[str, Setting]) -> dict[str, Setting] | None:
    """Where settings stand in a space: every setting of the space that counts there, written out; none when they lie outside."""
    if not set(settings) <= set(space):
        return None
    full: dict[str, Setting] = {}
    for name, offer in space.items():
        if isinstance(offer, tuple):
            full[name] = settings.get(name, offer[0])
            if full[name] not in offer:
                return None
    for name, offer in space.items():
        if isinstance(offer, Range):
            if offer.when is None or full.get(offer.when[0]) == offer.when[1]:
                full[name] = settings.get(name, offer.low)
                if not offer.holds(full[name]):
                    return None
            elif name in settings:
                return None
    return full
