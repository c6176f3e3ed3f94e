"""Content codings of HTTP bodies: gzip and deflate, in and out (RFC 9110, section 8.4). Bytes only; no sockets, no protocol.

Decoding never makes more bytes than its bound allows, whatever a body claims. It takes time, so a small body is decoded at
once and a large one on another thread: ``decode_small`` says which is which without doing more than a small body's work.
Any thread may call everything here; zlib lets other threads run meanwhile.
"""

from __future__ import annotations

import zlib
from functools import lru_cache

from headway.serve.refusal import Refusal, invalid

OFFERED = ("gzip", "deflate")
"""In the order in which the server prefers them."""

SMALL_BYTES = 64 * 2**10
"""What is decoded while others wait, coded and decoded [B]: a fraction of a millisecond."""

LEAST_CODED_BYTES = 1024
"""Smaller answers are not compressed [B]."""

SAMPLE_BYTES = 2048
WORTH_SHARE = 0.8
"""An answer is compressed when its last ``SAMPLE_BYTES`` shrink to this share or less; floating point noise does not."""

_WINDOW_BITS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
"""zlib's ``wbits``: 31 reads RFC 1952, 15 reads RFC 1950, which is what HTTP calls deflate."""

_FASTEST = 1
_ACCEPTED_BYTES = 256
"""Longer Accept-Encoding headers are not from clients that want compression [B]."""


def decode(coding: bytes, body: bytes, most_bytes: int) -> bytes:
    """The bytes that ``body`` stands for under the Content-Encoding ``coding``.

    Memory stays below ``most_bytes`` and a little, and so does the time, however small a body claims to be large. One
    stream only, from the first byte to the last: what follows it is refused, as is a stream without its end.

    Raises:
        Refusal: 415, the coding is not one of ``OFFERED``; 400, the body is not in that coding, or not whole; 413, it is longer than ``most_bytes``.
    """
    name = coding.strip().lower()
    if name in (b"", b"identity"):
        return body
    decoded = _inflate(name, body, most_bytes)
    if decoded is None:
        raise Refusal(413, "too_large", f"a body must be at most {most_bytes} bytes when decoded; split the request")
    return decoded


def decode_small(coding: bytes, body: bytes) -> bytes | None:
    """As ``decode`` when body and result are at most ``SMALL_BYTES``; none when they are not, and ``decode`` should be called on another thread.

    Raises:
        Refusal: as in ``decode``, but for 413.
    """
    name = coding.strip().lower()
    if name in (b"", b"identity"):
        return body
    return _inflate(name, body, SMALL_BYTES) if len(body) <= SMALL_BYTES or name not in _WINDOW_BITS else None


def _inflate(name: bytes, body: bytes, most_bytes: int) -> bytes | None:
    """The decoded body, or none when it is longer than ``most_bytes``."""
    bits = _WINDOW_BITS.get(name)
    if bits is None:
        raise Refusal(
            415,
            "coding",
            f"Content-Encoding must be gzip, deflate or identity, got {name[:40].decode('latin-1')!r}",
            f"accept-encoding: {', '.join(OFFERED)}\r\n",
        )
    stream = zlib.decompressobj(bits)
    try:
        decoded = stream.decompress(body, most_bytes + 1)
    except zlib.error as error:
        raise invalid(f"the body must be {name.decode()} data, as its Content-Encoding says, got: {error}") from None
    if len(decoded) > most_bytes:
        return None
    if not stream.eof:
        raise invalid(f"the {name.decode()} data of the body must be whole, got {len(body)} bytes without its end")
    if stream.unused_data:
        raise invalid(f"the body must end with its {name.decode()} data, got {len(stream.unused_data)} bytes after it")
    return decoded


def encode(coding: str, body: bytes) -> bytes:
    """``body`` in a coding that ``choose`` chose, compressed as fast as possible."""
    return zlib.compress(body, _FASTEST, _WINDOW_BITS[coding.encode()])


def worth_coding(body: bytes) -> bool:
    """Whether compressing an answer saves enough for its cost: it is not short, and a sample of its end shrinks."""
    if len(body) < LEAST_CODED_BYTES:
        return False
    sample = body[-SAMPLE_BYTES:]
    return len(zlib.compress(sample, _FASTEST)) <= WORTH_SHARE * len(sample)


@lru_cache(maxsize=256)
def _chosen(accept: str) -> str | None:
    weights: dict[str, float] = {}
    for part in accept.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        weight = _weight(parameters)
        if name and weight is not None:
            weights["gzip" if name == "x-gzip" else name] = weight
    best = max(OFFERED, key=lambda coding: weights.get(coding, weights.get("*", 0.0)))
    offered = weights.get(best, weights.get("*", 0.0))
    return best if offered > 0.0 and offered >= weights.get("identity", 0.0) else None


def choose(accept: bytes) -> str | None:
    """The coding for an answer to a client that sent ``Accept-Encoding: accept``; none: the body as it is.

    The client's weights decide (RFC 9110, section 12.5.3); among equals gzip comes first, and the body as it is only when the
    client prefers it. A client that refuses everything (``identity;q=0`` alone) gets the body as it is.
    """
    return _chosen(accept.decode("latin-1")) if len(accept) <= _ACCEPTED_BYTES else None


def _weight(parameters: list[str]) -> float | None:
    """The q value among a coding's parameters, 1 without one; none when it cannot be read."""
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                weight = float(value)
            except ValueError:
                return None
            return weight if 0.0 <= weight <= 1.0 else None
    return 1.0
