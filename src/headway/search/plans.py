"""The plans that a machine and a curve allow."""

from __future__ import annotations

from headway.records import Plan, ServiceCurve

LARGEST_BATCH = 64


def splits(cores: int) -> tuple[tuple[int, int], ...]:
    """(instances, threads) pairs whose product stays within ``cores``: one core first, then the larger products.

    All cores are split by every divisor; 1, 2, 4, ... of them by powers of two, since a stated rate may need only some. That is 6 pairs on 4 cores,
    15 on 16, 21 on 32 and 28 on 64. The wide ones come early, so that what a short budget leaves out is narrow. Threads beyond the cores are never
    offered: oversubscription is the commonest cause of a slow server.
    """
    counts = [2**power for power in range(cores.bit_length()) if 2**power < cores]
    some = {(2**power, count >> power) for count in counts for power in range(count.bit_length())}
    whole = {(instances, cores // instances) for instances in range(1, cores + 1) if cores % instances == 0}
    one = (1, 1)
    rest = sorted((some | whole) - {one}, key=lambda pair: (-pair[0] * pair[1], pair))
    return (one, *rest)


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
