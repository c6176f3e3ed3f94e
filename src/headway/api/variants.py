"""The compress stage: recipes from mild to harsh, each made, counted, and scored through the runtime that would serve it."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from headway.api.prepare import Prepared, Source
from headway.api.run import Run
from headway.api.tasks import tasks_of
from headway.compress import CLEANING, Made, make, recipes
from headway.data import Dataset
from headway.measure.rows import rows
from headway.measure.scoring import answers
from headway.model import Model, cost
from headway.quality import Metric, Race, Task, compare, compare_tasks, first_labels, first_rows, stopped
from headway.quality.confidence import demanded
from headway.records import Candidate, Census, Failure, HeadwayError, InputError, Objective, Plan, Quality, Step, Unsupported, Variant
from headway.runtime import census, hopeless, open_session, refuse

SCORING_BATCH = 16
"""Rows a batch; the looks of a race are multiples of it."""
FAITHFUL = 0.99
"""Share of rows answered as the original does from which a variant can hardly be refused on other rows."""
SPARED_FLOP = 3e10
"""Work of the rows for whose sake a variant that is surely in is not scored on all: about a second of one core [FLOP]."""
Recipe = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Scored:
    """A variant on a runtime, with its quality on the selection part."""

    variant: Variant
    runtime: str
    quality: Quality


@dataclass(frozen=True)
class Judged:
    """What one runtime made of a variant, as far as it got.

    Attributes:
        refusal: why it does not take the graph.
        counted: what it will execute; none where it does not tell.
        quality: none where the census leaves no hope, or it failed.
        error: why it failed while it was judged.
    """

    refusal: str | None = None
    counted: Census | None = None
    quality: Quality | None = None
    error: str | None = None


@dataclass(frozen=True)
class Piece:
    """What came of a recipe.

    Attributes:
        variant: none when a technique refused; ``failure`` then says why.
        files: the graph's files, by name: their content, or where they lie once they were put aside.
        judged: by runtime; empty where the machine that made it computes otherwise than the one that will serve.
    """

    variant: Variant | None
    failure: str = ""
    files: Mapping[str, bytes | Path] = field(default_factory=dict)
    judged: Mapping[str, Judged] = field(default_factory=dict)

    def place(self, folder: Path) -> None:
        """Its files into a folder, whole or not at all, the graph last; what is there already is the same.

        Raises:
            InputError: the folder cannot be written.
        """
        try:
            for name, content in sorted(self.files.items(), key=lambda file: file[0].endswith(".onnx")):
                if not (folder / name).exists():
                    part = folder / f".headway-{name}"
                    part.write_bytes(content.read_bytes() if isinstance(content, Path) else content)
                    os.replace(part, folder / name)
        except OSError as error:
            raise InputError(
                f"{folder}: must be writable, got: {error.strerror or error}. Free space or choose another folder; nothing was half-written."
            ) from error

    def aside(self, folder: Path) -> Piece:
        """The same with its files in a folder and not in memory."""
        self.place(folder)
        return replace(self, files={name: folder / name for name in self.files})

    @property
    def kept(self) -> int:
        """On how many runtimes it keeps the quality bound."""
        return sum(seen.quality is not None and seen.quality.verdict != "violated" for seen in self.judged.values())


def variant_name(source: str, recipe: Sequence[Step]) -> str:
    """The stable name of a variant: its source and its steps."""
    return "+".join([source, *(str(step) for step in recipe)])


def save(source: str, model: Model, recipe: Recipe, made: Made, samples: Mapping[str, np.ndarray], folder: Path) -> Variant:
    """What was made of a model, in ``variants`` of a folder, and the record of it.

    Raises:
        InputError: the folder cannot be written.
    """
    digest = made.model.digest
    path = folder / "variants" / f"{digest[:16]}.onnx"
    if not path.exists():
        made.model.save(path)
    total = cost(made.model, samples)
    return Variant(
        name=variant_name(source, recipe), source=source, origin=model.origin, recipe=recipe, parent_digest=model.digest, digest=digest,
        path=str(path.relative_to(folder)), parameters=total.parameters, flop=total.flop, weight_bytes=total.weight_bytes,
        file_bytes=path.stat().st_size, precision=made.precision, effects=made.effects,
    )  # fmt: skip


def make_variant(run: Run, prepared: Prepared, source: Source, recipe: tuple[Step, ...], piece: Piece | None = None) -> Variant | None:
    """One variant, made and saved, or found in the journal of a resumed run; none when a technique refused (recorded).

    Args:
        piece: what was made of the recipe elsewhere; none: it is made here.
    """
    name = variant_name(source.name, recipe)
    for old in run.journal.of(Variant):
        if old.name == name and (run.folder / old.path).is_file():
            return None if any(other.digest == old.digest for other in _before(run, old)) else old
    if any(failure.stage == "compress" and failure.variant == name for failure in run.journal.of(Failure)):
        return None
    try:
        variant = _made_here(run, prepared, source, recipe) if piece is None else _brought(run, piece)
    except Unsupported as error:
        run.add(Failure(stage="compress", variant=name, plan=None, reason=str(error)))
        return None
    twin = next((old for old in run.journal.of(Variant) if old.digest == variant.digest), None)
    run.add(variant)
    if twin is not None:
        run.reject("compress", name, None, f"is the same graph as {twin.name}: nothing to measure twice")
        return None
    return variant


def _made_here(run: Run, prepared: Prepared, source: Source, recipe: Recipe) -> Variant:
    """One variant, made by this process.

    Raises:
        Unsupported: a technique refuses.
    """
    try:
        made = make(source.model, recipe, prepared.contexts[source.name])
    except HeadwayError as error:
        raise Unsupported(str(error)) from error
    return save(source.name, source.model, recipe, made, prepared.context.samples, run.folder)


def _brought(run: Run, piece: Piece) -> Variant:
    """The variant of a piece that was made elsewhere, with its files in the run's folder.

    Raises:
        Unsupported: a technique refused.
    """
    if piece.variant is None:
        raise Unsupported(piece.failure)
    piece.place(run.folder / "variants")
    return piece.variant


def _before(run: Run, variant: Variant) -> list[Variant]:
    """The variants recorded before this one."""
    everything = run.journal.of(Variant)
    return everything[: everything.index(variant)]


@dataclass(frozen=True)
class Judge:
    """Judges variants on one part of the data.

    The rows of a part are in random order (``data.Parts``), so the first ones are a fair sample of it. A race takes them in this order and in
    the batches of a score of all rows, so that it gives the same answers and, when nothing stops it, the same record.

    Attributes:
        tasks: what is judged where several outputs are, by output; empty for a single metric.
        parent_outputs: the parent's answers to all rows, by output.
        cores: threads of a session.
    """

    part: str
    dataset: Dataset
    metric: Metric
    tasks: Mapping[str, Task]
    parent_outputs: Mapping[str, np.ndarray]
    objective: Objective
    seed: int
    cores: int

    def measured(self, variant: Variant, runtime: str, path: Path) -> Quality:
        """Quality of a variant on all rows of the part."""
        return self._compared(variant, runtime, answers(path, self._plan(runtime), self.dataset.inputs, batch=SCORING_BATCH))

    def raced(self, variant: Variant, runtime: str, path: Path) -> Quality:
        """Quality of a variant; rows are spared as soon as it is surely out, or surely in and the rest would be work of ``SPARED_FLOP``."""
        size = len(self.dataset)
        race = Race(
            samples=self.dataset, tasks=self.tasks or {"": Task(self.metric, self.dataset.labels)}, objective=self.objective,
            worth_sparing=math.ceil(SPARED_FLOP / max(1, variant.flop)), seed=self.seed,
        )  # fmt: skip
        own: dict[str, np.ndarray] = {}
        with contextlib.closing(open_session(self._plan(runtime), path)) as session:
            for done, count in itertools.pairwise((0, *race.looks, size)):
                starts = range(done, count, SCORING_BATCH)
                parts = [session.run(rows(self.dataset.inputs, start, min(SCORING_BATCH, count - start))) for start in starts]
                own = _joined([own, *parts] if own else parts)
                standing = race.standing(count, *self._both(own)) if count < size else ""
                if standing:
                    return stopped(self._compared(variant, runtime, own), standing, count, size)
        return self._compared(variant, runtime, own)

    def _plan(self, runtime: str) -> Plan:
        return Plan(runtime=runtime, threads=self.cores)

    def _both(self, own: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """A variant's outputs under the parent's names, and the parent's on the same rows."""
        outputs = dict(zip(self.parent_outputs, own.values(), strict=True))
        count = len(next(iter(own.values())))
        return outputs, {name: array[:count] for name, array in self.parent_outputs.items()}

    def _compared(self, variant: Variant, runtime: str, own: Mapping[str, np.ndarray]) -> Quality:
        """The record of the first rows, as many as ``own`` holds."""
        outputs, parent_outputs = self._both(own)
        count = len(next(iter(own.values())))
        if self.tasks:
            return compare_tasks(
                variant=variant.name, runtime=runtime, part=self.part, tasks=first_labels(self.tasks, count), outputs=outputs,
                parent_outputs=parent_outputs, dataset=first_rows(self.dataset, count), objective=self.objective, seed=self.seed,
            )  # fmt: skip
        return compare(
            variant=variant.name, runtime=runtime, part=self.part, metric=self.metric, outputs=outputs, parent_outputs=parent_outputs,
            dataset=first_rows(self.dataset, count), objective=self.objective, seed=self.seed,
        )  # fmt: skip


