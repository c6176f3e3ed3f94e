"""``tune``: the whole path from models, samples and an objective to a choice, a bundle and a page (design, section 5)."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from pathlib import Path

import msgspec

from headway.api.compressing import compress
from headway.api.conclusion import conclude, stage_times
from headway.api.config import TuneConfig, check_words
from headway.api.contest import ROUNDS, Entrant, hold_contest, naive_candidate
from headway.api.curves import measure_curves, predictions
from headway.api.loads import load_shortlist
from headway.api.prepare import Prepared, begin, estimate, prepare
from headway.api.progress import Progress, Silent
from headway.api.run import Run, open_folder
from headway.api.vetting import Vetting
from headway.quality import asked, check_guards
from headway.records import MeasurementError, Summary, Variant, parse_objective
from headway.records.journal import FILE
from headway.search import NAIVE, gather, nearest, order, shortlist
from headway.track import open_trackers

SHORTLIST = 4
FINALISTS = 2
NAIVE_SHARE = 0.4
"""First guess of the naive deployment's capacity, as a share of the best uncompressed plan's."""
UNKNOWN_SHARE = 0.25
UNKNOWN_PER_S = 100.0
"""First guess for a candidate that held no rate in-process: this share of the stated rate, or of this one [1/s]."""


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
    progress.stage("load", 1)
    prepared = prepare(config)
    check_guards(objective, prepared.metric, prepared.dataset)
    folder = Path(config.out or f"runs/{prepared.sources[0].model.name}")
    journal = open_folder(folder, resume=resume)
    trackers = open_trackers(config.track, folder, msgspec.to_builtins(config))
    run = Run(folder, config, objective, journal, progress, trackers)
    try:
        summary = _stages(run, prepared)
    finally:
        trackers.close()
        journal.release()
    return msgspec.structs.replace(summary, stages=stage_times(run), warnings=trackers.warnings)


def _stages(run: Run, prepared: Prepared) -> Summary:
    begin(run, prepared)
    with run.stage("estimate", "estimate", len(prepared.sources)):
        estimate(run, prepared)
    with run.stage("compress", "compress and score", 10 * len(prepared.sources)):
        parent, alive = compress(run, prepared)
    with run.stage("curve", "service curves", 3 * len(alive)):
        curves = measure_curves(run, prepared, alive)
    with run.stage("predict", "simulate plans", len(curves)):
        expected = predictions(run, curves)
    if not expected:
        raise MeasurementError(f"at least one variant must survive to be measured, got none; {run.folder / FILE} says why for each")
    variants = {variant.name: variant for variant in run.journal.of(Variant)}
    plain = frozenset(name for name, variant in variants.items() if not variant.compressed)
    kinds = {name: variant.kind for name, variant in variants.items()}
    short = shortlist(expected, run.objective, size=SHORTLIST, uncompressed=plain, kinds=kinds)
    with run.stage("load", "load in-process", len(short)):
        load_shortlist(run, prepared, short, {name: run.folder / variant.path for name, variant in variants.items()})
    vetting = Vetting(run, prepared, parent, "selection", prepared.parts.selection)
    guards = len(asked(run.objective))
    with run.stage("guard", "shift and attack", FINALISTS * guards) if guards else contextlib.nullcontext():
        entrants = _entrants(run, prepared, parent, plain, variants, vetting)
    with run.stage("contest", "load over HTTP", ROUNDS * len(entrants) + len(entrants)):
        hold_contest(run, prepared, entrants, variants)
    with run.stage("choose", "confirm, package, report", 3):
        return conclude(run, prepared, parent, plain, variants)


def _entrants(
    run: Run, prepared: Prepared, parent: Variant, plain: Collection[str], variants: dict[str, Variant], vetting: Vetting
) -> list[Entrant]:
    """Who goes on to real sockets: the best, of another kind the one closest to the parent's answers (so that the
    report part does not refuse both), the best uncompressed plan, and the naive deployment."""
    evidence = gather(run.journal, run.objective.percentile, "in-process")
    ranked = [*order(evidence, run.objective), *nearest(evidence, run.objective)]
    candidates = list(dict.fromkeys(e.candidate for e in ranked))
    agreement = {e.candidate: e.quality.agreement if e.quality else 0.0 for e in evidence}
    first = next(iter(vetting.passed(variants, candidates, 1)), candidates[0])
    others = [c for c in candidates if variants[c.variant].kind != variants[first.variant].kind and c.variant not in plain]
    others.sort(key=lambda candidate: -agreement[candidate])
    rest = list(dict.fromkeys([*others, *(c for c in candidates if c != first)]))
    finalists = [first, *vetting.passed(variants, rest, FINALISTS - 1)]
    guesses = {e.candidate: e.rate_per_s or UNKNOWN_SHARE * (run.objective.rate_per_s or UNKNOWN_PER_S) for e in evidence}
    entrants = [Entrant("finalist", candidate, guesses[candidate]) for candidate in finalists]
    if run.config.compare:
        best = next((e.candidate for e in ranked if e.candidate.variant in plain), None)
        if best is not None and best not in finalists:
            entrants.append(Entrant("uncompressed", best, guesses[best]))
        entrants.append(Entrant(NAIVE, naive_candidate(parent, prepared.cores), NAIVE_SHARE * guesses[best or finalists[0]]))
    return entrants
