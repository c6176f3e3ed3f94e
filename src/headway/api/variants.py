"""The compress stage: recipes from mild to harsh, each made, counted, and scored through the runtime that would serve it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headway.api.prepare import Prepared, Source
from headway.api.run import Run
from headway.api.tasks import tasks_of
from headway.compress import CLEANING, make, recipes
from headway.data import Dataset
from headway.measure.scoring import answers
from headway.model import cost
from headway.quality import certainly_violates, compare, compare_tasks
from headway.quality.confidence import demanded
from headway.records import Census, Failure, HeadwayError, Plan, Quality, Step, Unsupported, Variant
from headway.runtime import census, hopeless, refuse

RACING_ROWS = 64
RACING_SHARE = 0.34
SCORING_BATCH = 16


@dataclass(frozen=True, slots=True)
class Scored:
    """A variant on a runtime, with its quality on the selection part."""

    variant: Variant
    runtime: str
    quality: Quality


def variant_name(source: str, recipe: Sequence[Step]) -> str:
    """The stable name of a variant: its source and its steps."""
    return "+".join([source, *(str(step) for step in recipe)])


def make_variant(run: Run, prepared: Prepared, source: Source, recipe: tuple[Step, ...]) -> Variant | None:
    """One variant, made and saved, or found in the journal of a resumed run; none when a technique refused (recorded)."""
    name = variant_name(source.name, recipe)
    for old in run.journal.of(Variant):
        if old.name == name and (run.folder / old.path).is_file():
            return None if any(other.digest == old.digest for other in _before(run, old)) else old
    if any(failure.stage == "compress" and failure.variant == name for failure in run.journal.of(Failure)):
        return None
    try:
        made = make(source.model, recipe, prepared.contexts[source.name])
    except HeadwayError as error:
        run.add(Failure(stage="compress", variant=name, plan=None, reason=str(error)))
        return None
    digest = made.model.digest
    path = run.folder / "variants" / f"{digest[:16]}.onnx"
    if not path.exists():
        made.model.save(path)
    total = cost(made.model, prepared.context.samples)
    twin = next((old for old in run.journal.of(Variant) if old.digest == digest), None)
    variant = Variant(
        name=name, source=source.name, origin=source.model.origin, recipe=recipe, parent_digest=source.model.digest, digest=digest,
        path=str(path.relative_to(run.folder)), parameters=total.parameters, flop=total.flop, weight_bytes=total.weight_bytes,
        file_bytes=path.stat().st_size, precision=made.precision, effects=made.effects,
    )  # fmt: skip
    run.add(variant)
    if twin is not None:
        run.reject("compress", name, None, f"is the same graph as {twin.name}: nothing to measure twice")
        return None
    return variant


def _before(run: Run, variant: Variant) -> list[Variant]:
    """The variants recorded before this one."""
    everything = run.journal.of(Variant)
    return everything[: everything.index(variant)]


class Scorer:
    """Scores variants against the parent on one part of the data; the parent's answers are computed once."""

    def __init__(self, run: Run, prepared: Prepared, part: str, dataset: Dataset, parent: Variant) -> None:
        self.parent = parent
        self._run = run
        self._prepared = prepared
        self._part = part
        self._dataset = dataset
        self._parent_outputs = answers(run.folder / parent.path, self._plan("onnx_runtime"), dataset.inputs, batch=SCORING_BATCH)
        if run.objective.ece is not None:
            demanded(prepared.metric, self._parent_outputs, dataset.labels)

    def _plan(self, runtime: str) -> Plan:
        return Plan(runtime=runtime, threads=self._prepared.cores)

    def score(self, variant: Variant, runtime: str, *, race: bool) -> Quality:
        """Quality of a variant on a runtime: recorded, or found in the journal.

        With ``race`` a first third of the rows is scored alone, and the rest is spared when the bound is surely broken.

        Raises:
            HeadwayError: the runtime cannot run the graph.
        """
        for old in self._run.journal.of(Quality):
            if (old.variant, old.runtime, old.part) == (variant.name, runtime, self._part):
                return old
        size = len(self._dataset)
        head = max(RACING_ROWS, int(size * RACING_SHARE))
        if race and head < size:
            early = self._compare(
                variant, runtime, self._dataset.take(_spread(size, head)), _pick(self._parent_outputs, _spread(size, head))
            )
            if certainly_violates(early, self._run.objective):
                return self._run.add(early)
        return self._run.add(self.measure(variant, runtime))

    def measure(self, variant: Variant, runtime: str) -> Quality:
        """Quality of a variant on all rows of the part, not recorded."""
        return self._compare(variant, runtime, self._dataset, self._parent_outputs)

    def _compare(self, variant: Variant, runtime: str, dataset: Dataset, parent_outputs: Mapping[str, np.ndarray]) -> Quality:
        own = answers(self._run.folder / variant.path, self._plan(runtime), dataset.inputs, batch=SCORING_BATCH)
        outputs = dict(zip(parent_outputs, own.values(), strict=True))
        if self._prepared.metrics:
            return compare_tasks(
                variant=variant.name, runtime=runtime, part=self._part, tasks=tasks_of(dataset, self._prepared.metrics), outputs=outputs,
                parent_outputs=parent_outputs, dataset=dataset, objective=self._run.objective, seed=self._run.config.seed,
            )  # fmt: skip
        return compare(
            variant=variant.name, runtime=runtime, part=self._part, metric=self._prepared.metric, outputs=outputs, parent_outputs=parent_outputs,
            dataset=dataset, objective=self._run.objective, seed=self._run.config.seed,
        )  # fmt: skip


