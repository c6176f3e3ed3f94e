"""Sessions of the first variant of a bundle that still gives its golden answers on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from headway.records import BundledVariant, BundleError, HeadwayError, TensorSpec
from headway.runtime import Session, open_session, runtimes
from headway.serve.bundle import OpenBundle
from headway.serve.golden import replay, tolerance
from headway.serve.wire import batchable


@dataclass(frozen=True, slots=True)
class Started:
    """One variant, its sessions (one an instance, warm), and sentences about what had to be left."""

    variant: BundledVariant
    sessions: tuple[Session, ...]
    notes: tuple[str, ...]


def start(bundle: OpenBundle, variant: str | None = None) -> Started:
    """The first variant that runs here and agrees with the golden set; or the one named, and no other.

    Raises:
        BundleError: no variant does; the message holds each one's reason.
    """
    names = [bundled.variant.name for bundled in bundle.manifest.variants]
    if variant is not None and variant not in names:
        raise BundleError(f"{bundle.root}: the variant must be one of {', '.join(names)}, got {variant!r}")
    notes: list[str] = []
    for index, name in enumerate(names):
        if variant is not None and name != variant:
            continue
        found = _try(bundle, index)
        if isinstance(found, tuple):
            return Started(bundle.manifest.variants[index], found, tuple(notes))
        notes.append(f"variant {name!r} is not served: {found}")
    raise BundleError(
        f"{bundle.root}: at least one variant must agree with the golden set on this machine; {'; '.join(notes)}. Run tune here."
    )


def _try(bundle: OpenBundle, index: int) -> tuple[Session, ...] | str:
    """Warm sessions of one variant, or the reason why it cannot be served here."""
    bundled = bundle.manifest.variants[index]
    missing = runtimes().missing.get(bundled.plan.runtime)
    if missing is not None:
        return f"the runtime {bundled.plan.runtime} {missing}"
    sessions: list[Session] = []
    try:
        for _ in range(bundled.plan.instances):
            sessions.append(open_session(bundled.plan, bundle.model_path(index)))
            reason = _check(sessions[-1], bundle, index)
            if reason:
                break
        else:
            return tuple(sessions)
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


def _check(session: Session, bundle: OpenBundle, index: int) -> str | None:
    manifest = bundle.manifest
    for ours, theirs, kind in ((manifest.inputs, session.inputs, "inputs"), (manifest.outputs, session.outputs, "outputs")):
        if _facts(ours) != _facts(theirs):
            return f"its {kind} are {_facts(theirs)}, not those of the manifest, {_facts(ours)}"
    reason = replay(session, bundle.golden.inputs, bundle.golden.outputs[index], tolerance(manifest, index))
    return reason or _check_batches(session, bundle, index)


def _facts(specs: Sequence[TensorSpec]) -> dict[str, tuple[str, int]]:
    return {spec.name: (spec.dtype, len(spec.shape)) for spec in specs}


def _check_batches(session: Session, bundle: OpenBundle, index: int) -> str | None:
    """Run the smallest and the largest batch, so that both are warm and have as many rows out as in."""
    if not batchable(bundle.manifest.inputs, bundle.manifest.outputs):
        return None
    for rows in sorted({1, bundle.manifest.variants[index].plan.max_batch}):
        feeds = {name: np.resize(array, (rows, *array.shape[1:])) for name, array in bundle.golden.inputs.items()}
        for name, result in session.run(feeds).items():
            if result.shape[:1] != (rows,):
                return f"output {name!r} has shape {list(result.shape)} for {rows} rows, so requests cannot be batched"
    return None
