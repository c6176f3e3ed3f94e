"""The Open Inference Protocol v2 through Ray Serve's gRPC proxies: messages pass them as bytes, and are read where they are answered.

``add_servicer`` goes into Ray's ``grpc_servicer_functions``; ``Replies`` answers in the replica (extra ``ray``, which brings grpcio and protobuf).
"""

from __future__ import annotations

from typing import Any

import grpc

from headway.protocol.messages import SERVICE
from headway.serve import Embedded, Options
from headway.serve.fronts._grpc_calls import Calls, Metadata
from headway.serve.fronts._grpc_codes import code
from headway.serve.fronts._grpc_control import GrpcControl
from headway.serve.refusal import Refusal

OFFERED = (
    "ModelInfer", "ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics",
    "RepositoryIndex",
)  # fmt: skip
"""Calls that the proxies know; each is a method of the replica."""


def add_servicer(servicer: Any, server: Any) -> None:
    """Make a proxy know the calls; Ray puts its own way to a replica in the place of each."""
    handlers = {name: grpc.unary_unary_rpc_method_handler(getattr(servicer, name)) for name in OFFERED}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


class Reply:
    """The bytes of a response; Ray asks a message for them."""

    __slots__ = ("_content",)

    def __init__(self, content: bytes) -> None:
        self._content = content

    def SerializeToString(self) -> bytes:
        """They."""
        return self._content


class _Given:
    """What Ray's proxy tells of a call: no deadline, for it keeps that to itself."""

    __slots__ = ("_metadata",)

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata

    def invocation_metadata(self) -> Metadata:
        """What the client sent with the call."""
        return self._metadata

    def time_remaining(self) -> float | None:
        """Not known."""
        return None


class Replies:
    """Answers calls in a replica, on the event loop of its engine."""

    def __init__(self, embedded: Embedded, options: Options) -> None:
        control = GrpcControl(embedded.models, embedded.statistics)
        self._calls = Calls(
            embedded.models, control, options.limits, options.token, refused=embedded.refused, arrived=lambda arrived_s, rows: None
        )

    async def infer(self, body: bytes, context: Any) -> Reply:
        """The response to a ModelInferRequest; a refusal is told by the code in ``context``."""
        if not self._calls.admits(f"/{SERVICE}/ModelInfer", context.invocation_metadata()):
            return _told(self._calls.unauthorized(), context)
        return _told(await self._calls.infer(body, _Given(context.invocation_metadata())), context)

    async def control(self, name: str, body: bytes, context: Any) -> Reply:
        """The response to a call that is no inference."""
        if not self._calls.admits(f"/{SERVICE}/{name}", context.invocation_metadata()):
            return _told(self._calls.unauthorized(), context)
        return _told(await self._calls.control(name, body), context)


def _told(answer: bytes | Refusal, context: Any) -> Reply:
    if isinstance(answer, Refusal):
        context.set_code(code(answer))
        context.set_details(str(answer))
        return Reply(b"")
    return Reply(answer)
