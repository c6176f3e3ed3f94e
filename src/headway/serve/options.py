"""How a server is run, and what it tells when it listens. Plain data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from headway.records import BundledVariant, InputError, Plan
from headway.serve.arrivals import check_writable
from headway.serve.limits import Limits
from headway.serve.served import Settings


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """A certificate chain and its private key, both PEM."""

    certfile: Path
    keyfile: Path


@dataclass(frozen=True, slots=True)
class Ready:
    """What a server tells when it listens.

    Attributes:
        model, variant, plan: the first model, and the variant of it that answers, which is not its bundle's first when ``notes`` say why.
        models: names of all models.
        grpc_port: where gRPC listens; none: nowhere.
        stop: asks the server to end, from any thread.
    """

    url: str
    host: str
    port: int
    model: str
    variant: BundledVariant
    plan: Plan
    models: tuple[str, ...]
    notes: tuple[str, ...]
    stop: Callable[[], None]
    grpc_port: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to serve, beyond what is served.

    Attributes:
        host, port: where HTTP listens; loopback unless told otherwise; port 0 lets the system choose.
        grpc: host and port where gRPC listens; none: nowhere.
        token: clients must send it as ``Authorization: Bearer``; none lets everybody in. Health checks need no token.
        tls: serve HTTPS, and gRPC over TLS.
        trace: file that the arrivals seen (times and rows) are written to at the end.
        settings: deadlines, queue, variants kept warm.
        control: let clients load and unload models and direct traffic.
        log: write events to standard error in this form; none: do not.
        access_log: log every so-manieth request too; 0: none.
        spans: URL of an OpenTelemetry collector; none: no spans are made.
        spans_share: of the requests that bring no ``traceparent`` of their own, so many get spans.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    grpc: tuple[str, int] | None = None
    token: str | None = None
    tls: TlsFiles | None = None
    trace: Path | None = None
    settings: Settings = field(default_factory=Settings)
    limits: Limits = field(default_factory=Limits)
    control: bool = False
    log: Literal["text", "json"] | None = None
    access_log: int = 0
    spans: str | None = None
    spans_share: float = 0.01

    def check(self) -> None:
        """Make sure, before anything is started, that these can be kept.

        Raises:
            InputError: the token, the queue limit, the access log or the trace file cannot be used.
        """
        token, limit = self.token, self.settings.queue_limit
        if token is not None and (not token or not token.isascii() or not token.isprintable() or " " in token):
            raise InputError("the token must be printable ASCII without spaces, and not empty. Choose another.")
        if limit is not None and limit < 1:
            raise InputError(f"the queue limit must be at least 1, got {limit}. Leave it out for one that follows the objective.")
        if self.access_log < 0:
            raise InputError(f"the access log must take every n-th request, n from 1, or none at 0, got {self.access_log}.")
        if self.trace is not None:
            check_writable(self.trace)
