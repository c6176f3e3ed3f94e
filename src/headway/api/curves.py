"""The curve and predict stages: service curves of the living variants, and what simulation expects of every plan."""

from __future__ import annotations

import contextlib
import math
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headway.api.placing import Ahead
from headway.api.prepare import Prepared
from headway.api.run import Run
from headway.api.variants import FAITHFUL, Scored
from headway.cluster.tuning_work import Asking, Job
from headway.deploy import Entry, package
from headway.measure.curve import measure_curve
from headway.measure.environment import Watch, noise_ratio
from headway.measure.front_end import measure_front_end, null_graph
from headway.measure.rows import Feeds, rows
from headway.measure.scoring import answers
from headway.predict import predict_plan
from headway.records import (
    Candidate,
    Failure,
    FrontEnd,
    HeadwayError,
    MeasurementError,
    Noise,
    Objective,
    Plan,
    Prediction,
    Quality,
    ServiceCurve,
    Variant,
)
from headway.search import batch_sizes, plans_for, splits

LARGEST_BATCH = 32
SECONDS_A_BATCH = 0.15
SLOWEST_BATCH_S = 0.5
MOST = 6
"""Variant-runtime pairs that are measured on every split of the cores."""
MOST_KINDS = 12
"""The same when each pair is the first of its kind."""
STAGE = "curve"
LATEST = "load"
"""The first curve of each variant may take from the time of the stages up to this one: without it, what compression took long to make would be thrown
away unseen, and the run would promise what it had before."""
FRONT_END_S = 5.0
"""What measuring a front end takes, with the start of its server [s]. It may take half of the time that is left to simulate plans."""
NULL = "null"
FAR_BEHIND = 0.5
"""A variant with less than this share of the best one's capacity on one core, and no better quality, is not measured further."""


def curve_of(run: Run, prepared: Prepared, scored: Scored, split: tuple[int, int], ahead: Ahead | None = None) -> ServiceCurve | None:
    """The curve of one variant, runtime and split: measured, or found in the journal; none when it failed (recorded).

    Args:
        ahead: where it may have been measured before it is asked for; none: it is measured by this process.
    """
    old = _known(run, scored, split)
    if old is not None:
        return old
    name, plan = scored.variant.name, _plan(scored, split)
    if _failed(run, scored, split):
        return None
    try:
        told: Timed | None = ahead.take(_job(run, scored, split)) if ahead is not None else None
        if told is not None and told.curve is None:
            raise MeasurementError(told.error)
        if told is not None and told.curve is not None:
            return run.add(told.curve)
        with run.place.holding(alone=True):
            curve = measure_curve(
                run.folder / scored.variant.path, name, plan, prepared.parts.selection.inputs, batches=batch_sizes(LARGEST_BATCH),
                seconds_a_batch=SECONDS_A_BATCH, stop_above_s=_stop_above_s(run),
            )  # fmt: skip
    except HeadwayError as error:
        run.add(Failure(stage="curve", variant=name, plan=plan, reason=str(error)))
        return None
    return run.add(curve)


def asked_before(run: Run, scored: Scored, split: tuple[int, int]) -> bool:
    """Whether the journal holds the curve, or why there is none."""
    return _known(run, scored, split) is not None or _failed(run, scored, split)


def _plan(scored: Scored, split: tuple[int, int]) -> Plan:
    return Plan(runtime=scored.runtime, instances=split[0], threads=split[1])


def _stop_above_s(run: Run) -> float:
    bound = run.objective.latency_s
    return SLOWEST_BATCH_S if bound is None else min(SLOWEST_BATCH_S, bound)


def _failed(run: Run, scored: Scored, split: tuple[int, int]) -> bool:
    plan = _plan(scored, split)
    return any(f.stage == "curve" and f.variant == scored.variant.name and f.plan == plan for f in run.journal.of(Failure))


def _known(run: Run, scored: Scored, split: tuple[int, int]) -> ServiceCurve | None:
    wanted = (scored.variant.name, scored.runtime, *split)
    return next((old for old in run.journal.of(ServiceCurve) if (old.variant, old.runtime, old.instances, old.threads) == wanted), None)


