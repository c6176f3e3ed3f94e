"""Made-up measurements for the tests of decisions: every figure is given, nothing is measured."""

from __future__ import annotations

from headway.records import Candidate, Capacity, Interval, LoadPoint, LoadRun, Percentile, Plan, Prediction, Quality, Record
from headway.search import Evidence


def candidate(
    variant: str = "model", *, instances: int = 1, threads: int = 1, max_batch: int = 8, runtime: str = "onnx_runtime"
) -> Candidate:
    return Candidate(variant=variant, plan=Plan(runtime=runtime, instances=instances, threads=threads, max_batch=max_batch))


def quality(
    variant: str = "model", drop: float = 0.0, verdict: str = "held", *, part: str = "selection", reason: str = "lost a little"
) -> Quality:
    return Quality(
        variant=variant, runtime="onnx_runtime", part=part, metric="accuracy", higher_is_better=True, n=100,
        value=Interval(value=0.9 - drop, low=0.8, high=0.95), parent_value=0.9, drop=Interval(value=drop, low=drop - 0.01, high=drop + 0.01),
        right_to_wrong=1, wrong_to_right=1, agreement=0.98, verdict=verdict, reason=reason,
    )  # fmt: skip


def evidence(
    variant: str = "model",
    *,
    rate: float | None = 300.0,
    latency: float | None = 0.01,
    at: float | None = 200.0,
    drop: float = 0.0,
    verdict: str = "held",
    confirmed: Quality | None = None,
    memory: int = 100_000_000,
    instances: int = 1,
    threads: int = 1,
    measured: bool = True,
    best: tuple[float | None, float | None] = (None, None),
) -> Evidence:
    return Evidence(
        candidate=candidate(variant, instances=instances, threads=threads), target="http", rate_per_s=rate, latency_s=latency, at_rate_per_s=at,
        quality=quality(variant, drop, verdict) if measured else None, confirmed=confirmed, memory_bytes=memory,
        best_latency_s=best[0], best_at_per_s=best[1],
    )  # fmt: skip


def prediction(variant: str, capacity: float, *, instances: int = 1, threads: int = 1, max_batch: int = 8) -> Prediction:
    return Prediction(
        candidate=candidate(variant, instances=instances, threads=threads, max_batch=max_batch), capacity_per_s=capacity, rate_per_s=0.7 * capacity,
        latency_s=0.01, percentile=0.99,
    )  # fmt: skip


def point(rate: float, latency_s: float | None, *, target: str = "http", seed: int = 0) -> LoadPoint:
    percentiles = () if latency_s is None else (Percentile(q=0.99, latency_s=latency_s, low_s=latency_s, high_s=latency_s),)
    return LoadPoint(
        target=target, arrivals="poisson", offered_rate_per_s=rate, achieved_rate_per_s=rate, goodput_per_s=rate, duration_s=1.0, sent=100, completed=100,
        failed=0, refused=0, percentiles=percentiles, mean_s=0.001, naive_p99_s=0.001, lateness_p99_s=0.0, in_flight_mean=1.0, little_ratio=1.0,
        miss_fraction=0.0, mean_batch=1.0, verdict="held", seed=seed,
    )  # fmt: skip


def measured(
    whom: Candidate, rates: list[float], latencies: list[float | None], *, role: str = "finalist", target: str = "http"
) -> list[Record]:
    """Rounds of a contest: the capacity of each round and the latency at the common rate."""
    lines: list[Record] = []
    for number, (rate, latency_s) in enumerate(zip(rates, latencies, strict=True), start=1):
        lines.append(LoadRun(candidate=whom, role=role, round=number, point=point(rate, 0.5, target=target)))
        lines.append(
            Capacity(
                candidate=whom,
                role=role,
                target=target,
                rate_per_s=rate,
                low_per_s=rate,
                high_per_s=2 * rate,
                round=number,
                memory_bytes=number,
            )
        )
        lines.append(LoadRun(candidate=whom, role=role, round=number, point=point(200.0, latency_s, target=target), purpose="at-rate"))
    return lines
