"""A fleet's plan in sentences and rows: what the terminal prints and the page shows."""

from __future__ import annotations

from headway.records import FleetPlan, LatencyBudget, PlannedFleet
from headway.report.tables import Cell, Table, table
from headway.report.wording import fixed, ms, number, objective_words, percent, plan_words, rate, scaled

PARTS = ("front end and transport", "wait for an instance", "batch, beyond one", "service of one")

ROUTED = {
    "round_robin": "in turn",
    "random": "by chance",
    "two_choices": "to the one of two by chance that has less to do",
    "least_loaded": "to the one that has least to do",
}


def parts_s(budget: LatencyBudget) -> tuple[float, ...]:
    """The parts of a latency in the order of ``PARTS`` [s]."""
    return budget.front_s, budget.wait_s, budget.batch_s, budget.service_s


def counted(count: int, noun: str) -> str:
    """``1 replica``, ``1,504 replicas``."""
    return f"{count:,} {noun}{'s' if count != 1 else ''}"


def title(plan: FleetPlan) -> str:
    """What to run, in one line."""
    fleet = plan.fleets[0]
    return f"{counted(fleet.replicas, 'replica')} hold {rate(plan.rate_per_s)}: {objective_words(plan.objective)}"


def sentences(plan: FleetPlan) -> tuple[str, ...]:
    """The cheapest fleet: what, on what, how sure, what it withstands, how it scales."""
    fleet = plan.fleets[0]
    spare = f" and {fleet.spare} spare" if fleet.spare else ", none spare"
    said = [
        f"{fleet.needed:,} needed{spare}, of {fleet.candidate.variant} on {plan_words(fleet.candidate.plan)}.",
        f"{counted(fleet.cores, 'core')}, {scaled(fleet.memory_bytes, 'B')} of memory ({scaled(fleet.replica_memory_bytes, 'B')} each: {fleet.memory_basis}).",
        placed(plan, fleet),
        f"Simulated with {plan.arrivals} arrivals, sent to replicas {ROUTED[plan.router]}, nothing refused: {fleet.simulated_requests:,} requests.",
        f"Capacity of a replica {rate(fleet.capacity_per_s)}, the simulated one times {number(fleet.correction)} ({fleet.correction_basis}).",
        f"Front end and transport {ms(fleet.front_s)} ({fleet.front_basis}).",
        *_failure(plan, fleet),
        f"Headroom: {number(fleet.headroom)} times the rate with all replicas{_without(fleet)}. First fails {fleet.breaks_first}.",
        *_scaling(fleet),
    ]
    return tuple(said)


def placed(plan: FleetPlan, fleet: PlannedFleet) -> str:
    """Machines and price of a fleet."""
    where, currency = fleet.placement, plan.prices.currency
    price = f"{fixed(where.price_per_hour, 2)} {currency} an hour, {number(where.price_per_million)} {currency} a million requests"
    machines = (
        f"{where.machines:,} x {where.machine.name} ({where.machine.cores} cores, at most {where.replicas_per_machine} replicas each)"
    )
    return f"{machines}: {price}{' at example prices' if plan.prices.example else ''}."


def _without(fleet: PlannedFleet) -> str:
    return f", {number(fleet.headroom_failed)} without the spare" if fleet.spare else ""


def _failure(plan: FleetPlan, fleet: PlannedFleet) -> list[str]:
    failure = fleet.failure
    if failure is None:
        return []
    who = "a replica fails" if failure.failed == 1 else f"{failure.failed} replicas fail at once"
    lost = f"When {who}, {number(failure.lost)} requests on average are lost with it, and {rate(failure.lost_per_s)} until the balancer notices"
    name = plan.objective.percentile_name
    if failure.holds_again_after_s is None:
        return [f"{lost}; {name} did not hold again in what was simulated."]
    if failure.holds_again_after_s == 0:
        return [f"{lost}; {name} holds throughout, in windows of {ms(failure.window_s)}."]
    return [f"{lost}; {name} holds again after {ms(failure.holds_again_after_s)}, in windows of {ms(failure.window_s)}."]


def _scaling(fleet: PlannedFleet) -> list[str]:
    rule = fleet.autoscaling
    each = f"a replica holds {rate(rule.replica_rate_per_s)} with a mean latency of {ms(rule.mean_s)}"
    said = [f"Autoscaling, in closed form: {number(rule.target_in_flight)} requests in flight for each replica ({each}; Little)."]
    if rule.trough_replicas is not None and rule.peak_replicas is not None:
        said.append(
            f"Over the day {rule.trough_replicas:,} replicas at the trough and {rule.peak_replicas:,} at the peak, the spare among them."
        )
    if rule.cold_start_replicas is not None and rule.cold_start_s is not None:
        more = counted(rule.cold_start_replicas, "further replica")
        said.append(f"With a cold start of {number(rule.cold_start_s)} s, {more} ready at all times cover the steepest rise of the day.")
    return said


def situations(plan: FleetPlan) -> Table:
    """The cheapest fleet at the planned rate, with all replicas and without the spare."""
    fleet = plan.fleets[0]
    lines = [("all at work", fleet.at_work), (f"{fleet.spare} failed", fleet.spare_failed)]
    return table(
        f"at {rate(plan.rate_per_s)} | #replicas | #rate/mu | #mean | #{plan.objective.percentile_name}",
        [
            (name, f"{seen.replicas:,}", percent(seen.utilisation), ms(seen.mean_s), ms(seen.percentile_s))
            for name, seen in lines
            if seen is not None
        ],
    )


def fleets(plan: FleetPlan) -> Table:
    """The cheapest fleet of each run, the cheapest first."""
    currency, rows = plan.prices.currency, []
    for fleet in plan.fleets:
        where, seen = fleet.placement, fleet.at_work
        figures = (
            f"{fleet.replicas:,}",
            f"{fleet.cores:,}",
            ms(seen.percentile_s),
            fixed(where.price_per_hour, 2),
            number(where.price_per_million),
        )
        rows.append((Cell(fleet.run, note=str(fleet.candidate)), f"{where.machines:,} x {where.machine.name}", *figures))
    return table(
        f"run | machines | #replicas | #cores | #{plan.objective.percentile_name} | #{currency} an hour | #{currency} a million", rows
    )


def budgets(plan: FleetPlan) -> Table:
    """Where the time of a request goes, in the cheapest fleet."""
    rows = [(one.at, *map(ms, parts_s(one)), ms(one.total_s)) for one in plan.fleets[0].budget]
    return table(f"latency | {' | '.join(f'#{part}' for part in PARTS)} | #all", rows)


def losers(plan: FleetPlan) -> Table:
    """Candidates that cost more or cannot do it, and why."""
    rows = [(Cell(lost.variant, note=str(lost.plan) if lost.plan else ""), lost.reason) for lost in plan.rejected]
    return table("not chosen | why", rows)
