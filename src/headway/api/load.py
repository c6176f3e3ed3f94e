"""``load``: open-loop load on a server by its URL, or on a bundle inside this process."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import headway.data
from headway.api.progress import Progress, Silent
from headway.load import arrival_times, infer_payload, run_http, summarise
from headway.measure.environment import Watch
from headway.measure.in_process import in_process
from headway.measure.rows import rows
from headway.model import synthetic_inputs
from headway.records import ConfigError, LoadPoint, Objective, TensorSpec, parse_objective
from headway.serve import open_bundle

DEFAULT_SLO = "p99<=1s"
REQUESTS_KEPT = 64
SYNTHETIC_ROWS = 16
WARM_SHARE = 0.1
LONGEST_WARM_S = 2.0
NUMPY = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "INT8": "int8", "INT16": "int16", "INT32": "int32",
    "INT64": "int64", "FP16": "float16", "FP32": "float32", "FP64": "float64",
}  # fmt: skip


def load(
    target: str, *, rate_per_s: float, duration_s: float, arrivals: str = "poisson", slo: str = "", data: str = "", model: str = "", seed: int = 0,
    progress: Progress | None = None,
) -> tuple[LoadPoint, Objective]:  # fmt: skip
    """The LoadPoint of one run, and the objective that it was judged by; a short warm-up run goes before and is left out.

    Args:
        target: a URL of a server of the Open Inference Protocol, or the folder of a bundle or a run.
        data: samples to send; none: made-up inputs that fit the model (their values rarely change the time, but can).

    Raises:
        InputError: the target, the samples or the objective is wrong, or nothing answers there.
    """
    progress = progress or Silent()
    progress.stage(f"load at {rate_per_s:g}/s for {duration_s:g} s", 2)
    warm_s = min(LONGEST_WARM_S, WARM_SHARE * duration_s + 0.2)
    if target.startswith(("http://", "https://")):
        objective = _judged(slo or DEFAULT_SLO, arrivals)
        base = target.split("/v2", maxsplit=1)[0].rstrip("/")
        name = model or _only_model(base)
        described = _ask(f"{base}/v2/models/{name}")
        specs = tuple(
            TensorSpec(name=i["name"], dtype=NUMPY.get(i["datatype"], "?"), shape=tuple("n" if s == -1 else s for s in i["shape"]))
            for i in described["inputs"]
        )
        inputs = _inputs(specs, data, seed)
        size = len(next(iter(inputs.values())))
        encoded = [infer_payload(rows(inputs, at, 1)) for at in range(min(size, REQUESTS_KEPT))]
        headers, bodies = [{**head, **_token()} for head, _ in encoded], [body for _, body in encoded]
        url = f"{base}/v2/models/{name}/infer"

        def run(seconds: float, number: int) -> LoadPoint:
            due_s = arrival_times(arrivals, rate_per_s, seconds, number)
            with Watch() as watch:
                raw = run_http(url, bodies, headers, due_s)
            return summarise(
                raw,
                target="http",
                arrivals=arrivals,
                rate_per_s=rate_per_s,
                objective=objective,
                seed=number,
                steal_fraction=watch.steal_fraction,
            )

        progress.step("warm up")
        run(warm_s, seed + 1)
        progress.step("measure")
        return run(duration_s, seed), objective
    bundle = open_bundle(Path(target))
    first = bundle.manifest.variants[0]
    objective = _judged(slo or str(bundle.manifest.objective), arrivals)
    inputs = _inputs(bundle.manifest.inputs, data, seed)
    with in_process(bundle.model_path(0), first.plan, inputs) as held:
        progress.step("warm up")
        held.load(rate_per_s, warm_s, objective, seed + 1)
        progress.step("measure")
        return held.load(rate_per_s, duration_s, objective, seed), objective


def _token() -> dict[str, str]:
    """The header for a server that asks for a bearer token, from the environment variable HEADWAY_TOKEN."""
    token = os.environ.get("HEADWAY_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _judged(slo: str, arrivals: str) -> Objective:
    return msgspec.structs.replace(parse_objective(slo), arrivals=arrivals)


def _inputs(specs: tuple[TensorSpec, ...], data: str, seed: int) -> Mapping[str, np.ndarray]:
    if data:
        return headway.data.check(headway.data.load(data, inputs=specs), specs).inputs
    return synthetic_inputs(specs, SYNTHETIC_ROWS, seed)


def _only_model(base: str) -> str:
    """The name of the one model that a server offers; Headway's server tells it, others may not."""
    told = _ask(f"{base}/v2").get("models", [])
    if len(told) != 1:
        raise ConfigError(f"{base}: the model to load must be named, since the server does not tell exactly one; add --model NAME")
    return str(told[0])


def _ask(url: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=_token()), timeout=10) as answer:
            told: dict[str, Any] = json.load(answer)
            return told
    except urllib.error.HTTPError as error:
        raise ConfigError(f"{url}: must answer with the model's description, got status {error.code}; is the name right?") from error
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{url}: a server of the Open Inference Protocol must answer there, got: {error}; start one, or correct the URL"
        ) from error
