"""The first stages: models and data in, the objective read, the cost estimated."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np

import headway
import headway.data
import headway.model
from headway.api.config import TuneConfig, known_names
from headway.api.run import Run, check_same
from headway.api.tasks import metrics_by_output
from headway.compress import Context, LabelledRows, techniques, unasked
from headway.data import Dataset, ImageSettings, Parts
from headway.measure.ceilings import measure_ceilings
from headway.measure.environment import environment, instruction_sets
from headway.measure.scoring import answers
from headway.model import Model, cost
from headway.predict import explain
from headway.quality import Metric, default_metric, metric
from headway.records import ConfigError, Cost, DataError, Environment, Objective, Plan, RunStarted, SourceInspected
from headway.runtime import asked_only, runtimes

IMPORT_ROWS = 4


@dataclass(frozen=True, slots=True)
class Source:
    """One model that competes: its unique name in the run, and the reference it came from (several exports share one).

    ``teacher`` is the model that a student learns from; none for the models that were given to be deployed.
    """

    name: str
    reference: str
    model: Model
    teacher: Model | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that later stages need and none of them changes; ``contexts`` are those of the sources, by name.

    ``metrics`` are those of several judged outputs, by output, the first of which is ``metric``; empty for a single one.
    """

    sources: tuple[Source, ...]
    dataset: Dataset
    parts: Parts
    metric: Metric
    context: Context
    contexts: Mapping[str, Context]
    environment: Environment
    runtimes: tuple[str, ...]
    techniques: tuple[str, ...]
    notes: tuple[str, ...]
    metrics: Mapping[str, Metric] = field(default_factory=dict)

    @property
    def cores(self) -> int:
        """Cores that this process may use."""
        return self.environment.cores


def load_sources(
    references: Sequence[str], dataset: Dataset | None, exporters: Sequence[str] = ()
) -> tuple[tuple[Source, ...], tuple[str, ...]]:
    """Every export of every model reference, with unique names, and notes on what did not work."""
    if dataset is not None and len(dataset) == 0:
        raise DataError(f"{dataset.source}: must hold samples, got no row; add some")
    samples = None if dataset is None else {name: array[:IMPORT_ROWS] for name, array in dataset.inputs.items()}
    sources: list[Source] = []
    notes: list[str] = []
    for number, reference in enumerate(references):
        loaded = headway.model.load(reference, samples, exporters=tuple(exporters) or None)
        notes += loaded.notes
        taken = {source.name for source in sources}
        for model in loaded.models:
            name = model.name if model.name not in taken else f"{model.name}-{number + 1}"
            sources.append(Source(name, f"{number}:{reference}", model))
    return tuple(sources), tuple(notes)


def load_both(
    references: Sequence[str], data: str, exporters: Sequence[str] = (), images: ImageSettings | None = None
) -> tuple[tuple[Source, ...], Dataset | None, tuple[str, ...]]:
    """Models and samples that fit each other, and notes; no samples when ``data`` is empty.

    Samples come first, since an import is checked on them; but of a folder of images only the model knows the size.
    """
    folder = bool(data) and not data.startswith("python:") and Path(data).is_dir()
    raw = headway.data.load(data) if data and not folder else None
    sources, notes = load_sources(references, raw, exporters)
    if folder:
        raw = headway.data.load(data, inputs=sources[0].model.inputs, images=images)
    if raw is None:
        return sources, None, notes
    outputs = sources[0].model.outputs
    checked = [headway.data.check(raw, source.model.inputs, outputs=outputs) for source in sources]
    return sources, checked[0], notes


