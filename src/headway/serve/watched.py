"""Everything that is counted of a server and shown to those who look: metrics, statistics, logs, spans. Off the event loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from headway import __version__
from headway.discovery import find
from headway.records import InputError
from headway.serve import traces
from headway.serve.control import Page
from headway.serve.folding import Folding
from headway.serve.live import Live
from headway.serve.logs import Access, Refusals
from headway.serve.metrics import CONTENT_TYPE, Metrics, Now, ShadowNow, VersionNow
from headway.serve.models import Models
from headway.serve.options import Options
from headway.serve.seen import Folds
from headway.serve.statistics import Statistics


class Watched:
    """One server's counts. Made before its models; ``show`` then tells where to read what is not counted.

    Args:
        also: who counts beside them.

    Raises:
        InputError: spans are wanted and OpenTelemetry is not installed.
    """

    def __init__(self, options: Options, also: Sequence[Folds] = ()) -> None:
        self._statistics = Statistics()
        self._metrics = Metrics({"version": __version__})
        self._live = Live()
        self.spans = _spans(options)
        consumers: list[Folds] = [self._statistics, self._metrics, self._live, Refusals(), *also]
        if options.access_log:
            consumers.append(Access(options.access_log))
        if self.spans is not None:
            consumers.append(self.spans)
        self.folding = Folding(consumers)

    def show(self, models: Models, connections: Callable[[], int]) -> None:
        """Read gauges from these."""
        self._metrics.now = lambda: Now(
            models.ready,
            connections(),
            [VersionNow(one.name, one.version, one.ready, one.in_flight, one.waiting, one.level) for one in list(models.all())],
            [shadow for name in models.names() if (shadow := _shadow(models, name)) is not None],
            self.folding.dropped,
        )

    def statistics(self, versions: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """Triton's statistics of these versions; waits for a fold, so never on the event loop."""
        self.folding.fold_now()
        return {"model_stats": [self._statistics.of(name, version) for name, version in versions]}

    def recent(self, gauges: dict[str, Any]) -> dict[str, Any]:
        """The last two minutes, for the live page; waits for a fold, so never on the event loop."""
        self.folding.fold_now()
        return self._live.snapshot(time.perf_counter(), gauges)

    @property
    def metrics(self) -> Page:
        """The page that a Prometheus server scrapes."""
        return CONTENT_TYPE, self._scrape

    def _scrape(self) -> tuple[bytes, str]:
        self.folding.fold_now()
        return self._metrics.text(), ""


def _shadow(models: Models, name: str) -> ShadowNow | None:
    model = models.model(name)
    shadow, counted = model.traffic.shadow, model.comparison
    return None if shadow is None else ShadowNow(name, shadow.version, counted.rows, counted.flips, counted.skipped)


def _spans(options: Options) -> Any:
    if options.spans is None:
        return None
    found = find(traces, "opentelemetry")
    if "opentelemetry" not in found.present:
        raise InputError(f"spans need OpenTelemetry, which {found.missing.get('opentelemetry', 'is not there')}. Install headway[otel].")
    return found.present["opentelemetry"].open_traces(endpoint=options.spans, share=options.spans_share)
