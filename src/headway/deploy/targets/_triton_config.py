"""Triton's model configuration as the text of ``config.pbtxt``: protobuf's text format, and the fields that an export sets.

The fields: triton-inference-server/common, ``protobuf/model_config.proto``; their meaning: triton-inference-server/server,
``docs/user_guide/model_configuration.md``; parameters of the ONNX Runtime backend: triton-inference-server/onnxruntime_backend, ``README.md``.
Data in, text out; no files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headway.records import Plan, TensorSpec, Unsupported
from headway.serve import datatype

ONNX_RUNTIME, PYTHON = "onnxruntime", "python"
WARM_FOLDER = "warmup"
LABELS = "labels.txt"


class Word(str):
    """The name of an enumeration's value, which stands without quotes."""

    __slots__ = ()


Value = str | int | Mapping[str, "Value"] | Sequence["Value"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a configuration is made from.

    Attributes:
        joins: whether requests can be joined along the first dimension.
        waits_s: how long a request may stand in the queue before it is refused [s]; none: without end.
        queue: how many may wait; none: any number.
        labelled: outputs whose classes the labels name.
        warm: by input, the shape of one row of the golden set (the whole shape, where requests cannot be joined).
    """

    name: str
    backend: str
    plan: Plan
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    joins: bool
    waits_s: float | None
    queue: int | None
    labelled: frozenset[str]
    warm: Mapping[str, Sequence[int]]

    @property
    def max_batch(self) -> int:
        """Triton's: 0 says that requests hold the whole shape, the first dimension with it."""
        return self.plan.max_batch if self.joins else 0


def config_text(settings: Settings) -> str:
    """The whole file.

    Raises:
        Unsupported: a tensor that Triton cannot describe.
    """
    plan = settings.plan
    threads = {"intra_op_thread_count": plan.threads, "inter_op_thread_count": 1, "execution_mode": 0}
    return text_of(
        {
            "name": settings.name,
            "backend": settings.backend,
            "max_batch_size": settings.max_batch,
            "input": [_tensor(spec, settings) for spec in settings.inputs],
            "output": [
                {**_tensor(spec, settings), **({"label_filename": LABELS} if spec.name in settings.labelled else {})}
                for spec in settings.outputs
            ],
            "instance_group": [{"kind": Word("KIND_CPU"), "count": plan.instances}],
            **_batching(settings),
            "parameters": [{"key": key, "value": {"string_value": str(number)}} for key, number in threads.items()],
            "model_warmup": _warmup(settings),
        }
    )


def warm_file(place: int) -> str:
    """The file with an input's bytes; by its place, since names may hold anything."""
    return f"input-{place}"


def shape_there(spec: TensorSpec, shape: Sequence[int], joins: bool) -> tuple[int, ...]:
    """The shape in which Triton's clients send and get a tensor: a row without dimensions is a row of one element there."""
    return (*shape, 1) if joins and len(spec.shape) == 1 else tuple(shape)


def text_of(fields: Mapping[str, Value], indent: str = "") -> str:
    """A message in protobuf's text format; a list of messages is the field repeated."""
    lines = []
    for name, value in fields.items():
        if isinstance(value, Mapping):
            lines.append(f"{indent}{name} {{\n{text_of(value, indent + '  ')}{indent}}}\n")
        elif isinstance(value, str | int):
            lines.append(f"{indent}{name}: {_scalar(value)}\n")
        elif value and isinstance(value[0], Mapping):
            lines += [text_of({name: one}, indent) for one in value]
        else:
            lines.append(f"{indent}{name}: [{', '.join(_scalar(one) for one in value)}]\n")
    return "".join(lines)


def _scalar(value: Value) -> str:
    if isinstance(value, Word):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else _quoted(str(value))


def _quoted(text: str) -> str:
    """A string literal: printable ASCII as it is, all other bytes of its UTF-8 form in octal."""
    plain = (chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\' else f"\\{byte:03o}" for byte in text.encode())
    return f'"{"".join(plain)}"'


def _tensor(spec: TensorSpec, settings: Settings) -> dict[str, Value]:
    if not spec.shape:
        raise Unsupported(f"Triton has no tensors without dimensions, and {spec.name!r} is one; give it a dimension inside the model")
    sizes = [size if isinstance(size, int) else -1 for size in spec.shape][1 if settings.joins else 0 :]
    told: dict[str, Value] = {"name": spec.name, "data_type": Word(f"TYPE_{datatype(spec)}"), "dims": sizes or [1]}
    return told if sizes else {**told, "reshape": {"shape": []}}


def _batching(settings: Settings) -> dict[str, Value]:
    """Greedy without a wait: Triton then hands over what is queued as soon as an instance is free."""
    plan = settings.plan
    policy: dict[str, Value] = {}
    if settings.waits_s is not None:
        policy = {
            "timeout_action": Word("REJECT"), "default_timeout_microseconds": max(1, round(settings.waits_s * 1e6)), "allow_timeout_override": True,
        }  # fmt: skip
    if settings.queue is not None:
        policy["max_queue_size"] = settings.queue
    if settings.max_batch <= 1 and not policy:
        return {}
    delay: dict[str, Value] = {"max_queue_delay_microseconds": round(plan.max_wait_s * 1e6)} if settings.max_batch > 1 else {}
    return {"dynamic_batching": {**delay, **({"default_queue_policy": policy} if policy else {})}}


def _warmup(settings: Settings) -> list[Value]:
    """A batch of one, and a full one: a row of the golden set, which Triton repeats."""
    sizes = sorted({1, max(1, settings.max_batch)})
    inputs: list[Value] = [
        {
            "key": spec.name,
            "value": {
                "data_type": Word(f"TYPE_{datatype(spec)}"),
                "dims": list(shape_there(spec, settings.warm[spec.name], settings.joins)),
                "input_data_file": warm_file(place),
            },
        }
        for place, spec in enumerate(settings.inputs)
    ]
    return [{"name": f"batch of {size}", "batch_size": size, "inputs": inputs} for size in sizes]
