"""Refusals as gRPC's status codes."""

from __future__ import annotations

import grpc

from headway.serve.refusal import Refusal

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT, 401: grpc.StatusCode.UNAUTHENTICATED, 403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND, 408: grpc.StatusCode.DEADLINE_EXCEEDED, 413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED, 503: grpc.StatusCode.UNAVAILABLE,
}  # fmt: skip


def code(refusal: Refusal) -> grpc.StatusCode:
    """gRPC's code of a refusal: by its HTTP status, but an accepted request that others made late is DEADLINE_EXCEEDED."""
    if refusal.reason == "late":
        return grpc.StatusCode.DEADLINE_EXCEEDED
    return _CODES.get(refusal.status, grpc.StatusCode.INTERNAL)
