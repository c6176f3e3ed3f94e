"""Guards measured: what the objective asks beyond answers on the samples as they are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from headway.discovery import Found, discover
from headway.quality import guards as folder
from headway.quality.evidence import Evidence
from headway.quality.guards.contract import Answer, Guard, Inputs, Subject
from headway.quality.kinds import kinds
from headway.quality.metric import Array, Metric
from headway.quality.verdict import Verdict, judge_many, moved
from headway.records import ConfigError, DataError, GroupQuality, GuardResult, MissingPackage, Objective, Setting

if TYPE_CHECKING:
    from headway.model import Model

BOUND = "_drop"
LEAST_TO_LOSE = 0.1


def guards() -> Found:
    """The guard files: those that import, and the reason for each that does not."""
    return discover(folder)


def asked(objective: Objective) -> tuple[str, ...]:
    """Names of the guards whose bound the objective states."""
    return tuple(name.removesuffix(BOUND) for name in objective.guards if name.endswith(BOUND))


def check_guards(
    objective: Objective, metric: Metric, dataset: Inputs, given: Mapping[str, str] | None = None, more: Sequence[str] = ()
) -> None:
    """Nothing; call it before anything long, so that a bound that nobody can judge is refused at once.

    Args:
        given: the kinds of inputs that are known better than ``kinds`` guesses them.
        more: guards to check beside those that the objective asks for.

    Raises:
        DataError: a bound does not apply to these samples and this metric.
        MissingPackage: a guard needs a package that is not installed.
    """
    for name in dict.fromkeys([*asked(objective), *more]):
        guard = _guard(name)
        reason = guard.refuse(_subject(guard, metric, dataset, _nothing, _nothing, given, None, 0))
        if reason is not None:
            raise DataError(f"a bound on {name}{BOUND} cannot be judged here: {reason}; leave the bound out, or say what the inputs are")


def measure_guard(
    name: str,
    *,
    variant: str,
    runtime: str,
    part: str,
    metric: Metric,
    answer: Answer,
    parent_answer: Answer,
    dataset: Inputs,
    objective: Objective | None = None,
    seed: int = 0,
    confidence: float = 0.95,
    model: Model | None = None,
    parent_model: Model | None = None,
    given: Mapping[str, str] | None = None,
    settings: Mapping[str, Setting] | None = None,
) -> GuardResult:
    """A variant against its parent under one guard; the same arguments give the same record.

    It answers every row once for each case with both models (``shift``) or about four times and many gradients (``attack``), so it is for
    finalists. Wrap ``parent_answer`` in ``remembering`` when several variants have the same parent.

    The record's figures are those of the worst case; its interval holds for all cases at once (each at a confidence of 1 less the error
    shared among them, Bonferroni). The verdict treats cases as ``verdict.judge_many`` says.

    Args:
        answer, parent_answer: outputs by name for rows of inputs, through the runtime that would serve.
        model, parent_model: the graphs, for guards that need gradients.
        given: the kind of inputs by name (``image``, ``tokens``, ``series``, ``none``), where ``kinds`` guesses wrong.
        settings: over the guard's own ``SETTINGS``.

    Raises:
        DataError: the guard does not apply here.
        ConfigError: an unknown guard or setting.
        MissingPackage: it needs a package that is not installed.
        MeasurementError: no honest figure could be had.
    """
    guard = _guard(name)
    subject = _subject(guard, metric, dataset, answer, parent_answer, given, settings, seed, model, parent_model)
    reason = guard.refuse(subject)
    if reason is not None:
        raise DataError(f"{name} does not apply: {reason}")
    weighed = guard.measure(subject)
    cases = {case: at(confidence) for case, at in weighed.items()}
    worst = max(cases, key=lambda case: cases[case].drop.value)
    found = weighed[worst](1 - (1 - confidence) / len(cases))
    bound = getattr(objective, f"{name}{BOUND}", None) if objective is not None else None
    verdict = Verdict("", _sentence(metric, worst, cases)) if bound is None else judge_many(metric, bound, cases, confidence, guard.CASE)
    verdict = _doubted(verdict, metric, cases, guard.STRENGTH)
    return GuardResult(
        guard=name, variant=variant, runtime=runtime, part=part, metric=metric.name, n=found.n, value=found.value.value,
        parent_value=found.parent_value, drop=found.drop, worst=worst, settings=dict(subject.settings), verdict=verdict.word, reason=verdict.reason,
        cases=tuple(
            GroupQuality(group=case, n=e.n, value=e.value.value, parent_value=e.parent_value, drop=e.drop) for case, e in cases.items()
        ),
    )  # fmt: skip


def _doubted(verdict: Verdict, metric: Metric, cases: Mapping[str, Evidence], strength: str) -> Verdict:
    """The verdict, which proves nothing where the parent itself has lost nearly all: then a variant cannot lose more."""
    spent = {} if metric.relative or not metric.higher_is_better else {n: e for n, e in cases.items() if e.parent_value < LEAST_TO_LOSE}
    if not spent:
        return verdict
    name, found = min(spent.items(), key=lambda entry: entry[1].parent_value)
    doubt = f"under {name} the parent itself has only {metric.name} {found.parent_value:.1%}, so little is left to lose: lower {strength}"
    return Verdict("held" if verdict.word == "proven" else verdict.word, f"{verdict.reason}; {doubt}")


def remembering(answer: Answer) -> Answer:
    """The same answers, each computed once: corrupted inputs are the same for every variant, so a parent need not answer them again."""
    known: dict[str, Mapping[str, Array]] = {}

    def remembered(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        total = hashlib.sha256()
        for name, array in inputs.items():
            total.update(repr((name, array.dtype.str, array.shape)).encode())
            total.update(np.ascontiguousarray(array).data)
        key = total.hexdigest()
        if key not in known:
            known[key] = answer(inputs)
        return known[key]

    return remembered


def _guard(name: str) -> Guard:
    found = guards()
    if name in found.missing:
        raise MissingPackage(
            f"the guard {name!r} {found.missing[name]}; run: pip install 'headway[torch]', or leave the bound {name}{BOUND} out"
        )
    if name not in found.present:
        raise ConfigError(f"a guard must be known, got {name!r}; known are {', '.join(found.present)}")
    return cast(Guard, found.present[name])


def _subject(
    guard: Guard,
    metric: Metric,
    dataset: Inputs,
    answer: Answer,
    parent_answer: Answer,
    given: Mapping[str, str] | None,
    settings: Mapping[str, Setting] | None,
    seed: int,
    model: Model | None = None,
    parent_model: Model | None = None,
) -> Subject:
    unknown = [name for name in settings or {} if name not in guard.SETTINGS]
    if unknown:
        raise ConfigError(f"a setting of this guard must be one of {', '.join(guard.SETTINGS)}, got {unknown[0]!r}")
    return Subject(
        metric=metric, answer=answer, parent_answer=parent_answer, dataset=dataset, kinds=kinds(dataset.inputs, given),
        settings={**guard.SETTINGS, **(settings or {})}, seed=seed, model=model, parent_model=parent_model,
    )  # fmt: skip


def _sentence(metric: Metric, worst: str, cases: Mapping[str, Evidence]) -> str:
    found = cases[worst]
    return f"under {worst}, the worst of {len(cases)}, {metric.name} {moved(metric, found.drop.value)} on {found.n} rows"


def _nothing(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    raise NotImplementedError("checking a guard runs no model")
