"""What a run concludes, in sentences: met or not, the choice in plain words, what it gains and what it loses."""

from __future__ import annotations

from dataclasses import dataclass

from headway.records import Candidate, Choice, Comparison, Interval, Objective, Quality
from headway.report.fold import Run
from headway.report.wording import change_words, drop_words, each_task, interval, listed, ms, objective_words, plan_words, rate, times

_OTHERS = {"naive": "the naive deployment", "uncompressed": "the best uncompressed plan"}


@dataclass(frozen=True)
class Tile:
    """One large figure with what it is and a line below."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Headline:
    """The head of the page: ``tone`` is ``good``, ``bad`` or ``doubt``; ``warnings`` stand apart below."""

    tone: str
    title: str
    sentences: tuple[str, ...]
    tiles: tuple[Tile, ...]
    warnings: tuple[str, ...]


def headline(run: Run) -> Headline:
    """The head of the page, for a run in any state."""
    warnings = _warnings(run)
    if run.started is None:
        return Headline("doubt", "Nothing is recorded yet", ("The run stopped before its first line. Start it again.",), (), warnings)
    asked = objective_words(run.objective)
    if run.choice is None:
        title = "The run ended without a choice" if run.finished else "The run was interrupted"
        return Headline("doubt", title, (f"Asked: {asked}.", _so_far(run)), (), warnings)
    choice = run.choice
    title = f"{'Objective met' if choice.met else 'Objective not met'}: {asked}"
    sentences = [choice_words(choice, run), *feasible_words(choice), *gains(run.comparison, run.objective)]
    if choice.quality:
        sentences += [f"{sentence(change_words(task))}{_verdict(task)}." for task in each_task(choice.quality)]
    if run.finished is None:
        warnings = (f"The run was interrupted after its choice. {_so_far(run)}", *warnings)
    return Headline("good" if choice.met else "bad", title, tuple(sentences), _tiles(run, choice), warnings)


def choice_words(choice: Choice, run: Run | None = None) -> str:
    """Who was chosen and how it runs; or which bound fails, by how much, and who is nearest."""
    shown = _candidate_words(choice.candidate, run) if choice.candidate else "no candidate was measured"
    if choice.met:
        return f"Chosen: {shown}."
    failing = f"The bound {choice.failing_bound} fails" if choice.failing_bound else "A bound fails"
    return f"{failing}{f': {choice.shortfall}' if choice.shortfall else ''}. Nearest: {shown}."


def feasible_words(choice: Choice) -> tuple[str, ...]:
    """What would hold instead, nearest first; with the text to give as ``--slo``."""
    return tuple(
        f'{"Nearest objective that holds" if not place else "Or"}: --slo "{near.objective}" ({"measured" if near.measured else "predicted"}: {near.candidate}).'
        for place, near in enumerate(choice.feasible)
    )


def gains(comparison: Comparison | None, objective: Objective) -> tuple[str, ...]:
    """The chosen deployment against the others over HTTP, each ratio with its interval."""
    if comparison is None:
        return ()
    found = []
    if rates := [f"{times(ratio)} the rate of {_other(role)}" for role, ratio in comparison.capacity_ratio.items()]:
        found.append(f"Over HTTP it holds {listed(rates)}.")
    if latencies := [f"{_against(ratio)} than {_other(role)}'s" for role, ratio in comparison.latency_ratio.items()]:
        found.append(f"At {rate(comparison.rate_per_s)} its {objective.percentile_name} is {listed(latencies)}.")
    return tuple(found)


def prediction_words(errors: list[float], where: str = "") -> str:
    """How good the predictions of capacity were, in one sentence; ``where`` it was measured, if that must be said."""
    if not errors:
        return "No candidate was both predicted and measured."
    middle = sorted(abs(error) for error in errors)[len(errors) // 2]
    worst = max(errors, key=abs)
    return f"Predicted capacity{f' {where}' if where else ''} is off by {middle:.0%} in the middle of {len(errors)} candidates, at worst by {worst:+.0%}."


def sentence(text: str) -> str:
    """The text with a capital first letter, the rest untouched."""
    return text[:1].upper() + text[1:]


def _candidate_words(candidate: Candidate, run: Run | None) -> str:
    variant = next((v for v in run.variants if v.name == candidate.variant), None) if run else None
    made = f" ({variant.precision})" if variant else ""
    return f"{candidate.variant}{made} on {plan_words(candidate.plan)}"


def _tiles(run: Run, choice: Choice) -> tuple[Tile, ...]:
    tiles = []
    held = run.comparison.capacity_per_s.get("chosen") if run.comparison else None
    if held:
        tiles.append(_tile("rate held over HTTP", f"{interval(held)}/s", "/s"))
    elif choice.rate_per_s is not None:
        tiles.append(Tile("rate held", rate(choice.rate_per_s), "measured over HTTP"))
    if choice.latency_s is not None:
        tiles.append(Tile(f"{run.objective.percentile_name} latency", ms(choice.latency_s), "measured over HTTP"))
    for role, ratio in (run.comparison.capacity_ratio if run.comparison else {}).items():
        tiles.append(_tile(f"rate vs {role}", times(ratio)))
    if choice.quality:
        tiles += [_tile(f"drop in {task.metric}", drop_words(task)) for task in each_task(choice.quality)]
    return tuple(tiles)


def _tile(name: str, words: str, unit: str = "") -> Tile:
    """A tile from ``VALUE [LOW, HIGH]``: the value large, the interval below."""
    value, _, bounds = words.removesuffix(unit).partition(" [")
    return Tile(name, value + unit, f"between {bounds.removesuffix(']').replace(', ', ' and ')}")


def _against(ratio: Interval) -> str:
    """``8.4x [7.7, 9.0] lower``; a ratio below one is turned round."""
    if ratio.value >= 1 or min(ratio.value, ratio.low, ratio.high) <= 0:
        return f"{times(ratio)} lower"
    return f"{times(Interval(value=1 / ratio.value, low=1 / ratio.high, high=1 / ratio.low))} higher"


def _other(role: str) -> str:
    return _OTHERS.get(role, role)


def _verdict(quality: Quality) -> str:
    words = {"proven": "the bound is proven", "held": "within the bound, not proven", "violated": "the bound is violated"}
    return f"; {words[quality.verdict]}" if quality.verdict in words else ""


def _so_far(run: Run) -> str:
    last = f"after the stage {run.stages[-1].stage}" if run.stages else "before its first stage ended"
    counts = {"variant": run.variants, "service curve": run.curves, "load run": run.loads, "failure": run.failures}
    kept = listed(f"{len(lines)} {name}{'s' if len(lines) > 1 else ''}" for name, lines in counts.items() if lines)
    state = f"It stopped {last}" if not run.finished else "It finished"
    return f"{state}; kept so far: {kept or 'what was asked'}. Give the same command again with --resume: nothing is measured twice."


def _warnings(run: Run) -> tuple[str, ...]:
    found = [f"Left out: {line}" for line in run.finished.left_out] if run.finished else []
    found += [f"{line[:1].upper()}{line[1:]}." for line in run.finished.warnings] if run.finished else []
    found += list(run.comparison.notes) if run.comparison else []
    if shaky := sorted({curve.variant for curve in run.curves if curve.unstable}):
        found.append(f"Unstable service curves: {', '.join(shaky)}. The machine was busy with other work; measure again when it is quiet.")
    busy = [load for load in run.loads if load.point.verdict == "generator-bound"]
    if busy:
        found.append(f"{len(busy)} load runs were bound by the generator and say nothing about the server.")
    return tuple(found)
