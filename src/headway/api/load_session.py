"""A target opened, what is sent to it, and the objective it is judged by: what every kind of load run starts from."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from headway.api.load_bundle import opened_bundle
from headway.api.load_grpc import GrpcTarget
from headway.api.load_http import HttpTarget
from headway.api.load_inputs import Feeds, Samples
from headway.api.load_target import USUAL, Ran, Sending, Target
from headway.load import arrival_times, summarise
from headway.load.arriving import parse_arrivals
from headway.load.streams import stream_latency_s
from headway.records import ConfigError, LoadPoint, MeasurementError, Objective, parse_objective
from headway.runtime.cores import usable_cores

DEFAULT_SLO = "p99<=1s"
FIRST_PROBES, MOST_PROBES = 4, 24
PROBING_S = 1.0
"""About how long single requests are timed, once the first ones have warmed the target up [s]."""
PROBE_LIMIT_S = 60.0
SCHEMES: dict[str, Callable[[str, str, Sending], Target]] = {
    "http": HttpTarget,
    "https": HttpTarget,
    "grpc": GrpcTarget,
    "grpcs": GrpcTarget,
}
"""What opens a URL and a model's name in a way of sending, by the URL's scheme."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadAsked:
    """What the user asked for, whatever kind of run follows.

    Attributes:
        target: a URL of a server of the Open Inference Protocol, or the folder of a bundle or a run.
        data: samples to send; none: made-up inputs that fit the model.
        slo: the objective to judge by; none: the bundle's own, or p99 within a second.
        senders: processes that share the load on a server; none: one, and for a single run at one rate a second where one was the bottleneck.
        sending: how requests go to a server.
    """

    target: str
    arrivals: str = "poisson"
    slo: str = ""
    data: str = ""
    model: str = ""
    seed: int = 0
    senders: int | None = None
    sending: Sending = USUAL


class Loading:
    """An open target, ready for any number of runs."""

    def __init__(self, asked: LoadAsked, target: Target) -> None:
        self.asked, self.target = asked, target
        if asked.senders is not None and asked.senders != target.senders:
            if target.kind != "http":
                raise ConfigError(f"--senders shares the load on a server among processes; a target {target.kind} has one, leave it out")
            target.senders = asked.senders
        stated = asked.slo or target.own_slo
        self.stated = bool(stated)
        self.objective: Objective = msgspec.structs.replace(parse_objective(stated or DEFAULT_SLO), arrivals=asked.arrivals)
        self.samples = Samples(target.inputs, asked.data, asked.seed)
        self.requests: list[Feeds] = self.samples.requests()

    def ran(self, rate_per_s: float, seconds: float, seed: int) -> Ran:
        """One open-loop run."""
        return self.target.run(self.requests, arrival_times(self.asked.arrivals, rate_per_s, seconds, seed))

    def point(self, ran: Ran, rate_per_s: float, seed: int) -> LoadPoint:
        """What a run says."""
        return summarise(
            ran.raw, target=self.target.kind, arrivals=self.asked.arrivals, rate_per_s=rate_per_s, objective=self.objective, seed=seed,
            mean_batch=ran.mean_batch, steal_fraction=ran.steal_fraction,
        )  # fmt: skip

    def alone_s(self) -> float:
        """Median latency of one request at a time [s].

        Raises:
            MeasurementError: the target answers none.
        """
        first_s = self._one_by_one_s(FIRST_PROBES)
        probes = min(MOST_PROBES, max(FIRST_PROBES, int(PROBING_S / max(first_s, 1e-6))))
        return self._one_by_one_s(probes)

    def _one_by_one_s(self, probes: int) -> float:
        ran = self.target.run(self.requests, np.zeros(probes), most_in_flight=1, drain_s=PROBE_LIMIT_S)
        latency_s = stream_latency_s(ran.raw)
        if not len(latency_s):
            raise MeasurementError(
                f"the target must answer a single request, got {probes} failures or refusals; send one by hand to see why, or give --data"
            )
        return float(np.median(latency_s))


@contextlib.contextmanager
def loading(asked: LoadAsked) -> Iterator[Loading]:
    """The target opened for the length of the block.

    Raises:
        InputError: target, samples, arrivals or objective are wrong, or nothing answers there.
    """
    parse_arrivals(asked.arrivals)
    _check_spin(asked)
    scheme, separator, _ = asked.target.partition("://")
    if not separator:
        with opened_bundle(Path(asked.target)) as target:
            target.live = asked.sending.live
            yield Loading(asked, target)
    elif scheme in SCHEMES:
        opened = SCHEMES[scheme](asked.target, asked.model, asked.sending)
        with contextlib.ExitStack() as stack:
            if isinstance(opened, GrpcTarget):
                stack.callback(opened.close)
            yield Loading(asked, opened)
    else:
        known = " or ".join(f"{name}://" for name in SCHEMES)
        raise ConfigError(f"the target must be the URL of a server ({known}), or the folder of a bundle or a run, got {asked.target!r}")


def _check_spin(asked: LoadAsked) -> None:
    if not asked.sending.spin:
        return
    if not asked.target.startswith(("http://", "https://")):
        raise ConfigError(f"--spin is for a server at http:// or https://, got {asked.target!r}; leave it out")
    cores, needed = usable_cores(), (asked.senders or 1) + 1
    if cores < needed:
        raise ConfigError(
            f"--spin needs a core for each sender and one for the server, {needed} in all, and {cores} may be used here; leave --spin out"
        )
