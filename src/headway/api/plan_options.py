"""Out of a run: the candidates that a fleet may be made of, each as a replica corrected by what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from headway.api.prices import cheapest
from headway.load import arrival_times
from headway.predict import predict_capacity, simulate
from headway.predict.fleet_size import Replica
from headway.records import (
    Candidate,
    Capacity,
    Choice,
    GuardResult,
    LoadRun,
    MachineType,
    Objective,
    Placement,
    Plan,
    Prediction,
    Quality,
    Record,
    Rejection,
    RunStarted,
    ServiceCurve,
    Variant,
)
from headway.report.wording import rate
from headway.search import gather

HTTP, IN_PROCESS = "http", "in-process"
PROBES = 10_000
FILE_TIMES = 2
"""A replica's memory over the bytes of its file, where none was measured."""


@dataclass(frozen=True, slots=True)
class Source:
    """A run that is planned from: its records, and the machine types that it may stand for."""

    folder: Path
    machine: str
    machines: tuple[MachineType, ...]
    started: RunStarted
    records: list[Record]


@dataclass(frozen=True, slots=True)
class Option:
    """A candidate as a replica, and where its figures come from; ``measured`` says whether its own capacity was."""

    candidate: Candidate
    replica: Replica
    memory_bytes: int
    memory_basis: str
    correction_basis: str
    front_basis: str
    measured: bool
    machines: tuple[MachineType, ...]

    @property
    def cores(self) -> int:
        """Cores of one replica."""
        return self.candidate.plan.instances * self.candidate.plan.threads

    def placed(self, replicas: int, rate_per_s: float) -> Placement | None:
        """The cheapest placement of so many; none where no machine holds one."""
        return cheapest(self.machines, replicas, cores=self.cores, memory_bytes=self.memory_bytes, rate_per_s=rate_per_s)


@dataclass(frozen=True, slots=True)
class Correction:
    """A measured candidate against its prediction.

    Attributes:
        factor: capacity over capacity.
        front_s: what the front end and transport add to latency [s].
        extra_s: what each request took longer at capacity: 1/measured - 1/predicted [s].
    """

    factor: float
    front_s: float
    extra_s: float
    words: str


def candidate_options(source: Source, objective: Objective) -> tuple[list[Option], list[Rejection]]:
    """Every candidate with a curve that kept its quality and memory, and the reasons of those that did not."""
    curves = {_split(line): line for line in source.records if isinstance(line, ServiceCurve)}
    files = {line.name: line.file_bytes for line in source.records if isinstance(line, Variant)}
    corrections, silent = _corrections(source, curves)
    known = list(corrections.values())
    options: list[Option] = []
    out: list[Rejection] = []
    for candidate in _candidates(source.records):
        plan, curve = candidate.plan, curves.get(_split_of(candidate))
        if curve is None:
            continue
        memory, basis = _memory(source.records, candidate, curve, files.get(candidate.variant, 0))
        reason = _unfit(source.records, candidate)
        lost = Rejection(stage="plan", variant=candidate.variant, plan=None if reason else plan, reason=reason)
        if not reason and candidate in silent:
            reason = "held no rate that was tried in the run"
        elif not reason and objective.memory_bytes is not None and memory > objective.memory_bytes:
            reason = f"uses {memory / 1e6:.0f} MB ({basis}), the bound is {objective.memory_bytes / 1e6:.0f} MB"
        if reason:
            lost = msgspec.structs.replace(lost, reason=reason)
            out += [] if lost in out else [lost]
            continue
        found = corrections.get(candidate) or _unmeasured(known, curve, plan)
        fronted = "median over HTTP less the simulated one, on loopback" if found.front_s else "none was measured"
        options.append(
            Option(
                candidate=candidate, replica=Replica(curve, plan, found.factor, found.front_s), memory_bytes=memory, memory_basis=basis,
                correction_basis=found.words, front_basis=fronted, measured=candidate in corrections, machines=source.machines,
            )
        )  # fmt: skip
    return options, out


def _split(curve: ServiceCurve) -> tuple[str, str, str, int, int]:
    return curve.variant, curve.runtime, curve.device, curve.instances, curve.threads


def _split_of(candidate: Candidate) -> tuple[str, str, str, int, int]:
    plan = candidate.plan
    return candidate.variant, plan.runtime, plan.device, plan.instances, plan.threads


def _candidates(records: Iterable[Record]) -> list[Candidate]:
    """The choice, what was loaded, what was predicted."""
    lines = list(records)
    chosen = [line.candidate for line in lines if isinstance(line, Choice) and line.candidate is not None]
    loaded = [line.candidate for line in lines if isinstance(line, (LoadRun, Capacity)) and line.role != "naive"]
    return list(dict.fromkeys([*chosen, *loaded, *(line.candidate for line in lines if isinstance(line, Prediction))]))


