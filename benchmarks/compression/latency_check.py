"""Pruning by measured time beside pruning by multiply-adds: quality at equal measured latency, one thread, no training.

    python benchmarks/compression/latency_check.py make digits vision text    # table, pruned models, answers on selection and report rows
    python benchmarks/compression/latency_check.py time digits vision text    # latency, interleaved; needs a quiet machine
    python benchmarks/compression/latency_check.py compare digits vision text # quality at equal latency, with a 95% interval over rows

Appends to ``latency.jsonl``; what stands there is skipped. Report rows are read by ``compare`` only.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from cases import WORK, Bench, prepare
from journal import Journal, Key
from timing import interleaved, opened

from headway.compress import Context, layer_queries, make
from headway.data import Dataset
from headway.measure.environment import environment
from headway.measure.latency_table import latency_table
from headway.measure.scoring import answers
from headway.model import Model
from headway.records import HeadwayError, LatencyTable, Plan, Step

RESULTS = Path(__file__).parent / "latency.jsonl"
RUNTIME = "onnx_runtime"
WAYS = ("latency", "mac", "uniform")
KEEPS = {
    "digits": (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2),
    "text": (0.9, 0.75, 0.6, 0.45),
    "vision": (0.95, 0.9, 0.8, 0.7),
}
TABLE_S = {"digits": 5.0, "vision": 15.0, "text": 10.0}
POINTS, DRAWS = 9, 2000
GROUPS = 2


def main() -> None:
    """Parse, and carry out one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("table", "make", "time", "compare"))
    parser.add_argument("models", nargs="+", choices=tuple(KEEPS))
    parser.add_argument("--part", choices=("selection", "report"), default="report", help="rows that compare looks at")
    chosen = parser.parse_args()
    journal = Journal(RESULTS)
    for name in chosen.models:
        bench = prepare(name, say)
        if chosen.command == "compare":
            compare(bench, journal, chosen.part)
            continue
        measured_on = journal.environment(msgspec.to_builtins(environment()))
        {"table": measure_table, "make": make_all, "time": time_all}[chosen.command](bench, journal, measured_on)


def say(text: str) -> None:
    """One line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def measure_table(bench: Bench, journal: Journal, measured_on: str) -> None:
    """The layers of the folded model timed, kept beside the models."""
    folded = fold(bench)
    say(f"{bench.name}: timing layers")
    queries = layer_queries(folded, bench.context().samples)
    table = latency_table(queries, Plan(runtime=RUNTIME), digest=folded.digest, seconds=TABLE_S[bench.name])
    path = table_path(bench)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(table))
    whole = {time.layer: time.time_s for time in sorted(table.times, key=lambda time: (time.inside, time.outside))}
    key = Key(bench.name, "headway", "table")
    line = {"stage": "table", **vars(key), "digest": table.digest, "times": len(table.times), "layers_s": sum(whole.values())}
    journal.add({**line, "environment": measured_on})


def fold(bench: Bench) -> Model:
    """The float32 model as the techniques see it."""
    return make(bench.model, (Step(technique="fold"),), bench.context()).model


def table_path(bench: Bench) -> Path:
    """Where the layers' times lie."""
    return WORK / bench.name / "latency-check" / "table.json"


def make_all(bench: Bench, journal: Journal, measured_on: str) -> None:
    """Every way at every share, and their answers."""
    table = msgspec.json.decode(table_path(bench).read_bytes(), type=LatencyTable)
    context = replace(bench.context(), latency=table)
    folder = table_path(bench).parent
    made = make(bench.model, (Step(technique="fold"),), context).model
    made.save(folder / "whole.onnx")
    added(bench, journal, "whole", {"file": "whole.onnx"}, measured_on)
    for keep in KEEPS[bench.name]:
        for way in WAYS:
            row = f"{way} {keep:g}"
            old = journal.find("made", Key(bench.name, "headway", row))
            if old is None or old.get("table") != table_digest(bench):
                added(bench, journal, row, pruned(made, way, keep, context, folder), measured_on)


def pruned(folded: Model, way: str, keep: float, context: Context, folder: Path) -> dict[str, Any]:
    """One model cut, or the reason why not."""
    try:
        model = make(folded, (Step(technique="prune_channels", settings={"keep": keep, "by": way}),), context).model
    except HeadwayError as error:
        return {"reason": str(error)}
    name = f"{way}-{keep:g}.onnx"
    model.save(folder / name)
    return {"file": name}


def added(bench: Bench, journal: Journal, row: str, found: Mapping[str, Any], measured_on: str) -> None:
    """Answers on both parts written beside the file, and a line in the journal."""
    if "file" in found:
        path = table_path(bench).parent / found["file"]
        for part in (bench.parts.selection, bench.parts.report):
            which = "selection" if part is bench.parts.selection else "report"
            np.savez(path.with_suffix(f".{which}.npz"), **answers(path, Plan(runtime=RUNTIME), part.inputs))  # type: ignore[arg-type]
    line = {"stage": "made", **vars(Key(bench.name, "headway", row)), **found, "table": table_digest(bench)}
    journal.add({**line, "environment": measured_on})
    say(f"{bench.name} {row}: {found.get('reason', 'made')}")


def table_digest(bench: Bench) -> float:
    """When the table was made: models of another table are made again [ns]."""
    return table_path(bench).stat().st_mtime_ns


def files(bench: Bench, journal: Journal) -> dict[str, str]:
    """Models made, by row."""
    return {key.row: line["file"] for key, line in journal.rows(bench.name) if "file" in line}


