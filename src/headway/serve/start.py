"""Sessions of the variants of a bundle that still give their golden answers on this machine, warm and timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec
import numpy as np

from headway.batching import Pace, capacity_per_s, measure_pace
from headway.records import BundledVariant, BundleError, HeadwayError, Plan, TensorSpec
from headway.runtime import Session, missing, open_session
from headway.runtime.cores import usable_cores
from headway.serve.bundle import OpenBundle
from headway.serve.golden import difference, replay, tolerance
from headway.serve.padding import Padding
from headway.serve.wire import batchable

WORTH = 1.1
"""A further variant is kept warm when it is at least so many times as fast as the one before it."""


@dataclass(frozen=True, slots=True)
class StartedLevel:
    """One variant: its sessions (one an instance, warm) and its service times by rows [s]."""

    variant: BundledVariant
    sessions: tuple[Session, ...]
    service_s: Mapping[int, float]

    def pace(self, max_batch: int) -> Pace:
        """What its service times are expected to be."""
        return Pace(self.service_s, max_batch)


@dataclass(frozen=True, slots=True)
class Started:
    """What is served: the first level by rule, the others under overload; and sentences about what had to be left."""

    levels: tuple[StartedLevel, ...]
    plan: Plan
    notes: tuple[str, ...]
    padding: Padding | None = None

    @property
    def variant(self) -> BundledVariant:
        """The variant that answers when all is well."""
        return self.levels[0].variant

    @property
    def sessions(self) -> tuple[Session, ...]:
        """All sessions, of all levels."""
        return tuple(session for level in self.levels for session in level.sessions)


def start(
    bundle: OpenBundle, variant: str | None = None, *, levels: int = 1, cores: int | None = None, pad: Mapping[str, float] | None = None
) -> Started:
    """The first variant that runs here and agrees with the golden set, or the one named; and up to ``levels - 1`` faster ones after it.

    Args:
        cores: that this model may keep busy; instances beyond them are left out, for they would only wait for each other. None: all that this
            process may use.
        pad: what to fill requests up with, as ``Padding`` takes it.

    Raises:
        BundleError: no variant does; the message holds each one's reason.
        ConfigError: padding does not fit the model.
    """
    padding = Padding(bundle.manifest.inputs, bundle.manifest.outputs, pad) if pad is not None else None
    names = [bundled.variant.name for bundled in bundle.manifest.variants]
    if variant is not None and variant not in names:
        raise BundleError(f"{bundle.root}: the variant must be one of {', '.join(names)}, got {variant!r}")
    notes: list[str] = []
    found: list[StartedLevel] = []
    plan = bundle.manifest.variants[0].plan
    for index, name in enumerate(names):
        if (variant is not None and name != variant and not found) or len(found) >= levels:
            continue
        if not found:
            plan = within_cores(bundle.manifest.variants[index].plan, usable_cores() if cores is None else cores, notes)
        level = _try(bundle, index, plan, padding)
        if isinstance(level, str):
            notes.append(f"variant {name!r} is not served: {level}")
        elif found and _rate(level, plan) < WORTH * _rate(found[-1], plan):
            close(level.sessions)
            notes.append(f"variant {name!r} is not kept warm: here it is not {WORTH:g}x as fast as {found[-1].variant.variant.name!r}")
        else:
            found.append(level)
    if not found:
        raise BundleError(
            f"{bundle.root}: at least one variant must agree with the golden set on this machine; {'; '.join(notes)}. Run tune here."
        )
    return Started(tuple(found), plan, tuple(notes), padding)


def within_cores(plan: Plan, cores: int, notes: list[str]) -> Plan:
    """The plan with no more threads in all than ``cores``: fewer instances first, then fewer threads in each; said in ``notes``."""
    threads = min(plan.threads, cores)
    instances = max(1, min(plan.instances, cores // threads))
    if (threads, instances) == (plan.threads, plan.instances):
        return plan
    notes.append(
        f"{plan.instances} instances of {plan.threads} threads are more than the {cores} cores here: serving {instances} of {threads}"
    )
    return msgspec.structs.replace(plan, threads=threads, instances=instances)


def _rate(level: StartedLevel, plan: Plan) -> float:
    return capacity_per_s(level.pace(plan.max_batch).tau_s, plan.max_batch, plan.instances)


def _try(bundle: OpenBundle, index: int, plan: Plan, padding: Padding | None) -> StartedLevel | str:
    """One variant, warm; or the reason why it cannot be served here. Its own runtime; instances, threads and batch of ``plan``."""
    bundled = bundle.manifest.variants[index]
    own = msgspec.structs.replace(plan, runtime=bundled.plan.runtime, device=bundled.plan.device)
    absent = missing(own.runtime)
    if absent is not None:
        return f"the runtime {own.runtime} {absent}"
    sessions: list[Session] = []
    try:
        for _ in range(own.instances):
            sessions.append(open_session(own, bundle.model_path(index)))
            reason = _check(sessions[-1], bundle, index, own.max_batch) or _check_padding(sessions[-1], bundle, index, padding)
            if reason:
                break
        else:
            return StartedLevel(bundled, tuple(sessions), _times(sessions[0], bundle, own.max_batch))
    except HeadwayError as error:
        reason = str(error)
    except Exception as error:  # a damaged model fails in the runtime's own ways
        reason = (
            f"the runtime could not load or run it: {str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}"
        )
    close(sessions)
    return reason


def close(sessions: Sequence[Session]) -> None:
    """Close all sessions; one that fails to close keeps no other open."""
    for session in sessions:
        with suppress(Exception):
            session.close()


def _check(session: Session, bundle: OpenBundle, index: int, max_batch: int) -> str | None:
    manifest = bundle.manifest
    for ours, theirs, kind in ((manifest.inputs, session.inputs, "inputs"), (manifest.outputs, session.outputs, "outputs")):
        if _facts(ours) != _facts(theirs):
            return f"its {kind} are {_facts(theirs)}, not those of the manifest, {_facts(ours)}"
    reason = replay(session, bundle.golden.inputs, bundle.golden.outputs[index], tolerance(manifest, index))
    return reason or _check_batches(session, bundle, max_batch)


def _facts(specs: Sequence[TensorSpec]) -> dict[str, tuple[str, int]]:
    return {spec.name: (spec.dtype, len(spec.shape)) for spec in specs}


def _check_batches(session: Session, bundle: OpenBundle, max_batch: int) -> str | None:
    """Run the smallest and the largest batch, so that both are warm and have as many rows out as in."""
    if not batchable(bundle.manifest.inputs, bundle.manifest.outputs):
        return None
    for rows in sorted({1, max_batch}):
        for name, result in session.run(_rows(bundle, rows)).items():
            if result.shape[:1] != (rows,):
                return f"output {name!r} has shape {list(result.shape)} for {rows} rows, so requests cannot be batched"
    return None


def _check_padding(session: Session, bundle: OpenBundle, index: int, padding: Padding | None) -> str | None:
    """Whether filling the golden inputs up leaves the answers as they are."""
    if padding is None:
        return None
    inputs = bundle.golden.inputs
    longest = max(max(array.shape[1:], default=1) for array in inputs.values())
    results = session.run({name: padding.join(name, [array], longest + 3) for name, array in inputs.items()})
    for name, expected in bundle.golden.outputs[index].items():
        distance = difference(padding.cut(name, np.asarray(results[name]), inputs), expected)
        if not distance <= tolerance(bundle.manifest, index):
            return f"filling up the inputs changes output {name!r} by {distance:.3g}: give other values, or serve without padding"
    return None


def _times(session: Session, bundle: OpenBundle, max_batch: int) -> dict[int, float]:
    if not batchable(bundle.manifest.inputs, bundle.manifest.outputs):
        return measure_pace(lambda _: session.run(bundle.golden.inputs), 1)
    return measure_pace(lambda rows: session.run(_rows(bundle, rows)), max_batch)


def _rows(bundle: OpenBundle, rows: int) -> dict[str, np.ndarray]:
    return {name: np.resize(array, (rows, *array.shape[1:])) for name, array in bundle.golden.inputs.items()}
