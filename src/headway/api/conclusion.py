"""The last stage: confirm on the untouched part, choose, package, say why the others lost, and draw the page."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Collection, Mapping

from headway.api.compared import compare_roles
from headway.api.confirming import Confirmation
from headway.api.contest import MODEL, naive_candidate
from headway.api.prepare import Prepared
from headway.api.run import Run
from headway.api.vetting import Vetting
from headway.deploy import Entry, package
from headway.records import (
    Candidate,
    Capacity,
    Choice,
    Comparison,
    Failure,
    Prediction,
    Rejection,
    RunFinished,
    StageTime,
    Summary,
    Variant,
)
from headway.report.page import render
from headway.search import NAIVE, Evidence, choose, frontier, gather, noise_warning, order, shortfall

FALLBACKS = 2


def conclude(
    run: Run, prepared: Prepared, parent: Variant, plain: Collection[str], variants: Mapping[str, Variant], confirmation: Confirmation
) -> Summary:
    """The Summary of the run; the choice is confirmed on the report part."""
    choice = _confirmed(run, prepared, parent, variants, confirmation)
    evidence = gather(run.journal, run.objective.percentile, "http")
    run.progress.step("package")
    if choice.met and choice.candidate is not None:
        _package(run, prepared, choice.candidate, evidence, plain, variants)
    comparison = _comparison(run, prepared, parent, plain, choice, evidence)
    alike = gather(run.journal, run.objective.percentile, "in-process")
    edge = run.add(frontier(alike))
    _why_not(run, choice, [*evidence, *(e for e in alike if e.candidate not in {h.candidate for h in evidence})])
    run.add(choice)
    warnings = noise_warning(run.journal)
    run.add(RunFinished(budget_s=run.config.budget_s, left_out=run.left_out, warnings=warnings))
    run.progress.step("report")
    render(run.folder)
    shutil.rmtree(run.folder / "finalists", ignore_errors=True)
    return Summary(
        run=str(run.folder), choice=choice, frontier=edge, rejected=_rejected(run), environment=prepared.environment,
        objective=run.objective, comparison=comparison, left_out=run.left_out, warnings=warnings,
        prediction_errors=_prediction_errors(run), served_errors=_served_errors(run),
    )  # fmt: skip


def _prediction_errors(run: Run) -> tuple[float, ...]:
    """How far simulation was from what was then measured in-process."""
    return _errors(run, "in-process", {line.candidate: line.capacity_per_s for line in run.journal.of(Prediction)})


def _served_errors(run: Run) -> tuple[float, ...]:
    """The same over HTTP, the front end in the prediction."""
    served = {line.candidate: line.served_per_s for line in run.journal.of(Prediction) if line.served_per_s is not None}
    return _errors(run, "http", served)


def _errors(run: Run, target: str, predicted: Mapping[Candidate, float]) -> tuple[float, ...]:
    """Predicted over measured, the median over rounds, less 1; where a search ended below the capacity there is nothing to compare with."""
    measured: dict[Candidate, list[float]] = {}
    for line in run.journal.of(Capacity):
        if line.target == target and line.role != NAIVE and not line.open_above and line.rate_per_s > 0:
            measured.setdefault(line.candidate, []).append(line.rate_per_s)
    return tuple(predicted[candidate] / statistics.median(rates) - 1 for candidate, rates in measured.items() if candidate in predicted)


def _rejected(run: Run) -> tuple[Rejection, ...]:
    """Everything that is out, with the reason: what lost, and what could not be made, run or measured."""
    failed = [Rejection(stage=line.stage, variant=line.variant, plan=line.plan, reason=line.reason) for line in run.journal.of(Failure)]
    return (*run.journal.of(Rejection), *failed)


def stage_times(run: Run) -> tuple[StageTime, ...]:
    """Wall time by stage, summed over the starts of a run that was resumed."""
    total: dict[str, float] = {}
    for line in run.journal.of(StageTime):
        total[line.stage] = total.get(line.stage, 0.0) + line.duration_s
    return tuple(StageTime(stage=stage, duration_s=seconds) for stage, seconds in total.items())


def _confirmed(run: Run, prepared: Prepared, parent: Variant, variants: Mapping[str, Variant], confirmation: Confirmation) -> Choice:
    """The first choice that still stands once its quality, and the guards, are known on the report part."""
    vetting = Vetting(run, prepared, parent, "report", prepared.parts.report)
    while True:
        evidence = gather(run.journal, run.objective.percentile, "http")
        choice = choose(evidence, run.objective, run.journal.of(Prediction))
        mine = next((e for e in evidence if e.candidate == choice.candidate), None)
        if mine is None or mine.confirmed is not None:
            return choice
        confirmation.broken(mine.candidate)
        vetting.broken(variants[mine.candidate.variant], mine.candidate.plan.runtime)


def _package(
    run: Run, prepared: Prepared, chosen: Candidate, evidence: Collection[Evidence], plain: Collection[str], variants: Mapping[str, Variant]
) -> None:
    """The bundle: the winner first, then what to fall back to, the best uncompressed plan always among them."""
    by_candidate = {e.candidate: e for e in evidence}
    ranked = [
        chosen,
        *(e.candidate for e in order(list(evidence), run.objective)),
        *(e.candidate for e in evidence if e.candidate.variant in plain),
    ]
    kept: list[Candidate] = []
    for candidate in ranked:
        if candidate.variant not in {k.variant for k in kept} and len(kept) <= FALLBACKS:
            kept.append(candidate)
    entries = []
    for candidate in kept:
        e = by_candidate[candidate]
        quality = e.confirmed or e.quality
        variant = variants[candidate.variant]
        entries.append(
            Entry(
                variant,
                run.folder / variant.path,
                candidate.plan,
                {"latency_s": e.latency_s, "rate_per_s": e.rate_per_s, "drop": quality.drop.value if quality else None},
            )
        )
    package(
        run.folder / "bundle", name=prepared.sources[0].model.name or MODEL, entries=entries, objective=run.objective,
        environment=prepared.environment, labels=prepared.dataset.class_names, seed=run.config.seed,
    )  # fmt: skip


def _comparison(
    run: Run, prepared: Prepared, parent: Variant, plain: Collection[str], choice: Choice, evidence: Collection[Evidence]
) -> Comparison | None:
    if choice.candidate is None or not run.config.compare:
        return None
    held = [e for e in evidence if e.candidate.variant in plain and e.rate_per_s is not None]
    best = max(held, key=lambda e: e.rate_per_s or 0.0, default=None)
    return run.add(compare_roles(run, choice.candidate, best.candidate if best else None, naive_candidate(parent, prepared.cores)))


def _why_not(run: Run, choice: Choice, evidence: Collection[Evidence]) -> None:
    """One sentence for every candidate that was measured and lost."""
    for e in evidence:
        if e.candidate == choice.candidate:
            continue
        failed = shortfall(e, run.objective)
        if failed is not None:
            reason = f"{e.target}: {failed[1]}"
        elif e.target == "in-process":
            reason = f"in-process it holds {e.rate_per_s or 0:.4g}/s on {e.cores} cores: not among the two that went on to HTTP"
        elif run.objective.rate_per_s is None:
            reason = f"holds {e.rate_per_s or 0:.4g}/s, the winner {choice.rate_per_s or 0:.4g}/s"
        else:
            reason = f"holds the objective too, on {e.cores} cores with {e.memory_bytes / 1e6:.0f} MB: not cheaper than the winner"
        run.reject("choose", e.candidate.variant, e.candidate.plan, reason)
