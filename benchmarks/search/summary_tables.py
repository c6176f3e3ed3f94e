"""Markdown out of the lines of the newest exhaustive test: both searches, the rematch, Triton Model Analyzer's climb, and budgets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Line = dict[str, Any]


def table(lines: list[Line]) -> str:
    """All tables."""
    return "\n\n".join(
        part for part in (_searches(lines), _shortlist(lines), _analyzer(lines), _budgets(lines), _noisy(lines), _cluster(lines)) if part
    )


def newest(lines: Iterable[Line], stage: str, run: str | None = None) -> Line | None:
    """The newest line of a stage, of one exhaustive test or of any."""
    found = [line for line in lines if line["stage"] == stage and (run is None or line.get("run") == run)]
    return found[-1] if found else None


def named(line: Line) -> str:
    """A candidate in words."""
    return f"{line['variant']} on {line['runtime']}, {line['instances']}x{line['threads']} threads, batch up to {line['max_batch']}"


def _searches(lines: list[Line]) -> str:
    last = newest(lines, "exhaustive")
    if last is None:
        return ""
    ratio, best, staged = last["ratio"], last["best"], last["staged"]
    rows = [
        ("exhaustive", last["plans"], last["runs"], f"{last['load_s']:.0f}", "", named(best)),
        ("staged", staged["predictions"], staged["runs"], f"{staged['load_s']:.0f}", f"{staged['curves_s'] + staged['predict_s']:.0f}",
         named(staged["chosen"])),
    ]  # fmt: skip
    same = (
        "the same plan"
        if ratio["same"]
        else f"{ratio['value']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}] over {ratio['rounds']} rounds"
    )
    words = (
        f"SLO capacity of the chosen plan over that of the exhaustive test's best, in the rematch: {same}. The best of the rematch holds "
        f"{last['rematch_best_per_s']:.4g}/s, the chosen plan {last['rematch_chosen_per_s']:.4g}/s (geometric means). The exhaustive test itself gave the best "
        f"{best['capacity_per_s']:.4g}/s: the highest of {last['plans']} noisy figures. Load time 1/{last['load_s'] / max(staged['load_s'], 1e-9):.0f}."
    )
    head = ("search", "plans", "load runs", "load time [s]", "curves and simulation [s]", "chose")
    return f"{last['model']}, {last['slo']}\n\n{_markdown(head, rows)}\n\n{words}"


def _shortlist(lines: list[Line]) -> str:
    last = newest(lines, "exhaustive")
    if last is None:
        return ""
    rows = []
    for one in last["staged"]["shortlist"]:
        found = (
            "not run"
            if "low_per_s" not in one
            else f"{one['low_per_s']:.4g} to {'?' if one['open_above'] else format(one['high_per_s'], '.4g')}"
        )
        rows.append((named(one), f"{one['predicted_per_s']:.4g}", found))
    return _markdown(("shortlist", "predicted [1/s]", "halving [1/s]"), rows)


def _analyzer(lines: list[Line]) -> str:
    last = newest(lines, "analyzer")
    if last is None:
        return ""
    rows = [
        (
            f"{one['variant']} on {one['runtime']}",
            one["measurements"],
            f"{one['instances']} x batch {one['max_batch']}",
            f"{one['capacity_per_s']:.4g}",
        )
        for one in last["pairs"]
    ]
    words = (
        f"All its climbs: {last['measurements']} measurements, {last['load_s']:.0f} s at {last['seconds_a_run']:.2f} s a run; the best it found holds "
        f"{last['found_per_s']:.4g}/s by the exhaustive test's own figures, ours {last['ours_per_s']:.4g}/s with {last['our_runs']} runs in "
        f"{last['our_load_s']:.0f} s. Its sweep of concurrencies for the best three, which follows, is not counted."
    )
    return _markdown(("Model Analyzer's quick search", "measurements", "chose", "holds [1/s]"), rows) + "\n\n" + words


def _budgets(lines: list[Line]) -> str:
    last = newest(lines, "budgets")
    if last is None or "ratio" not in last:
        return ""
    ratio = last["ratio"]
    return (
        f"{last['model']}, {last['slo']}: SLO capacity over HTTP of what `--budget {last['short']}` chose over what `--budget {last['long']}` chose: "
        f"{ratio['value']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}] over {last['rounds']} interleaved rounds."
    )


def _noisy(lines: list[Line]) -> str:
    last = newest(lines, "noisy-pair")
    if last is None or "ratio" not in last:
        return ""
    runs = [line for line in lines if line["stage"] == "noisy"][-2:]
    rows = [(line["beside"], line["chosen"], f"{line['rate_per_s'] or 0:.4g}", "; ".join(line["warnings"]) or "none") for line in runs]
    ratio = last["ratio"]
    words = (
        f"Afterwards, on the quiet machine: what the run beside busy loops chose holds {ratio['value']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}] of the "
        f"other's rate, over {last['rounds']} interleaved rounds."
    )
    return _markdown(("beside", "chose", "measured [1/s]", "warned"), rows) + "\n\n" + words


def _cluster(lines: list[Line]) -> str:
    last = newest(lines, "cluster-pair")
    if last is None:
        return ""
    runs = [line for line in lines if line["stage"] == "cluster"][-2:]
    rows = [
        (line["on"], line["chosen"], f"{line['rate_per_s'] or 0:.4g}", f"{line['wall_s']:.0f}", sum(line["records"].values()), line["records"].get("Variant", 0),
         "; ".join(line["warnings"]) or "none")
        for line in runs
    ]  # fmt: skip
    ratio = last.get("ratio")
    held = (
        f"; its bundle holds {ratio['value']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}] of the other's rate over {last['rounds']} rounds"
        if ratio
        else ""
    )
    words = (
        f"The cluster's run {'chose the same' if last['same_choice'] else 'chose another candidate'} and made "
        f"{last['variants']} variants; {last['in_both']} have the names of variants of the other run, and {last['same_bytes']} of these their bytes{held}."
    )
    return _markdown(("on", "chose", "measured [1/s]", "wall time [s]", "records", "variants", "warned"), rows) + "\n\n" + words


def _markdown(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    head = tuple(head)
    body = ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(["| " + " | ".join(head) + " |", "|" + " --- |" * len(head), *body])
