"""A Run as tables of words: every number already in the unit and digits it is read in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from headway.records import Capacity, Census, Cost, Effect, LoadPoint, Plan, Quality, SourceInspected, Variant
from headway.report.fold import ROLES, Run
from headway.report.rows import ROLE_NAMES, parity_rows
from headway.report.wording import (
    NONE,
    drop_words,
    duration,
    each_task,
    interval,
    ms,
    number,
    percent,
    plan_words,
    rate,
    recipe_words,
    scaled,
    times,
    value_words,
)

TONES = {"held": "good", "proven": "good", "missed": "bad", "violated": "bad", "unproven": "doubt", "generator-bound": "doubt"}


@dataclass(frozen=True)
class Cell:
    """One cell: text, a smaller line below it, a tone (``good``, ``bad``, ``doubt``) and shares of a bar that sum to at most 1."""

    text: str
    note: str = ""
    tone: str = ""
    bar: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Table:
    """Column heads and rows; ``numeric`` columns are set right-aligned."""

    heads: tuple[str, ...]
    numeric: frozenset[int]
    rows: tuple[tuple[Cell, ...], ...]


def table(heads: str, rows: Iterable[Sequence[Cell | str]]) -> Table:
    """A table from ``'name | #number'``: a ``#`` marks a numeric column."""
    names = [head.strip() for head in heads.split("|")]
    numeric = frozenset(i for i, name in enumerate(names) if name.startswith("#"))
    cells = tuple(tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in row) for row in rows)
    return Table(tuple(name.removeprefix("#") for name in names), numeric, cells)


def comparison(run: Run) -> Table:
    """Naive, best uncompressed and chosen over HTTP: who they are, what they hold, and the chosen one's gain over each."""
    compared = run.comparison
    if compared is None:
        return table("", ())
    q = run.objective.percentile
    rows: list[list[Cell | str]] = []
    for role in [*ROLES, *(other for other in compared.points if other not in ROLES)]:
        if role not in compared.points and role not in compared.capacity_per_s:
            continue
        candidate, capacity = run.candidate_of(role), compared.capacity_per_s.get(role)
        points = [point for point in compared.points.get(role, ()) if point.percentiles]
        gains = [compared.capacity_ratio.get(role), compared.latency_ratio.get(role)]
        rows.append(
            [
                Cell(ROLE_NAMES.get(role, role), f"{candidate.variant}, {plan_words(candidate.plan)}" if candidate else ""),
                f"{interval(capacity)}/s" if capacity else NONE,
                Cell(_middle([point.percentile(q).latency_s for point in points]), _rounds(points, q)),
                _verdicts(points),
                *(times(gain) if gain else NONE for gain in gains),
            ]
        )
    name, at = run.objective.percentile_name, rate(compared.rate_per_s)
    return table(f"deployment | #rate held | #{name} at {at} | objective at {at} | #rate: chosen is | #{name}: chosen is lower by", rows)


def variants(run: Run) -> Table:
    """What was made: recipe, what each step did, size and work."""
    rows: list[list[Cell | str]] = [
        [
            Cell(v.name, f"{recipe_words(v)} · from {v.origin}"),
            v.precision,
            scaled(v.weight_bytes, "B"),
            scaled(v.flop, "FLOP"),
            scaled(v.parameters, ""),
            *_effects(v),
        ]
        for v in run.variants
    ]
    return table("variant | precision | #weights | #work | #parameters | what the steps did", rows)


def qualities(run: Run) -> Table:
    """What each variant answers, paired with the original on the same samples."""
    order = {variant.name: index for index, variant in enumerate(run.variants)}
    found = sorted(run.qualities, key=lambda q: (order.get(q.variant, len(order)), q.runtime, q.part))
    rows: list[list[Cell | str]] = [
        [
            Cell(q.variant, f"{q.runtime} · {q.part} part, {q.n:,}{f' of {q.of_rows:,}' if q.stopped_early else ''} samples"),
            Cell(value_words(q), q.metric),
            drop_words(q),
            Cell(_flips(q), f"{percent(q.agreement)} same answers"),
            _worst(q),
            _calibration(q),
            Cell(q.verdict or NONE, q.reason, TONES.get(q.verdict, "")),
        ]
        for whole in found
        for q in each_task(whole)
    ]
    return table("variant and runtime | #metric | #drop | #flips | worst group | #calibration error | verdict", rows)


