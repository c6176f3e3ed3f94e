"""A server of the Open Inference Protocol over gRPC; the sender itself is a plug-in file, since it needs the extra ``grpc``."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headway.api.load_http import TOLERANCE
from headway.api.load_inputs import Feeds
from headway.api.load_target import DRAIN_S, MOST_IN_FLIGHT, Picks, Ran, Sending, sent_in_turn
from headway.discovery import find
from headway.load import Answer, senders
from headway.load.audit import Told
from headway.measure.environment import Watch
from headway.records import ConfigError, MeasurementError


class GrpcTarget:
    """One model of a server, at ``grpc://HOST:PORT`` or ``grpcs://HOST:PORT``.

    Raises:
        ConfigError: grpcio is missing, nothing answers there, or the model must be named.
    """

    kind = "grpc"
    own_slo = ""
    answers_tolerance = TOLERANCE

    def __init__(self, url: str, model: str, sending: Sending) -> None:
        self.senders = 1
        scheme, _, place = url.partition("://")
        place = place.partition("/")[0]
        if not place.rpartition(":")[2].isdigit():
            raise ConfigError(f"the target must read {scheme}://HOST:PORT, got {url!r}")
        if sending.spin:
            raise ConfigError(
                "--spin is for http:// and https://, since gRPC answers on a thread that a spinning one would hold up; leave it out"
            )
        found = find(senders, "grpc")
        if "grpc" not in found.present:
            raise ConfigError(f"A grpc:// target {found.missing.get('grpc', 'is not there')}. Install headway[grpc], or load over http://.")
        self._live = sending.live
        self._sender = found.present["grpc"].open_sender(
            place, sending.trust if scheme == "grpcs" else None, os.environ.get("HEADWAY_TOKEN", "")
        )
        try:
            self._model = model or self._sender.model()
            self.inputs = self._sender.inputs(self._model)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the channel."""
        self._sender.close()

    def run(
        self,
        requests: Sequence[Feeds],
        due_s: NDArray[np.float64],
        *,
        picks: Picks | None = None,
        most_in_flight: int = MOST_IN_FLIGHT,
        drain_s: float = DRAIN_S,
        keep_answers: bool = False,
    ) -> Ran:
        """One run over one channel, ``most_in_flight`` requests at once."""
        bodies = [self._sender.request(self._model, request) for request in requests]
        order = sent_in_turn(requests, len(due_s), picks)
        came: list[Answer] = []
        with Watch() as watch:
            raw = self._sender.run(
                bodies if picks is None else [bodies[at] for at in picks], due_s,
                drain_s=drain_s, most_in_flight=most_in_flight, on_answer=came.append if keep_answers else None, live=self._live,
            )  # fmt: skip
        answers = tuple(self._told(answer, int(order[answer.number])) for answer in came)
        return Ran(raw, answers, math.nan, watch.steal_fraction)

    def _told(self, answer: Answer, sample: int) -> Told:
        try:
            variant, outputs = self._sender.outputs(answer.body)
        except MeasurementError:
            variant, outputs = "", {}
        return Told(sample, variant, outputs)
