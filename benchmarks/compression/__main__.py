"""Headway's compression beside its peers': same models, same data, same runtimes for scoring.

    python benchmarks/compression make [--only digits] [--peers nncf] [--again]   # compress and score; minutes a model
    python benchmarks/compression time [--only digits] [--limit-s 50]             # latency, interleaved; needs a quiet machine
    python benchmarks/compression table                                           # compare row with row, write docs/compression.md

Appends to ``results.jsonl``; rows that stand there already are skipped, so each command can be stopped and called again. Peers' environments
are made under ``~/.cache/headway/peers``, compressed models lie under ``~/.cache/headway/compression``.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import table
from cases import BATCHES, NAMES, WORK, Bench, job, prepare
from journal import FP32, Journal, Key
from peers import PEERS, Peer, result
from peers import run as run_peer
from recipes import recipes
from score import RUNTIMES, score
from standing import HEADWAY, stand
from timing import interleaved, opened

from headway.compress import make
from headway.measure.environment import environment
from headway.records import HeadwayError, Step

RESULTS = Path(__file__).parent / "results.jsonl"
GROUP = 6


def main() -> None:
    """Parse, and carry out one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("make", "time", "table"))
    parser.add_argument("--only", action="append", choices=NAMES, help="a model; may be given several times")
    parser.add_argument("--peers", action="append", help="only these tools, by the start of their names; 'none' leaves them out")
    parser.add_argument("--rows", default="", help="only rows whose name holds this text")
    parser.add_argument("--again", action="store_true", help="also rows that stand in the results already")
    parser.add_argument("--limit-s", type=float, default=1e9, help="start nothing new after this time")
    chosen = parser.parse_args()
    journal = Journal(RESULTS)
    began = time.monotonic()
    for name in chosen.only or NAMES:
        bench = prepare(name, say)
        if chosen.command == "make":
            make_all(bench, journal, chosen, began)
        elif chosen.command == "time":
            time_all(bench, journal, chosen, began)
        else:
            stand(bench, journal)
    if chosen.command == "table":
        table.write(journal)


def say(text: str) -> None:
    """One line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def make_all(bench: Bench, journal: Journal, chosen: argparse.Namespace, began: float) -> None:
    """Every row of a model made and scored, those of the results left out."""
    measured_on = journal.environment(asdict_environment())
    base = Key(bench.name, *FP32)
    if journal.find("made", base) is None:
        journal.add({"stage": "made", **asdict(base), "settings": {}, **described(bench.parent), "environment": measured_on})
    score_both(bench, journal, base, bench.parent, measured_on)
    context = bench.context()
    for key, settings, source in wanted(bench.name, chosen):
        if time.monotonic() - began > chosen.limit_s:
            say("time is over: call again to go on")
            return
        old = journal.find("made", key)
        if chosen.again or old is None or old["settings"] != settings or "bug" in old:
            say(f"{key}: making")
            folder = WORK / bench.name / slug(f"{key.tool} {key.row}")
            shutil.rmtree(folder, ignore_errors=True)
            started = time.perf_counter()
            found = by_peer(bench, source, settings, folder) if isinstance(source, Peer) else by_headway(bench, source, folder, context)
            line = {"stage": "made", **asdict(key), "settings": settings, **found, "made_s": round(time.perf_counter() - started, 1)}
            journal.add({**line, "environment": measured_on})
            say(f"{key}: {found.get('reason') or found['bytes']}")
        made = journal.find("made", key) or {}
        if "file" in made:
            score_both(bench, journal, key, WORK / made["file"], measured_on)


def wanted(model: str, chosen: argparse.Namespace) -> Iterator[tuple[Key, dict[str, Any], Peer | tuple[Step, ...]]]:
    """Rows of a model: Headway's recipes, then what each peer is asked for."""
    rows: list[tuple[Key, dict[str, Any], Peer | tuple[Step, ...]]] = []
    if chosen.peers is None or HEADWAY in chosen.peers or "none" in chosen.peers:
        for name, recipe in recipes(model).items():
            rows.append((Key(model, HEADWAY, name), {"recipe": [msgspec.to_builtins(step) for step in recipe]}, recipe))
    for peer in PEERS:
        if chosen.peers is None or any(peer.name.startswith(start) for start in chosen.peers):
            rows += [(Key(model, peer.name, row.name), row.settings, peer) for row in peer.rows if model in row.models]
    return (row for row in rows if chosen.rows in row[0].row)