def _calibration(quality: Quality) -> Cell | str:
    found = quality.calibration
    if found is None:
        return NONE
    return Cell(percent(found.value), f"rise {interval(found.rise, scale=100, unit=' pt')}")


def guards(run: Run) -> Table:
    """Finalists on samples made harder, each case paired with the original on the same ones."""
    rows: list[list[Cell | str]] = []
    for g in run.guards:
        settings = ", ".join(f"{key} {value}" for key, value in g.settings.items())
        for case in g.cases:
            verdict = Cell(g.verdict or NONE, g.reason, TONES.get(g.verdict, "")) if case.group == g.worst else ""
            rows.append(
                [
                    Cell(g.variant, f"{g.runtime} · {g.part} part, {g.n:,} samples"),
                    Cell(f"{g.guard}: {case.group}", settings),
                    number(case.value),
                    number(case.parent_value),
                    interval(case.drop, scale=100, unit=" pt"),
                    verdict,
                ]
            )
    return table("variant and runtime | case | #variant | #original | #drop | verdict", rows)


def censuses(run: Run) -> Table:
    """What each runtime executes, and why it is not faster."""
    rows: list[list[Cell | str]] = [
        [Cell(c.variant, c.runtime), _shares(c), _kernels(c), _lost(c), c.sentence or "nothing found that costs time"] for c in run.censuses
    ]
    return table("variant and runtime | share of the work | kernels | fallbacks and insertions | why it is not faster", rows)


def rejections(run: Run) -> Table:
    """Who lost, where, and why."""
    rows: list[list[Cell | str]] = [[Cell(r.variant, _plan(r.plan)), r.stage, Cell(r.reason, _figures(r.figures))] for r in run.rejections]
    return table("candidate | stage | reason", rows)


def failures(run: Run) -> Table:
    """What has no measurement, and why."""
    return table("candidate | stage | reason", [[Cell(f.variant, _plan(f.plan)), f.stage, f.reason] for f in run.failures])


def predictions(run: Run) -> Table:
    """Predicted against measured, with the error of the prediction."""
    rows: list[list[Cell | str]] = []
    for row in parity_rows(run):
        per_s, measured, low, high = (float(str(row[key])) for key in ("predicted_per_s", "measured_per_s", "low_per_s", "high_per_s"))
        expected, seen = float(str(row["predicted_ms"])), float(str(row["measured_ms"]))
        rows.append(
            [
                Cell(str(row["variant"]), str(row["plan"])),
                rate(per_s),
                Cell(rate(measured), "" if math.isnan(measured) else f"held {number(low)}, tried {number(high)}"),
                NONE if row["open_above"] else _error(per_s, measured),
                Cell(f"{number(expected)} ms", f"{row['percentile']} at {number(float(str(row['at_per_s'])))}/s"),
                NONE if math.isnan(seen) else f"{number(seen)} ms",
                _error(expected, seen),
            ]
        )
    return table("candidate | #capacity predicted | #measured | #error | #latency predicted | #measured | #error", rows)


def capacities(run: Run) -> Table:
    """The SLO capacity of every loaded candidate, with its bracket."""
    ordered = sorted(run.capacities, key=lambda c: (c.role != "candidate", -c.rate_per_s))
    rows: list[list[Cell | str]] = [
        [
            Cell(c.candidate.variant, plan_words(c.candidate.plan)),
            f"{ROLE_NAMES.get(c.role, c.role)}, {c.target}",
            rate(c.rate_per_s),
            _bracket(c),
        ]
        for c in ordered
    ]
    return table("candidate | measured as | #rate held | #between", rows)


