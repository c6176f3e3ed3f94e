"""``plan``: how many replicas hold an objective at a rate, on which machines and at what price, out of one run or several."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from headway.api.plan_options import Option, Source, candidate_options
from headway.api.prices import read_prices
from headway.api.progress import Progress, Silent
from headway.load.arriving import parse_arrivals
from headway.predict import ROUTERS
from headway.predict.fleet_size import (
    STEADY,
    Demand,
    Replica,
    budget,
    failure,
    held_rate,
    latency,
    least_replicas,
    observe,
    rate_course,
    rough_replicas,
)
from headway.records import (
    Autoscaling,
    BundleError,
    Choice,
    ConfigError,
    FleetPlan,
    Objective,
    ObjectiveNotMet,
    Placement,
    PlannedFleet,
    PriceList,
    Rejection,
    RunFinished,
    RunStarted,
    ServiceCurve,
    parse_objective,
    read_journal,
)

AT_CAPACITY = 0.97
DAY_S = 86_400.0
JUDGED = ("drop", "group_drop", "ece", "shift_drop", "attack_drop")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanAsked:
    """What the user asked for.

    Attributes:
        runs: run folders, each perhaps with the machine type it was measured on: ``MACHINE=RUN``.
        slo: the objective; none: the run's own.
        arrivals: none: the objective's.
        spare: replicas that may fail at once.
        prices: a price list; none: the built-in example.
        cold_start_s: how long a new replica takes to be ready [s].
    """

    runs: tuple[str, ...]
    rate_per_s: float
    slo: str = ""
    arrivals: str = ""
    router: str = "random"
    spare: int = 1
    prices: Path | None = None
    cold_start_s: float | None = None
    seed: int = 0


def plan_fleet(asked: PlanAsked, progress: Progress | None = None) -> FleetPlan:
    """The cheapest fleet of each run, the cheapest of all first.

    Raises:
        InputError: a run, the objective, the arrivals, the price list or a number is wrong.
        ObjectiveNotMet: no candidate of any run holds the objective in any number; the message names the binding bound and the nearest.
    """
    progress = progress or Silent()
    _check(asked)
    prices = read_prices(asked.prices)
    sources = [_source(text, prices, alone=len(asked.runs) == 1) for text in asked.runs]
    objective = _objective(asked, sources)
    demand = Demand(
        asked.rate_per_s, objective.percentile, _bound_s(objective), objective.arrivals, router=asked.router, seed=asked.seed
    )  # fmt: skip
    if asked.cold_start_s is not None and parse_arrivals(demand.arrivals).name != "diurnal":
        raise ConfigError(f"--cold-start-s needs the rise of a day, which arrivals {demand.arrivals!r} have not; add --arrivals diurnal")
    progress.stage(f"plan for {asked.rate_per_s:g}/s", 3 * len(sources))
    fleets, rejected = [], []
    nearest: list[tuple[float, Option]] = []
    for source in sources:
        progress.step(f"{source.folder}: what it measured")
        options, out = candidate_options(source, objective)
        nearest += [(option.replica.alone_s(demand.percentile), option) for option in options]
        progress.step(f"{source.folder}: compare {len(options)} candidates")
        best, lost = _cheapest_option(options, demand, asked.spare, prices.currency)
        rejected += [*out, *lost]
        if best is not None:
            progress.step(f"{source.folder}: {best.candidate}")
            fleet = _fleet(source, best, demand, asked)
            if fleet is not None:
                fleets.append(fleet)
            else:
                reason = "held the objective in a short simulation but in no number in a long one: the arrivals are too irregular"
                rejected.append(Rejection(stage="plan", variant=best.candidate.variant, plan=best.candidate.plan, reason=reason))
    if not fleets:
        raise ObjectiveNotMet(_not_met(objective, asked.rate_per_s, nearest, rejected))
    fleets.sort(key=lambda fleet: (round(fleet.placement.price_per_hour, 9), fleet.cores, fleet.at_work.percentile_s, fleet.run))
    return FleetPlan(
        rate_per_s=asked.rate_per_s, objective=objective, arrivals=objective.arrivals, router=asked.router, seed=asked.seed, prices=prices,
        fleets=tuple(fleets), rejected=tuple(rejected), notes=tuple(_notes(sources, fleets, prices, asked)),
    )  # fmt: skip


def _check(asked: PlanAsked) -> None:
    if not 0 < asked.rate_per_s < math.inf:
        raise ConfigError(f"--rate must be a number of requests a second above zero, got {asked.rate_per_s:g}")
    if asked.spare < 0:
        raise ConfigError(f"--spare must be a number of replicas, 0 or more, got {asked.spare}")
    if asked.router not in ROUTERS:
        raise ConfigError(f"--router must be one of {', '.join(ROUTERS)}, got {asked.router!r}")
    if asked.cold_start_s is not None and not 0 < asked.cold_start_s < math.inf:
        raise ConfigError(f"--cold-start-s must be a number of seconds above zero, got {asked.cold_start_s:g}")
    if not 0 <= asked.seed < 2**31:
        raise ConfigError(f"--seed must lie between 0 and 2147483647, got {asked.seed}")
    if not asked.runs:
        raise ConfigError("a plan needs a run folder, got none; make one with: headway tune MODEL --data DATA --slo TEXT")


def _source(text: str, prices: PriceList, *, alone: bool) -> Source:
    """A run from ``RUN`` or ``MACHINE=RUN``."""
    name, equals, path = text.partition("=")
    known = {machine.name: machine for machine in prices.machines}
    named = bool(equals) and not Path(text).exists()
    if named and name not in known:
        raise ConfigError(f"the machine type of {text!r} must be in the price list, got {name!r}; known are {', '.join(known)}")
    if not named and not alone:
        raise ConfigError(
            f"of several runs each needs the machine type it was measured on, got {text!r}; write MACHINE=RUN, such as {next(iter(known))}={text}"
        )
    folder = Path(path if named else text)
    records = read_journal(folder)
    started = next((line for line in records if isinstance(line, RunStarted)), None)
    if started is None:
        raise BundleError(f"{folder}: must hold a run that has begun, got no first record; tune again into a new folder")
    if not any(isinstance(line, ServiceCurve) for line in records):
        raise BundleError(f"{folder}: must hold service curves to simulate, got none; continue the run with: headway tune --resume")
    machines = (known[name],) if named else prices.machines
    return Source(folder, name if named else "", machines, started, records)


def _objective(asked: PlanAsked, sources: Sequence[Source]) -> Objective:
    """What is planned for: the stated objective or the runs' own, with the stated arrivals."""
    own = sources[0].started.objective
    if asked.slo:
        stated = parse_objective(asked.slo)
        for source in sources:
            for name in JUDGED:
                bound = getattr(stated, name)
                if bound is not None and bound != getattr(source.started.objective, name):
                    raise ConfigError(
                        f"--slo: {name} was judged in the run {source.folder}, by its own bound, and must be left out or be the same; tune again for another"
                    )
        if stated.rate_per_s not in (None, asked.rate_per_s):
            raise ConfigError(f"--slo: the rate must be left out, --rate says {asked.rate_per_s:g}/s, got {stated.rate_per_s:g}/s")
        own = msgspec.structs.replace(
            own, **{name: getattr(stated, name) for name in ("percentile", "latency_s", "memory_bytes", "arrivals")}
        )
    else:
        for source in sources[1:]:
            other = source.started.objective
            if (other.percentile, other.latency_s, other.memory_bytes) != (own.percentile, own.latency_s, own.memory_bytes):
                raise ConfigError(f"runs of one plan must have one objective, got {own} and {other}; say which with --slo")
    if own.latency_s is None:
        raise ConfigError(f"a plan needs a bound on latency, got the objective {str(own)!r}; give one with --slo, such as p99<=20ms")
    return msgspec.structs.replace(own, rate_per_s=asked.rate_per_s, arrivals=asked.arrivals or own.arrivals)


