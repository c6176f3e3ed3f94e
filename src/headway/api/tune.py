"""``tune``: the whole path from models, samples and an objective to a choice, a bundle and a page (design, section 5)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from headway.api.compressing import compress
from headway.api.conclusion import conclude, stage_times
from headway.api.config import TuneConfig, check_words
from headway.api.confirming import Confirmation
from headway.api.contest import ROUNDS, choose_entrants, hold_contest
from headway.api.curves import measure_curves, predictions
from headway.api.loads import FINALISTS, load_shortlist
from headway.api.placing import open_place
from headway.api.prepare import Prepared, begin, estimate, prepare
from headway.api.progress import Progress, Silent
from headway.api.run import Run, open_folder
from headway.api.variants import faithful, finish_races
from headway.api.vetting import Vetting
from headway.quality import asked, check_guards
from headway.records import MeasurementError, Noise, Prediction, Summary, Variant, parse_objective
from headway.records.journal import FILE
from headway.search import MOST_RUNS, shortlist
from headway.track import open_trackers

SHORTLIST, FURTHER = 4, 3


def tune(config: TuneConfig, *, resume: bool = False, progress: Progress | None = None) -> Summary:
    """The Summary of a run: choice, frontier, what was rejected and why, and the environment it holds for.

    The run folder holds records, variants, the bundle and the page. A run that was stopped continues with ``resume``.

    Raises:
        InputError: an option, the models, the samples or the run folder is wrong; nothing was changed.
        MeasurementError: nothing could be measured at all.
    """
    progress = progress or Silent()
    objective = parse_objective(config.slo)
    check_words(config, objective)
    with contextlib.closing(open_place(config.on, progress)) as place:
        progress.stage("load", 1)
        prepared = prepare(config)
        check_guards(objective, prepared.metric, prepared.dataset)
        folder = Path(config.out or f"runs/{prepared.sources[0].model.name}")
        journal = open_folder(folder, resume=resume)
        trackers = open_trackers(config.track, folder, msgspec.to_builtins(config))
        run = Run(folder, config, objective, journal, progress, trackers, place=place)
        try:
            summary = _stages(run, prepared)
        finally:
            trackers.close()
            journal.release()
    return msgspec.structs.replace(summary, stages=stage_times(run), warnings=(*trackers.warnings, *place.notes, *summary.warnings))


def _stages(run: Run, prepared: Prepared) -> Summary:
    begin(run, prepared)
    with run.stage("estimate", "estimate", len(prepared.sources)), run.place.holding(alone=True):
        estimate(run, prepared)
    with run.stage("compress", "compress and score", 10 * len(prepared.sources)):
        parent, alive = compress(run, prepared)
    with run.stage("curve", "service curves", 3 * len(alive)):
        curves = measure_curves(run, prepared, alive)
    with run.stage("predict", "simulate plans", len(curves)):
        expected = predictions(run, prepared, curves)
    if not expected:
        raise MeasurementError(f"at least one variant must survive to be measured, got none; {run.folder / FILE} says why for each")
    variants = {variant.name: variant for variant in run.journal.of(Variant)}
    plain = frozenset(name for name, variant in variants.items() if not variant.compressed)
    kinds = {name: variant.kind for name, variant in variants.items()}
    short = shortlist(
        expected, run.objective, size=SHORTLIST, uncompressed=plain, faithful=faithful(run), kinds=kinds, noise=run.journal.of(Noise)
    )
    with run.place.holding(alone=False):
        finished = finish_races(run, prepared, parent, [told.candidate for told in short], variants)
    short = tuple(told for told in short if told.candidate in finished) or short
    with run.stage("load", "load in-process", MOST_RUNS), run.place.holding(alone=True):
        search = load_shortlist(run, prepared, short, {name: run.folder / variant.path for name, variant in variants.items()}, plain)
    vetting = Vetting(run, prepared, parent, "selection", prepared.parts.selection)
    confirmation = Confirmation(run, prepared, parent, variants)
    guards = len(asked(run.objective))
    with run.stage("guard", "shift and attack", FINALISTS * guards) if guards else contextlib.nullcontext():
        entrants = choose_entrants(
            run, search, parent, prepared.cores, variants,
            lambda them, most: vetting.passed(variants, confirmation.passed(them), most), _further(run, expected, short, variants),
        )  # fmt: skip
    if not run.concluded("contest"):
        with run.stage("contest", "load over HTTP", ROUNDS * len(entrants) + len(entrants)), run.place.holding(alone=True):
            hold_contest(run, prepared, entrants, variants)
    with run.stage("choose", "confirm, package, report", 3):
        return conclude(run, prepared, parent, plain, variants, confirmation)


def _further(
    run: Run, expected: Sequence[Prediction], short: Sequence[Prediction], variants: Mapping[str, Variant]
) -> tuple[Prediction, ...]:
    """The best predicted compressed plans of variants that are not on the shortlist, one of each kind: for when the report part refuses all that are."""
    loaded = {told.candidate.variant for told in short}
    rest = [told for told in expected if variants[told.candidate.variant].compressed and told.candidate.variant not in loaded]
    kinds = {name: variant.kind for name, variant in variants.items()}
    return shortlist(rest, run.objective, size=FURTHER, uncompressed=(), kinds=kinds, plans_per_kind=1, noise=run.journal.of(Noise))