def _unfit(records: Iterable[Record], candidate: Candidate) -> str:
    """Why a variant is out by its quality; empty when it is not. The report part says more than the selection part."""
    lines = [line for line in records if isinstance(line, (Quality, GuardResult)) and line.variant == candidate.variant]
    mine = [line for line in lines if line.runtime == candidate.plan.runtime]
    qualities = [line for line in mine if isinstance(line, Quality)]
    if not qualities:
        return "its quality was not measured"
    quality = max(qualities, key=lambda line: line.part == "report")
    violated = [line for line in (quality, *mine) if line.verdict == "violated" and (line is quality or isinstance(line, GuardResult))]
    return violated[0].reason or "its quality violates the bound" if violated else ""


def _memory(records: Iterable[Record], candidate: Candidate, curve: ServiceCurve, file_bytes: int) -> tuple[int, str]:
    measured = {
        line.candidate: line.memory_bytes
        for line in records
        if isinstance(line, Capacity) and line.memory_bytes and _alike(line.candidate, candidate)
    }
    if candidate in measured:
        return measured[candidate], "resident memory of its server, measured"
    if measured:
        return max(measured.values()), "resident memory of its server, measured with another batch limit"
    if curve.peak_bytes > 0 and curve.peak_bytes >= FILE_TIMES * file_bytes:
        return curve.peak_bytes, "measured growth of its sessions; the server itself comes on top"
    return max(FILE_TIMES * file_bytes, 1), f"{FILE_TIMES} times its file, not measured; the server itself comes on top"


def _alike(one: Candidate, other: Candidate) -> bool:
    """Whether two candidates differ in their batches at most."""
    limit = {"max_batch": other.plan.max_batch, "max_wait_s": other.plan.max_wait_s}
    return one.variant == other.variant and msgspec.structs.replace(one.plan, **limit) == other.plan


def _corrections(
    source: Source, curves: dict[tuple[str, str, str, int, int], ServiceCurve]
) -> tuple[dict[Candidate, Correction], set[Candidate]]:
    """Measured candidates against their predictions under the run's own objective, over HTTP if that was measured; and those that held nothing."""
    objective = source.started.objective
    over_http = [e for e in gather(source.records, objective.percentile, HTTP) if e.rate_per_s is not None]
    measured = over_http or [e for e in gather(source.records, objective.percentile, IN_PROCESS) if e.rate_per_s is not None]
    found, silent = {}, set()
    for e in measured:
        curve = curves.get(_split_of(e.candidate))
        if curve is None:
            continue
        if not e.rate_per_s:
            silent.add(e.candidate)
            continue
        front_s = _front_s(source.records, e.candidate, curve) if over_http else 0.0
        predicted = predict_capacity(curve, e.candidate.plan, objective, jitter_s=(front_s,) if front_s else ()).capacity_per_s
        if predicted > 0:
            where = "over HTTP" if over_http else "in-process"
            rounds = [
                line for line in source.records if isinstance(line, Capacity) and line.candidate == e.candidate and line.target == e.target
            ]
            most = "at least " if all(line.open_above for line in rounds) else ""
            words = f"{most}{rate(e.rate_per_s)} measured {where} over {rate(predicted)} simulated for one replica"
            found[e.candidate] = Correction(e.rate_per_s / predicted, front_s, 1 / e.rate_per_s - 1 / predicted, words)
    return found, silent


def _front_s(records: Iterable[Record], candidate: Candidate, curve: ServiceCurve) -> float:
    """What the front end and transport add: the median over HTTP at a comfortable rate less the simulated one [s]."""
    runs = [line.point for line in records if isinstance(line, LoadRun) and line.candidate == candidate and line.purpose == "at-rate"]
    points = [point for point in runs if point.target == HTTP and any(p.q == 0.5 for p in point.percentiles)]
    if not points:
        return 0.0
    rate_per_s = points[-1].offered_rate_per_s
    due_s = arrival_times(points[-1].arrivals, rate_per_s, PROBES / rate_per_s, 0)
    simulated_s = float(np.median(simulate(curve, candidate.plan, due_s)))
    return max(0.0, statistics.median(point.percentile(0.5).latency_s for point in points) - simulated_s)


def _unmeasured(known: Sequence[Correction], curve: ServiceCurve, plan: Plan) -> Correction:
    """What is taken for a candidate that was not measured, so that it does not win by being unknown.

    Each request to a measured one took some time more than simulated, 1/measured - 1/predicted; the middle of these is added to 1/mu. So a fast
    candidate is not taken to be beyond what the front end lets through, as it would by the middle of the ratios.
    """
    if not known:
        return Correction(1.0, 0.0, 0.0, "no candidate was measured: the simulator alone")
    extra_s = statistics.median(one.extra_s for one in known)
    factor = 1 / (1 + max(0.0, extra_s) * curve.capacity_per_s(plan.max_batch))
    count = f"{len(known)} measured candidate{'s' if len(known) > 1 else ''}"
    words = f"not measured; each request {extra_s * 1e3:.3g} ms longer than simulated, the median of {count} of the run"
    return Correction(factor, statistics.median(one.front_s for one in known), extra_s, words)
