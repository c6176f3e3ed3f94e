"""A server of the Open Inference Protocol at a URL: what it serves, requests as bytes, answers as arrays."""

from __future__ import annotations

import json
import math
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headway.api.load_inputs import Feeds
from headway.api.load_target import DRAIN_S, MOST_IN_FLIGHT, USUAL, Picks, Ran, Sending, sent_in_turn
from headway.load import SYSTEM, Answer, Trust, infer_payload, parse_infer_response, run_http, run_http_by
from headway.load.audit import Told
from headway.measure.environment import Watch
from headway.protocol.datatypes import NUMPY
from headway.records import ConfigError, MeasurementError, TensorSpec

VARIANT = "headway-variant"
TIMEOUT_S = 10.0
TOLERANCE = 1e-2
"""Of answers of a server whose arithmetic is not known: batches of another size sum in another order."""


class HttpTarget:
    """One model of a server.

    Attributes:
        senders: processes that share the open-loop load; answers are kept, and closed loops run, by one alone.

    Raises:
        ConfigError: nothing answers there, or the model must be named.
    """

    kind = "http"
    own_slo = ""
    answers_tolerance = TOLERANCE

    def __init__(self, url: str, model: str, sending: Sending = USUAL) -> None:
        self.senders = 1
        self._sending = sending
        base = url.split("/v2", maxsplit=1)[0].rstrip("/")
        name = model or only_model(base, sending.trust)
        described = ask(f"{base}/v2/models/{name}", sending.trust)
        self.inputs = tuple(
            TensorSpec(name=i["name"], dtype=NUMPY.get(i["datatype"], "?"), shape=tuple("n" if s == -1 else s for s in i["shape"]))
            for i in described["inputs"]
        )
        self._url = f"{base}/v2/models/{name}/infer"

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
        """One run over as many connections as it takes, ``most_in_flight`` at most."""
        encoded = [infer_payload(request) for request in requests]
        headers, bodies = [{**head, **token()} for head, _ in encoded], [body for _, body in encoded]
        if picks is not None:
            headers, bodies = [headers[at] for at in picks], [bodies[at] for at in picks]
        order = sent_in_turn(requests, len(due_s), picks)
        came: list[Answer] = []
        how = self._sending
        with Watch() as watch:
            if self.senders > 1 and not keep_answers and most_in_flight > 1:
                raw = run_http_by(
                    self.senders, self._url, bodies, headers, due_s, drain_s=drain_s, most_connections=most_in_flight,
                    spin=how.spin, trust=how.trust,
                )  # fmt: skip
            else:
                raw = run_http(
                    self._url, bodies, headers, due_s,
                    drain_s=drain_s, most_connections=most_in_flight, on_answer=came.append if keep_answers else None,
                    spin=how.spin, trust=how.trust, live=how.live,
                )  # fmt: skip
        answers = tuple(_told(answer, int(order[answer.number])) for answer in came if answer.status == 200)
        return Ran(raw, answers, math.nan, watch.steal_fraction)


def _told(answer: Answer, sample: int) -> Told:
    """An answer as arrays; one that breaks the protocol has none, and so equals nothing."""
    try:
        outputs = parse_infer_response(answer.headers, answer.body)
    except MeasurementError:
        outputs = {}
    return Told(sample, answer.headers.get(VARIANT, ""), outputs)


def token() -> dict[str, str]:
    """The header for a server that asks for a bearer token, from the environment variable HEADWAY_TOKEN."""
    given = os.environ.get("HEADWAY_TOKEN")
    return {"Authorization": f"Bearer {given}"} if given else {}


def only_model(base: str, trust: Trust = SYSTEM) -> str:
    """The name of the one model that a server offers; Headway's server tells it, others may not.

    Raises:
        ConfigError: the server tells none or several.
    """
    told = ask(f"{base}/v2", trust).get("models", [])
    if len(told) != 1:
        several = f"it tells {', '.join(map(str, told))}" if told else "it tells none"
        raise ConfigError(
            f"{base}: the model to load must be named when a server does not tell exactly one, and {several}; add --model NAME"
        )
    return str(told[0])


def ask(url: str, trust: Trust = SYSTEM) -> dict[str, Any]:
    """The JSON object at a URL.

    Raises:
        ConfigError: nothing answers there, or with something else.
    """
    context = trust.context() if url.startswith("https") else None
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=token()), timeout=TIMEOUT_S, context=context) as answer:
            told: dict[str, Any] = json.load(answer)
            return told
    except urllib.error.HTTPError as error:
        raise ConfigError(f"{url}: must answer with the model's description, got status {error.code}; is the name right?") from error
    except (OSError, ValueError) as error:
        if isinstance(getattr(error, "reason", None), ssl.SSLError):
            raise ConfigError(
                f"{url}: TLS must come about, got: {error}; name the right --ca FILE, or accept any certificate with --insecure"
            ) from error
        raise ConfigError(
            f"{url}: a server of the Open Inference Protocol must answer there, got: {error}; start one, or correct the URL"
        ) from error
