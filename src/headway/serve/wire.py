"""Open Inference Protocol v2 bodies to checked arrays. It knows the protocol and the model's inputs; no sockets, no runtime.

The protocol: kserve/open-inference-protocol, ``specification/protocol/inference_rest.md``; the binary extension:
triton-inference-server/server, ``docs/protocol/extension_binary_data.md``. Two forms of a tensor are read:

- JSON ``data``, nested or flat in row-major order;
- raw little-endian bytes after the JSON part, with ``binary_data_size`` in the tensor's parameters and the length of the JSON
  part in the header ``Inference-Header-Content-Length``.

Every tensor is checked (name, datatype, shape, element count, byte length) before an array of it exists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import orjson

from headway.protocol.datatypes import DATATYPES
from headway.records import TensorSpec, Unsupported
from headway.serve.call import DEFAULT_PRIORITY, Call, Wanted
from headway.serve.limits import Limits
from headway.serve.padding import Padding
from headway.serve.refusal import Refusal, invalid
from headway.serve.tensors import Input, from_bytes, from_json, kind, shown, shown_shape

NOT_OFFERED = ("shared_memory_region",)
"""Tensor parameters that would change the form of the answer; silently ignoring them would be wrong."""


KNOWN, KNOWN_BYTES = 64, 1024
"""How many JSON parts of wholly binary requests are remembered, and how long they may be: most clients send the same one each time."""


_Part = tuple[Input, tuple[int, ...], int | None, Any]
"""An input, its shape, the size of its binary data or none, its JSON data or none."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """The JSON part of a request, read and checked."""

    parts: tuple[_Part, ...]
    rows: int
    shapes: tuple[tuple[int, ...], ...] | None
    wanted: tuple[Wanted, ...]
    id: str
    timeout_s: float | None
    priority: int


def batchable(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> bool:
    """Whether the first dimension of every input and output is free, so that requests can be joined along it."""
    return all(spec.shape and isinstance(spec.shape[0], str) for spec in (*inputs, *outputs))


def datatype(spec: TensorSpec) -> str:
    """The protocol's name of a tensor's element type.

    Raises:
        Unsupported: the type has no numpy form that the server speaks (strings, bfloat16).
    """
    if spec.dtype not in DATATYPES:
        raise Unsupported(f"tensor {spec.name!r}: the server speaks {', '.join(DATATYPES)}, got {spec.dtype}; cast it inside the model")
    return DATATYPES[spec.dtype]


class Signature:
    """What requests to one model must look like; reads them into Calls."""

    def __init__(
        self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], *, max_batch: int, limits: Limits, padding: Padding | None = None
    ) -> None:
        self._padding = padding
        self._inputs = {
            spec.name: Input(spec.name, datatype(spec), np.dtype(spec.dtype).newbyteorder("<"), tuple(spec.shape)) for spec in inputs
        }
        self._order = tuple(self._inputs)
        self._outputs = {spec.name: datatype(spec) for spec in outputs}
        self._all = {binary: tuple(Wanted(name, binary) for name in self._outputs) for binary in (False, True)}
        self._max_batch = max_batch
        self._limits = limits
        self._batchable = batchable(inputs, outputs)
        self._known: dict[bytes, _Layout] = {}
        self._varies = any(isinstance(size, str) for spec in inputs for size in spec.shape[1 if self._batchable else 0 :])

    def read(self, body: bytes, head_bytes: int | None = None) -> Call:
        """A Call from a request body; ``head_bytes`` is the length of its JSON part when binary tensors follow.

        Raises:
            Refusal: with status 400 or 413 and the sentence for the client.
        """
        if head_bytes is not None and not 0 <= head_bytes <= len(body):
            raise invalid(f"Inference-Header-Content-Length must lie within the body of {len(body)} bytes, got {head_bytes}")
        head = body if head_bytes is None else body[:head_bytes]
        layout = self._known.get(head) if head_bytes is not None else None
        if layout is None:
            layout = self._layout(self._json(head), binary=head_bytes is not None)
            if head_bytes is not None and len(head) <= KNOWN_BYTES and not layout.id and all(part[2] is not None for part in layout.parts):
                self._remember(head, layout)
        offset = len(head)
        feeds: dict[str, np.ndarray] = {}
        for rule, shape, size, data in layout.parts:
            if size is None:
                feeds[rule.name] = from_json(rule, shape, data)
            else:
                feeds[rule.name] = from_bytes(rule, shape, body, offset, size)
                offset += size
        if offset != len(body):
            raise invalid(f"binary tensors must fill the body, got {len(body) - offset} bytes beyond the last one")
        return Call(feeds, layout.rows, layout.shapes, layout.wanted, layout.id, layout.timeout_s, layout.priority)

    def take(self, request: dict[str, Any], raw: Sequence[bytes | memoryview] | None = None) -> Call:
        """A Call from a request that is already parsed; ``raw`` holds one buffer for each of its inputs, in their order.

        Raises:
            Refusal: with status 400 or 413 and the sentence for the client.
        """
        layout = self._layout(request, binary=False)
        if raw is not None and len(raw) != len(layout.parts):
            raise invalid(f"raw contents must be one buffer for each input, got {len(raw)} for {len(layout.parts)} inputs")
        feeds: dict[str, np.ndarray] = {}
        for place, (rule, shape, _, data) in enumerate(layout.parts):
            if raw is None:
                feeds[rule.name] = from_json(rule, shape, data)
                continue
            size = prod(shape) * rule.dtype.itemsize
            if len(raw[place]) != size:
                raise invalid(f"input {rule.name!r}: raw contents must be {size} bytes for {shown(shape)}, got {len(raw[place])}")
            feeds[rule.name] = from_bytes(rule, shape, raw[place], 0, size)
        return Call(feeds, layout.rows, layout.shapes, layout.wanted, layout.id, layout.timeout_s, layout.priority)

    def _remember(self, head: bytes, layout: _Layout) -> None:
        if len(self._known) >= KNOWN:
            self._known.clear()
        self._known[head] = layout

    def _layout(self, request: dict[str, Any], binary: bool) -> _Layout:
        given = request.get("inputs")
        if type(given) is not list:
            raise invalid(f"inputs must be a list of tensors, got {kind(given)}")
        parts: dict[str, _Part] = {}
        sizes: dict[str, int] = {}
        for tensor in given:
            rule = self._rule(tensor, parts)
            shape = self._shape(rule, tensor.get("shape"), sizes)
            size = _binary_size(rule, shape, tensor, binary)
            parts[rule.name] = (rule, shape, size, tensor.get("data"))
        if len(parts) != len(self._order):
            missing = [name for name in self._order if name not in parts]
            raise invalid(f"inputs must hold {list(self._order)}, missing {missing}")
        name = request.get("id", "")
        if type(name) is not str or len(name) > 256:
            raise invalid("id must be a string of at most 256 characters")
        parameters = request.get("parameters")
        if parameters is not None and type(parameters) is not dict:
            raise invalid(f"parameters must be an object, got {kind(parameters)}")
        timeout_s, priority = _urgency(parameters or {})
        shapes = tuple(parts[name][1] for name in self._order)
        wanted = self._wanted(request, bool(parameters and parameters.get("binary_data_output")))
        return _Layout(tuple(parts.values()), self._rows(shapes), self._key(shapes), wanted, name, timeout_s, priority)

    def _json(self, head: bytes) -> dict[str, Any]:
        if len(head) > self._limits.json_bytes:
            raise Refusal(413, "too_large", f"JSON must be at most {self._limits.json_bytes} bytes, got {len(head)}; send binary tensors")
        try:
            request = orjson.loads(head)
        except orjson.JSONDecodeError as error:
            raise invalid(f"the request must be valid JSON (NaN and infinity travel in binary tensors only), got: {error}") from None
        if type(request) is not dict:
            raise invalid(f"the request must be a JSON object, got {kind(request)}")
        return request

    def _rule(self, tensor: Any, parts: Mapping[str, object]) -> Input:
        if type(tensor) is not dict:
            raise invalid(f"each input must be an object, got {kind(tensor)}")
        name = tensor.get("name")
        rule = self._inputs.get(name) if type(name) is str else None
        if rule is None:
            raise invalid(f"input names must be among {list(self._order)}, got {shown(name)}")
        if name in parts:
            raise invalid(f"each input must be given once, got {name!r} twice")
        if tensor.get("datatype") != rule.datatype:
            raise invalid(f"input {name!r}: datatype must be {rule.datatype}, got {shown(tensor.get('datatype'))}")
        return rule

    def _shape(self, rule: Input, given: Any, sizes: dict[str, int]) -> tuple[int, ...]:
        if type(given) is not list or len(given) != len(rule.shape):
            raise invalid(f"input {rule.name!r}: shape must be {shown_shape(rule.shape)}, got {shown(given)}")
        for size, wanted in zip(given, rule.shape, strict=True):
            if type(size) is not int or size < 1:
                raise invalid(f"input {rule.name!r}: each dimension must be an integer of at least 1, got {shown(given)}")
            if isinstance(wanted, int):
                if size != wanted:
                    raise invalid(f"input {rule.name!r}: shape must be {shown_shape(rule.shape)}, got {shown(given)}")
            elif wanted != "?" and sizes.setdefault(wanted, size) != size:
                raise invalid(f"input {rule.name!r}: {wanted} must be {sizes[wanted]} as in the inputs before it, got {shown(given)}")
        if prod(given) > self._limits.elements:
            raise invalid(f"input {rule.name!r}: at most {self._limits.elements} elements, got shape {shown(given)}")
        return tuple(given)

    def _rows(self, shapes: Sequence[tuple[int, ...]]) -> int:
        if not self._batchable:
            return 1
        rows = [shape[0] for shape in shapes]
        if min(rows) != max(rows):
            raise invalid(f"all inputs must have the same number of rows, got {dict(zip(self._order, rows, strict=True))}")
        if rows[0] > self._max_batch:
            raise invalid(f"a request may hold at most {self._max_batch} rows, got {rows[0]}; split it into several requests")
        return rows[0]

    def _key(self, shapes: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...] | None:
        if not self._varies:
            return None
        beyond = tuple(shape[1 if self._batchable else 0 :] for shape in shapes)
        return beyond if self._padding is None else self._padding.key(beyond)

    def _wanted(self, request: Mapping[str, Any], binary: bool) -> tuple[Wanted, ...]:
        outputs = request.get("outputs")
        if outputs is None or outputs == []:
            return self._all[binary]
        if type(outputs) is not list:
            raise invalid(f"outputs must be a list, got {kind(outputs)}")
        wanted: dict[str, Wanted] = {}
        for output in outputs:
            name = output.get("name") if type(output) is dict else output
            if type(output) is not dict or type(name) is not str or name not in self._outputs or name in wanted:
                raise invalid(f"outputs must be objects with names among {list(self._outputs)}, each once, got {shown(name)}")
            settings = output.get("parameters")
            wanted[name] = Wanted(name, binary) if settings is None else _asked(name, settings, binary)
        return tuple(wanted.values())


def _urgency(parameters: Mapping[str, Any]) -> tuple[float | None, int]:
    """Timeout [s], or none, and priority of a request; as in Triton, the timeout comes in microseconds and 0 asks for nothing special."""
    if parameters.get("sequence_id"):
        raise invalid("sequence_id must be left out: this server keeps nothing between requests")
    timeout_us, priority = parameters.get("timeout", 0), parameters.get("priority", 0)
    if type(timeout_us) is not int or timeout_us < 0:
        raise invalid(f"timeout must be a number of microseconds, an integer of at least 0, got {shown(timeout_us)}")
    if type(priority) is not int or not 0 <= priority < 2**63:
        raise invalid(f"priority must be an integer of at least 0 (1 is served first), got {shown(priority)}")
    return timeout_us / 1e6 or None, priority or DEFAULT_PRIORITY


def _asked(name: str, settings: Any, binary: bool) -> Wanted:
    if type(settings) is not dict:
        raise invalid(f"output {name!r}: parameters must be an object, got {kind(settings)}")
    _only_offered(name, settings)
    classes = settings.get("classification", 0)
    if type(classes) is not int or not 0 <= classes < 2**31:
        raise invalid(f"output {name!r}: classification must be the number of classes wanted, got {shown(classes)}")
    return Wanted(name, bool(settings.get("binary_data", binary)), classes)


def _only_offered(name: str, parameters: Mapping[str, Any]) -> None:
    for parameter in NOT_OFFERED:
        if parameter in parameters:
            raise invalid(f"tensor {name!r}: the parameter {parameter!r} is not offered by this server; leave it out")


def _binary_size(rule: Input, shape: tuple[int, ...], tensor: Mapping[str, Any], binary: bool) -> int | None:
    """How many bytes of the body are this tensor's; none when its data is in the JSON part."""
    parameters = tensor.get("parameters")
    if not parameters:
        return None
    if type(parameters) is not dict:
        raise invalid(f"input {rule.name!r}: parameters must be an object, got {kind(parameters)}")
    _only_offered(rule.name, parameters)
    size = parameters.get("binary_data_size")
    if size is None:
        return None
    if type(size) is not int or not binary or "data" in tensor:
        raise invalid(
            f"input {rule.name!r}: binary_data_size must be an integer, with the header Inference-Header-Content-Length and without data"
        )
    if size != prod(shape) * rule.dtype.itemsize:
        raise invalid(f"input {rule.name!r}: binary_data_size must be {prod(shape) * rule.dtype.itemsize} for {shown(shape)}, got {size}")
    return size
