"""Answers as bytes: Open Inference Protocol v2 results, errors, and the HTTP heads before them. No sockets here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from headway.serve.refusal import Refusal
from headway.serve.wire import DATATYPES, KNOWN, Call

VERSION = "1"
"""The only version of the model in a bundle, as the protocol's URLs name it."""

Answer = tuple[int, bytes, bytes]
"""Status; HTTP head without its closing blank line (whoever writes it decides whether the connection stays open); body."""

REASONS = {
    200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout",
    413: "Content Too Large", 415: "Unsupported Media Type", 429: "Too Many Requests", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 503: "Service Unavailable",
}  # fmt: skip

_EXTRA = {
    401: 'www-authenticate: Bearer realm="headway"\r\n',
    429: "retry-after: 1\r\n",
    503: "retry-after: 1\r\n",
}


def respond(status: int, body: bytes, content_type: str = "application/json", extra: str = "") -> Answer:
    """An answer with any body; ``extra`` holds complete header lines."""
    head = (
        f"HTTP/1.1 {status} {REASONS[status]}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n"
        f"{_EXTRA.get(status, '')}{extra}"
    )
    return status, head.encode("latin-1"), body


def respond_json(value: Any, status: int = 200) -> Answer:
    """An answer with a JSON body."""
    return respond(status, orjson.dumps(value))


def respond_refusal(refusal: Refusal, extra: str = "") -> Answer:
    """The answer ``{"error": ...}`` of a refusal."""
    return respond(refusal.status, orjson.dumps({"error": str(refusal)}), extra=extra)


class Encoder:
    """Results of one model as protocol answers; every answer names the variant that computed it."""

    def __init__(self, model: str, variant: str) -> None:
        self._model = model
        self._known: dict[tuple[Any, ...], bytes] = {}
        self._head = "HTTP/1.1 200 OK\r\nheadway-variant: " + header_text(variant) + "\r\ncontent-type: "
        self._json_head = (self._head + "application/json\r\ncontent-length: ").encode("latin-1")
        self._binary_head = (self._head + "application/octet-stream\r\ninference-header-content-length: ").encode("latin-1")

    def encode(self, call: Call, results: Mapping[str, np.ndarray], first: int, last: int | None) -> Answer:
        """The answer to ``call`` from rows ``first`` to ``last`` of a run's results (``last`` none: the results whole).

        A number that JSON cannot hold (NaN, infinity) becomes ``null`` in JSON outputs; binary outputs carry it as it is.
        """
        arrays = [results[name] if last is None else results[name][first:last] for name, _ in call.wanted]
        blobs = [array.tobytes() for array, (_, binary) in zip(arrays, call.wanted, strict=True) if binary]
        if len(blobs) < len(arrays) or call.id:
            text = self._text(call, arrays)
        else:
            key = (call.wanted, *[array.shape for array in arrays])
            known = self._known.get(key)
            text = known if known is not None else self._remember(key, self._text(call, arrays))
        if not blobs:
            return 200, b"%b%d\r\n" % (self._json_head, len(text)), text
        body = b"".join((text, *blobs))
        return 200, b"%b%d\r\ncontent-length: %d\r\n" % (self._binary_head, len(text), len(body)), body

    def _text(self, call: Call, arrays: Sequence[np.ndarray]) -> bytes:
        """The JSON part of an answer."""
        outputs: list[dict[str, Any]] = []
        for (name, binary), array in zip(call.wanted, arrays, strict=True):
            output: dict[str, Any] = {"name": name, "datatype": DATATYPES[array.dtype.name], "shape": array.shape}
            if binary:
                output["parameters"] = {"binary_data_size": array.nbytes}
            else:
                output["data"] = np.ascontiguousarray(array).reshape(-1)
            outputs.append(output)
        answer: dict[str, Any] = {"model_name": self._model, "model_version": VERSION, "outputs": outputs}
        if call.id:
            answer["id"] = call.id
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)

    def _remember(self, key: tuple[Any, ...], text: bytes) -> bytes:
        if len(self._known) >= KNOWN:
            self._known.clear()
        self._known[key] = text
        return text


def header_text(text: str) -> str:
    """A text that is safe as a header's value: printable ASCII, anything else replaced."""
    return "".join(char if " " <= char <= "~" else "?" for char in text)