@dataclass(frozen=True)
class Timed:
    """A curve measured on some machine, and how busy that was with other work meanwhile (as in ``Noise``); or why there is none."""

    curve: ServiceCurve | None
    error: str
    noise: Noise


def timed(inputs: Feeds, item: tuple[str, Plan, float], file: Path | None) -> Timed:
    """One curve, measured where this runs: the variant's name, its plan, and the time of a batch at which to stop [s]."""
    name, plan, stop_above_s = item
    assert file is not None
    curve, error = None, ""
    with Watch() as watch:
        try:
            curve = measure_curve(
                file, name, plan, inputs, batches=batch_sizes(LARGEST_BATCH), seconds_a_batch=SECONDS_A_BATCH, stop_above_s=stop_above_s
            )
        except HeadwayError as refused:
            error = str(refused)
    return Timed(
        curve,
        error,
        Noise(stage=STAGE, noise_ratio=noise_ratio(), steal_fraction=watch.steal_fraction, others_fraction=watch.others_fraction),
    )


def _job(run: Run, scored: Scored, split: tuple[int, int]) -> Job:
    plan = _plan(scored, split)
    return Job(f"{scored.variant.name} {plan}", (scored.variant.name, plan, _stop_above_s(run)), run.folder / scored.variant.path)


def measure_curves(run: Run, prepared: Prepared, alive: Sequence[Scored]) -> list[tuple[Scored, ServiceCurve]]:
    """Curves of all living variants: first on one core, which drops those far behind; then on every split. How noisy the machine was is recorded."""
    elsewhere: list[Noise] = []

    def kept(told: Timed) -> Timed:
        elsewhere.append(told.noise)
        return told

    inputs = prepared.parts.selection.inputs
    with (
        _noise_recorded(run, elsewhere),
        run.place.ahead(timed, lambda: inputs, alone=True, brief=lambda told: told.error, keep=kept) as ahead,
    ):
        return _measured(run, prepared, alive, ahead)


@contextlib.contextmanager
def _noise_recorded(run: Run, elsewhere: Sequence[Noise]) -> Iterator[None]:
    """A Noise for what is measured in the block; none when a resumed run measures nothing more.

    Args:
        elsewhere: what was seen where curves were measured by other processes. This one would count their work as noise.
    """
    known = len(run.journal.of(ServiceCurve))
    ratio = noise_ratio()
    with Watch() as watch:
        yield
    concluded = run.journal.last(Noise) is not None or run.journal.last(Prediction) is not None
    if len(run.journal.of(ServiceCurve)) > known or not concluded:
        own = Noise(
            stage=STAGE, noise_ratio=max(ratio, noise_ratio()), steal_fraction=watch.steal_fraction, others_fraction=watch.others_fraction
        )
        run.add(_together(elsewhere) if elsewhere else own)


def _together(seen: Sequence[Noise]) -> Noise:
    """The worst ratio, and shares on the average: every curve took about the same time."""
    return Noise(
        stage=STAGE, noise_ratio=max(noise.noise_ratio for noise in seen),
        steal_fraction=statistics.fmean(noise.steal_fraction for noise in seen), others_fraction=statistics.fmean(noise.others_fraction for noise in seen),
    )  # fmt: skip


