"""One inference by the Open Inference Protocol over HTTP, tensors as raw bytes: what verification asks a server."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote, urlsplit

import numpy as np

from headway.records import BundleError, ConfigError, TensorSpec
from headway.serve import batchable, datatype

Arrays = Mapping[str, np.ndarray]
ASK_S = 60.0
HEAD = "Inference-Header-Content-Length"
LAST_WORDS = 600


class Refused(BundleError):
    """A server answered with another status than 200."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Server(NamedTuple):
    """Where a server listens, and what it is called in messages."""

    host: str
    port: int
    who: str
    prefix: str = ""
    tls: bool = False
    token: str = ""


def server_at(url: str, token: str = "") -> Server:
    """The server of a URL such as ``http://127.0.0.1:8000``; a path in front of ``/v2`` is kept.

    Raises:
        ConfigError: it is no such URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise ConfigError(f"--url must be an address such as http://127.0.0.1:8000, got {url!r}: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ConfigError(f"--url must be an address such as http://127.0.0.1:8000, got {url!r}")
    return Server(parts.hostname, port, url, parts.path.rstrip("/"), parts.scheme == "https", token)


def ask_rows(
    server: Server, model: str, inputs: Arrays, specs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> dict[str, np.ndarray]:
    """The answers to the rows of ``inputs``, asked one by one, so that no server's largest batch matters; all at once where rows cannot be parted.

    Args:
        specs, outputs: of the model.

    Raises:
        Refused: a status other than 200. BundleError: no answer, or one that does not follow the protocol.
    """
    if not batchable(specs, outputs):
        return ask(server, model, inputs, outputs)
    count = len(next(iter(inputs.values())))
    given = [ask(server, model, {name: array[row : row + 1] for name, array in inputs.items()}, outputs) for row in range(count)]
    return {spec.name: np.concatenate([answer[spec.name] for answer in given]) for spec in outputs}


def ask(server: Server, model: str, inputs: Arrays, outputs: Sequence[TensorSpec]) -> dict[str, np.ndarray]:
    """The answer to one request.

    Raises:
        Refused: a status other than 200. BundleError: no answer, or one that does not follow the protocol.
    """
    tensors = [
        {
            "name": name, "shape": list(array.shape), "parameters": {"binary_data_size": array.nbytes},
            "datatype": datatype(TensorSpec(name=name, dtype=array.dtype.name, shape=())),
        }
        for name, array in inputs.items()
    ]  # fmt: skip
    wanted = [{"name": spec.name, "parameters": {"binary_data": True}} for spec in outputs]
    head = json.dumps({"inputs": tensors, "outputs": wanted}).encode()
    body = b"".join([head, *(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes() for array in inputs.values())])
    try:
        status, at, answer = _post(server, f"{server.prefix}/v2/models/{quote(model)}/infer", body, len(head))
    except (OSError, http.client.HTTPException) as error:
        raise BundleError(f"{server.who}: the server must answer, got: {error!r}. Is it running, and ready?") from error
    if status != http.HTTPStatus.OK:
        words = answer[:LAST_WORDS].decode("utf-8", "replace")
        raise Refused(f"{server.who}: the server must answer with 200, got {status}: {words}", status)
    try:
        return _read(answer, int(at or len(answer)), {spec.name: spec for spec in outputs})
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(
            f"{server.who}: the answer must follow the Open Inference Protocol, got {answer[:80]!r}... ({error!r})"
        ) from error


def _post(server: Server, path: str, body: bytes, head_bytes: int) -> tuple[int, str | None, bytes]:
    kind = http.client.HTTPSConnection if server.tls else http.client.HTTPConnection
    headers = {HEAD: str(head_bytes), "Content-Type": "application/octet-stream"}
    if server.token:
        headers["Authorization"] = f"Bearer {server.token}"
    with contextlib.closing(kind(server.host, server.port, timeout=ASK_S)) as connection:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.getheader(HEAD), answer.read()


def _read(answer: bytes, at: int, specs: Mapping[str, TensorSpec]) -> dict[str, np.ndarray]:
    arrays = {}
    for tensor in json.loads(answer[:at])["outputs"]:
        dtype, shape = np.dtype(specs[tensor["name"]].dtype), tensor["shape"]
        size = tensor.get("parameters", {}).get("binary_data_size")
        if size is None:
            arrays[tensor["name"]] = np.asarray(tensor["data"], dtype).reshape(shape)
            continue
        found = np.frombuffer(answer, dtype.newbyteorder("<"), math.prod(shape), at)
        arrays[tensor["name"]] = found.reshape(shape).astype(dtype)
        at += size
    return arrays