def time_all(bench: Bench, journal: Journal, measured_on: str) -> None:
    """Interleaved, each group with the whole model; a group holds every way at several shares."""
    found = {row: table_path(bench).parent / file for row, file in files(bench, journal).items()}
    rows = [row for row in found if row != "whole"]
    size = -(-len(rows) // GROUPS // len(WAYS)) * len(WAYS)
    for start in range(0, len(rows), size):
        group = ["whole", *rows[start : start + size]]
        say(f"{bench.name}: timing {', '.join(group[1:])}")
        calls = {row: opened(found[row], RUNTIME, bench.parts.selection.inputs, 1) for row in group}
        for row, line in interleaved(calls, "whole").items():
            made = journal.find("made", Key(bench.name, "headway", row)) or {}
            timed = {"stage": "timed", **vars(Key(bench.name, "headway", row)), "runtime": RUNTIME, "batch": 1, "table": made["table"]}
            journal.add({**timed, **line, "environment": measured_on})


def compare(bench: Bench, journal: Journal, part: str) -> None:
    """Mean difference of quality, latency-aware less the other way, over the latencies that both curves reach."""
    dataset = bench.parts.report if part == "report" else bench.parts.selection
    curves = {way: curve(bench, journal, way, dataset, part) for way in WAYS}
    if any(len(shares) < 2 for shares, _ in curves.values()):
        raise SystemExit(f"{bench.name}: some way was not timed; run make, then time")
    for way, (shares, right) in curves.items():
        say(
            f"{bench.name} {way}: "
            + ", ".join(f"{share:.2f}: {value:.3f}" for share, value in zip(shares, right.mean(axis=1), strict=True))
        )
    for judged in ("right", "agreement"):
        for other in WAYS[1:]:
            found = difference(
                curve(bench, journal, "latency", dataset, part, judged), curve(bench, journal, other, dataset, part, judged), dataset
            )
            about = {"stage": "compared", **vars(Key(bench.name, f"latency against {other}", f"{judged} {part}"))}
            journal.add({**about, **found})
            say(f"{bench.name} latency against {other}, {judged} on {part} rows: {found}")


def curve(bench: Bench, journal: Journal, way: str, dataset: Dataset, part: str, judged: str = "right") -> tuple[np.ndarray, np.ndarray]:
    """Shares of the whole model's latency, falling, and for each whether each row is answered rightly (or as by the whole model)."""
    folder, known = table_path(bench).parent, files(bench, journal)
    whole = chosen(folder / "whole.onnx", part)
    target = dataset.labels if judged == "right" else whole
    points = [(1.0, (whole == target).astype(float))]
    for row, file in known.items():
        timed = journal.find("timed", Key(bench.name, "headway", row), RUNTIME, 1)
        if row.startswith(f"{way} ") and timed:
            points.append((1 / timed["faster"]["value"], (chosen(folder / file, part) == target).astype(float)))
    points.sort(key=lambda point: -point[0])
    return np.array([share for share, _ in points]), np.array([right for _, right in points])


def chosen(path: Path, part: str) -> np.ndarray:
    """The class of each row."""
    with np.load(path.with_suffix(f".{part}.npz")) as archive:
        return np.asarray(archive[archive.files[0]]).argmax(axis=-1)


def difference(mine: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray], dataset: Dataset) -> dict[str, Any]:
    """At each of evenly spaced latencies, and their mean, with 95% bootstrap intervals over rows (clusters of rows together)."""
    low, high = max(mine[0].min(), other[0].min()), min(mine[0][1:].max(), other[0][1:].max())
    at = np.linspace(high, low, POINTS)
    gaps = np.array([along(*mine, share) - along(*other, share) for share in at])
    clusters = getattr(dataset, "clusters", None)
    index = np.arange(gaps.shape[1]) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    rng = np.random.default_rng(0)
    count = index.max() + 1
    sums = np.array([np.bincount(index, gap, count) for gap in gaps])
    sizes = np.bincount(index, minlength=count)
    draws = rng.integers(0, count, (DRAWS, count))
    weights = np.array([np.bincount(draw, minlength=count) for draw in draws])
    drawn = weights @ sums.T / (weights @ sizes)[:, None]
    return {
        "shares": [round(float(share), 4) for share in at],
        "gaps": [round(float(gap), 4) for gap in gaps.mean(axis=1)],
        "mean": round(float(gaps.mean()), 4),
        "low": round(float(np.percentile(drawn.mean(axis=1), 2.5)), 4),
        "high": round(float(np.percentile(drawn.mean(axis=1), 97.5)), 4),
        "rows": int(gaps.shape[1]),
        "clusters": int(count),
    }


def along(shares: np.ndarray, right: np.ndarray, at: float) -> np.ndarray:
    """Rightness of each row at a latency, on the frontier of the curve (a model that is slower and worse is nobody's choice)."""
    best: list[int] = []
    for index in np.argsort(shares):
        if not best or right[index].mean() > right[best[-1]].mean():
            best.append(int(index))
    place = int(np.clip(np.searchsorted(shares[best], at), 1, len(best) - 1)) if len(best) > 1 else 0
    if len(best) == 1:
        return np.asarray(right[best[0]])
    left, beyond = best[place - 1], best[place]
    part = float(np.clip((at - shares[left]) / (shares[beyond] - shares[left]), 0, 1))
    return np.asarray((1 - part) * right[left] + part * right[beyond])


if __name__ == "__main__":
    main()