def _bound_s(objective: Objective) -> float:
    return objective.latency_s if objective.latency_s is not None else math.inf


def _cheapest_option(options: Sequence[Option], demand: Demand, spare: int, currency: str) -> tuple[Option | None, list[Rejection]]:
    """The option whose fleet costs least, and why the others lost.

    Equals are parted by cores, by whether they were measured, and by the time of a single request. They are taken in the order of what they
    cost at least, by capacity alone; one whose least is above the best so far is not simulated.
    """
    bounded, out = _bounded(options, demand, spare)
    best: Option | None = None
    cheapest_cost: tuple[float, ...] = (math.inf,)
    needs: list[tuple[Option, int, Placement]] = []
    dear: list[tuple[Option, str]] = []
    for price, cores, option in bounded:
        if (price, cores) > cheapest_cost[:2]:
            dear.append((option, f"costs at least {price:.4g} {currency} an hour on {cores} cores, by its capacity alone"))
            continue
        needed = rough_replicas(option.replica, demand)
        placement = None if needed is None else option.placed(needed + spare, demand.rate_per_s)
        if needed is None or placement is None:
            alone_ms = option.replica.alone_s(demand.percentile) * 1e3
            out.append((option, f"takes {alone_ms:.3g} ms alone, and with any wait passes the bound in a fleet of any size"))
            continue
        needs.append((option, needed + spare, placement))
        cost = (placement.price_per_hour, (needed + spare) * option.cores, not option.measured, option.replica.alone_s(0.5))
        if cost < cheapest_cost:
            best, cheapest_cost = option, cost
    close: list[tuple[Option, str]] = []
    for option, replicas, placement in sorted(needs, key=lambda need: (need[2].price_per_hour, need[1] * need[0].cores)):
        price, cores = placement.price_per_hour, replicas * option.cores
        than = f"the best costs {cheapest_cost[0]:.4g}" if price > cheapest_cost[0] else "the best costs no more"
        if option is not best:
            close.append((option, f"needs {replicas} replicas on {cores} cores for {price:.4g} {currency} an hour; {than}"))
    lost = [*close, *dear, *out]
    return best, [Rejection(stage="plan", variant=o.candidate.variant, plan=o.candidate.plan, reason=reason) for o, reason in lost]


