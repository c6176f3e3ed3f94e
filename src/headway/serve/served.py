"""One version of one model, ready to answer: its sessions, its batcher, its steps along the frontier. No protocol, no sockets."""

from __future__ import annotations

import asyncio
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from headway.batching import Batcher, BatchTimes, Late, QueueFull, calm, capacity_per_s, level
from headway.records import BundledVariant
from headway.serve.bundle import OpenBundle
from headway.serve.call import DEFAULT_PRIORITY, Call
from headway.serve.engine import Engine, Level, Outcome
from headway.serve.lag import Lag
from headway.serve.limits import Limits
from headway.serve.refusal import Refusal
from headway.serve.seen import Batch, Refused
from headway.serve.start import Started, close
from headway.serve.turns import Turns
from headway.serve.wire import Signature

ALONE_SHARE = 3.0
"""A deadline that comes from the bundle's objective is at least so many times the time of one request alone on this machine."""
NICENESS = 3
"""Of the threads that run batches, above that of the event loop's."""
RECENT_S = 1.0
"""For so long after a request had to be refused for its deadline, others are looked at before they are read [s]."""
WINDOW_S = 0.5
"""Demand is looked at over windows this long, for stepping along the frontier [s]."""


DRAINING = Refusal(503, "draining", "the server is shutting down; send the request again elsewhere")
QUEUE_FULL = Refusal(429, "queue_full", "more requests are waiting than can be answered in time")
LATE = Refusal(429, "deadline", "the answer would come after the request's deadline: too much is waiting")
OVERTAKEN = Refusal(429, "late", "the answer would have come after the request's deadline: others took longer than expected")


@dataclass(frozen=True, slots=True)
class Settings:
    """How a model is served, beyond its plan.

    Attributes:
        deadline_s: when an answer is of no more use, counted from a request's arrival; none: the bundle's objective says; infinite: never [s].
        queue_limit: requests that may wait; none: ``default_queue_limit``.
        levels: variants kept warm; with more than one, overload steps to the faster.
        variant: serve this one, without falling back to another.
        pad: by input name, what to fill requests up with so that different lengths share a batch; none: only equal lengths do.
    """

    deadline_s: float | None = None
    queue_limit: int | None = None
    levels: int = 1
    variant: str | None = None
    pad: Mapping[str, float] | None = None