def _measured(run: Run, prepared: Prepared, alive: Sequence[Scored], ahead: Ahead) -> list[tuple[Scored, ServiceCurve]]:
    first, *others = splits(prepared.cores)
    measured: list[tuple[Scored, ServiceCurve]] = []
    _foresee(run, ahead, [(scored, first) for scored in alive])
    for scored in alive:
        run.progress.step(f"{scored.variant.name} on {scored.runtime}")
        if _over(run, scored, first, by=LATEST) and measured:
            run.leave_out("service curves", f"{scored.variant.name} on {scored.runtime}")
            continue
        curve = curve_of(run, prepared, scored, first, ahead)
        if curve is not None:
            measured.append((scored, curve))
    worth = [scored for scored, _ in _worth(run, measured)]
    leading = [(scored, split) for split in others if split == (prepared.cores, 1) for scored in _leading(worth)]
    wanted = [*leading, *(pair for split in others for scored in worth if (pair := (scored, split)) not in leading)]
    _foresee(run, ahead, wanted)
    for scored, split in wanted:
        run.progress.step(f"{scored.variant.name} on {scored.runtime}, {split[0]}x{split[1]}")
        if _over(run, scored, split) and ((scored, split) not in leading or run.concluded(STAGE)):
            run.leave_out("service curves", f"{scored.variant.name} on {scored.runtime} {split[0]}x{split[1]}")
            continue
        curve = curve_of(run, prepared, scored, split, ahead)
        if curve is not None:
            measured.append((scored, curve))
    return [(scored, curve) for scored, curve in measured if scored in worth]


def _leading(worth: Sequence[Scored]) -> list[Scored]:
    """The fastest, the fastest that answers nearly all rows as the original does, and the fastest uncompressed one: they are measured on all cores even where
    time is short, so that a short run does not promise one core for want of another curve, whichever of them the report part leaves.

    Args:
        worth: fastest first.
    """
    faithful = next((s for s in worth if s.variant.compressed and s.quality.agreement >= FAITHFUL), None)
    plain = next((s for s in worth if not s.variant.compressed), None)
    found = [scored for scored in (*worth[:1], faithful, plain) if scored is not None]
    return [scored for place, scored in enumerate(found) if scored not in found[:place]]


def _foresee(run: Run, ahead: Ahead, wanted: Sequence[tuple[Scored, tuple[int, int]]]) -> None:
    """Take note of curves that will be asked for, those that the journal does not hold."""
    missing = [(scored, split) for scored, split in wanted if not asked_before(run, scored, split)]
    if missing and not run.over(STAGE):
        ahead.foresee([_asked([_job(run, scored, split) for scored, split in missing])])


def _asked(jobs: Sequence[Job]) -> Asking:
    yield jobs


def _over(run: Run, scored: Scored, split: tuple[int, int], by: str = STAGE) -> bool:
    """Whether a curve must be left out: it is not known, and the stage's time is over, or that of the stage ``by``."""
    return (run.spent(by) or run.concluded(STAGE)) and _known(run, scored, split) is None


def _worth(run: Run, measured: Sequence[tuple[Scored, ServiceCurve]]) -> list[tuple[Scored, ServiceCurve]]:
    """Those not far behind a variant of no worse quality, ``MOST`` in all and the best of each further kind up to ``MOST_KINDS``; the best
    uncompressed one always stays."""
    fastest_first = sorted(measured, key=lambda m: -m[1].capacity_per_s())
    plain = next((m for m in fastest_first if not m[0].variant.compressed), None)
    kept: list[tuple[Scored, ServiceCurve]] = []
    for scored, curve in fastest_first:
        if (scored, curve) == plain:
            kept.append((scored, curve))
            continue
        rival = next((m for m in fastest_first if _charged(m[0].quality) <= scored.quality.drop.value), (scored, curve))
        share = curve.capacity_per_s() / rival[1].capacity_per_s()
        if share < FAR_BEHIND:
            reason = f"one core does {curve.capacity_per_s():.4g}/s, {share:.0%} of {rival[0].variant.name} on {rival[0].runtime}, at no better quality"
        elif len(kept) >= MOST_KINDS or (len(kept) >= MOST and scored.variant.kind in {other.variant.kind for other, _ in kept}):
            reason = f"one core does {curve.capacity_per_s():.4g}/s, and {len(kept)} others do more"
        else:
            kept.append((scored, curve))
            continue
        run.reject("curve", scored.variant.name, Plan(runtime=scored.runtime), reason)
    return kept


def _charged(quality: Quality) -> float:
    """The drop that a rival may claim: of a race that was stopped early, the upper end of its interval."""
    return quality.drop.high if quality.stopped_early else quality.drop.value


