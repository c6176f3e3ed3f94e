"""What is asked of a server over gRPC but inference: health, metadata, statistics, the repository. Messages to dictionaries; no sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError

from headway import __version__
from headway.protocol.messages import METHODS
from headway.serve.about import EXTENSIONS, config, metadata
from headway.serve.models import Models
from headway.serve.refusal import Refusal, invalid


class GrpcControl:
    """Answers control calls; slow ones on another thread. Every method runs on the event loop.

    Args:
        statistics: of the versions it is given; called on another thread.
    """

    def __init__(self, models: Models, statistics: Callable[[Sequence[tuple[str, str]]], dict[str, Any]]) -> None:
        self._models, self._statistics = models, statistics
        self.calls: dict[str, Callable[[Any], Awaitable[dict[str, Any]]]] = {
            "ServerLive": self._live, "ServerReady": self._ready, "ModelReady": self._model_ready, "ServerMetadata": self._about,
            "ModelMetadata": self._metadata, "ModelConfig": self._config, "ModelStatistics": self._stats, "RepositoryIndex": self._index,
            "RepositoryModelLoad": self._load, "RepositoryModelUnload": self._unload,
        }  # fmt: skip

    async def answer(self, name: str, body: bytes) -> bytes:
        """The response's bytes to a request's.

        Raises:
            HeadwayError: what was asked for is not there, not allowed, or failed.
        """
        method = METHODS[name]
        try:
            request = method.request.FromString(body)
        except DecodeError:
            raise invalid(f"the message must be a {method.request.DESCRIPTOR.name} of the Open Inference Protocol v2") from None
        made: bytes = ParseDict(await self.calls[name](request), method.response()).SerializeToString()
        return made

    async def _live(self, _: Any) -> dict[str, Any]:
        return {"live": True}

    async def _ready(self, _: Any) -> dict[str, Any]:
        return {"ready": self._models.ready}

    async def _about(self, _: Any) -> dict[str, Any]:
        extensions = [name for name in EXTENSIONS if name != "binary_tensor_data"]
        return {"name": "headway", "version": __version__, "extensions": extensions}

    async def _model_ready(self, request: Any) -> dict[str, Any]:
        if request.name not in self._models.names() or self._models.draining:
            return {"ready": False}
        model = self._models.model(request.name)
        return {"ready": request.version in model.versions if request.version else model.primary is not None}

    async def _metadata(self, request: Any) -> dict[str, Any]:
        versions = self._models.model(request.name).versions
        return metadata(self._models.show(request.name, request.version), sorted(versions, key=int))

    async def _config(self, request: Any) -> dict[str, Any]:
        return {"config": config(self._models.show(request.name, request.version))}

    async def _stats(self, request: Any) -> dict[str, Any]:
        if not request.name:
            chosen = list(self._models.all())
        elif request.version:
            chosen = [self._models.show(request.name, request.version)]
        else:
            chosen = list(self._models.model(request.name).versions.values())
        versions = [(served.name, served.version) for served in chosen]
        return await asyncio.get_running_loop().run_in_executor(None, self._statistics, versions)

    async def _index(self, request: Any) -> dict[str, Any]:
        return {"models": self._models.index(request.ready)}

    async def _load(self, request: Any) -> dict[str, Any]:
        self._controlled()
        if request.parameters:
            raise invalid(f"a model is loaded as its bundle says: parameters must be left out, got {sorted(request.parameters)[:8]}")
        await self._models.load(request.model_name)
        return {}

    async def _unload(self, request: Any) -> dict[str, Any]:
        self._controlled()
        await self._models.unload(request.model_name)
        return {}

    def _controlled(self) -> None:
        if not self._models.control:
            raise Refusal(403, "control", "the server must be started with --control to load or unload models")
