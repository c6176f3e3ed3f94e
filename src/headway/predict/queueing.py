"""The laws of work and waiting, each with its units and source; closed forms that the simulator is validated against."""

from __future__ import annotations

import math
from collections.abc import Mapping


def service_bound_s(
    batch: float,
    *,
    flop: float,
    weight_bytes: float,
    activation_bytes: float,
    flop_per_s: float,
    bytes_per_s: float,
    overhead_s: float = 0.0,
) -> float:
    """Lower bound of a batch's service time: t0 + max(b w / P, (q_w + b q_a) / B) [s] (Williams, Waterman, Patterson 2009).

    The error often seen, "1e9 FLOP over 10 requests a second gives 10 ms", divides work by a rate of requests. Done right, a model
    of 1e9 FLOP on a machine that attains 1e11 FLOP/s:

    >>> service_bound_s(1, flop=1e9, weight_bytes=0, activation_bytes=0, flop_per_s=1e11, bytes_per_s=1e10)
    0.01

    and with a fifth of its work removed it takes 8 ms only because it is compute-bound; bound by 200 MB of weights it stays:

    >>> service_bound_s(1, flop=8e8, weight_bytes=2e8, activation_bytes=0, flop_per_s=1e11, bytes_per_s=1e10)
    0.02
    """
    return overhead_s + max(batch * flop / flop_per_s, (weight_bytes + batch * activation_bytes) / bytes_per_s)


def crossover_batch(*, flop: float, weight_bytes: float, activation_bytes: float, flop_per_s: float, bytes_per_s: float) -> float:
    """b* = (q_w/B) / (w/P - q_a/B): below it a batch is memory-bound, above it compute-bound; infinite if it is memory-bound at every size."""
    slope = flop / flop_per_s - activation_bytes / bytes_per_s
    return (weight_bytes / bytes_per_s) / slope if slope > 0 else math.inf


def capacity_per_s(service_s: Mapping[int, float], *, instances: int = 1) -> float:
    """mu = max_b k b / tau_k(b): the largest rate of answers [1/s]; arrivals above it make the queue grow without limit.

    Args:
        service_s: tau_k(b) by batch size, measured while all k instances run [s]. With tau_1 the result is wrong: instances share cores
            and memory bandwidth.

    >>> capacity_per_s({1: 0.006, 8: 0.013})  # doctest: +ELLIPSIS
    615.38...
    """
    return max(instances * batch / tau_s for batch, tau_s in service_s.items())


def little_in_flight(rate_per_s: float, response_s: float) -> float:
    """N = X R: mean number of requests in any stable system."""
    return rate_per_s * response_s


def mm1_mean_wait_s(rate_per_s: float, service_s: float) -> float:
    """Mean wait in M/M/1: rho / (1 - rho) services [s]; infinite from rho 1 on."""
    rho = rate_per_s * service_s
    return rho / (1 - rho) * service_s if rho < 1 else math.inf


def mm1_response_percentile_s(q: float, rate_per_s: float, service_s: float) -> float:
    """The q-quantile of response in M/M/1: -ln(1 - q) tau / (1 - rho) [s]. No other queue has so simple a percentile."""
    rho = rate_per_s * service_s
    return -math.log1p(-q) * service_s / (1 - rho) if rho < 1 else math.inf


def md1_mean_wait_s(rate_per_s: float, service_s: float) -> float:
    """Mean wait in M/D/1, constant service: half of that in M/M/1 [s]."""
    return mm1_mean_wait_s(rate_per_s, service_s) / 2


def kingman_wait_s(rate_per_s: float, service_s: float, *, arrival_c2: float, service_c2: float) -> float:
    """Mean wait in G/G/1 under heavy traffic (Kingman 1961): rho / (1 - rho) (c_a^2 + c_s^2) / 2 services [s]."""
    return mm1_mean_wait_s(rate_per_s, service_s) * (arrival_c2 + service_c2) / 2


def sakasegawa_wait_s(rate_per_s: float, service_s: float, servers: int, *, arrival_c2: float, service_c2: float) -> float:
    """Mean wait in G/G/m without batching, approximately (Sakasegawa 1977): Kingman's law with rho^(sqrt(2(m+1)) - 1) / m for rho [s]."""
    rho = rate_per_s * service_s / servers
    if rho >= 1:
        return math.inf
    return (arrival_c2 + service_c2) / 2 * float(rho ** (math.sqrt(2 * (servers + 1)) - 1)) / (servers * (1 - rho)) * service_s


def batch_mean_response_s(rate_per_s: float, tau0_s: float, alpha_s: float) -> float:
    """Mean response of greedy batching without a batch limit under Poisson arrivals, tau(b) = tau0 + alpha b (Inoue, arXiv 1912.06322).

    E[R] ~ 1.5 tau0 / (1 - rho) + (alpha / 2) (rho + 2) / (1 - rho^2) with rho = rate alpha: an upper bound, within 1% for rho of 0.5
    to 0.8, and far too high below 0.3, where idle time matters [s]. Infinite from rho 1 on.
    """
    rho = rate_per_s * alpha_s
    return 1.5 * tau0_s / (1 - rho) + alpha_s / 2 * (rho + 2) / (1 - rho * rho) if rho < 1 else math.inf
