"""When a contest may stop: from the records of its rounds alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from headway.api.compared import capacities, unstable
from headway.api.contest import Entrant, _steady
from headway.records import Candidate, Capacity, Journal, Objective, Plan

FAST = Candidate(variant="fast", plan=Plan(runtime="openvino"))
SLOW = Candidate(variant="slow", plan=Plan(runtime="onnx_runtime"))
ENTRANTS = (Entrant("finalist", FAST, 100.0), Entrant("naive", SLOW, 50.0))


def run(folder: Path, fast: Sequence[float], slow: Sequence[float]) -> Any:
    journal = Journal(folder)
    for candidate, role, rates in ((FAST, "finalist", fast), (SLOW, "naive", slow)):
        for number, rate in enumerate(rates, start=1):
            journal.append(
                Capacity(
                    candidate=candidate, role=role, target="http", rate_per_s=rate, low_per_s=rate, high_per_s=rate, open_above=False,
                    round=number, memory_bytes=0,
                )
            )  # fmt: skip
    return SimpleNamespace(journal=journal, objective=Objective(latency_s=0.02))


def test_rounds_that_agree_are_enough(tmp_path: Path) -> None:
    assert _steady(run(tmp_path, (100, 104, 98), (50, 51, 50)), ENTRANTS)


def test_what_disturbs_both_sides_of_a_round_cancels(tmp_path: Path) -> None:
    assert _steady(run(tmp_path, (100, 50, 200), (50, 25, 100)), ENTRANTS)


def test_rounds_that_disagree_ask_for_more(tmp_path: Path) -> None:
    assert not _steady(run(tmp_path, (100, 180, 98), (50, 30, 50)), ENTRANTS)


def test_a_rival_that_never_held_anything_asks_for_nothing(tmp_path: Path) -> None:
    held = run(tmp_path, (100, 180, 98), (0, 0, 0))
    assert _steady(held, ENTRANTS)
    assert capacities(held, SLOW, True) == {1: 0, 2: 0, 3: 0}


def test_one_round_has_no_interval_to_be_too_wide() -> None:
    assert not unstable({1: 100.0}, {1: 10.0})
    assert unstable({1: 100.0, 2: 200.0}, {1: 10.0, 2: 10.0})
