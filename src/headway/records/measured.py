"""What measurement gives back: intervals, service curves, load points, quality, environment, failures."""

from __future__ import annotations

import bisect
import statistics

import msgspec

from headway.records.base import Record
from headway.records.candidate import Candidate, Plan, Setting


class Interval(Record, frozen=True, kw_only=True):
    """An estimate with its confidence interval, in the unit that the owner's field names."""

    value: float
    low: float
    high: float
    confidence: float = 0.95


class BatchTiming(Record, frozen=True, kw_only=True):
    """Raw service times of one batch size, measured while all instances run [s]."""

    batch: int
    service_s: tuple[float, ...]

    @property
    def median_s(self) -> float:
        """Median service time [s]."""
        return statistics.median(self.service_s)


class ServiceCurve(Record, frozen=True, kw_only=True):
    """Service times tau_k(b) of one variant on one runtime, thread and instance split.

    Attributes:
        timings: raw samples by batch size, ascending.
        tau0_s, alpha_s: the fitted line tau(b) = tau0 + alpha b [s] (design, section 7).
        peak_bytes: growth of resident memory that the sessions caused [B].
        unstable: true when repeated samples disagree so much that the curve should not be trusted.
    """

    variant: str
    runtime: str
    device: str
    instances: int
    threads: int
    timings: tuple[BatchTiming, ...]
    tau0_s: float
    alpha_s: float
    peak_bytes: int
    unstable: bool = False

    def tau_s(self, batch: int) -> float:
        """Median service time of ``batch`` [s]; between and beyond measured sizes by linear interpolation."""
        sizes = [timing.batch for timing in self.timings]
        at = bisect.bisect_left(sizes, batch)
        if at < len(sizes) and sizes[at] == batch:
            return self.timings[at].median_s
        if len(sizes) == 1:
            return self.timings[0].median_s * batch / sizes[0]
        at = min(max(at, 1), len(sizes) - 1)
        low, high = self.timings[at - 1], self.timings[at]
        slope = (high.median_s - low.median_s) / (high.batch - low.batch)
        return max(low.median_s + slope * (batch - low.batch), 1e-9)

    def capacity_per_s(self, max_batch: int | None = None) -> float:
        """mu = max_b k b / tau_k(b) [1/s] over measured sizes up to ``max_batch`` (design, section 7)."""
        sizes = [t.batch for t in self.timings if max_batch is None or t.batch <= max_batch] or [self.timings[0].batch]
        return max(self.instances * size / self.tau_s(size) for size in sizes)


class Percentile(Record, frozen=True, kw_only=True):
    """A percentile of latency with its order-statistic interval [s]."""

    q: float
    latency_s: float
    low_s: float
    high_s: float


class LoadPoint(Record, frozen=True, kw_only=True):
    """One open-loop run at one offered rate.

    Attributes:
        target: ``in-process`` or ``http``: where latency was taken.
        latency is reply complete minus the moment the request was due to be sent.
        percentiles: of that latency, ascending q.
        naive_p99_s: the flattering figure, counted from the actual send, for comparison [s].
        lateness_p99_s: how late the generator itself was [s].
        little_ratio: mean in-flight divided by X times mean R; 1 within noise or the run is broken.
        miss_fraction: share of requests later than the objective's bound, lost or refused.
        verdict: ``held``, ``missed``, ``unproven`` (too few requests to say) or ``generator-bound``.
    """

    target: str
    arrivals: str
    offered_rate_per_s: float
    achieved_rate_per_s: float
    goodput_per_s: float
    duration_s: float
    sent: int
    completed: int
    failed: int
    refused: int
    percentiles: tuple[Percentile, ...]
    mean_s: float
    naive_p99_s: float
    lateness_p99_s: float
    in_flight_mean: float
    little_ratio: float
    miss_fraction: float
    mean_batch: float
    verdict: str
    seed: int = 0
    steal_fraction: float = 0.0

    def percentile(self, q: float) -> Percentile:
        """The percentile nearest to ``q``."""
        return min(self.percentiles, key=lambda p: abs(p.q - q))