def prepare(config: TuneConfig) -> Prepared:
    """Models and data, checked against each other, and everything derived from them.

    Raises:
        InputError: a model, the samples, a name or the metric is wrong.
    """
    # torch_compiled compiles each graph for longer than another runtime takes to be measured, so it must be asked for by name.
    chosen_runtimes = known_names("runtime", config.runtimes, runtimes(), hidden=("null", *asked_only()))
    chosen_techniques = known_names("technique", config.techniques, techniques()) if config.techniques else unasked()
    sources, dataset, notes = load_both(config.models, config.data, config.exporters, config.images)
    if dataset is None:
        raise DataError("data: labelled samples must be given, got none; add --data")
    sources += _students(config, sources, dataset)
    first = sources[0].model
    train = headway.data.check(headway.data.load(config.train), first.inputs, outputs=first.outputs) if config.train else None
    parts = headway.data.split(dataset, seed=config.seed, train=train)
    metrics = _metrics(config, first, dataset)
    chosen = next(iter(metrics.values()))
    context = Context(
        samples=parts.calibration.inputs, instruction_sets=frozenset(instruction_sets()), seed=config.seed, train=_rows(train),
        selection=_rows(parts.selection),
    )  # fmt: skip
    contexts = {source.name: replace(context, parent=source.teacher) for source in sources}
    return Prepared(
        sources, dataset, parts, chosen, context, contexts, environment(), chosen_runtimes, chosen_techniques, notes, metrics if len(metrics) > 1 else {},
    )  # fmt: skip


def _students(config: TuneConfig, sources: Sequence[Source], dataset: Dataset) -> tuple[Source, ...]:
    """The students, with the first model as their teacher."""
    if not config.students:
        return ()
    if not config.train:
        raise ConfigError("--student: a student needs rows to learn from, got none; add --train")
    found, _ = load_sources(config.students, dataset, config.exporters)
    for source in found:
        headway.data.check(dataset, source.model.inputs)
    return tuple(replace(s, name=f"student-{s.name}", reference=f"student {s.reference}", teacher=sources[0].model) for s in found)


def _rows(dataset: Dataset | None) -> LabelledRows | None:
    return None if dataset is None else LabelledRows(dataset.inputs, dataset.tasks or dataset.labels)


def _metrics(config: TuneConfig, model: Model, dataset: Dataset) -> dict[str, Metric]:
    """The metric of each judged output; where only one output has labels and no metric names an output, the metric as it was asked for."""
    names = tuple(spec.name for spec in model.outputs)
    if not dataset.tasks and isinstance(config.metric, str):
        return {names[0]: metric(config.metric) if config.metric else default_metric(_few(model, dataset), dataset.labels)}
    return metrics_by_output(config.metric, dataset, names, _few(model, dataset))


def _few(model: Model, dataset: Dataset) -> Mapping[str, np.ndarray]:
    """What the model says to a few rows."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        model.save(path)
        few = dataset.take(np.arange(min(IMPORT_ROWS, len(dataset))))
        return answers(path, Plan(runtime="onnx_runtime"), few.inputs)


def started(prepared: Prepared, config: TuneConfig, objective: Objective, name: str) -> RunStarted:
    """The first line of a run."""
    return RunStarted(
        version=headway.__version__, name=name, sources={source.name: source.model.digest for source in prepared.sources},
        data=headway.data.summary(prepared.parts, prepared.dataset, prepared.metric.name), objective=objective,
        config=msgspec.json.decode(msgspec.json.encode(config)), environment=prepared.environment, seed=config.seed,
    )  # fmt: skip


def begin(run: Run, prepared: Prepared) -> None:
    """Write the first line of a new run, or check that a resumed one began with the same."""
    first = started(prepared, run.config, run.objective, run.folder.name)
    old = run.journal.last(RunStarted)
    if old is None:
        run.add(first)
    else:
        check_same(old, first)
    for note in prepared.notes:
        run.progress.note(note)


def estimate(run: Run, prepared: Prepared) -> dict[str, Cost]:
    """Cost of every source, recorded once with this machine's ceilings; costs by source name."""
    costs: dict[str, Cost] = {}
    known_already = {line.source: line for line in run.journal.of(SourceInspected)}
    for source in prepared.sources:
        run.progress.step(source.name)
        if source.name in known_already:
            costs[source.name] = known_already[source.name].cost
            continue
        costs[source.name] = cost(source.model, prepared.context.samples)
        ceilings = measure_ceilings()
        notes = explain(costs[source.name], ceilings, prepared.environment.instruction_sets)
        run.add(SourceInspected(source=source.name, digest=source.model.digest, cost=costs[source.name], ceilings=ceilings, notes=notes))
    return costs
