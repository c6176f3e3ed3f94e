"""The plans that a machine and a curve allow."""

from __future__ import annotations

from headway.records import Plan, ServiceCurve

LARGEST_BATCH = 64


def splits(cores: int) -> tuple[tuple[int, int], ...]:
    """(instances, threads) pairs whose product stays within ``cores``: one core, and every even split of all cores.

    Threads beyond the cores are never offered: oversubscription is the commonest cause of a slow server.
    """
    whole = {(instances, cores // instances) for instances in range(1, cores + 1) if cores % instances == 0}
    return tuple(sorted({(1, 1), *whole}, key=lambda pair: (pair[0] * pair[1], pair)))


def batch_sizes(largest: int = LARGEST_BATCH) -> tuple[int, ...]:
    """Powers of two up to ``largest``."""
    return tuple(2**power for power in range(largest.bit_length()) if 2**power <= largest)


def plans_for(curve: ServiceCurve, latency_s: float | None) -> tuple[Plan, ...]:
    """The plans of one curve: each measured batch size as the limit, as long as one batch fits into the latency bound.

    Batching is greedy (no timer): a timer buys efficiency, not latency (design, section 7).
    """
    fitting = [timing.batch for timing in curve.timings if latency_s is None or timing.median_s <= latency_s] or [curve.timings[0].batch]
    return tuple(
        Plan(runtime=curve.runtime, device=curve.device, instances=curve.instances, threads=curve.threads, max_batch=size)
        for size in fitting
    )
