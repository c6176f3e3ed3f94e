"""A request that gets no inference: its HTTP status, the reason it is counted under, and the sentence for the client."""

from __future__ import annotations

from typing import Any

from headway.records import HeadwayError


class Refusal(HeadwayError):
    """Raised while a request is read or checked; it never leaves the server: it becomes an answer ``{"error": ...}``.

    ``headers`` holds complete header lines that go with it; ``answer`` keeps the finished answer, for those who say the same thing often.
    """

    def __init__(self, status: int, reason: str, message: str, headers: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.headers = headers
        self.answer: Any = None


def invalid(message: str) -> Refusal:
    """A refusal with status 400: the request itself must change."""
    return Refusal(400, "invalid", message)
