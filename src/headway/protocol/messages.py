"""The gRPC messages of the protocol, from ``inference.binpb``; needs protobuf (the extra ``grpc``), so only plug-in files import it.

They live in a pool of their own: a process may also hold another package's generated modules for the same protocol, which would
otherwise claim the same names.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any, NamedTuple

from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message_factory import GetMessageClass

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"


class Method(NamedTuple):
    """One call of the service: the classes of its messages, and whether they come as streams."""

    request: type[Any]
    response: type[Any]
    streams: bool


_POOL = descriptor_pool.DescriptorPool()
for _file in FileDescriptorSet.FromString(files("headway.protocol").joinpath("inference.binpb").read_bytes()).file:
    _POOL.AddSerializedFile(_file.SerializeToString())


def message(name: str) -> type[Any]:
    """The class of a message by its name within the package, such as ``ModelInferRequest`` or ``ModelInferResponse.InferOutputTensor``."""
    made: type[Any] = GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))
    return made


METHODS = {
    method.name: Method(GetMessageClass(method.input_type), GetMessageClass(method.output_type), method.server_streaming)
    for method in _POOL.FindServiceByName(SERVICE).methods
}
"""Every call of the service by its name."""

InferRequest = message("ModelInferRequest")
InferResponse = message("ModelInferResponse")
StreamResponse = message("ModelStreamInferResponse")
