"""Answers as bytes: Open Inference Protocol v2 results, errors, and the HTTP heads before them. No sockets here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from headway.protocol.datatypes import DATATYPES
from headway.serve.call import Call, Wanted
from headway.serve.classes import bytes_tensor, classify, json_strings
from headway.serve.coding import encode, worth_coding
from headway.serve.refusal import Refusal
from headway.serve.wire import KNOWN

Answer = tuple[int, bytes, bytes]
"""Status; HTTP head without its closing blank line (whoever writes it decides whether the connection stays open); body."""

REASONS = {
    200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout",
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


def respond_refusal(refusal: Refusal) -> Answer:
    """The answer ``{"error": ...}`` of a refusal; made once for each."""
    if refusal.answer is None:
        refusal.answer = respond(refusal.status, orjson.dumps({"error": str(refusal)}), extra=refusal.headers)
    answer: Answer = refusal.answer
    return answer


class HttpForm:
    """Results of one model version as HTTP answers; every answer names the variant that computed it."""

    def __init__(self, model: str, version: str, labels: Sequence[str], *, batched: bool = True) -> None:
        self._model, self._version, self._labels, self._batched = model, version, labels, batched
        self._known: dict[tuple[Any, ...], tuple[bytes, bytes]] = {}
        self._heads: dict[str, tuple[bytes, bytes]] = {}

    def answer(self, call: Call, outputs: Sequence[tuple[Wanted, np.ndarray]], variant: str) -> Answer:
        """The answer from a request's own rows of the outputs it wants.

        A number that JSON cannot hold (NaN, infinity) becomes ``null`` in JSON outputs; binary outputs carry it as it is.
        """
        key = (variant, call.wanted, *[array.shape for _, array in outputs])
        plain = not call.id and call.owner.coding is None
        known = self._known.get(key) if plain else None
        if known is not None:
            return 200, known[0], b"".join((known[1], *[array.tobytes() for _, array in outputs]))
        if any(wanted.classes for wanted, _ in outputs):
            outputs = [
                (wanted, classify(array, wanted.classes, self._labels, batched=self._batched) if wanted.classes else array)
                for wanted, array in outputs
            ]
        blobs = [_bytes(array) for wanted, array in outputs if wanted.binary]
        text = self._text(call, outputs)
        json_head, binary_head = self._heads.get(variant) or self._head(variant)
        body = b"".join((text, *blobs)) if blobs else text
        coding = call.owner.coding
        if coding is not None and worth_coding(body):
            head = b"%b%d\r\ncontent-length: " % (binary_head, len(text)) if blobs else json_head
            return _coded(coding, head, body)
        if not blobs:
            return 200, b"%b%d\r\n" % (json_head, len(body)), body
        head = b"%b%d\r\ncontent-length: %d\r\n" % (binary_head, len(text), len(body))
        if plain and len(blobs) == len(outputs) and all(array.dtype != object for _, array in outputs):
            self._remember(key, head, text)
        return 200, head, body

    def refuse(self, refusal: Refusal) -> Answer:
        """The answer ``{"error": ...}``."""
        return respond_refusal(refusal)

    def _head(self, variant: str) -> tuple[bytes, bytes]:
        """What stands before the length in the head of an answer in JSON, and of one with binary outputs."""
        head = f"HTTP/1.1 200 OK\r\nheadway-variant: {header_text(variant)}\r\ncontent-type: "
        made = self._heads[variant] = (
            (head + "application/json\r\ncontent-length: ").encode("latin-1"),
            (head + "application/octet-stream\r\ninference-header-content-length: ").encode("latin-1"),
        )
        return made

    def _text(self, call: Call, outputs: Sequence[tuple[Wanted, np.ndarray]]) -> bytes:
        """The JSON part of an answer."""
        told: list[dict[str, Any]] = []
        for wanted, array in outputs:
            output: dict[str, Any] = {"name": wanted.name, "datatype": DATATYPES.get(array.dtype.name, "BYTES"), "shape": array.shape}
            if wanted.binary:
                output["parameters"] = {"binary_data_size": array.nbytes if array.dtype != object else len(_bytes(array))}
            elif array.dtype == object:
                output["data"] = json_strings(array)
            else:
                output["data"] = np.ascontiguousarray(array).reshape(-1)
            told.append(output)
        answer: dict[str, Any] = {"model_name": self._model, "model_version": self._version, "outputs": told}
        if call.id:
            answer["id"] = call.id
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)

    def _remember(self, key: tuple[Any, ...], head: bytes, text: bytes) -> None:
        """Keep what stands before the numbers of an answer: it is the same for all answers of its shape."""
        if len(self._known) >= KNOWN:
            self._known.clear()
        self._known[key] = (head, text)


def _bytes(array: np.ndarray) -> bytes:
    return bytes_tensor(array) if array.dtype == object else array.tobytes()


def _coded(coding: str, head: bytes, body: bytes) -> Answer:
    """An answer whose body is compressed; ``head`` ends where the length of the body belongs."""
    packed = encode(coding, body)
    at = head.index(b"content-type: ")
    return (
        200,
        b"%bcontent-encoding: %b\r\nvary: accept-encoding\r\n%b%d\r\n" % (head[:at], coding.encode(), head[at:], len(packed)),
        packed,
    )


def header_text(text: str) -> str:
    """A text that is safe as a header's value: printable ASCII, anything else replaced."""
    return "".join(char if " " <= char <= "~" else "?" for char in text)