def costs(source: SourceInspected) -> Table:
    """A source model in numbers."""
    cost = source.cost
    rows: list[list[Cell | str]] = [
        ["parameters", f"{cost.parameters:,}"],
        ["work of one request", scaled(cost.flop, "FLOP")],
        ["weights", scaled(cost.weight_bytes, "B")],
        ["activations of one request", scaled(cost.activation_bytes, "B")],
        ["arithmetic intensity at batch 1", f"{number(cost.intensity)} FLOP/B"],
        ["ONNX opset", str(cost.opset)],
        *([f"input {t.name}", f"{t.dtype} {_shape(t.shape)}"] for t in cost.inputs),
        *([f"output {t.name}", f"{t.dtype} {_shape(t.shape)}"] for t in cost.outputs),
    ]
    if cost.uncounted:
        rows.append(["operators without a FLOP rule", ", ".join(cost.uncounted)])
    return table("quantity | #value", rows)


def ceilings(source: SourceInspected) -> Table:
    """What this machine attains, and the ridge: above that intensity a model is bound by arithmetic, below it by memory."""
    found = source.ceilings
    if found is None:
        return table("", ())
    rows: list[list[Cell | str]] = [
        [
            f"{precision} arithmetic",
            scaled(found.flop_per_s_one_thread.get(precision), "FLOP/s"),
            scaled(attained, "FLOP/s"),
            f"{number(attained / found.bytes_per_s)} FLOP/B",
        ]
        for precision, attained in found.flop_per_s.items()
    ]
    rows.append(["memory", scaled(found.bytes_per_s_one_thread, "B/s"), scaled(found.bytes_per_s, "B/s"), ""])
    rows.append(["one call of a runtime", scaled(found.overhead_s * 1e6, "µs"), "", ""])
    return table("ceiling | #one thread | #all cores | #ridge", rows)


def operators(cost: Cost, most: int = 12) -> Table:
    """The operators that do most of the work."""
    total = max(1, cost.flop)
    ordered = sorted(cost.operators, key=lambda o: -o.flop)[:most]
    rows: list[list[Cell | str]] = [
        [
            Cell(o.node, o.op_type),
            Cell(percent(o.flop / total), bar=(("work", o.flop / total),)),
            scaled(o.flop, "FLOP"),
            scaled(o.weight_bytes, "B"),
            scaled(o.activation_bytes, "B"),
        ]
        for o in ordered
    ]
    return table("operator | #share | #work | #weights | #activations", rows)


def operator_types(cost: Cost) -> Table:
    """The work by operator type."""
    total = max(1, cost.flop)
    sums: dict[str, tuple[int, int]] = {}
    for operator in cost.operators:
        flop, count = sums.get(operator.op_type, (0, 0))
        sums[operator.op_type] = flop + operator.flop, count + 1
    ordered = sorted(sums.items(), key=lambda item: -item[1][0])[:10]
    rows: list[list[Cell | str]] = [
        [kind, str(count), Cell(percent(flop / total), bar=(("work", flop / total),)), scaled(flop, "FLOP")]
        for kind, (flop, count) in ordered
    ]
    return table("operator type | #nodes | #share | #work", rows)


def stages(run: Run) -> Table:
    """Wall time of each stage."""
    total = sum(stage.duration_s for stage in run.stages) or 1.0
    rows: list[list[Cell | str]] = [
        [s.stage, Cell(percent(s.duration_s / total), bar=(("work", s.duration_s / total),)), duration(s.duration_s)] for s in run.stages
    ]
    rows.append([Cell("all"), "", duration(total)])
    return table("stage | #share | #wall time", rows if run.stages else ())


def environment(run: Run) -> Table:
    """The machine, the software, and the noise seen."""
    if run.started is None:
        return table("", ())
    e, data = run.started.environment, run.started.data
    parts = {"calibration": data.calibration, "selection": data.selection, "report": data.report, "training": data.train}
    split = ", ".join(f"{count:,} {name}" for name, count in parts.items() if count)
    noise = f"repeated work varied by a factor of {number(e.noise_ratio)}; {percent(e.steal_fraction)} of the time went to other machines"
    rows: list[list[Cell | str]] = [
        ["processor", f"{e.cpu}, {e.cores} cores"],
        ["instruction sets", ", ".join(e.instruction_sets) or NONE],
        ["memory", scaled(e.memory_bytes, "B")],
        ["system", f"{e.system}, Python {e.python}, Headway {run.started.version}"],
        ["libraries", ", ".join(f"{name} {version}" for name, version in sorted(e.versions.items()))],
        ["noise", noise],
        ["data", f"{data.source}: {data.n:,} samples ({split})"],
        ["metric", data.metric + (f"; groups {', '.join(data.groups)}" if data.groups else "")],
        ["seed", str(run.started.seed)],
    ]
    return table("thing | value", rows)