class Scorer:
    """Scores variants against the parent on one part of the data, with records; the parent's answers are computed once."""

    def __init__(self, run: Run, prepared: Prepared, part: str, dataset: Dataset, parent: Variant) -> None:
        self.parent = parent
        self._run = run
        plan = Plan(runtime="onnx_runtime", threads=prepared.cores)
        outputs = answers(run.folder / parent.path, plan, dataset.inputs, batch=SCORING_BATCH)
        if run.objective.ece is not None:
            demanded(prepared.metric, outputs, dataset.labels)
        self.judge = Judge(
            part=part, dataset=dataset, metric=prepared.metric, tasks=tasks_of(dataset, prepared.metrics) if prepared.metrics else {},
            parent_outputs=outputs, objective=run.objective, seed=run.config.seed, cores=prepared.cores,
        )  # fmt: skip

    def score(self, variant: Variant, runtime: str, *, race: bool, seen: Judged | None = None) -> Quality:
        """Quality of a variant on a runtime: recorded, or found in the journal.

        With ``race`` rows are spared as soon as the variant is surely out, or surely in and the rest would be work of ``SPARED_FLOP``
        (``quality.racing``). The record then has ``of_rows`` and says so in its reason. Without ``race`` such a record is not enough: all rows
        are run. Of two records a race finds the first, which is what it found before the run was resumed.

        Args:
            seen: what was found elsewhere; none: it is judged here.

        Raises:
            HeadwayError: the runtime cannot run the graph.
        """
        for old in self._run.journal.of(Quality):
            if (old.variant, old.runtime, old.part) == (variant.name, runtime, self.judge.part) and (race or not old.stopped_early):
                return old
        if seen is not None and seen.error is not None:
            raise Unsupported(seen.error)
        if seen is not None and seen.quality is not None:
            return self._run.add(seen.quality)
        return self._run.add(
            self.judge.raced(variant, runtime, self._run.folder / variant.path) if race else self.measure(variant, runtime)
        )

    def measure(self, variant: Variant, runtime: str) -> Quality:
        """Quality of a variant on all rows of the part, not recorded."""
        return self.judge.measured(variant, runtime, self._run.folder / variant.path)


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


