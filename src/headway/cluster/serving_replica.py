"""One replica of Ray Serve with Headway's engine in it: what Ray's proxies bring is read, batched, refused and answered as by Headway's own server.

Ray carries requests to this process and answers back; it queues and batches none of them, for its limit on requests in flight lies above
Headway's own (extra ``ray``).
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from headway.cluster.serving_counts import Counts
from headway.cluster.serving_grpc import Replies, Reply
from headway.cluster.serving_parcel import Parcel
from headway.records import HeadwayError
from headway.serve import Embedded, Limits, Options, Settings
from headway.serve.http import READ

TOKEN = "HEADWAY_TOKEN"
REPLICA = b"headway-replica"
"""The header that names the replica which answered; an answer of Ray's own proxy has none."""
SWITCH_S = 5e-4
"""The longest that a thread waits for the interpreter's lock while another one computes in Python, as in Headway's own server [s]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What every replica of an application serves.

    Attributes:
        name: of the model in URLs; none: its bundle's.
        token: that clients must send; none: what the replica finds in its environment as HEADWAY_TOKEN, if anything.
    """

    parcel: Parcel
    name: str | None = None
    settings: Settings = field(default_factory=Settings)
    token: str | None = None


class Replica:
    """The deployment's class; Ray makes it, calls it for each request, and ends it when it has no request left."""

    async def __init__(self, order: Order) -> None:
        """Opens the bundle, replays its golden set, warms up.

        Raises:
            HeadwayError: no variant can be served on this node.
        """
        options = Options(token=order.token or os.environ.get(TOKEN) or None, settings=order.settings, limits=Limits())
        context = serve.get_replica_context()
        self._id = context.replica_id.unique_id
        self._mark = (REPLICA, self._id.encode())
        self._embedded = await engine(order, options)
        self._replies = Replies(self._embedded, options)

    async def __call__(self, request: Request) -> Response:
        """The answer to an HTTP request."""
        scope = request.scope
        headers = {name: value for name, value in scope["headers"] if name in READ}
        body = await _body(request, self._embedded.limits.body_bytes)
        method = scope["method"].encode()
        status, head, content = await self._embedded.answer(method, _url(scope), headers, body)
        response = Response(None, status)
        response.raw_headers = [*_pairs(head), self._mark]
        response.body = b"" if method == b"HEAD" else content
        return response

    async def check_health(self) -> None:
        """Called by Ray now and then.

        Raises:
            HeadwayError: no model answers.
        """
        if not self._embedded.models.ready:
            raise HeadwayError("a replica must have a model that answers, and has none; see the log of the replica")

    async def about(self) -> dict[str, Any]:
        """What is served here, for whoever deployed it."""
        first = self._embedded.first
        return {
            "replica": self._id, "process": os.getpid(), "model": first.name, "variant": first.variant.variant.name, "plan": str(first.plan),
            "notes": list(first.started.notes),
        }  # fmt: skip

    def __del__(self) -> None:
        """Called by Ray when all accepted requests are answered; later ones it sends to another replica."""
        embedded = self.__dict__.pop("_embedded", None)
        if embedded is not None:
            embedded.close()

    # --- gRPC: Ray calls the method that is named as the call

    async def ModelInfer(self, body: bytes, grpc_context: Any) -> Reply:
        """An inference."""
        return await self._replies.infer(body, grpc_context)

    async def ServerLive(self, body: bytes, grpc_context: Any) -> Reply:
        """Whether the process lives."""
        return await self._replies.control("ServerLive", body, grpc_context)

    async def ServerReady(self, body: bytes, grpc_context: Any) -> Reply:
        """Whether every model accepts requests."""
        return await self._replies.control("ServerReady", body, grpc_context)

    async def ServerMetadata(self, body: bytes, grpc_context: Any) -> Reply:
        """What the server is."""
        return await self._replies.control("ServerMetadata", body, grpc_context)

    async def ModelReady(self, body: bytes, grpc_context: Any) -> Reply:
        """Whether a model accepts requests."""
        return await self._replies.control("ModelReady", body, grpc_context)

    async def ModelMetadata(self, body: bytes, grpc_context: Any) -> Reply:
        """A model's inputs and outputs."""
        return await self._replies.control("ModelMetadata", body, grpc_context)

    async def ModelConfig(self, body: bytes, grpc_context: Any) -> Reply:
        """A model's configuration in Triton's form."""
        return await self._replies.control("ModelConfig", body, grpc_context)

    async def ModelStatistics(self, body: bytes, grpc_context: Any) -> Reply:
        """Statistics of this replica in Triton's form."""
        return await self._replies.control("ModelStatistics", body, grpc_context)

    async def RepositoryIndex(self, body: bytes, grpc_context: Any) -> Reply:
        """The models of this replica."""
        return await self._replies.control("RepositoryIndex", body, grpc_context)


async def engine(order: Order, options: Options) -> Embedded:
    """The engine of a replica, started; this process is set up for it as that of Headway's own server.

    Raises:
        HeadwayError: no variant can be served on this node.
    """
    with order.parcel.opened() as bundle:
        embedded = Embedded(bundle, name=order.name, options=options, also=(Counts(),))
        await embedded.start()
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()
    return embedded


async def _body(request: Request, most_bytes: int) -> bytes:
    """A request's body; one that is too large is read no further than it takes to see that."""
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        pieces.append(piece)
        size += len(piece)
        if size > most_bytes:
            break
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _url(scope: Any) -> bytes:
    """The path that Headway knows: without the prefix of the application's route."""
    url: bytes = scope.get("raw_path") or scope["path"].encode()
    prefix = scope.get("root_path", "").encode()
    return url[len(prefix) :] or b"/" if prefix and url.startswith(prefix) else url


def _pairs(head: bytes) -> Sequence[tuple[bytes, bytes]]:
    """The header lines after the first one of a head."""
    return [(name, value) for name, _, value in (line.partition(b": ") for line in head.split(b"\r\n")[1:]) if name]
