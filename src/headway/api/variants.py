"""The compress stage: recipes from mild to harsh, each made, counted, and scored through the runtime that would serve it."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headway.api.prepare import Prepared, Source
from headway.api.run import Run
from headway.api.tasks import tasks_of
from headway.compress import CLEANING, make, recipes
from headway.data import Dataset
from headway.measure.rows import rows
from headway.measure.scoring import answers
from headway.model import cost
from headway.quality import Race, Task, compare, compare_tasks, first_labels, first_rows, stopped
from headway.quality.confidence import demanded
from headway.records import Candidate, Census, Failure, HeadwayError, Plan, Quality, Step, Unsupported, Variant
from headway.runtime import census, hopeless, open_session, refuse

SCORING_BATCH = 16
"""Rows a batch; the looks of a race are multiples of it."""
FAITHFUL = 0.99
"""Share of rows answered as the original does from which a variant can hardly be refused on other rows."""
SPARED_FLOP = 3e10
"""Work of the rows for whose sake a variant that is surely in is not scored on all: about a second of one core [FLOP]."""


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
    """Scores variants against the parent on one part of the data; the parent's answers are computed once.

    The rows of a part are in random order (``data.Parts``), so the first ones are a fair sample of it. A race takes them in this order and in
    the batches of a score of all rows, so that it gives the same answers and, when nothing stops it, the same record.
    """

    def __init__(self, run: Run, prepared: Prepared, part: str, dataset: Dataset, parent: Variant) -> None:
        self.parent = parent
        self._run = run
        self._prepared = prepared
        self._part = part
        self._dataset = dataset
        self._tasks = tasks_of(dataset, prepared.metrics) if prepared.metrics else {}
        self._parent_outputs = answers(run.folder / parent.path, self._plan("onnx_runtime"), dataset.inputs, batch=SCORING_BATCH)
        if run.objective.ece is not None:
            demanded(prepared.metric, self._parent_outputs, dataset.labels)

    def _plan(self, runtime: str) -> Plan:
        return Plan(runtime=runtime, threads=self._prepared.cores)

    def score(self, variant: Variant, runtime: str, *, race: bool) -> Quality:
        """Quality of a variant on a runtime: recorded, or found in the journal.

        With ``race`` rows are spared as soon as the variant is surely out, or surely in and the rest would be work of ``SPARED_FLOP``
        (``quality.racing``). The record then has ``of_rows`` and says so in its reason. Without ``race`` such a record is not enough: all rows
        are run. Of two records a race finds the first, which is what it found before the run was resumed.

        Raises:
            HeadwayError: the runtime cannot run the graph.
        """
        for old in self._run.journal.of(Quality):
            if (old.variant, old.runtime, old.part) == (variant.name, runtime, self._part) and (race or not old.stopped_early):
                return old
        return self._run.add(self._raced(variant, runtime) if race else self.measure(variant, runtime))

    def measure(self, variant: Variant, runtime: str) -> Quality:
        """Quality of a variant on all rows of the part, not recorded."""
        own = answers(self._run.folder / variant.path, self._plan(runtime), self._dataset.inputs, batch=SCORING_BATCH)
        return self._compare(variant, runtime, own)

    def _raced(self, variant: Variant, runtime: str) -> Quality:
        size = len(self._dataset)
        race = Race(
            samples=self._dataset, tasks=self._tasks or {"": Task(self._prepared.metric, self._dataset.labels)}, objective=self._run.objective,
            worth_sparing=math.ceil(SPARED_FLOP / max(1, variant.flop)), seed=self._run.config.seed,
        )  # fmt: skip
        own: dict[str, np.ndarray] = {}
        with contextlib.closing(open_session(self._plan(runtime), self._run.folder / variant.path)) as session:
            for done, count in itertools.pairwise((0, *race.looks, size)):
                starts = range(done, count, SCORING_BATCH)
                parts = [session.run(rows(self._dataset.inputs, start, min(SCORING_BATCH, count - start))) for start in starts]
                own = _joined([own, *parts] if own else parts)
                standing = race.standing(count, *self._both(own)) if count < size else ""
                if standing:
                    return stopped(self._compare(variant, runtime, own), standing, count, size)
        return self._compare(variant, runtime, own)

    def _both(self, own: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """A variant's outputs under the parent's names, and the parent's on the same rows."""
        outputs = dict(zip(self._parent_outputs, own.values(), strict=True))
        count = len(next(iter(own.values())))
        return outputs, {name: array[:count] for name, array in self._parent_outputs.items()}

    def _compare(self, variant: Variant, runtime: str, own: Mapping[str, np.ndarray]) -> Quality:
        """The record of the first rows, as many as ``own`` holds."""
        outputs, parent_outputs = self._both(own)
        count = len(next(iter(own.values())))
        if self._tasks:
            return compare_tasks(
                variant=variant.name, runtime=runtime, part=self._part, tasks=first_labels(self._tasks, count), outputs=outputs,
                parent_outputs=parent_outputs, dataset=first_rows(self._dataset, count), objective=self._run.objective,
                seed=self._run.config.seed,
            )  # fmt: skip
        return compare(
            variant=variant.name, runtime=runtime, part=self._part, metric=self._prepared.metric, outputs=outputs, parent_outputs=parent_outputs,
            dataset=first_rows(self._dataset, count), objective=self._run.objective, seed=self._run.config.seed,
        )  # fmt: skip


def _joined(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Outputs of one batch after another."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def finish_races(
    run: Run, prepared: Prepared, parent: Variant, candidates: Sequence[Candidate], variants: Mapping[str, Variant]
) -> tuple[Candidate, ...]:
    """The candidates that keep the bounds on quality on all rows of the selection part, in their order.

    Those whose race ended with "surely in" are scored on all rows first: figures that are compared with one another (the frontier, what to
    relax) rest on the same rows. A race spares the rows of all others.
    """
    early = {(line.variant, line.runtime) for line in _newest(run) if line.stopped_early}
    pairs = dict.fromkeys((candidate.variant, candidate.plan.runtime) for candidate in candidates)
    if early & pairs.keys():
        scorer = Scorer(run, prepared, "selection", prepared.parts.selection, parent)
        for name, runtime in pairs:
            if (name, runtime) in early:
                run.progress.step(f"{name} on {runtime}, all rows")
                scorer.score(variants[name], runtime, race=False)
    broken = {(line.variant, line.runtime): line.reason for line in _newest(run) if line.verdict == "violated"}
    for candidate in candidates:
        if (candidate.variant, candidate.plan.runtime) in broken:
            run.reject("quality", candidate.variant, candidate.plan, broken[candidate.variant, candidate.plan.runtime])
    return tuple(candidate for candidate in candidates if (candidate.variant, candidate.plan.runtime) not in broken)


def faithful(run: Run) -> frozenset[tuple[str, str]]:
    """Variants, each with the runtime, that answered at least ``FAITHFUL`` of the selection rows as the original did."""
    return frozenset((line.variant, line.runtime) for line in _newest(run) if line.agreement >= FAITHFUL and line.verdict != "violated")


def _newest(run: Run) -> list[Quality]:
    """The newest record of each variant and runtime on the selection part."""
    return list({(line.variant, line.runtime): line for line in run.journal.of(Quality) if line.part == "selection"}.values())


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