def _bounded(options: Sequence[Option], demand: Demand, spare: int) -> tuple[list[tuple[float, int, Option]], list[tuple[Option, str]]]:
    """Options that could do, with the least price and cores of their fleets, cheapest first; and the others with the reason."""
    able: list[tuple[float, int, Option]] = []
    out: list[tuple[Option, str]] = []
    for option in options:
        least = option.replica.fewest(demand.rate_per_s) + spare
        placement = option.placed(least, demand.rate_per_s)
        alone_s = option.replica.alone_s(demand.percentile)
        if alone_s > demand.latency_s:
            out.append((option, f"a single request alone takes {alone_s * 1e3:.3g} ms, the bound is {demand.latency_s * 1e3:g} ms"))
        elif placement is None:
            needs = f"{option.cores} cores and {option.memory_bytes / 1e6:.0f} MB"
            out.append((option, f"a replica needs {needs}, and no machine of the list holds one"))
        else:
            able.append((placement.price_per_hour, least * option.cores, option))
    return sorted(able, key=lambda one: (one[0], one[1], str(one[2].candidate))), out


def _fleet(source: Source, option: Option, demand: Demand, asked: PlanAsked) -> PlannedFleet | None:
    """The fleet of the chosen option, simulated at length; none where that contradicts the first look."""
    replica, spare, rate_per_s = option.replica, asked.spare, demand.rate_per_s
    needed = least_replicas(replica, demand, spare=spare)
    placement = option.placed(needed + spare, rate_per_s) if needed is not None else None
    if needed is None or placement is None:
        return None
    replicas = needed + spare
    seen = observe(replica, demand, replicas)
    held = held_rate(replica, demand, replicas, from_per_s=rate_per_s) / rate_per_s
    held_failed = held_rate(replica, demand, needed, from_per_s=rate_per_s) / rate_per_s if spare else held
    return PlannedFleet(
        run=str(source.folder), cpu=source.started.environment.cpu, candidate=option.candidate, replicas=replicas, needed=needed, spare=spare,
        cores=replicas * option.cores, memory_bytes=replicas * option.memory_bytes, replica_memory_bytes=option.memory_bytes,
        memory_basis=option.memory_basis, correction=replica.correction, correction_basis=option.correction_basis, front_s=replica.front_s,
        front_basis=option.front_basis, capacity_per_s=replica.capacity_per_s, at_work=latency(replica, demand, replicas, seen),
        spare_failed=latency(replica, demand, needed, observe(replica, demand, needed)) if spare else None,
        failure=failure(replica, demand, replicas, spare) if spare else None, headroom=held, headroom_failed=held_failed,
        breaks_first=_breaks_first(option, demand, replicas, held, placement), placement=placement,
        autoscaling=_autoscaling(replica, demand, needed, held_failed * rate_per_s, asked), budget=budget(replica, demand, seen), simulated_replicas=seen.replicas,
        simulated_requests=len(seen.due_s),
    )  # fmt: skip


def _breaks_first(option: Option, demand: Demand, replicas: int, held: float, placement: Placement) -> str:
    full = replicas * option.replica.capacity_per_s / demand.rate_per_s
    percentile = f"p{demand.percentile * 100:.6g}"
    if held >= AT_CAPACITY * full:
        first = f"the cores: at {full:.3g} times the rate every instance is at capacity, and until then {percentile} holds"
    else:
        first = f"the latency bound: {percentile} passes {demand.latency_s * 1e3:g} ms at {held:.3g} times the rate, where rate/mu is {held / full:.2f}; the cores would last to {full:.3g} times"
    return f"{first}. Memory hardly grows with the rate (what waits); a machine is full by its {placement.limited_by}"


