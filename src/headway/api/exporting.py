"""``export`` and ``verify``: a bundle written for another server with what simulation expects of it there, and an export's answers compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from headway.deploy import ask_rows, server_at, verify, write_export
from headway.predict import predict_engine, predict_plan
from headway.records import (
    BundledVariant,
    ConfigError,
    ExpectedThere,
    Export,
    FleetPlan,
    FrontEnd,
    InputError,
    Objective,
    Plan,
    PlannedFleet,
    Record,
    RecordError,
    RunStarted,
    ServerPolicy,
    ServiceCurve,
    Verified,
    from_json,
    read_journal,
)
from headway.records.journal import FILE
from headway.serve import OpenBundle, open_bundle

PLAN_BYTES = 64 * 2**20
Told = tuple[ExpectedThere | None, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportAsked:
    """What the user asked for.

    Attributes:
        source: a run or a bundle; only a run (or a bundle inside one) has the measurements to predict from.
        plan: what ``headway plan RUN --rate R --json`` printed: autoscaling, replicas and the variant come from its cheapest fleet.
        settings: of the target.
    """

    source: Path
    target: str
    folder: Path
    variant: str = ""
    name: str = ""
    plan: Path | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


def export_bundle(asked: ExportAsked) -> Export:
    """The manifest of the export written to ``asked.folder``.

    Raises:
        InputError: the bundle, the plan, the target, a setting or the folder is wrong; an older export is then untouched.
        Unsupported: the target cannot serve the variant.
    """
    bundle = open_bundle(asked.source)
    fleet = None if asked.plan is None else _fleet(asked.plan, bundle, asked.variant)
    records = _records(asked.source)
    return write_export(
        asked.target, bundle, asked.folder, variant=fleet.candidate.variant if fleet else asked.variant, name=asked.name,
        scaling=fleet.autoscaling if fleet else None, replicas=fleet.replicas if fleet else None, settings=asked.settings,
        expect=lambda bundled, policy: _expected(records, bundled, policy, bundle.manifest.objective),
    )  # fmt: skip


def verify_export(folder: Path, url: str = "", token: str = "") -> Verified:
    """How far the answers of an export, and of the server at ``url``, lie from its golden set.

    Raises:
        BundleError: a file was changed, or answers lie further apart than the tolerance.
        ConfigError: ``url`` is none.
    """
    if not url:
        return verify(folder)
    server = server_at(url, token)
    return verify(folder, lambda export, inputs: ask_rows(server, export.model, inputs, export.inputs, export.outputs), url)


def _fleet(path: Path, bundle: OpenBundle, variant: str) -> PlannedFleet:
    """The cheapest fleet of a plan whose variant the bundle holds."""
    try:
        if path.stat().st_size > PLAN_BYTES:
            raise ConfigError(f"{path}: a plan must be at most {PLAN_BYTES} bytes, got {path.stat().st_size}")
        plan = from_json(path.read_bytes(), FleetPlan, str(path))
    except OSError as error:
        raise InputError(f"{path}: must be a plan that can be read, got: {error.strerror or error}") from error
    except RecordError as error:
        raise ConfigError(f"{path}: must hold what headway plan RUN --rate R --json prints; {error}") from error
    if not plan.fleets:
        raise ConfigError(f"{path}: the plan must hold a fleet, and holds none; plan again for an objective that holds")
    held = {bundled.variant.name: bundled.plan for bundled in bundle.manifest.variants}
    wanted = [fleet for fleet in plan.fleets if variant in ("", fleet.candidate.variant)]
    for fleet in wanted:
        if held.get(fleet.candidate.variant) == fleet.candidate.plan:
            return fleet
    asked = ", ".join(str(fleet.candidate) for fleet in wanted) or f"none of {variant}"
    known = ", ".join(f"{name} | {plan}" for name, plan in held.items())
    raise ConfigError(
        f"{path}: the plan must be for a variant of the bundle with its plan ({known}), and is for {asked}; plan for this run again"
    )


def _records(source: Path) -> Sequence[Record]:
    """What the run recorded that a bundle came from; nothing for a bundle by itself."""
    folder = next((place for place in (source, source.resolve().parent) if (place / FILE).is_file()), None)
    return () if folder is None else tuple(read_journal(folder))


def _expected(records: Sequence[Record], bundled: BundledVariant, policy: ServerPolicy, objective: Objective) -> Told:
    """What simulation expects of one replica there, or why it cannot say."""
    name, plan = bundled.variant.name, policy.plan
    if objective.latency_s is None:
        return None, ("nothing is predicted: the objective has no bound on latency",)
    curve = _curve(records, name, plan)
    if curve is None:
        why = "a bundle by itself holds no measurements" if not records else f"the run has no service curve of {name} on {plan}"
        return None, (f"nothing is predicted: {why}",)
    started = next(line for line in records if isinstance(line, RunStarted))
    own = _own(records, bundled, objective, started.environment.cores)
    if policy.front_s is None and policy.refuses and plan == bundled.plan:
        return own, () if own is not None else ("nothing is predicted: the run did not measure the server's front end",)
    if policy.front_s is None:
        return None, (f"nothing is predicted: {policy.basis}",)
    told = predict_engine(
        curve, plan, objective, front_end_s=policy.front_s * _pace(records, bundled, policy), front_steals=policy.front_steals, refuses=policy.refuses
    )  # fmt: skip
    low, high = told.low_per_s or told.capacity_per_s, told.high_per_s or told.capacity_per_s
    return ExpectedThere(
        rate_per_s=told.capacity_per_s, low_per_s=low, high_per_s=high, own_per_s=None if own is None else own.rate_per_s
    ), ()


def _pace(records: Sequence[Record], bundled: BundledVariant, policy: ServerPolicy) -> float:
    """How many times as long a front end takes on the run's machine as where the policy's was measured, by that of Headway's own server; 1 where that is not known."""
    front = _front(records, bundled)
    if front is None or front.joined_s is None or policy.own_front_s is None:
        return 1.0
    return front.joined_s / policy.own_front_s


def _front(records: Sequence[Record], bundled: BundledVariant) -> FrontEnd | None:
    """The front end that the run measured for a variant's source, the newest."""
    return next((line for line in reversed(records) if isinstance(line, FrontEnd) and line.source == bundled.variant.source), None)


def _curve(records: Sequence[Record], variant: str, plan: Plan) -> ServiceCurve | None:
    split = (variant, plan.runtime, plan.instances, plan.threads)
    found = [
        line for line in records if isinstance(line, ServiceCurve) and (line.variant, line.runtime, line.instances, line.threads) == split
    ]
    return found[-1] if found else None


def _own(records: Sequence[Record], bundled: BundledVariant, objective: Objective, cores: int) -> ExpectedThere | None:
    """The same for Headway's own server."""
    curve = _curve(records, bundled.variant.name, bundled.plan)
    front = _front(records, bundled)
    if curve is None or front is None:
        return None
    told = predict_plan(curve, bundled.plan, objective, front=front, cores=cores)
    if told.served_per_s is None or told.capacity_per_s <= 0:
        return None
    scale = told.served_per_s / told.capacity_per_s
    low, high = told.low_per_s or told.capacity_per_s, told.high_per_s or told.capacity_per_s
    return ExpectedThere(rate_per_s=told.served_per_s, low_per_s=scale * low, high_per_s=scale * high, own_per_s=told.served_per_s)
