"""How wrong a prediction may be: the capacity again, by the slower and by the faster half of what was measured; and behind the front end."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import msgspec
import numpy as np

from headway.predict.capacity import REQUESTS, Engine, expected
from headway.records import BatchTiming, FrontEnd, Objective, Plan, Prediction, ServiceCurve

FEWEST, BEYOND, FINE = 15_000, 40, 0.006
"""Requests of one simulation: at least, and beyond the percentile; and how near a search comes. There are hundreds of plans: a lone prediction
takes more."""
BLOCKS = 8
UNSTABLE = 1.15
"""An unstable curve, whose samples differ by 1.3 between the halves of some batch size, is doubted by the root of that either way."""


def predict_plan(
    curve: ServiceCurve, plan: Plan, objective: Objective, *, front: FrontEnd | None = None, cores: int = 0, seed: int = 0
) -> Prediction:
    """What simulation expects of a plan in-process, how wrong that may be, and what it expects behind HTTP.

    Args:
        front: the front end as it was measured; without it there is no figure behind HTTP.
        cores: of the machine. A plan whose threads take them all gives the front end none of its own: its time comes out of the batches'.
    """
    requests = min(REQUESTS, max(FEWEST, round(BEYOND / (1 - objective.percentile))))
    bare = Engine(curve, plan, objective, seed=seed, requests=requests, fine=FINE)
    told = expected(bare)
    low, high = capacity_ends(bare, told.capacity_per_s)
    return msgspec.structs.replace(
        told, low_per_s=low, high_per_s=high, served_per_s=None if front is None else _served_per_s(bare, told.capacity_per_s, front, cores)
    )


def predict_engine(
    curve: ServiceCurve,
    plan: Plan,
    objective: Objective,
    *,
    front_end_s: float = 0.0,
    front_steals: bool = False,
    refuses: bool = True,
    seed: int = 0,
) -> Prediction:
    """What simulation expects of a plan behind a front end of any server, and how wrong that may be by the samples of the curve.

    Args:
        front_end_s, front_steals: as in ``simulate``.
        refuses: whether that server looks at deadlines.
    """
    engine = Engine(curve, plan, objective, front_end_s=front_end_s, front_steals=front_steals, refuses=refuses, seed=seed)
    told = expected(engine)
    low, high = capacity_ends(engine, told.capacity_per_s)
    return msgspec.structs.replace(told, low_per_s=low, high_per_s=high)


def _served_per_s(bare: Engine, capacity_per_s: float, front: FrontEnd, cores: int) -> float:
    steals = bare.plan.instances * bare.plan.threads >= cores
    engine = dataclasses.replace(bare, front_end_s=front.cpu_s, front_joined_s=front.joined_s, front_steals=steals, jitter_s=front.jitter_s)
    return min(capacity_per_s, engine.capacity_per_s(capacity_per_s))


def capacity_ends(engine: Engine, capacity_per_s: float) -> tuple[float, float]:
    """Between which rates an engine's capacity lies [1/s], as far as the samples of its curve tell; the capacity itself is among them.

    Found with few requests and the same random numbers three times: only the ratio to what the whole curve gives is taken.
    """
    slow, fast = halves(engine.curve)
    ends = [capacity_per_s]
    if slow.timings != fast.timings:
        whole = _whole(engine.curve)
        middle = dataclasses.replace(engine, curve=whole).rough_per_s(capacity_per_s)
        scale = capacity_per_s / middle if middle > 0 else 1.0
        ends += [scale * dataclasses.replace(engine, curve=half).rough_per_s(middle) for half in (slow, fast)]
    if engine.curve.unstable:
        ends += [capacity_per_s / UNSTABLE, capacity_per_s * UNSTABLE]
    return min(ends), max(ends)


def halves(curve: ServiceCurve) -> tuple[ServiceCurve, ServiceCurve]:
    """The curve by the slower half of its samples and by the faster one, half of ``BLOCKS`` blocks of each batch size in the order of time.

    Samples taken one after another share the machine's mood, so blocks are compared, not samples. The mean of the slower four of eight
    independent blocks lies 0.8 of their spread above the mean of all; twice the error of that mean is 0.7 of it. So the two are about the
    ends of a 95% interval, if all batch sizes err in the same direction.
    """
    slower, faster = [], []
    for timing in curve.timings:
        blocks = sorted(
            np.array_split(np.asarray(timing.service_s), min(BLOCKS, len(timing.service_s))), key=lambda block: float(np.median(block))
        )
        faster.append(_timing(timing.batch, blocks[: (len(blocks) + 1) // 2]))
        slower.append(_timing(timing.batch, blocks[len(blocks) // 2 :]))
    return _curve(curve, slower), _curve(curve, faster)


def _whole(curve: ServiceCurve) -> ServiceCurve:
    """The same samples in ascending order: equal draws then mean equal quantiles on it and on its halves."""
    return _curve(curve, [_timing(timing.batch, [np.asarray(timing.service_s)]) for timing in curve.timings])


def _timing(batch: int, blocks: Sequence[np.ndarray]) -> BatchTiming:
    return BatchTiming(batch=batch, service_s=tuple(np.sort(np.concatenate(blocks)).tolist()))


def _curve(curve: ServiceCurve, timings: Sequence[BatchTiming]) -> ServiceCurve:
    return msgspec.structs.replace(curve, timings=tuple(timings))