def count_kernels(run: Run, variant: Variant, runtime: str, seen: Judged | None = None) -> str | None:
    """Record what a runtime will execute; gives the reason when it is hopeless, none when worth timing."""
    old = next((c for c in run.journal.of(Census) if (c.variant, c.runtime) == (variant.name, runtime)), None)
    if old is not None:
        return hopeless(old)
    if seen is not None:
        return None if seen.counted is None else hopeless(run.add(seen.counted))
    try:
        return hopeless(run.add(census(runtime, run.folder / variant.path, variant.name)))
    except Unsupported:
        return None


def consider(run: Run, prepared: Prepared, scorer: Scorer, variant: Variant, piece: Piece | None = None) -> list[Scored]:
    """A variant on every runtime: refused, hopeless, violating the quality bound (all recorded), or scored and alive.

    Args:
        piece: what was found elsewhere; of a runtime that it does not know, it is found out here.
    """
    alive = []
    for runtime in prepared.runtimes:
        on = Plan(runtime=runtime, threads=prepared.cores)
        seen = piece.judged.get(runtime) if piece is not None else None
        refusal = refuse(runtime, run.folder / variant.path) if seen is None else seen.refusal
        if refusal is not None:
            _once(run, Failure(stage="runtime", variant=variant.name, plan=on, reason=refusal))
            continue
        reason = count_kernels(run, variant, runtime, seen)
        if reason is not None and variant.compressed:
            run.reject("census", variant.name, on, reason)
            continue
        try:
            quality = scorer.score(variant, runtime, race=variant.compressed, seen=seen)
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