def _spread(size: int, count: int) -> np.ndarray:
    """``count`` row numbers spread evenly over ``size`` rows."""
    return np.unique(np.linspace(0, size - 1, count).astype(np.int64))


def _pick(outputs: Mapping[str, np.ndarray], at: np.ndarray) -> dict[str, np.ndarray]:
    return {name: array[at] for name, array in outputs.items()}


def count_kernels(run: Run, variant: Variant, runtime: str) -> str | None:
    """Record what a runtime will execute; gives the reason when it is hopeless, none when worth timing."""
    old = next((c for c in run.journal.of(Census) if (c.variant, c.runtime) == (variant.name, runtime)), None)
    try:
        counted = old or run.add(census(runtime, run.folder / variant.path, variant.name))
    except Unsupported:
        return None
    return hopeless(counted)


def consider(run: Run, prepared: Prepared, scorer: Scorer, variant: Variant) -> list[Scored]:
    """A variant on every runtime: refused, hopeless, violating the quality bound (all recorded), or scored and alive."""
    alive = []
    for runtime in prepared.runtimes:
        on = Plan(runtime=runtime, threads=prepared.cores)
        refusal = refuse(runtime, run.folder / variant.path)
        if refusal is not None:
            _once(run, Failure(stage="runtime", variant=variant.name, plan=on, reason=refusal))
            continue
        reason = count_kernels(run, variant, runtime)
        if reason is not None and variant.compressed:
            run.reject("census", variant.name, on, reason)
            continue
        try:
            quality = scorer.score(variant, runtime, race=variant.compressed)
        except HeadwayError as error:
            _once(run, Failure(stage="quality", variant=variant.name, plan=on, reason=str(error)))
            continue
        if quality.verdict == "violated":
            run.reject("quality", variant.name, on, quality.reason)
            continue
        alive.append(Scored(variant, runtime, quality))
    return alive


def _once(run: Run, failure: Failure) -> None:
    if failure not in run.journal.of(Failure):
        run.add(failure)


def plain_recipes(prepared: Prepared, source: Source) -> tuple[tuple[Step, ...], ...]:
    """The recipes that change no answers; no other technique is asked, since some run the model to know their ladder."""
    return recipes(source.model, prepared.contexts[source.name], [name for name in prepared.techniques if name == CLEANING])


def all_recipes(prepared: Prepared, source: Source) -> tuple[tuple[Step, ...], ...]:
    """The recipes for one source, mild to harsh."""
    return recipes(source.model, prepared.contexts[source.name], prepared.techniques)
