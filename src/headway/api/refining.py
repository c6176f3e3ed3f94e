"""Between the rungs: settings of whole recipes, asked for one by one from what was measured so far, up to a number or the budget's share.

The ladders and their compositions are the first findings; ``headway.search.settings`` says what to try next. Recipes of the techniques that
kept the quality bound are searched, and of reducing and narrowing ones together; what training costs counts in the budget like anything else.
Everything told is a record, so a resumed or replayed run asks for the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from headway.api.composing import Attempt, Recipe, Tried, narrows, reduces
from headway.api.curves import asked_before, curve_of
from headway.api.prepare import Prepared, Source
from headway.api.run import Run
from headway.api.variants import Scored, variant_name
from headway.compress import CLEANING, MENDING
from headway.compress.catalogue import spaces
from headway.compress.techniques.contract import Space, placed
from headway.records import Failure, Quality, Step, Variant
from headway.search import splits
from headway.search.settings import Finding, SettingsSearch, identity, open_settings

REFINING_TRIALS = 12
"""Settings tried over all sources when no budget bounds the run."""
NOTHING_NEW = Finding((), rate_per_s=0.0, drop=1.0, excess=1.0)
"""What is told of settings that a technique refused, or whose graph was there already: so far out of bounds that its like is not asked for."""
LEAST_EXCESS = 1e-6


@dataclass(frozen=True, slots=True)
class Explored:
    """One source after its ladders.

    Attributes:
        tried: every recipe of the ladders and their compositions, in order.
        alive: what keeps the quality bound, on each runtime; every attempt adds to it.
        lesson: the training step that may mend a recipe; none without rows to learn from.
    """

    prepared: Prepared
    source: Source
    tried: tuple[Tried, ...]
    alive: list[Scored]
    attempt: Attempt
    lesson: Step | None


@dataclass(frozen=True, slots=True)
class _Search:
    of: Explored
    start: Recipe
    settings: SettingsSearch
    found: list[Finding]


def refine(run: Run, explored: Sequence[Explored]) -> None:
    """Tries settings between the rungs, the sources in turn; what keeps the quality bound joins ``alive`` of its source."""
    waiting = deque(begun for one in explored if (begun := _begin(run, one)) is not None)
    tried = 0
    while waiting and (run.config.budget_s is not None or tried < REFINING_TRIALS):
        one = waiting.popleft()
        steps = one.settings.ask(one.found)
        if steps is None:
            continue
        if not _may(run, one, (*one.start, *steps)):
            run.leave_out("refinements", f"further settings on {one.of.source.name}")
            continue
        one.found.append(_try(run, one, steps))
        tried += 1
        waiting.append(one)


def _begin(run: Run, explored: Explored) -> _Search | None:
    """A search that knows what the ladders gave; none when nothing survived that leaves something to set, or no time is left."""
    structures = _structures(explored.tried)
    if not structures:
        return None
    offered = _spaces(explored, {name for structure in structures for name in structure})
    structures = tuple(structure for structure in structures if any(open_settings(offered[name]) for name in structure))
    if not structures:
        return None
    search = _Search(explored, _start(explored.tried), SettingsSearch(structures, offered, run.config.seed), [])
    best: dict[object, Finding] = {}
    for one in explored.tried:
        if run.spent("compress") or (run.concluded("compress") and not _timed(run, explored, one)):
            run.leave_out("refinements", f"further settings on {explored.source.name}")
            return None
        steps = _placed(one, offered)
        if steps is not None:
            finding = _finding(run, search, steps, one)
            key = identity(steps)
            best[key] = _better(best[key], finding) if key in best else finding
    search.found.extend(best.values())
    return search


def _structures(tried: Iterable[Tried]) -> tuple[tuple[str, ...], ...]:
    """Techniques of the recipes that live, and each reducing one with each narrowing one of those that live alone."""
    living = tuple(dict.fromkeys(_techniques(one) for one in tried if one.alive))
    alone = [names[0] for names in living if len(names) == 1]
    pairs = [(reducing, narrowing) for reducing in filter(reduces, alone) for narrowing in filter(narrows, alone)]
    return tuple(dict.fromkeys((*living, *pairs)))


def _techniques(one: Tried) -> tuple[str, ...]:
    return tuple(step.technique for step in one.steps if step.technique != MENDING)


def _start(tried: Sequence[Tried]) -> Recipe:
    return tuple(step for step in tried[0].recipe if step.technique == CLEANING)


def _spaces(explored: Explored, names: Iterable[str]) -> dict[str, Space]:
    """What each technique offers to search; of one that offers nothing, its living rungs are the choice."""
    wanted = sorted(names)
    context = explored.prepared.contexts[explored.source.name]
    cleaned = [CLEANING] if _start(explored.tried) else []
    offered = spaces(explored.source.model, context, [*cleaned, *wanted])
    return {name: offered[name] if name in offered else _rungs(explored.tried, name) for name in wanted}


def _rungs(tried: Iterable[Tried], name: str) -> Space:
    living = [step.settings for one in tried if one.alive for step in one.steps if step.technique == name]
    shared = [key for key in living[0] if all(key in settings for settings in living)]
    return {key: tuple(dict.fromkeys(settings[key] for settings in living)) for key in shared}


def _placed(one: Tried, offered: Mapping[str, Space]) -> Recipe | None:
    """The steps of a recipe with every searched setting written out; none when one lies outside what is searched."""
    steps = []
    for step in one.steps:
        if step.technique == MENDING:
            continue
        settings = placed(offered[step.technique], step.settings) if step.technique in offered else None
        if settings is None:
            return None
        steps.append(Step(technique=step.technique, settings=settings))
    return tuple(steps)


def _try(run: Run, search: _Search, steps: Recipe) -> Finding:
    """What settings give: as they are, or after the lesson where they break the quality bound and there is time."""
    recipe = (*search.start, *steps)
    tried = search.of.attempt(recipe)
    finding = _finding(run, search, steps, tried)
    lesson = search.of.lesson
    if lesson is None or tried.variant is None or tried.alive or not _may(run, search, (*recipe, lesson)):
        return finding
    return _better(finding, _finding(run, search, steps, search.of.attempt((*recipe, lesson))))


def _finding(run: Run, search: _Search, steps: Recipe, tried: Tried) -> Finding:
    """The highest rate of one core over the runtimes on which a variant keeps the quality bound; where there is none, how far it breaks it."""
    if tried.variant is None:
        return replace(NOTHING_NEW, steps=steps)
    split = splits(search.of.prepared.cores)[0]
    measured = []
    for scored in _living(search.of, tried):
        run.progress.step(f"{scored.variant.name} on {scored.runtime}")
        curve = curve_of(run, search.of.prepared, scored, split)
        if curve is not None:
            measured.append(Finding(steps, curve.capacity_per_s(), scored.quality.drop.value, 0.0))
    if measured:
        return max(measured, key=lambda finding: finding.rate_per_s)
    drops = [quality.drop.value for quality in first_scores(run, tried.variant)]
    if not drops:
        return replace(NOTHING_NEW, steps=steps)
    return Finding(steps, 0.0, min(drops), max(min(drops) - (run.objective.drop or 0.0), LEAST_EXCESS))


def _timed(run: Run, explored: Explored, tried: Tried) -> bool:
    """Whether the journal holds what ``_finding`` would measure."""
    split = splits(explored.prepared.cores)[0]
    return all(asked_before(run, scored, split) for scored in _living(explored, tried))


def _living(explored: Explored, tried: Tried) -> Iterator[Scored]:
    name = tried.variant.name if tried.variant else ""
    return (scored for scored in explored.alive if scored.variant.name == name)


def _better(one: Finding, other: Finding) -> Finding:
    return min(one, other, key=lambda finding: (finding.excess, -finding.rate_per_s))


def _may(run: Run, search: _Search, recipe: Recipe) -> bool:
    """Whether a recipe may be tried: it was before, or time is left and the stage was not carried to its end already."""
    return made_before(run, search.of.source, recipe) or not run.over("compress")


def made_before(run: Run, source: Source, recipe: Recipe) -> bool:
    """Whether the journal of a resumed run knows a recipe: the variant, or why there is none."""
    name = variant_name(source.name, recipe)
    known = any(variant.name == name for variant in run.journal.of(Variant))
    return known or any((failure.stage, failure.variant) == ("compress", name) for failure in run.journal.of(Failure))


def first_scores(run: Run, variant: Variant) -> list[Quality]:
    """The first quality on the selection part through each runtime: later ones, on more rows, were not there when it was tried."""
    mine = [quality for quality in run.journal.of(Quality) if (quality.variant, quality.part) == (variant.name, "selection")]
    return list({quality.runtime: quality for quality in reversed(mine)}.values())