class Served:
    """One version of one model. Made on any thread; afterwards used on the event loop, but for what the batcher's threads call."""

    def __init__(
        self,
        name: str,
        version: str,
        bundle: OpenBundle,
        started: Started,
        *,
        settings: Settings,
        limits: Limits,
        turns: Turns,
        seen: Callable[[Batch], None],
        refused: Callable[[Refused], None],
    ) -> None:
        manifest, plan = bundle.manifest, started.plan
        self.name, self.version, self.bundle, self.started, self.plan = name, version, bundle, started, plan
        padding = started.padding
        self.signature = Signature(manifest.inputs, manifest.outputs, max_batch=plan.max_batch, limits=limits, padding=padding)
        self.in_flight = 0
        self.paces = [started_level.pace(plan.max_batch) for started_level in started.levels]
        self.deadline_s = deadline_s(settings.deadline_s, manifest.objective.latency_s, self.paces[0].tau_s[1])
        self._turns, self._seen, self._refused = turns, seen, refused
        self._open = True
        self._idle = asyncio.Event()
        self._idle.set()
        self._demand = self.missed = self._missed_before = 0
        self._window_s, self._calm_s = time.perf_counter(), 0.0
        self._missed_s = -math.inf
        self._lag = Lag(self.deadline_s)
        named = [Level(started_level.variant.variant.name, started_level.sessions) for started_level in started.levels]
        self._engine = Engine(named, manifest.inputs, manifest.outputs, plan.max_batch, padding)
        limit = settings.queue_limit or default_queue_limit(bundle, started.variant)
        self._batcher: Batcher[Call, Outcome] = Batcher(
            self._engine.run, self._done, instances=plan.instances, max_batch=plan.max_batch, max_wait_s=plan.max_wait_s, queue_limit=limit,
            pace=self.paces[0], latency_s=self.deadline_s, late=self._late, begin=give_way,
        )  # fmt: skip

    @property
    def variant(self) -> BundledVariant:
        """The variant that answers now."""
        return self.started.levels[self._engine.level].variant

    @property
    def level(self) -> int:
        """Its place among the variants kept warm; 0 is the one that answers when all is well."""
        return self._engine.level

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._batcher.waiting

    @property
    def busy_until_s(self) -> float:
        """When the first instance is expected to be free; 0: one is [s]."""
        return self._batcher.busy_until_s

    @property
    def ready(self) -> bool:
        """Whether requests are accepted."""
        return self._open

    # --- requests

    def submit(self, call: Call) -> None:
        """Accept a request; its owner gets the answer later, or never if the client has gone.

        Raises:
            Refusal: it cannot be answered, or not in time.
        """
        self._demand += call.rows
        within_s = (self.deadline_s if call.timeout_s is None else call.timeout_s) - self._kept_free_s()
        try:
            if not self._open:
                raise DRAINING.with_traceback(None)
            self._batcher.submit(
                call, rows=call.rows, key=call.shapes, deadline_s=call.owner.arrived_s + within_s, priority=call.priority, wake=False
            )
        except QueueFull:
            self.missed += call.rows
            raise QUEUE_FULL.with_traceback(None) from None
        except Late:
            self.missed += call.rows
            self._missed_s = call.owner.arrived_s
            raise LATE.with_traceback(None) from None
        self.in_flight += 1
        self._idle.clear()
        self._turns.handled(self._batcher)

    def hopeless(self, arrived_s: float) -> Refusal | None:
        """Why a request would be refused whatever it holds, short of a timeout or a priority of its own; for refusing before it is read."""
        if not self._open:
            return DRAINING
        if arrived_s - self._missed_s > RECENT_S or not self._batcher.late(
            arrived_s + self.deadline_s - self._kept_free_s(), DEFAULT_PRIORITY
        ):
            return None
        self._demand += 1
        self.missed += 1
        self._missed_s = arrived_s
        self._turns.handled()
        return LATE

    def _kept_free_s(self) -> float:
        """What part of a deadline is for the loop's own lag: under overload, when those who come late anyhow should be refused at once [s]."""
        return self._lag.allowance_s if self._batcher.overloaded else 0.0

    def refuse(self, refusal: Refusal) -> None:
        """Count a request that is refused before it was submitted."""
        self._refused(Refused(self.name, self.version, refusal.reason, refusal.status, time.perf_counter()))

    def _done(self, calls: Sequence[Call], outcomes: Sequence[Outcome] | BaseException, times: BatchTimes) -> None:
        """Called by the batcher on an instance's thread, once a batch."""
        if isinstance(outcomes, BaseException):
            failed = Refusal(500, "model_failed", f"the batch could not be run: {type(outcomes).__name__}")
            outcomes = [Outcome(call.form.refuse(failed), "", failed.status) for call in calls]
        self._bring(self._deliver, calls, outcomes, times)

    def _late(self, calls: Sequence[Call]) -> None:
        self._bring(self._deliver_late, calls, [call.form.refuse(OVERTAKEN) for call in calls], OVERTAKEN)

    def _bring(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            self._turns.call(callback, *arguments)
        except RuntimeError:  # the loop is closed: the time to drain ran out, and nobody waits for these answers
            return

    def _deliver(self, calls: Sequence[Call], outcomes: Sequence[Outcome], times: BatchTimes) -> None:
        failed = 0
        for call, outcome in zip(calls, outcomes, strict=True):
            call.owner.finish(outcome.answer)
            failed += outcome.status != 200
        delivered_s = time.perf_counter()
        self._lag.observe(delivered_s - times.finished_s)
        self._seen(
            Batch(
                self.name, self.version, outcomes[0].variant, sum([call.rows for call in calls]), tuple([call.owner.arrived_s for call in calls]),
                times.started_s, times.finished_s, delivered_s, failed,
            )
        )  # fmt: skip
        self._left(len(calls))

    def _deliver_late(self, calls: Sequence[Call], answers: Sequence[object], refusal: Refusal) -> None:
        for call, answer in zip(calls, answers, strict=True):
            call.owner.finish(answer)
            self.refuse(refusal)
            self.missed += call.rows
        self._left(len(calls))

    def _left(self, count: int) -> None:
        self.in_flight -= count
        if not self.in_flight:
            self._idle.set()

    # --- the frontier

    def tick(self, now_s: float) -> tuple[str, str] | None:
        """Called a few times a second: step along the frontier if demand asks for it; the variants left and taken, if so."""
        span_s = now_s - self._window_s
        if span_s < WINDOW_S or len(self.paces) < 2:
            return None
        demand_per_s, missed = self._demand / span_s, (self.missed - self._missed_before) / max(1, self._demand)
        self._demand, self._missed_before = 0, self.missed
        self._window_s = now_s
        capacities = [capacity_per_s(pace.tau_s, self.plan.max_batch, self.plan.instances) for pace in self.paces]
        now = self._engine.level
        self._calm_s = self._calm_s + span_s if calm(now, demand_per_s, capacities) else 0.0
        following = level(now, demand_per_s, missed, capacities, self._calm_s)
        if following == now:
            return None
        left = self.variant.variant.name
        self._calm_s = 0.0
        self._engine.level = following
        self._batcher.keep(self.paces[following])
        return left, self.variant.variant.name

    # --- the end

    async def drain(self, timeout_s: float) -> bool:
        """Accept nothing more, and wait until all that was accepted is answered; false when time ran out first."""
        self._open = False
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    def close(self, timeout_s: float = 1.0) -> None:
        """End the threads and let go of the sessions, without waiting for a run that does not end; from any thread."""
        self._open = False
        self._engine.stop()
        ending = threading.Thread(target=self._batcher.close, daemon=True)
        ending.start()
        ending.join(timeout_s)
        if not ending.is_alive():
            close(self.started.sessions)


def give_way() -> None:
    """Let the event loop's thread run before this one, which runs batches: its work is short, and everybody waits for it.

    Batches get half the loop's share of a core that both want; beside other programs of the same control group, too.
    """
    if sys.platform == "linux":  # elsewhere the niceness of one thread cannot be set
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def deadline_s(asked_s: float | None, objective_s: float | None, alone_s: float) -> float:
    """When an answer is of no more use [s]: as asked; or the objective's bound, but never less than one request needs here, alone, three times."""
    if asked_s is not None:
        return asked_s
    return math.inf if objective_s is None else max(objective_s, ALONE_SHARE * alone_s)


def default_queue_limit(bundle: OpenBundle, variant: BundledVariant) -> int:
    """How many requests may wait: what the variant answers in twice the objective's latency, by its measured rate.

    More waiting than that (Little's law: N = X R) cannot be answered in time. Without measured figures: 32 full batches an instance.
    """
    plan, latency_s = variant.plan, bundle.manifest.objective.latency_s
    full = plan.instances * plan.max_batch
    if variant.rate_per_s is None or latency_s is None:
        return min(4096, max(64, 32 * full))
    return min(4096, max(16, 2 * full, math.ceil(2 * variant.rate_per_s * latency_s)))


def most_in_flight(bundle: OpenBundle, variant: BundledVariant, settings: Settings) -> int:
    """How many requests one server holds at most: those that wait, and those of a full batch in every instance; what comes beyond is refused."""
    return (settings.queue_limit or default_queue_limit(bundle, variant)) + variant.plan.instances * variant.plan.max_batch
