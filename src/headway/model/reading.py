"""An ``.onnx`` file to a checked protobuf with its weights inside. Every byte of the file is taken for hostile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from headway.records import ModelError

MAX_FILE_BYTES = 2**31 - 1  # what protobuf can hold
MAX_WEIGHT_BYTES = 16 * 2**30
_INLINE_CHECK_BYTES = 1_900_000_000


def read_onnx(path: Path) -> onnx.ModelProto:
    """The graph in a file, with external data (from the file's own folder only) read in, passed by the ONNX checker.

    Raises:
        ModelError: no such file, a text file, a truncated file, a graph that breaks the ONNX rules, external data that is missing, too
            short, too large, or outside the folder.
    """
    proto = _parse(path, _bytes_of(path))
    _load_external(proto, path)
    _check_rules(proto, path)
    _check_ports(proto, path)
    return proto


def _check_rules(proto: onnx.ModelProto, path: Path) -> None:
    """Pass the graph through ONNX's checker; outputs without a shape, which runtimes take and the checker does not, are let through."""
    bare = [port for port in proto.graph.output if port.type.HasField("tensor_type") and not port.type.tensor_type.HasField("shape")]
    for port in bare:
        port.type.tensor_type.shape.SetInParent()
    weights = sum(len(tensor.raw_data) for tensor in proto.graph.initializer)
    try:
        onnx.checker.check_model(proto if weights < _INLINE_CHECK_BYTES else str(path))
    except (onnx.checker.ValidationError, ValueError) as error:
        raise ModelError(f"{path}: must follow the ONNX rules, got: {_first_line(error)}. Export the model again.") from error
    for port in bare:
        port.type.tensor_type.ClearField("shape")


def _bytes_of(path: Path) -> bytes:
    if not path.is_file():
        raise ModelError(f"{path}: must be an existing ONNX file, got {'a folder' if path.is_dir() else 'nothing there'}; check the path")
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ModelError(f"{path}: an ONNX file must be below 2 GiB, got {size / 1e9:.2f} GB; save the weights as external data")
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: must be readable, got: {error.strerror}; check its permissions") from error
    if not content:
        raise ModelError(f"{path}: must hold an ONNX graph, got an empty file; export or copy the model again")
    if content.startswith(b"version https://git-lfs"):
        raise ModelError(f"{path}: must hold an ONNX graph, got a Git LFS pointer; run 'git lfs pull'")
    head = content[:512]
    if all(byte in b"\t\n\r\f" or 32 <= byte < 127 or byte >= 128 for byte in head):
        raise ModelError(f"{path}: must hold an ONNX graph, got a text file that starts with {_excerpt(head)}; give the .onnx file itself")
    return content


def _parse(path: Path, content: bytes) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except (DecodeError, RecursionError) as error:
        raise ModelError(
            f"{path}: must hold a whole ONNX graph, got {len(content)} bytes that do not parse: "
            "truncated, or no ONNX at all; copy or export it again"
        ) from error
    if not proto.HasField("graph") or not proto.graph.output or not proto.opset_import:
        raise ModelError(
            f"{path}: must hold an ONNX graph with outputs and an opset, got a file without; truncated, or no ONNX at all; export it again"
        )
    return proto


def _load_external(proto: onnx.ModelProto, path: Path) -> None:
    total = 0
    for tensor in _tensors(proto):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        facts = {entry.key: entry.value for entry in tensor.external_data}
        file = _inside(path, facts.get("location", ""), tensor.name)
        available = file.stat().st_size
        offset = _count(facts.get("offset", "0"), path, tensor.name)
        length = _count(facts["length"], path, tensor.name) if "length" in facts else available - offset
        if offset + length > available or length < 0:
            raise ModelError(
                f"{path}: weight {tensor.name} must lie in {file.name}, got bytes {offset} to {offset + length} of {available}; "
                "the data file is truncated or belongs to another model"
            )
        total += length
        if total > MAX_WEIGHT_BYTES:
            raise ModelError(f"{path}: external weights must be at most {MAX_WEIGHT_BYTES / 2**30:g} GiB in all; this model is too large")
        with file.open("rb") as data:
            data.seek(offset)
            tensor.raw_data = data.read(length)
        del tensor.external_data[:]
        tensor.data_location = onnx.TensorProto.DEFAULT


def _inside(path: Path, location: str, tensor: str) -> Path:
    folder = path.parent.resolve()
    file = (folder / location).resolve()
    if not location or Path(location).is_absolute() or ".." in Path(location).parts or not file.is_relative_to(folder):
        raise ModelError(f"{path}: weight {tensor} must lie in the model's own folder, got {location!r}; do not trust this file")
    if not file.is_file():
        raise ModelError(f"{path}: weight {tensor} must lie in {location!r} beside the model, got no such file; copy it there too")
    return file


def _count(text: str, path: Path, tensor: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ModelError(f"{path}: weight {tensor} must give offset and length as whole numbers, got {text[:40]!r}; export the model again")
    return int(text)


def _tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _graph_tensors(proto.graph)
    for function in proto.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes) -> Iterator[onnx.TensorProto]:  # type: ignore[no-untyped-def]
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from _graph_tensors(attribute.g)
            for graph in attribute.graphs:
                yield from _graph_tensors(graph)


def _check_ports(proto: onnx.ModelProto, path: Path) -> None:
    weights = {tensor.name for tensor in proto.graph.initializer}
    for kind, ports in (("input", proto.graph.input), ("output", proto.graph.output)):
        for port in ports:
            if port.name not in weights and port.type.WhichOneof("value") not in ("tensor_type", None):
                got = port.type.WhichOneof("value").removesuffix("_type")
                raise ModelError(
                    f"{path}: {kind} {port.name} must be a dense tensor, got a {got}; export without it (scikit-learn: zipmap=False)"
                )


def _excerpt(head: bytes) -> str:
    return repr(head.decode("utf-8", "replace").split("\n")[0][:40])


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:300].rstrip(". ")
