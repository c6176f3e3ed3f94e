"""The compress stage over all sources: the parent, the export routes worth keeping, every recipe on those, and the settings between the recipes."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from headway.api.composing import Climb, Recipe, Tried, climbs, compose, compositions, explore, firsts, followed, narrows
from headway.api.curves import curve_of
from headway.api.foreseen import Foreseen, tried_elsewhere
from headway.api.layer_times import with_layer_times
from headway.api.prepare import Prepared, Source
from headway.api.refining import Explored, first_scores, made_before, refine
from headway.api.run import Run
from headway.api.variants import Scored, Scorer, all_recipes, consider, make_variant, plain_recipes
from headway.api.workpiece import Shop, torch_threads, worked
from headway.compress import mending
from headway.records import ModelError, Step, Variant
from headway.search import splits

NEARLY_EQUAL = 0.95


def compress(run: Run, prepared: Prepared) -> tuple[Variant, list[Scored]]:
    """The parent variant, and every variant-runtime pair that keeps the quality bound.

    Of several export routes of one model, those that are slower than another one on every runtime are dropped before anything
    is compressed; the parent is the uncompressed source with the best quality.
    """
    bases = {source.name: base for source in prepared.sources if (base := make_variant(run, prepared, source, ())) is not None}
    if not bases:
        raise ModelError("the model must be one that can be saved and run, got none that could; the records say why")
    scorer = _scorer(run, prepared, list(bases.values()))
    alive: list[Scored] = []
    for source in prepared.sources:
        for recipe in plain_recipes(prepared, source):
            alive += _try(run, prepared, scorer, source, recipe)
    kept = _export_routes(run, prepared, alive) | {source.name for source in prepared.sources if source.teacher is not None}
    alive = [scored for scored in alive if scored.variant.source in kept]
    explored = []
    with contextlib.ExitStack() as open_until_refined:
        for source in (source for source in prepared.sources if source.name in kept):
            rivals = [scored for scored in alive if scored.variant.source == source.name]
            explored.append(_explore(run, with_layer_times(run, prepared, source, rivals), scorer, source, open_until_refined))
        refine(run, explored)
    return scorer.parent, alive + [scored for one in explored for scored in one.alive]


def _explore(run: Run, prepared: Prepared, scorer: Scorer, source: Source, stack: contextlib.ExitStack) -> Explored:
    """Every rung of every technique; then what training can mend; then what survived, put together."""
    alive: list[Scored] = []
    foreseen = stack.enter_context(foreseeing(run, prepared, scorer, source))

    def attempt(recipe: tuple[Step, ...]) -> Tried:
        known = made_before(run, source, recipe)
        if run.over("compress") and not known:
            run.leave_out("recipes", f"{' + '.join(map(str, recipe))} on {source.name}")
            return Tried(recipe, None, 0, 0.0)
        piece = None if known else foreseen.take(recipe)
        with run.place.holding(alone=False) if piece is None else contextlib.nullcontext():
            variant = make_variant(run, prepared, source, recipe, piece)
            if variant is None:
                return Tried(recipe, None, 0, 0.0)
            if piece is None:
                run.progress.step(variant.name)
            scored = consider(run, prepared, scorer, variant, piece)
        alive.extend(scored)
        seen = [quality.agreement for quality in first_scores(run, variant)]
        return Tried(recipe, variant, len(scored), max(seen, default=0.0))

    context = prepared.contexts[source.name]
    lessons = mending(source.model, context, prepared.techniques)
    everything = all_recipes(prepared, source)
    singles = [recipe for recipe in everything if not all(step.technique == "fold" for step in recipe)]
    if source.teacher is not None:
        if lessons:
            foreseen.foresee([_teaching(everything, lessons[-1])])
            followed(_teaching(everything, lessons[-1]), attempt)
        return Explored(prepared, source, (), alive, attempt, None)
    step = lessons[0] if lessons else None
    foreseen.foresee([_at_once(firsts(singles)), *climbs(singles, step)])
    tried = explore(singles, step, attempt)
    foreseen.foresee(compositions(tried, step))
    tried += compose(tried, step, attempt)
    return Explored(prepared, source, tuple(tried), alive, attempt, step)


@contextlib.contextmanager
def foreseeing(run: Run, prepared: Prepared, scorer: Scorer, source: Source) -> Iterator[Foreseen]:
    """What may be made of one source before it is asked for, where the run has more machines than this one."""

    def shop() -> Shop:
        context = prepared.contexts[source.name]
        return Shop(source.name, source.model, context, scorer.judge, prepared.runtimes, prepared.environment, torch_threads())

    with tempfile.TemporaryDirectory(prefix="headway-") as name:
        folder = Path(name)
        with run.place.ahead(worked, shop, alone=False, brief=tried_elsewhere, keep=lambda piece: piece.aside(folder)) as ahead:
            yield Foreseen(run, source, ahead)


def _at_once(recipes: Sequence[Recipe]) -> Climb:
    """Recipes that are tried whatever comes of each."""
    return list((yield recipes))


def _teaching(everything: Sequence[Recipe], lesson: Step) -> Climb:
    """The student after its lesson; then that one narrowed by every rung, each alone."""
    learned = (*(step for step in everything[-1] if step.technique == "fold"), lesson)
    tried = list((yield [learned]))
    if not tried[0].alive:
        return tried
    own = [tuple(step for step in recipe if step.technique != "fold") for recipe in everything]
    tried += yield [(*learned, *steps) for steps in own if steps and narrows(steps[0].technique)]
    return tried


def _try(run: Run, prepared: Prepared, scorer: Scorer, source: Source, recipe: tuple[Step, ...]) -> list[Scored]:
    with run.place.holding(alone=False):
        variant = make_variant(run, prepared, source, recipe)
        if variant is None:
            return []
        run.progress.step(variant.name)
        return consider(run, prepared, scorer, variant)


def _scorer(run: Run, prepared: Prepared, bases: list[Variant]) -> Scorer:
    """A scorer whose parent is the base with the best quality (of several tasks: whose worst loss is least); the first one where they are equal."""
    scorer = Scorer(run, prepared, "selection", prepared.parts.selection, bases[0])
    if len({source.reference for source in prepared.sources}) == 1:
        return scorer
    sign = 1 if prepared.metric.higher_is_better else -1
    measured = [scorer.measure(base, "onnx_runtime") for base in bases]
    standing = [-quality.drop.value if quality.by_task else sign * quality.value.value for quality in measured]
    values = [(value, -number, base) for number, (value, base) in enumerate(zip(standing, bases, strict=True))]
    best = max(values, key=lambda entry: entry[:2])[2]
    return scorer if best is bases[0] else Scorer(run, prepared, "selection", prepared.parts.selection, best)


def _export_routes(run: Run, prepared: Prepared, alive: Sequence[Scored]) -> set[str]:
    """Names of the sources to go on with: of several routes of one model, those within 5% of the best on some runtime."""
    reference = {source.name: source.reference for source in prepared.sources}
    models: dict[str, set[str]] = {}
    for scored in alive:
        models.setdefault(reference[scored.variant.source], set()).add(scored.variant.source)
    kept: set[str] = set()
    for routes in models.values():
        kept |= routes if len(routes) == 1 else _fastest(run, prepared, [s for s in alive if s.variant.source in routes])
    return kept


def _fastest(run: Run, prepared: Prepared, rivals: Sequence[Scored]) -> set[str]:
    best: dict[tuple[str, str], float] = {}
    for scored in rivals:
        run.progress.step(f"{scored.variant.name} on {scored.runtime}")
        curve = curve_of(run, prepared, scored, splits(prepared.cores)[0])
        if curve is not None:
            key = (scored.variant.source, scored.runtime)
            best[key] = max(best.get(key, 0.0), curve.capacity_per_s())
    top = {runtime: max(rate for (_, other), rate in best.items() if other == runtime) for _, runtime in best}
    kept: set[str] = set()
    for runtime, highest in top.items():
        kept.add(next(source for (source, other), rate in best.items() if other == runtime and rate >= NEARLY_EQUAL * highest))
    for source in sorted({source for source, _ in best} - kept):
        share = max(rate / top[runtime] for (other, runtime), rate in best.items() if other == source)
        run.reject(
            "export",
            source,
            None,
            f"on no runtime is this export route faster than another one: at best {share:.0%} of its rate on one core",
        )
    return kept