def predictions(run: Run, prepared: Prepared, curves: Sequence[tuple[Scored, ServiceCurve]]) -> list[Prediction]:
    """What simulation expects of every plan of every curve, in-process and behind HTTP, recorded once."""
    known = {old.candidate: old for old in run.journal.of(Prediction)}
    wanted = [
        (scored, curve, candidate)
        for scored, curve in curves
        for candidate in (Candidate(variant=scored.variant.name, plan=plan) for plan in plans_for(curve, run.objective.latency_s))
    ]
    missing = [(scored, curve) for scored, curve, candidate in wanted if candidate not in known and not run.concluded("predict")]
    fronts = _front_ends(run, prepared, missing)
    for scored, curve, candidate in wanted:
        if candidate not in known:
            if known and run.over("predict"):
                run.leave_out("predictions", str(candidate))
                continue
            run.progress.step(str(candidate))
            front = fronts.get(scored.variant.source)
            known[candidate] = run.add(
                predict_plan(curve, candidate.plan, run.objective, front=front, cores=prepared.cores, seed=run.config.seed)
            )
    return [known[candidate] for _, _, candidate in wanted if candidate in known]


def _front_ends(run: Run, prepared: Prepared, curves: Sequence[tuple[Scored, ServiceCurve]]) -> Mapping[str, FrontEnd]:
    """By source, the front end that its requests and answers meet; none where it could not be measured (recorded) or time was short."""
    found: dict[str, FrontEnd] = {}
    for source in dict.fromkeys(scored.variant.source for scored, _ in curves):
        mine = [(scored, curve) for scored, curve in curves if scored.variant.source == source]
        front = _front_end(run, prepared, source, mine[0][0], max(curve.capacity_per_s() for _, curve in mine))
        if front is not None:
            found[source] = front
    return found


def _front_end(run: Run, prepared: Prepared, source: str, scored: Scored, mu_per_s: float) -> FrontEnd | None:
    """The front end of one source: found in the journal, or measured at half the rate that its model could do at best."""
    known = next((old for old in run.journal.of(FrontEnd) if old.source == source), None)
    if known is not None or any(f.stage == "predict" and f.variant == source for f in run.journal.of(Failure)):
        return known
    if run.left_s("predict", math.inf) < 2 * FRONT_END_S:
        run.leave_out("front ends", source)
        return None
    run.progress.step(f"front end of {source}")
    inputs = prepared.parts.selection.inputs
    plan = Plan(runtime=NULL, max_batch=LARGEST_BATCH)
    try:
        request = rows(inputs, 0, 1)
        answer = answers(run.folder / scored.variant.path, Plan(runtime=scored.runtime), request)
        with tempfile.TemporaryDirectory(prefix="headway-") as folder:
            file = Path(folder) / "model.null.json"
            file.write_bytes(null_graph(request, answer))
            package(
                Path(folder) / "bundle", name=NULL, entries=[Entry(_null_variant(source, file), file, plan, {})], objective=Objective(),
                environment=prepared.environment, samples=rows(inputs, 0, 4),
            )  # fmt: skip
            arguments = ("headway", "serve", "--json", str(Path(folder) / "bundle"), "--http", "127.0.0.1:0", "--deadline", "none")
            with run.place.holding(alone=True):
                front = measure_front_end(arguments, NULL, inputs, source=source, rate_per_s=mu_per_s / 2, seed=run.config.seed)
            return run.add(front)
    except HeadwayError as error:
        run.add(Failure(stage="predict", variant=source, plan=plan, reason=f"its front end could not be measured: {error}"))
        return None


def _null_variant(source: str, file: Path) -> Variant:
    """A model that takes no time, as a bundle names it."""
    return Variant(
        name=NULL, source=source, origin=NULL, recipe=(), parent_digest="", digest="", path="", parameters=0, flop=0, weight_bytes=0,
        file_bytes=file.stat().st_size, precision="float32",
    )  # fmt: skip