def by_headway(bench: Bench, recipe: tuple[Step, ...], folder: Path, context: Any) -> dict[str, Any]:
    """The recipe carried out, or the reason why not; what each step did comes along."""
    try:
        made = make(bench.model, recipe, context)
    except HeadwayError as error:
        return {"reason": str(error)}
    except Exception as error:  # a bug of ours is a result too
        return {"reason": f"{type(error).__name__}: {error}"[:300], "bug": True}
    folder.mkdir(parents=True, exist_ok=True)
    made.model.save(folder / "model.onnx")
    return {**described(folder / "model.onnx"), "effects": [effect.message for effect in made.effects]}


def by_peer(bench: Bench, peer: Peer, settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What a peer's script left, or its last word."""
    path = job(bench, settings, folder)
    reason = run_peer(peer, path, say)
    made = result(folder)
    return {"reason": reason} if reason or made is None else described(made)


def described(path: Path) -> dict[str, Any]:
    """Where a model lies, its bytes with those of files beside it, and its digest."""
    beside = [path, path.with_suffix(".bin"), path.with_name(path.name + ".data")]
    size = sum(one.stat().st_size for one in beside if one.exists())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return {"file": str(path.relative_to(WORK)), "bytes": size, "digest": digest}


def score_both(bench: Bench, journal: Journal, key: Key, path: Path, measured_on: str) -> None:
    """Quality in every runtime, unless it is known for this very file."""
    digest = described(path)["digest"]
    for runtime in RUNTIMES:
        old = journal.find("scored", key, runtime)
        if old is None or old["digest"] != digest:
            found = score(bench, path, runtime)
            journal.add({"stage": "scored", **asdict(key), "runtime": runtime, "digest": digest, **found, "environment": measured_on})
            drop = found.get("drop")
            say(f"{key} in {runtime}: {found.get('reason') or 'drop {value:.4f} [{low:.4f}, {high:.4f}]'.format(**drop)}")


def time_all(bench: Bench, journal: Journal, chosen: argparse.Namespace, began: float) -> None:
    """Latency of every row that has none, in groups that each hold the float32 model."""
    measured_on = journal.environment(asdict_environment())
    base = (Key(bench.name, *FP32), RUNTIMES[0])
    for batch in BATCHES[bench.name]:
        waiting = [
            item for item in scored(bench.name, journal) if chosen.rows in item[0].row and (chosen.again or untimed(journal, *item, batch))
        ]
        for start in range(0, len(waiting), GROUP):
            if time.monotonic() - began > chosen.limit_s:
                say("time is over: call again to go on")
                return
            group = waiting[start : start + GROUP]
            say(f"{bench.name}, batch {batch}: timing {start + 1} to {start + len(group)} of {len(waiting)}")
            time_group(bench, journal, group, base, batch, measured_on)


def time_group(bench: Bench, journal: Journal, group: list[tuple[Key, str]], base: tuple[Key, str], batch: int, measured_on: str) -> None:
    """One interleaved measurement."""
    inputs = bench.parts.report.inputs
    items = {f"{key}|{runtime}": (key, runtime) for key, runtime in [base, *group]}
    paths = {name: WORK / (journal.find("made", key) or {})["file"] for name, (key, _) in items.items()}
    calls = {name: opened(paths[name], runtime, inputs, batch) for name, (_, runtime) in items.items()}
    found = interleaved(calls, f"{base[0]}|{base[1]}")
    for name, (key, runtime) in items.items():
        digest = (journal.find("made", key) or {})["digest"]
        journal.add(
            {
                "stage": "timed",
                **asdict(key),
                "runtime": runtime,
                "batch": batch,
                "digest": digest,
                **found[name],
                "environment": measured_on,
            }
        )


def scored(model: str, journal: Journal) -> list[tuple[Key, str]]:
    """Rows and runtimes that answer."""
    every = [(key, runtime) for key, line in journal.rows(model) if "file" in line for runtime in RUNTIMES]
    return [(key, runtime) for key, runtime in every if "drop" in (journal.find("scored", key, runtime) or {})]


def untimed(journal: Journal, key: Key, runtime: str, batch: int) -> bool:
    """Whether no latency is known for the file as it is now."""
    timed, made = journal.find("timed", key, runtime, batch), journal.find("made", key)
    return timed is None or made is None or timed["digest"] != made["digest"]


def asdict_environment() -> dict[str, Any]:
    """This machine, as plain values."""
    return msgspec.to_builtins(environment())


def slug(text: str) -> str:
    """A name for a folder."""
    return "-".join("".join(letter if letter.isalnum() else " " for letter in text).lower().split())


if __name__ == "__main__":
    main()