def _autoscaling(replica: Replica, demand: Demand, needed: int, held_per_s: float, asked: PlanAsked) -> Autoscaling:
    """The rule, by Little's law, from the rate that the ``needed`` hold; with a course, the rate that they hold without it."""
    course, steady = rate_course(demand.arrivals), demand
    if course is not None:
        steady = dataclasses.replace(demand, arrivals="poisson")
        held_per_s = held_rate(replica, steady, needed, from_per_s=demand.rate_per_s)
    each_per_s = held_per_s / needed
    mean_s = observe(replica, steady, needed, rate_per_s=held_per_s, requests=STEADY).mean_s
    rule = Autoscaling(replica_rate_per_s=each_per_s, mean_s=mean_s, target_in_flight=each_per_s * mean_s, cold_start_s=asked.cold_start_s)
    if course is None or parse_arrivals(demand.arrivals).name != "diurnal":
        return rule
    trough, peak = (max(1, math.ceil(demand.rate_per_s * share / each_per_s)) + asked.spare for share in course)
    steepest_per_s2 = demand.rate_per_s * (course[1] - 1) * 2 * math.pi / DAY_S
    rising = None if asked.cold_start_s is None else math.ceil(steepest_per_s2 * asked.cold_start_s / each_per_s)
    return msgspec.structs.replace(rule, trough_replicas=trough, peak_replicas=peak, cold_start_replicas=rising)


def _not_met(objective: Objective, rate_per_s: float, nearest: Sequence[tuple[float, Option]], rejected: Collection[Rejection]) -> str:
    asked = f"{objective.percentile_name} must be within {_bound_s(objective) * 1e3:g} ms at {rate_per_s:g}/s"
    if not nearest:
        reason = next(iter(rejected)).reason if rejected else "it holds no candidate with a curve"
        return f"{asked}, and no candidate kept its quality and memory: {reason}. Tune again with other bounds."
    alone_s, option = min(nearest, key=lambda pair: pair[0])
    if alone_s > _bound_s(objective):
        return f"{asked}, and a single request alone takes longer with every candidate: the bound on latency binds. Nearest is {option.candidate} with {alone_s * 1e3:.3g} ms. Loosen the bound, or tune for a faster variant."
    reason = next((line.reason for line in rejected if line.plan == option.candidate.plan and line.variant == option.candidate.variant), "")
    return f"{asked}, and no number of replicas holds that. Nearest is {option.candidate}: {reason}. Loosen the bound, or give other machines with --prices."


def _notes(sources: Sequence[Source], fleets: Sequence[PlannedFleet], prices: PriceList, asked: PlanAsked) -> Iterable[str]:
    """What a reader must know who would believe the figures."""
    if prices.example:
        yield "prices are the built-in example, not a quote: give your own with --prices FILE"
    for source in sources:
        name, machine = source.folder, source.started.environment
        if not source.machine:
            yield f"every machine of the list is taken to be as fast a core as {machine.cpu or 'the one'} that {name} was measured on; no figures are scaled from one machine to another (not offered): measure a run on each type and write MACHINE=RUN"
        elif source.machines[0].cores != machine.cores:
            yield f"{name} was measured with {machine.cores} cores, and {source.machine} has {source.machines[0].cores}"
        choice = [line for line in source.records if isinstance(line, Choice)]
        if choice and not choice[-1].met:
            yield f"{name} did not meet its own objective: {choice[-1].shortfall}"
        if not any(isinstance(line, RunFinished) for line in source.records):
            yield f"{name} is not finished: other candidates may be cheaper"
    for fleet in fleets:
        source = next(source for source in sources if str(source.folder) == fleet.run)
        plan, cores = fleet.candidate.plan, source.started.environment.cores
        used = plan.instances * plan.threads
        if used < cores and fleet.placement.replicas_per_machine > 1:
            yield f"{fleet.candidate} was measured with {used} of {cores} cores for its instances, and the front end of its server had the rest; replicas side by side on a machine share cores, caches and memory bandwidth with each other's, and will be slower than planned"
        if asked.spare and fleet.placement.replicas_per_machine > asked.spare:
            yield f"a machine that fails takes up to {min(fleet.replicas, fleet.placement.replicas_per_machine)} replicas of {fleet.candidate} with it, and the spare is {asked.spare}: raise --spare, or spread them over more machines"
        if fleet.simulated_replicas < fleet.replicas:
            lost = "; the failure was not simulated" if asked.spare and fleet.failure is None else ""
            yield f"{fleet.replicas} replicas were simulated as {fleet.simulated_replicas} at the same load each{lost}"
        if any(isinstance(line, ServiceCurve) and line.unstable and line.variant == fleet.candidate.variant for line in source.records):
            yield f"the service times of {fleet.candidate.variant} were unstable: measure again on a quiet machine"