class LoadRun(Record, frozen=True, kw_only=True):
    """A LoadPoint and the candidate it belongs to.

    Attributes:
        role: ``candidate`` (in-process), or over HTTP ``finalist``, ``uncompressed`` or ``naive``.
        purpose: ``trial`` of a capacity search, or ``at-rate``: the rate at which latencies are compared.
    """

    candidate: Candidate
    role: str
    round: int
    point: LoadPoint
    purpose: str = "trial"


class Capacity(Record, frozen=True, kw_only=True):
    """The largest rate at which a candidate holds the objective (SLO capacity), bracketed [1/s].

    ``low_per_s`` held, ``high_per_s`` did not (or is the highest rate tried: then ``open_above``). ``memory_bytes`` is the
    resident memory of the serving process after the search, over HTTP [B].
    """

    candidate: Candidate
    role: str
    target: str
    rate_per_s: float
    low_per_s: float
    high_per_s: float
    open_above: bool = False
    round: int = 0
    memory_bytes: int = 0


class GroupQuality(Record, frozen=True, kw_only=True):
    """Quality inside one group, and its difference from the parent on the same samples.

    ``p_loss`` is how likely a loss like this is where nothing was lost, corrected for the number of groups (Holm's adjusted one-sided
    p-value); none in records of older runs.
    """

    group: str
    n: int
    value: float
    parent_value: float
    drop: Interval
    p_loss: float | None = None


class Calibration(Record, frozen=True, kw_only=True):
    """How far stated confidence is from the share of right answers: expected calibration error (ECE), between 0 and 1.

    Attributes:
        value, parent_value: the variant's and the parent's on the same samples, corrected for the noise of their bins.
        rise: value less parent_value, positive is worse, with its paired interval.
        bins: number of bins of equal mass.
        scores: what the outputs were taken for: ``probabilities`` or ``logits``.
    """

    value: float
    parent_value: float
    rise: Interval
    n: int
    bins: int
    scores: str


class Quality(Record, frozen=True, kw_only=True):
    """Predictions against labels (or against the parent), paired with the parent on the same samples.

    Attributes:
        metric: name of the metric; ``higher_is_better`` says its direction.
        part: which disjoint part of the data: ``selection`` or ``report``.
        value: the variant's metric with interval; ``parent_value`` the parent's on the same samples.
        drop: loss against the parent, paired, positive is worse, in units of the metric.
        right_to_wrong, wrong_to_right: flips, counted; none where the metric has no right and wrong.
        agreement: share of samples with the same answer as the parent.
        verdict: ``proven`` (upper end of the drop within the bound), ``held`` (estimate within), ``violated``; empty without bound.
        calibration: its expected calibration error; none where outputs state no confidence.
        tasks: for a model judged on several outputs, the quality of each, in the model's order. The other fields are then those of the task
            that lost most, with the least agreement of all and the verdict on all together. Absent from records of a single task.
        of_rows: where a race was stopped early, how many rows the part holds; ``n`` of them were run. Absent where all were.
    """

    variant: str
    runtime: str
    part: str
    metric: str
    higher_is_better: bool
    n: int
    value: Interval
    parent_value: float
    drop: Interval
    right_to_wrong: int | None
    wrong_to_right: int | None
    agreement: float
    groups: tuple[GroupQuality, ...] = ()
    verdict: str = ""
    reason: str = ""
    calibration: Calibration | None = None
    tasks: tuple[Quality, ...] | msgspec.UnsetType = msgspec.UNSET
    of_rows: int | msgspec.UnsetType = msgspec.UNSET

    @property
    def by_task(self) -> tuple[Quality, ...]:
        """The quality of each of several tasks; empty for a single one."""
        return () if self.tasks is msgspec.UNSET else self.tasks

    @property
    def stopped_early(self) -> bool:
        """Whether the figures are those of a race that did not need all rows."""
        return self.of_rows is not msgspec.UNSET

    @property
    def worst_group(self) -> GroupQuality | None:
        """The group that lost most, if there are groups."""
        return max(self.groups, key=lambda g: g.drop.value, default=None)


