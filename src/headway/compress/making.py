"""A recipe carried out step by step, each step measured against the one before."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import numpy as np
from onnx import ModelProto

from headway.compress.catalogue import get
from headway.compress.context import Context
from headway.compress.effect import measure_effect
from headway.compress.graph import precision
from headway.compress.session import answers
from headway.model import Model
from headway.records import ConfigError, Effect, Setting, Step, Unsupported

ROWS = 8


@dataclass(frozen=True)
class Made:
    """A compressed model, what each step did, and the narrowest arithmetic the graph asks for."""

    model: Model
    effects: tuple[Effect, ...]
    precision: str


def make(model: Model, recipe: Sequence[Step], context: Context) -> Made:
    """The model after every step of the recipe; the given model is untouched. Same arguments, same bytes.

    Raises:
        ConfigError: an unknown technique or setting, or steps in an order that cannot work.
        Unsupported: a technique refuses this model; or its result gives answers that are not finite.
    """
    check_order(recipe)
    context = _with_parent(model, context)
    done = _carried_out(model, tuple((step.technique, tuple(sorted(step.settings.items()))) for step in recipe), context)
    return Made(done.model, done.effects, precision(done.proto))


@lru_cache(maxsize=8)  # one object for each model, so that techniques may remember what they computed for it
def _with_parent(model: Model, context: Context) -> Context:
    return replace(context, parent=model) if context.parent is None else context


@dataclass(frozen=True)
class _Done:
    model: Model
    proto: ModelProto
    answers: list[list[np.ndarray]]
    effects: tuple[Effect, ...]


@lru_cache(maxsize=4)  # recipes share their first steps; a step is pure, so nobody can tell
def _carried_out(model: Model, recipe: tuple[tuple[str, tuple[tuple[str, Setting], ...]], ...], context: Context) -> _Done:
    rows = min(ROWS, context.rows)
    if not recipe:
        proto = model.to_proto()
        return _Done(model, proto, answers(proto, context.samples, rows) if rows else [], ())
    before = _carried_out(model, recipe[:-1], context)
    step = Step(technique=recipe[-1][0], settings=dict(recipe[-1][1]))
    technique = get(step.technique)
    reason = technique.refuse(before.model, context) if technique.ORDER is not None else None  # what mends may get its rows by a setting
    if reason:
        raise Unsupported(reason)
    started = time.perf_counter()
    after = technique.apply(before.model, dict(step.settings), context)
    duration_s = time.perf_counter() - started
    proto = after.to_proto()
    now = answers(proto, context.samples, rows) if rows else []
    effect = measure_effect(step, (before.proto, proto), (before.answers, now), duration_s)
    if effect.output_error is not None and not math.isfinite(effect.output_error):
        raise Unsupported(f"{step}: answers must stay finite and keep their shapes, but on the calibration samples they do not")
    return _Done(after, proto, now, (*before.effects, effect))


def check_order(recipe: Sequence[Step]) -> None:
    """Nothing, when the steps may follow each other.

    Raises:
        ConfigError: a technique is unknown, comes twice, comes too late, or excludes another; or mending follows mending.
    """
    fixed: list[tuple[int, Step]] = []
    for place, step in enumerate(recipe):
        order = get(step.technique).ORDER
        if order is not None:
            fixed.append((order, step))
        elif place and get(recipe[place - 1].technique).ORDER is None:
            raise ConfigError(f"recipe: {step.technique} must not follow {recipe[place - 1].technique}; remove one")
    for (left, earlier), (right, later) in pairwise(fixed):
        if earlier.technique == later.technique:
            raise ConfigError(f"recipe: a technique must come once, got {later.technique} twice; remove one")
        if left == right:
            raise ConfigError(f"recipe: {earlier.technique} and {later.technique} exclude each other; keep one of them")
        if left > right:
            wanted = ", ".join(step.technique for _, step in sorted(fixed, key=lambda pair: pair[0]))
            raise ConfigError(f"recipe: {later.technique} must come before {earlier.technique}; write it as {wanted}")
