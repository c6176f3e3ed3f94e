"""What a served model tells of itself: the Open Inference Protocol's metadata, and Triton's model configuration. Plain dictionaries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headway.records import TensorSpec
from headway.serve.served import Served
from headway.serve.wire import batchable, datatype

EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "statistics",
)


def metadata(served: Served, versions: Sequence[str]) -> dict[str, Any]:
    """The protocol's model metadata; free dimensions are -1."""
    manifest = served.bundle.manifest
    return {
        "name": served.name,
        "versions": list(versions),
        "platform": _platform(served),
        "inputs": [_tensor(spec) for spec in manifest.inputs],
        "outputs": [_tensor(spec) for spec in manifest.outputs],
    }


def config(served: Served) -> dict[str, Any]:
    """Triton's model configuration in its JSON form; with batching, shapes stand without their first dimension, as there."""
    manifest, plan = served.bundle.manifest, served.plan
    joins = batchable(manifest.inputs, manifest.outputs)
    batching: dict[str, Any] = {"max_queue_delay_microseconds": round(plan.max_wait_s * 1e6), "preferred_batch_size": []}
    return {
        "name": served.name,
        "platform": _platform(served),
        "backend": plan.runtime,
        "max_batch_size": plan.max_batch if joins else 0,
        "version_policy": {"specific": {"versions": [int(served.version)]}},
        "input": [_configured(spec, joins) for spec in manifest.inputs],
        "output": [_configured(spec, joins) for spec in manifest.outputs],
        "instance_group": [{"name": served.name, "kind": "KIND_CPU", "count": plan.instances}],
        "parameters": {
            key: {"string_value": text}
            for key, text in (("variant", served.variant.variant.name), ("plan", str(plan)), ("objective", str(manifest.objective)))
        },
        **({"dynamic_batching": batching} if joins and plan.max_batch > 1 else {}),
    }


def _platform(served: Served) -> str:
    return f"headway_{served.plan.runtime}"


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": datatype(spec), "shape": _sizes(spec)}


def _configured(spec: TensorSpec, joins: bool) -> dict[str, Any]:
    return {"name": spec.name, "data_type": f"TYPE_{datatype(spec)}", "dims": _sizes(spec)[1 if joins else 0 :]}


def _sizes(spec: TensorSpec) -> list[int]:
    return [size if isinstance(size, int) else -1 for size in spec.shape]
