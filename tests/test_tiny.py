"""The whole path of a decision in miniature, on a runtime whose times are known: curve, prediction, load, choice. No torch, no ONNX."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from headway.load import find_capacity
from headway.measure.curve import measure_curve
from headway.measure.in_process import in_process
from headway.predict import predict_capacity
from headway.records import Candidate, Capacity, Interval, Journal, LoadPoint, LoadRun, Objective, Plan, Quality, read_journal
from headway.search import batch_sizes, choose, frontier, gather, plans_for, shortlist

OBJECTIVE = Objective(latency_s=0.06, drop=0.01)
INPUTS = {"x": np.ones((8, 3), np.float32)}
GRAPHS = {"slow": (0.008, 0.002, 0.0), "fast": (0.002, 0.0005, 0.0), "wrong": (0.001, 0.0001, 0.2)}
"""Name: tau0 [s], alpha [s], and the quality it loses."""


def graph(folder: Path, name: str) -> Path:
    tau0_s, alpha_s, _ = GRAPHS[name]
    tensor = {"dtype": "float32", "shape": ["n", 3]}
    told = {
        "tau0_s": tau0_s,
        "alpha_s": alpha_s,
        "inputs": [{"name": "x", **tensor}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": ["n", 1]}],
    }
    path = folder / f"{name}.null.json"
    path.write_text(json.dumps(told))
    return path


def scored(name: str) -> Quality:
    drop = GRAPHS[name][2]
    return Quality(
        variant=name, runtime="null", part="selection", metric="accuracy", higher_is_better=True, n=100, value=Interval(value=0.9 - drop, low=0, high=1),
        parent_value=0.9, drop=Interval(value=drop, low=drop, high=drop), right_to_wrong=0, wrong_to_right=0, agreement=1.0,
        verdict="violated" if drop > 0.01 else "proven", reason=f"loses {drop:.0%}",
    )  # fmt: skip


def decide(folder: Path) -> Journal:
    """Curves, predictions, a shortlist and its load, all recorded."""
    journal = Journal(folder)
    predictions = []
    for name in GRAPHS:
        journal.append(scored(name))
        curve = measure_curve(graph(folder, name), name, Plan(runtime="null"), INPUTS, batches=batch_sizes(2), seconds_a_batch=0.01)
        journal.append(curve)
        for plan in plans_for(curve, OBJECTIVE.latency_s):
            predictions.append(predict_capacity(curve, plan, OBJECTIVE))
            journal.append(predictions[-1])
    for prediction in shortlist(predictions, OBJECTIVE, size=2, uncompressed={"slow"}, plans_per_kind=1):
        load(journal, prediction.candidate, 0.5 * prediction.capacity_per_s, folder / f"{prediction.candidate.variant}.null.json")
    return journal


def load(journal: Journal, candidate: Candidate, start_per_s: float, path: Path) -> None:
    with in_process(path, candidate.plan, INPUTS) as held:

        def trial(rate_per_s: float) -> LoadPoint:
            point = held.load(rate_per_s, 0.06, OBJECTIVE, seed=0)
            journal.append(LoadRun(candidate=candidate, role="candidate", round=0, point=point))
            return point

        found = find_capacity(trial, start_per_s=start_per_s, trials=2)
        at = held.load(start_per_s, 0.06, OBJECTIVE, seed=1)
    journal.append(LoadRun(candidate=candidate, role="candidate", round=0, point=at, purpose="at-rate"))
    journal.append(
        Capacity(
            candidate=candidate, role="candidate", target="in-process", rate_per_s=found.low_per_s, low_per_s=found.low_per_s,
            high_per_s=found.high_per_s, open_above=found.open_above,
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> Journal:
    return decide(tmp_path_factory.mktemp("tiny"))


def test_the_path_of_a_decision(decided: Journal) -> None:
    evidence = gather(decided, OBJECTIVE.percentile, "in-process")
    assert {e.candidate.variant for e in evidence} == {"fast", "wrong", "slow"}, "the two fastest, and the best uncompressed one"
    choice = choose(evidence, OBJECTIVE)
    assert "wrong" not in (choice.candidate.variant if choice.candidate else "wrong"), "the fastest of all loses too much"
    assert frontier(evidence).points


def test_the_records_alone_give_the_same_choice(decided: Journal, tmp_path: Path) -> None:
    again = Journal(tmp_path)
    for line in decided:
        again.append(line)
    read = read_journal(tmp_path)
    assert read == list(decided)
    assert choose(gather(read, OBJECTIVE.percentile, "in-process"), OBJECTIVE) == choose(
        gather(decided, OBJECTIVE.percentile, "in-process"), OBJECTIVE
    )


def test_an_objective_out_of_reach_names_its_bound(decided: Journal) -> None:
    choice = choose(gather(decided, OBJECTIVE.percentile, "in-process"), Objective(latency_s=0.06, rate_per_s=1e7, drop=0.01))
    assert not choice.met
    assert choice.failing_bound in ("rate", "p99")
    assert choice.candidate is not None and choice.candidate.variant != "wrong"


def test_the_path_of_a_decision_needs_no_torch() -> None:
    said = "import sys, test_tiny; print([name for name in ('torch', 'tensorflow', 'keras') if name in sys.modules])"
    here = Path(__file__).parent
    ended = subprocess.run(
        [sys.executable, "-c", said], env={"PYTHONPATH": f"{here.parent / 'src'}:{here}"}, capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == "[]"