def _middle(values: Sequence[float]) -> str:
    return ms(sorted(values)[len(values) // 2]) if values else NONE


def _rounds(points: Sequence[LoadPoint], q: float) -> str:
    if len(points) < 2:
        return ""
    values = [point.percentile(q).latency_s for point in points]
    return f"{len(points)} rounds, {number(min(values) * 1e3)} to {ms(max(values))}"


def _verdicts(points: Sequence[LoadPoint]) -> Cell:
    found = list(dict.fromkeys(point.verdict for point in points))
    return Cell(" / ".join(found) or NONE, tone=TONES.get(found[0], "") if len(found) == 1 else "doubt" if found else "")


def _effects(variant: Variant) -> list[Cell]:
    """One cell that holds what every step did; a step that did nothing says so."""
    idle = [effect for effect in variant.effects if effect.did_nothing]
    text = "\n".join(_effect(effect) for effect in variant.effects) or NONE
    return [Cell(text, f"did nothing: {', '.join(effect.step for effect in idle)}" if idle else "", "doubt" if idle else "")]


def _effect(effect: Effect) -> str:
    nodes = f"{effect.nodes_before} → {effect.nodes_after} nodes"
    error = effect.output_error
    change = "" if error is None else ", outputs the same to rounding" if error < 1e-5 else f", outputs differ by {number(error * 100, 2)}%"
    return f"{effect.step}: {effect.message} ({nodes}{change})"


def _flips(quality: Quality) -> str:
    if quality.right_to_wrong is None or quality.wrong_to_right is None:
        return NONE
    return f"{quality.right_to_wrong} lost, {quality.wrong_to_right} won"


def _worst(quality: Quality) -> Cell:
    group = quality.worst_group
    return Cell(NONE) if group is None else Cell(group.group, f"drop {drop_words(quality, group.drop)}, {group.n:,} samples")


def _shares(census: Census) -> Cell:
    ordered = tuple((kind, share) for kind, share in sorted(census.shares.items(), key=lambda item: -item[1]) if share > 0)
    return Cell(", ".join(f"{percent(share)} {kind}" for kind, share in ordered) or NONE, bar=ordered)


def _kernels(census: Census) -> str:
    ordered = sorted(census.kernels.items(), key=lambda item: -item[1])
    more = f", {len(ordered) - 4} more kinds" if len(ordered) > 4 else ""
    return ", ".join(f"{count} {name}" for name, count in ordered[:4]) + more or NONE


def _lost(census: Census) -> str:
    inserted = ", ".join(f"{count} {name}" for name, count in sorted(census.inserted.items(), key=lambda item: -item[1]))
    return "; ".join((*census.fallbacks, *((f"inserted: {inserted}",) if inserted else ()))) or NONE


def _plan(plan: Plan | None) -> str:
    return plan_words(plan) if plan else "every plan"


def _figures(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {number(value)}" for name, value in figures.items())


def _error(predicted: float, measured: float) -> str:
    if not (math.isfinite(predicted) and math.isfinite(measured)) or measured == 0:
        return NONE
    error = 100 * (predicted / measured - 1)
    return f"{'+' if error > 0 else ''}{number(error, 2)}%"


def _bracket(capacity: Capacity) -> str:
    above = "also held, nothing higher tried" if capacity.open_above else "not"
    return f"{number(capacity.low_per_s)} held, {number(capacity.high_per_s)} {above}"


def _shape(shape: Sequence[int | str]) -> str:
    return "×".join(str(size) for size in shape) or "scalar"  # noqa: RUF001
