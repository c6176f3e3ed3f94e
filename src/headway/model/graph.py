"""The model inside Headway: an ONNX graph with a name and an origin. Knows nothing of files other than ONNX."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import onnx
import onnx_ir as ir

from headway.model.specs import specs_of
from headway.records import InputError, ModelError, TensorSpec

INLINE_LIMIT_BYTES = 1_500_000_000  # protobuf refuses messages of 2 GiB


@dataclass(frozen=True, eq=False)
class Model:
    """One ONNX graph; equal to another when the digests are equal.

    Attributes:
        name: short name for people.
        origin: how it became ONNX: ``onnx``, ``torch-dynamo``, ``torch-script``, ``keras``, ``saved-model``.
        ir: the graph. It must never be changed; take ``to_proto()`` or ``ir.clone()`` and build a new Model.
    """

    name: str
    origin: str
    ir: ir.Model = field(repr=False)

    @classmethod
    def from_proto(cls, proto: onnx.ModelProto, name: str, origin: str) -> Model:
        """A Model from a protobuf with its weights inside; later changes of ``proto`` do not reach it."""
        own = onnx.ModelProto()
        own.CopyFrom(proto)
        return cls(name, origin, ir.from_proto(own))

    def to_proto(self) -> onnx.ModelProto:
        """A protobuf with the weights inside, free to be changed."""
        return ir.to_proto(self.ir)

    def to_bytes(self) -> bytes:
        """The ONNX file's bytes, weights inside; the same graph gives the same bytes.

        Raises:
            ModelError: the graph is larger than a protobuf can be (2 GiB); ``save`` writes such a graph.
        """
        size = weights_size(self.ir)
        if size > INLINE_LIMIT_BYTES:
            raise ModelError(
                f"{self.name}: a model in one piece must hold at most {INLINE_LIMIT_BYTES / 1e9:g} GB, got {size / 1e9:.2f} GB of weights; "
                "save it with external data instead"
            )
        return bytes(self.to_proto().SerializeToString(deterministic=True))

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of ``to_bytes()``; of a large graph, of its bytes without the weights and then the weights in order."""
        if weights_size(self.ir) <= INLINE_LIMIT_BYTES:
            return hashlib.sha256(self.to_bytes()).hexdigest()
        seen = hashlib.sha256()
        for name, value in sorted(self.ir.graph.initializers.items()):
            if value.const_value is not None:
                seen.update(f"{name}:{value.const_value.dtype}:{list(value.const_value.shape)}".encode())
                seen.update(value.const_value.tobytes())
        bare = self.ir.clone()
        for value in bare.graph.initializers.values():
            value.const_value = None
        seen.update(ir.to_proto(bare).SerializeToString(deterministic=True))
        return seen.hexdigest()

    @cached_property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What one call takes, in order; weights listed as inputs are none."""
        return specs_of(value for value in self.ir.graph.inputs if value.name not in self.ir.graph.initializers)

    @cached_property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What one call gives, in order."""
        return specs_of(self.ir.graph.outputs)

    @property
    def opset(self) -> int:
        """Version of the standard ONNX operator set."""
        imports = self.ir.graph.opset_imports
        return imports.get("", imports.get("ai.onnx", 0))

    def save(self, path: Path) -> None:
        """Write the ONNX file, whole or not at all; weights beyond 1.5 GB go to ``FILE.onnx.data`` beside it.

        Raises:
            InputError: the folder cannot be written (read-only, full disk); nothing half-written stays.
        """
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=".headway-", dir=path.parent))
            try:
                self._write(folder / path.name)
                for file in sorted(folder.iterdir(), key=lambda item: item.suffix == path.suffix):  # the .onnx file last
                    os.replace(file, path.parent / file.name)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        except OSError as error:
            raise InputError(
                f"{path}: must be writable, got: {error.strerror or error}. Free space or choose another folder; nothing was half-written."
            ) from error

    def _write(self, path: Path) -> None:
        if weights_size(self.ir) > INLINE_LIMIT_BYTES:
            ir.save(self.ir, path, external_data=f"{path.name}.data")
        else:
            path.write_bytes(self.to_bytes())


def weights_size(graph: ir.Model) -> int:
    """Bytes of all initializers of the main graph and of its subgraphs [B]."""
    return sum(value.const_value.nbytes for each in graph.graphs() for value in each.initializers.values() if value.const_value is not None)