class GuardResult(Record, frozen=True, kw_only=True):
    """A variant against its parent on samples made harder: corrupted (``shift``) or attacked (``attack``).

    Attributes:
        guard: name of the guard; its bound in the objective is ``GUARD_drop``.
        n: rows it was measured on.
        value, parent_value, drop: the metric of variant and parent under the worst case, and the paired loss, positive is worse. The
            interval holds for all cases at once (Bonferroni).
        worst: name of the case that lost most.
        cases: every case: each corruption, or each way of attacking.
        settings: what a reader must know to repeat it: severity, epsilon, steps.
        verdict: as of ``Quality``; empty without a bound.
        reason: one sentence.
    """

    guard: str
    variant: str
    runtime: str
    part: str
    metric: str
    n: int
    value: float
    parent_value: float
    drop: Interval
    worst: str
    cases: tuple[GroupQuality, ...]
    settings: dict[str, Setting] = msgspec.field(default_factory=dict)
    verdict: str = ""
    reason: str = ""


class Environment(Record, frozen=True, kw_only=True):
    """The machine and the software a number was measured with."""

    cpu: str
    instruction_sets: tuple[str, ...]
    cores: int
    memory_bytes: int
    system: str
    python: str
    versions: dict[str, str]
    noise_ratio: float = 1.0
    steal_fraction: float = 0.0


class FrontEnd(Record, frozen=True, kw_only=True):
    """What a request costs beside the model: a model that takes no time, behind the same server, with requests and answers of the same size.

    Attributes:
        source: name of the model whose inputs and outputs it had.
        cpu_s: CPU time of the server for each request that comes alone [s].
        joined_s: for each of many that come close together; none in records of older runs [s].
        jitter_s: what else passes between the moment a request was due and its answer: a sample, ascending [s].
        payload_bytes: of one request, on average [B].
        rate_per_s: offered while it was measured [1/s].
    """

    source: str
    cpu_s: float
    jitter_s: tuple[float, ...]
    payload_bytes: int
    rate_per_s: float
    joined_s: float | None = None


class Noise(Record, frozen=True, kw_only=True):
    """How busy the machine was with other work during a stage.

    Attributes:
        noise_ratio: how much a fixed computation varied, the larger of before and after; 1 is a quiet machine.
        steal_fraction: share of all CPU time that went to other machines of the same host.
        others_fraction: share of all CPU time that went to other processes.
    """

    stage: str
    noise_ratio: float
    steal_fraction: float
    others_fraction: float


class Prediction(Record, frozen=True, kw_only=True):
    """What simulation expects of a candidate: SLO capacity and latency at the stated rate.

    Attributes:
        capacity_per_s: in-process: no front end [1/s].
        served_per_s: the same behind HTTP, with the front end as it was measured; none where it was not [1/s].
        low_per_s, high_per_s: between which ``capacity_per_s`` lies, as far as the samples of the service curve tell; none in records of older
            runs [1/s].
    """

    candidate: Candidate
    capacity_per_s: float
    rate_per_s: float
    latency_s: float
    percentile: float
    served_per_s: float | None = None
    low_per_s: float | None = None
    high_per_s: float | None = None


class Failure(Record, frozen=True, kw_only=True):
    """Why a candidate, or a whole stage for it, has no measurement; never a bad score."""

    stage: str
    variant: str
    plan: Plan | None
    reason: str


class Rejection(Record, frozen=True, kw_only=True):
    """Why a variant or a candidate lost, in one sentence."""

    stage: str
    variant: str
    plan: Plan | None
    reason: str
    figures: dict[str, float] = msgspec.field(default_factory=dict)
