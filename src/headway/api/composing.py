"""From single steps to recipes: what failed is mended by training, what survived is put together.

A reducing step (fewer channels, blocks, ranks) and a narrowing one (fewer bits) save different things, so they are combined; but only
those that kept the quality bound alone, or once mended, since together they cost at least as much. This keeps the number of variants
near the sum of the ladders and not their product.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from headway.compress import MENDING, NARROWING_ORDER, get
from headway.records import Step, Variant

Recipe = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Tried:
    """One recipe and what came of it.

    Attributes:
        variant: none when a technique refused, or the graph was there already.
        alive: on how many runtimes it keeps the quality bound.
        agreement: share of rows with the parent's answer, on the runtime where it is highest; 0 when never scored.
    """

    recipe: Recipe
    variant: Variant | None
    alive: int
    agreement: float

    @property
    def steps(self) -> Recipe:
        """The steps that may change answers."""
        return tuple(step for step in self.recipe if get(step.technique).HARSHNESS > 0)


Attempt = Callable[[Recipe], Tried]
Climb = Generator[Sequence[Recipe], Sequence[Tried], list[Tried]]
"""Yields recipes to be tried, is sent what came of them, and gives all that it tried at its end. Several do not depend on each other."""


def explore(singles: Sequence[Recipe], step: Step | None, attempt: Attempt) -> list[Tried]:
    """Every single step worth trying, mended by ``step`` where that is needed and can be.

    Of a reducing technique the rungs from mild to harsh, each trained when it breaks the quality bound, up to the first that stays
    broken. Of a narrowing one every rung (they differ in kind, not only in strength), and when none is alive the one nearest to the parent, trained.

    One rung of each technique goes first, the harshest of a narrowing one, the mildest of a reducing one: where time is short, one of each kind
    has been seen, and what is fastest if it holds.
    """
    once = _remembering(attempt)
    for recipe in firsts(singles):
        once(recipe)
    return [one for climb in climbs(singles, step) for one in followed(climb, once)]


def firsts(singles: Sequence[Recipe]) -> list[Recipe]:
    """One rung of each technique."""
    return [rungs[0] if reduces(name) else rungs[-1] for name, rungs in _ladders(singles).items() if "+" not in name]


def climbs(singles: Sequence[Recipe], step: Step | None) -> list[Climb]:
    """How each technique's rungs are tried."""
    return [
        _climb(rungs, step) if "+" not in name and reduces(name) else _all(rungs, step if "+" not in name else None)
        for name, rungs in _ladders(singles).items()
    ]


def _ladders(singles: Sequence[Recipe]) -> dict[str, list[Recipe]]:
    """Rungs by technique."""
    ladders: dict[str, list[Recipe]] = {}
    for recipe in singles:
        own = [one.technique for one in recipe if get(one.technique).HARSHNESS > 0]
        ladders.setdefault("+".join(own), []).append(recipe)
    return ladders


def followed(climb: Climb, attempt: Attempt) -> list[Tried]:
    """All that a climb tried, each recipe attempted when it is asked for."""
    try:
        wanted = next(climb)
        while True:
            wanted = climb.send([attempt(recipe) for recipe in wanted])
    except StopIteration as end:
        return list(end.value)


def _remembering(attempt: Attempt) -> Attempt:
    """The same, each recipe once."""
    known: dict[str, Tried] = {}

    def once(recipe: Recipe) -> Tried:
        name = "+".join(map(str, recipe))
        if name not in known:
            known[name] = attempt(recipe)
        return known[name]

    return once


def _climb(rungs: Sequence[Recipe], step: Step | None) -> Climb:
    tried: list[Tried] = []
    for recipe in rungs:
        tried += yield [recipe]
        if step is not None and tried[-1].variant is not None and not tried[-1].alive:
            tried += yield [(*recipe, step)]
        if not tried[-1].alive:
            break
    return tried


def _all(rungs: Sequence[Recipe], step: Step | None) -> Climb:
    tried = list((yield rungs))
    made = [one for one in tried if one.variant is not None]
    if step is not None and made and not any(one.alive for one in made):
        tried += yield [(*max(made, key=lambda one: one.agreement).recipe, step)]
    return tried


def compose(tried: Sequence[Tried], step: Step | None, attempt: Attempt) -> list[Tried]:
    """The smallest survivor of each reducing technique, narrowed in each way that survived alone; mended where that is needed and can be."""
    return [one for climb in compositions(tried, step) for one in followed(climb, attempt)]


def compositions(tried: Sequence[Tried], step: Step | None) -> list[Climb]:
    """How each of those pairs is tried."""
    bases = [min(rungs, key=lambda rung: rung.variant.flop if rung.variant else 0) for rungs in _survivors(tried, reducing=True)]
    narrowings: list[Recipe] = []
    for rungs in _survivors(tried, reducing=False):
        nearest, harshest = max(rungs, key=lambda rung: rung.agreement).steps, rungs[-1].steps
        narrowings += [nearest] if nearest == harshest else [nearest, harshest]
    return [_mended((*base.recipe, *narrowing), step) for base in bases for narrowing in narrowings]


def _mended(recipe: Recipe, step: Step | None) -> Climb:
    tried = list((yield [recipe]))
    if step is not None and tried[-1].variant is not None and not tried[-1].alive:
        tried += yield [(*recipe, step)]
    return tried


def _survivors(tried: Sequence[Tried], *, reducing: bool) -> list[list[Tried]]:
    """Living recipes of one technique (mended or not), by technique."""
    found = {name: [rung for rung in rungs if rung.alive] for name, rungs in _by_technique(tried).items() if reduces(name) == reducing}
    return [rungs for rungs in found.values() if rungs]


def _by_technique(tried: Sequence[Tried]) -> dict[str, list[Tried]]:
    """Recipes of one technique, mended or not, by its name, in the order in which they were tried."""
    found: dict[str, list[Tried]] = {}
    for one in tried:
        own = [step.technique for step in one.steps if step.technique != MENDING]
        if len(own) == 1:
            found.setdefault(own[0], []).append(one)
    return found


def reduces(technique: str) -> bool:
    """Whether it makes the graph smaller."""
    return get(technique).ORDER is not None and not narrows(technique)


def narrows(technique: str) -> bool:
    """Whether it leaves the graph's size and makes its numbers narrower."""
    return (get(technique).ORDER or 0) >= NARROWING_ORDER
