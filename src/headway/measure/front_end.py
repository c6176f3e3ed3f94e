"""What a request costs beside the model: a model that takes no time, behind the real server, loaded with the same payloads over HTTP."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headway.load import RawLoad, arrival_times, run_http
from headway.measure.over_http import DRAIN_S, OverHttp, Server, served
from headway.measure.rows import Feeds
from headway.records import FrontEnd, MeasurementError, to_json

LOADED_S = 2.0
PROBE_S, PROBE_PER_S = 0.5, 200.0
"""The first look at the cost of a request, which warms the server, too."""
LEAST_PER_S = 200.0
"""CPU time is counted in hundredths of a second: fewer requests would say little."""
BUSY = 0.3
"""Largest share of one core that the front end is given to do: beyond it requests wait for each other, which is for simulation to find."""
KEPT = 500
"""Delays that are recorded, spread evenly over the ordered ones."""
NEAR_FULL, FULL_LOOKS, FULL_S = 0.9, 2, 0.7
"""Requests that come close together: offered so that this share of a core would be at work at the cost known so far, looked at again because that
cost falls; and for how long each time [s]."""
TICK_S = 0.01


def measure_front_end(
    arguments: Sequence[str], model: str, inputs: Feeds, *, source: str, rate_per_s: float, seconds: float = LOADED_S, seed: int = 0
) -> FrontEnd:
    """The front end of a server of its own, on the cores that this process may use.

    Args:
        arguments: of ``served``; its ``model`` must be one that takes no time (``null_graph``).
        inputs: samples; each request holds one row.
        source: name of the model that it stands for.
        rate_per_s, seconds: the load: about this rate, for so long [1/s, s].

    Raises:
        MeasurementError: the server did not start or did not answer.
    """
    with served(arguments) as server:
        return front_end_of(server, model, inputs, source=source, rate_per_s=rate_per_s, seconds=seconds, seed=seed)


def front_end_of(
    server: Server,
    model: str,
    inputs: Feeds,
    *,
    source: str,
    rate_per_s: float,
    seconds: float = LOADED_S,
    seed: int = 0,
    spin: bool = False,
) -> FrontEnd:
    """As ``measure_front_end``, of a server that runs already; ``spin`` as in ``run_http``.

    Raises:
        MeasurementError: it did not answer.
    """
    load = OverHttp.to(server, model, inputs)
    first_s, _ = _loaded(load, PROBE_PER_S, PROBE_S, seed, spin)
    offered_per_s = min(max(rate_per_s, LEAST_PER_S), BUSY / first_s)
    cpu_s, raw = _loaded(load, offered_per_s, seconds, seed + 1, spin)
    latency_s = np.sort((raw.done_s - raw.due_s)[raw.status == 0])
    if not len(latency_s):
        raise MeasurementError(f"a server of a model that takes no time must answer, got no answer to {len(raw.status)} requests")
    joined_s = cpu_s
    for look in range(FULL_LOOKS):
        joined_s = min(joined_s, _loaded(load, NEAR_FULL / joined_s, FULL_S, seed + 2 + look, spin)[0])
    kept = latency_s[_spread(len(latency_s))]
    return FrontEnd(
        source=source, cpu_s=cpu_s, jitter_s=tuple(np.maximum(0.0, kept - cpu_s).tolist()),
        payload_bytes=round(sum(map(len, load.bodies)) / len(load.bodies)), rate_per_s=offered_per_s, joined_s=joined_s,
    )  # fmt: skip


def _loaded(load: OverHttp, rate_per_s: float, seconds: float, seed: int, spin: bool) -> tuple[float, RawLoad]:
    """CPU time of the server a request, at least a clock tick in all [s]; and what became of each."""
    due_s = arrival_times("poisson", rate_per_s, seconds, seed)
    url = f"http://127.0.0.1:{load.server.port}/v2/models/{load.model}/infer"
    before_s = _spent_s(load.server)
    raw = run_http(url, load.bodies, load.headers, due_s, drain_s=DRAIN_S, spin=spin)
    return max(TICK_S, _spent_s(load.server) - before_s) / max(1, len(due_s)), raw


def _spread(count: int) -> NDArray[np.intp]:
    """Places of at most ``KEPT`` out of ``count``, evenly apart."""
    most = min(KEPT, count)
    return ((np.arange(most) + 0.5) * count / most).astype(np.intp)


def _spent_s(server: Server) -> float:
    used = server.process.cpu_times()
    return float(used.user + used.system)


def null_graph(request: Feeds, answer: Feeds) -> bytes:
    """A graph of the null runtime that takes no time, with the inputs of a request and the outputs of its answer."""
    return to_json({"tau0_s": 0.0, "alpha_s": 0.0, "inputs": _tensors(request), "outputs": _tensors(answer)})


def _tensors(arrays: Feeds) -> list[dict[str, object]]:
    return [{"name": name, "dtype": str(array.dtype), "shape": ["n", *array.shape[1:]]} for name, array in arrays.items()]
