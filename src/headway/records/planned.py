"""A fleet as planned: how many replicas of what, on which machines, at what price, and what it withstands.

All latencies are simulated, after a correction by what was measured; nothing here is a measurement.
"""

from __future__ import annotations

from headway.records.base import Record
from headway.records.candidate import Candidate
from headway.records.measured import Rejection
from headway.records.objective import Objective


class MachineType(Record, frozen=True, kw_only=True):
    """A machine that can be had: what it holds, and its price in the currency of its list."""

    name: str
    cores: int
    memory_bytes: int
    price_per_hour: float


class PriceList(Record, frozen=True, kw_only=True):
    """Machine types with prices; ``example`` marks the built-in list, whose prices are nobody's."""

    source: str
    currency: str
    machines: tuple[MachineType, ...]
    example: bool = False


class Placement(Record, frozen=True, kw_only=True):
    """Replicas on machines of one type.

    Attributes:
        replicas_per_machine: as many as its cores and memory hold.
        limited_by: what is used up first on a full machine: ``cores`` or ``memory``.
        price_per_million: of a million requests, at the planned rate.
    """

    machine: MachineType
    replicas_per_machine: int
    limited_by: str
    machines: int
    price_per_hour: float
    price_per_million: float


class FleetLatency(Record, frozen=True, kw_only=True):
    """A fleet at the planned rate.

    Attributes:
        utilisation: rate over the corrected capacity mu of all replicas. Busy is not full: a batching server is busy long before this is 1.
        mean_s, percentile_s: of latency; the percentile is the objective's [s].
    """

    replicas: int
    utilisation: float
    mean_s: float
    percentile_s: float


class ReplicaFailure(Record, frozen=True, kw_only=True):
    """Replicas that fail at once and stay away, with the rest at the planned rate (the busiest, where it has a course).

    Attributes:
        failed: how many.
        lost: requests that they held, on average over the simulated failures; nobody sends them again.
        holds_again_after_s: until the first window whose share of late requests is within the objective, or not beyond it by more than chance;
            0: already the first; none: not before the end of what was simulated [s].
        window_s: length of these windows [s].
        lost_per_s: what a balancer that has not noticed loses further [1/s].
    """

    failed: int
    lost: float
    holds_again_after_s: float | None
    window_s: float
    lost_per_s: float


class LatencyBudget(Record, frozen=True, kw_only=True):
    """Where the time of a request goes; the parts sum to its latency [s].

    Attributes:
        at: ``mean``, or the name of a percentile: the mean over requests whose latency is within 1% of it.
        front_s: front end and transport.
        wait_s: from the queue to the start of the batch.
        batch_s: what the batch took beyond a batch of one.
        service_s: a batch of one.
    """

    at: str
    front_s: float
    wait_s: float
    batch_s: float
    service_s: float

    @property
    def total_s(self) -> float:
        """The latency [s]."""
        return self.front_s + self.wait_s + self.batch_s + self.service_s


class Autoscaling(Record, frozen=True, kw_only=True):
    """A rule for an autoscaler, in closed form from the rate that one replica holds.

    Attributes:
        replica_rate_per_s: what a replica holds within the objective, in a fleet of this size [1/s].
        mean_s: its mean latency then [s].
        target_in_flight: requests in flight for each replica: Little, replica_rate_per_s times mean_s.
        trough_replicas, peak_replicas: for a day's quietest and busiest moment, with the spare; none where the rate has no course.
        cold_start_s: how long a new replica takes to be ready [s]; none: not given.
        cold_start_replicas: further ones to hold ready, for the steepest rise of load during a cold start.
    """

    replica_rate_per_s: float
    mean_s: float
    target_in_flight: float
    trough_replicas: int | None = None
    peak_replicas: int | None = None
    cold_start_s: float | None = None
    cold_start_replicas: int | None = None


class PlannedFleet(Record, frozen=True, kw_only=True):
    """The cheapest fleet out of one run.

    Attributes:
        run: its folder; ``cpu`` what it was measured on.
        needed: the least replicas that hold the objective; ``replicas`` has the ``spare`` added.
        cores, memory_bytes: of all replicas; ``replica_memory_bytes`` of one.
        memory_basis: where the memory comes from.
        correction: capacity measured over capacity predicted, by which the simulated replica is slowed; ``correction_basis`` says whose.
        front_s: front end and transport, added to every latency [s]; ``front_basis`` says how it is known.
        capacity_per_s: mu of one replica, corrected [1/s].
        at_work: all replicas; ``spare_failed`` without the spare; none without spare.
        failure: the moment of failing; none without spare, or where the fleet is too large to simulate one by one.
        headroom: largest rate held over the planned rate, with all replicas; ``headroom_failed`` without the spare.
        breaks_first: what fails first when the rate rises.
        simulated_replicas, simulated_requests: of the run behind ``at_work``; fewer replicas than ``replicas`` at the same load each, where
            the fleet is too large.
    """

    run: str
    cpu: str
    candidate: Candidate
    replicas: int
    needed: int
    spare: int
    cores: int
    memory_bytes: int
    replica_memory_bytes: int
    memory_basis: str
    correction: float
    correction_basis: str
    front_s: float
    front_basis: str
    capacity_per_s: float
    at_work: FleetLatency
    spare_failed: FleetLatency | None
    failure: ReplicaFailure | None
    headroom: float
    headroom_failed: float
    breaks_first: str
    placement: Placement
    autoscaling: Autoscaling
    budget: tuple[LatencyBudget, ...]
    simulated_replicas: int
    simulated_requests: int


class FleetPlan(Record, frozen=True, kw_only=True):
    """The answer of ``headway plan``: the cheapest fleet of each run, the cheapest of all first, and why the others lost."""

    rate_per_s: float
    objective: Objective
    arrivals: str
    router: str
    seed: int
    prices: PriceList
    fleets: tuple[PlannedFleet, ...]
    rejected: tuple[Rejection, ...] = ()
    notes: tuple[str, ...] = ()
