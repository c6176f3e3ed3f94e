"""Frontier, Choice, Summary: what a run concludes. And the lines that frame a run."""

from __future__ import annotations

import msgspec

from headway.records.base import Record
from headway.records.candidate import Candidate, Plan, TensorSpec, Variant
from headway.records.cost import Ceilings, Cost
from headway.records.measured import Environment, Interval, LoadPoint, Quality, Rejection
from headway.records.objective import Objective


class DataSummary(Record, frozen=True, kw_only=True):
    """What the samples are: counts only, never values."""

    source: str
    n: int
    calibration: int
    selection: int
    report: int
    train: int
    labelled: bool
    groups: tuple[str, ...]
    metric: str
    digest: str


class RunStarted(Record, frozen=True, kw_only=True):
    """The first line of a run: what was asked, of what, on what. A resume must find the same."""

    version: str
    name: str
    sources: dict[str, str]
    data: DataSummary
    objective: Objective
    config: dict[str, object]
    environment: Environment
    seed: int


class SourceInspected(Record, frozen=True, kw_only=True):
    """A source model's cost and the machine's ceilings, from the estimate stage."""

    source: str
    digest: str
    cost: Cost
    ceilings: Ceilings | None = None
    notes: tuple[str, ...] = ()


class StageTime(Record, frozen=True, kw_only=True):
    """Wall time of one stage [s]."""

    stage: str
    duration_s: float


class FrontierPoint(Record, frozen=True, kw_only=True):
    """One candidate that no other beats in latency, rate and quality at once."""

    candidate: Candidate
    latency_s: float
    rate_per_s: float
    drop: float
    cores: int
    memory_bytes: int
    measured: bool


class Frontier(Record, frozen=True, kw_only=True):
    """The non-dominated candidates: lowest latency at a comfortable load, highest rate within the objective, least drop."""

    points: tuple[FrontierPoint, ...]


class Comparison(Record, frozen=True, kw_only=True):
    """Chosen against naive and against the best uncompressed plan, measured over HTTP in interleaved rounds of one run.

    Attributes:
        rate_per_s: the rate at which latencies are compared [1/s].
        points: by role, the runs at that rate, in round order.
        capacity_per_s: by role, SLO capacity over HTTP with interval over rounds [1/s].
        capacity_ratio: chosen over the other role, by that role's name.
        latency_ratio: the other role's percentile over the chosen one's at ``rate_per_s``, by that role's name.
        notes: what could not be compared and why; "unstable" warnings.
    """

    rate_per_s: float
    points: dict[str, tuple[LoadPoint, ...]]
    capacity_per_s: dict[str, Interval]
    capacity_ratio: dict[str, Interval]
    latency_ratio: dict[str, Interval]
    notes: tuple[str, ...] = ()


class Feasible(Record, frozen=True, kw_only=True):
    """An objective near the one that was asked for, and a candidate of this run that holds it: measured, or only predicted."""

    objective: Objective
    candidate: Candidate
    measured: bool


class Choice(Record, frozen=True, kw_only=True):
    """The winner and why; or, when ``met`` is false, the nearest candidate, the bound that failed, and what would hold instead.

    Attributes:
        feasible: objectives that candidates of this run do hold, each with one bound relaxed; the nearest first.
    """

    met: bool
    candidate: Candidate | None
    reasons: tuple[str, ...]
    latency_s: float | None = None
    rate_per_s: float | None = None
    quality: Quality | None = None
    failing_bound: str = ""
    shortfall: str = ""
    feasible: tuple[Feasible, ...] = ()


class RunFinished(Record, frozen=True, kw_only=True):
    """The last line of a run; ``warnings`` say why its figures may be off."""

    budget_s: float | None
    left_out: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Summary(Record, frozen=True, kw_only=True):
    """The one JSON object that ``tune --json`` prints.

    Attributes:
        prediction_errors: predicted over measured SLO capacity, less 1, of every candidate that was loaded in-process.
        served_errors: the same over HTTP, with the front end in the prediction.
    """

    run: str
    choice: Choice
    frontier: Frontier
    rejected: tuple[Rejection, ...]
    environment: Environment
    objective: Objective
    comparison: Comparison | None = None
    stages: tuple[StageTime, ...] = ()
    left_out: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    prediction_errors: tuple[float, ...] = ()
    served_errors: tuple[float, ...] = ()


class BundledVariant(Record, frozen=True, kw_only=True):
    """One variant inside a bundle, first the one to serve, then those to fall back to."""

    variant: Variant
    file: str
    digest: str
    plan: Plan
    latency_s: float | None = None
    rate_per_s: float | None = None
    drop: float | None = None


class Bundle(Record, frozen=True, kw_only=True):
    """The manifest of a bundle folder (``bundle.json``).

    Attributes:
        golden: file of the golden set (``.npz``: ``input/NAME`` and, per variant index, ``output/I/NAME``), with its digest.
        golden_synthetic: whether the golden inputs are synthetic (the default) or real samples.
        tolerance: largest relative difference of the replayed outputs that counts as the same.
    """

    format: int
    name: str
    created: str
    version: str
    objective: Objective
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    labels: tuple[str, ...]
    variants: tuple[BundledVariant, ...]
    golden: str
    golden_digest: str
    golden_synthetic: bool
    tolerance: float
    environment: Environment
    notes: tuple[str, ...] = msgspec.field(default_factory=tuple)


class Trace(Record, frozen=True, kw_only=True):
    """Arrivals seen in production: seconds since ``start``, and rows of each request. Never payloads."""

    start: str
    arrivals_s: tuple[float, ...]
    rows: tuple[int, ...]
