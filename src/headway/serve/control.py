"""Everything that is asked of a server but inference: health, metadata, statistics, the repository, metrics, pages. URLs to answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import msgspec
import orjson

from headway import __version__
from headway.serve.about import EXTENSIONS, config, metadata
from headway.serve.answer import Answer, respond, respond_json
from headway.serve.models import Models
from headway.serve.refusal import Refusal, invalid
from headway.serve.traffic import read_traffic

Reply = Answer | Awaitable[Answer]
Page = tuple[str, Callable[[], tuple[bytes, str]]]
"""Content type; and the body with further header lines, made on another thread."""


class Control:
    """Answers control requests; slow ones on another thread.

    Args:
        statistics: of the versions it is given; called on another thread.
        pages: by path, what is read from this server as text: metrics, the live page and its data, the documentation.
    """

    def __init__(self, models: Models, statistics: Callable[[Sequence[tuple[str, str]]], dict[str, Any]], pages: dict[bytes, Page]) -> None:
        self._models, self._statistics, self._pages = models, statistics, pages

    def answer(self, method: bytes, path: bytes, body: bytes) -> Reply:
        """The answer to a request, or an awaitable of it.

        Raises:
            Refusal: there is no such path, or the method does not fit it.
        """
        page = self._pages.get(path)
        if page is not None:
            _allow(method, b"GET", b"HEAD")
            return _page(*page)
        parts = [part.decode("utf-8", "replace") for part in path.strip(b"/").split(b"/")]
        match parts:
            case ["v2"]:
                reply: Callable[[], Reply] = self._about
            case ["v2", "health", "live"]:
                reply = partial(respond_json, {"live": True})
            case ["v2", "health", "ready"]:
                reply = self._ready
            case ["v2", "models", "stats"]:
                reply = self._all_statistics
            case ["v2", "models", name, *rest]:
                reply = self._model(name, rest, path)
            case ["v2", "repository", "index"]:
                return self._index(method, body)
            case ["v2", "repository", "models", name, ("load" | "unload") as verb]:
                return self._change(method, name, verb)
            case ["v2", "headway", "traffic", name]:
                return self._traffic(method, name, body)
            case _:
                raise _unknown(path, self._models.names())
        _allow(method, b"GET", b"HEAD")
        return reply()

    # --- the server

    def _about(self) -> Answer:
        return respond_json({"name": "headway", "version": __version__, "extensions": EXTENSIONS, "models": self._models.names()})

    def _ready(self) -> Answer:
        ready = self._models.ready
        return respond_json({"ready": ready}, 200 if ready else 503)

    def _all_statistics(self) -> Reply:
        return self._stats([(served.name, served.version) for served in self._models.all()])

    # --- one model

    def _model(self, name: str, rest: list[str], path: bytes) -> Callable[[], Reply]:
        version, verb = "", rest
        if rest[:1] == ["versions"] and len(rest) > 1:
            version, verb = rest[1], rest[2:]
        model = self._models.model(name)
        if verb == ["ready"] and version in ("", *model.states):
            there = version in model.versions if version else model.primary is not None
            ready = there and not self._models.draining
            return partial(respond_json, {"name": name, "ready": ready}, 200 if ready else 503)
        served = self._models.show(name, version)
        if not verb:
            return lambda: respond_json(metadata(served, sorted(model.versions, key=int)))
        if verb == ["config"]:
            return lambda: respond_json(config(served))
        if verb == ["stats"]:
            chosen = [served] if version else list(model.versions.values())
            return lambda: self._stats([(one.name, one.version) for one in chosen])
        raise _unknown(path, self._models.names())

    async def _stats(self, versions: Sequence[tuple[str, str]]) -> Answer:
        return respond_json(await asyncio.get_running_loop().run_in_executor(None, self._statistics, versions))

    # --- the repository

    def _index(self, method: bytes, body: bytes) -> Answer:
        _allow(method, b"POST")
        asked = _json(body)
        return respond_json(self._models.index(bool(asked.get("ready"))))

    def _change(self, method: bytes, name: str, verb: str) -> Awaitable[Answer]:
        _allow(method, b"POST")
        self._controlled()
        change = self._models.load if verb == "load" else self._models.unload
        return _after(change(name))

    def _traffic(self, method: bytes, name: str, body: bytes) -> Answer:
        _allow(method, b"GET", b"HEAD", b"POST")
        model = self._models.model(name)
        if method == b"POST":
            self._controlled()
            self._models.direct(name, read_traffic(body))
        compared = model.comparison
        told = {
            "primary": model.primary.version if model.primary is not None else None,
            "canary": msgspec.to_builtins(model.traffic.canary),
            "shadow": msgspec.to_builtins(model.traffic.shadow),
            "compared": {"rows": compared.rows, "flips": compared.flips, "skipped": compared.skipped},
        }
        return respond_json(told)

    def _controlled(self) -> None:
        if not self._models.control:
            raise Refusal(403, "control", "the server must be started with --control to load, unload or direct traffic")


async def _page(content_type: str, make: Callable[[], tuple[bytes, str]]) -> Answer:
    body, headers = await asyncio.get_running_loop().run_in_executor(None, make)
    return respond(200, body, content_type, headers)


async def _after(change: Awaitable[None]) -> Answer:
    await change
    return respond_json({})


def _json(body: bytes) -> dict[str, Any]:
    if not body:
        return {}
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise invalid(f"the request must be valid JSON, got: {error}") from None
    if type(asked) is not dict:
        raise invalid("the request must be a JSON object")
    return asked


def _allow(method: bytes, *allowed: bytes) -> None:
    if method not in allowed:
        names = b", ".join(allowed).decode()
        raise Refusal(405, "method", f"the method must be {names}", f"allow: {names}\r\n")


def _unknown(path: bytes, models: list[str]) -> Refusal:
    shown = path[:200].decode("utf-8", "replace")
    return Refusal(
        404,
        "unknown",
        f"the path must be one this server has, got {shown!r}; it serves {', '.join(f'/v2/models/{name}' for name in models)}",
    )
