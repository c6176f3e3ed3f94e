"""Who enters a contest, and when it may stop: from records alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from evidence import measured, prediction, quality
from headway.api.compared import capacities, unstable
from headway.api.contest import Entrant, _steady, choose_entrants
from headway.records import Candidate, Capacity, Journal, MeasurementError, Objective, Plan, Prediction, Step, Variant

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


# --- who enters


def variant(name: str, *techniques: str) -> Variant:
    return Variant(
        name=name, source="model", origin="onnx", recipe=tuple(Step(technique=technique, settings={}) for technique in techniques), parent_digest="", digest=name,
        path="", parameters=1, flop=1, weight_bytes=1, file_bytes=1, precision="float32",
    )  # fmt: skip


VARIANTS = {
    v.name: v
    for v in (
        variant("model"),
        variant("model+fold", "fold"),
        variant("a", "static"),
        variant("a2", "static"),
        variant("b", "prune"),
        variant("c", "low"),
    )
}


class Loaded:
    """A run whose shortlist was loaded in-process: by variant, what was predicted and what it held."""

    def __init__(
        self, folder: Path, held: dict[str, tuple[float, float]], *, agreement: dict[str, float] | None = None, compare: bool = True
    ) -> None:
        self.journal = Journal(folder)
        self.objective, self.config = Objective(latency_s=0.02), SimpleNamespace(compare=compare)
        self.candidates: dict[str, Candidate] = {}
        for name, (predicted, rate) in held.items():
            told = prediction(name, predicted)
            self.candidates[name] = told.candidate
            self.journal.append(told)
            self.journal.append(msgspec.structs.replace(quality(name), agreement=(agreement or {}).get(name, 0.98)))
            for line in measured(told.candidate, [rate], [0.01], role="candidate", target="in-process"):
                self.journal.append(line)

    def entrants(self, ranking: Sequence[str], refused: Sequence[str] = (), further: Sequence[Prediction] = ()) -> list[tuple[str, str]]:
        def passed(candidates: Sequence[Candidate], most: int) -> Iterator[Candidate]:
            return iter([candidate for candidate in candidates if candidate.variant not in refused][:most])

        run: Any = self
        search: Any = SimpleNamespace(ranking=[self.candidates[name] for name in ranking], guess_per_s=lambda candidate: 100.0)
        found = choose_entrants(run, search, VARIANTS["model"], 2, VARIANTS, passed, further)
        return [(entrant.role, entrant.candidate.variant) for entrant in found]


def test_the_best_the_runner_up_of_another_kind_the_best_plain_one_and_the_naive_one_enter(tmp_path: Path) -> None:
    loaded = Loaded(tmp_path, {"a": (900, 800), "a2": (850, 790), "b": (500, 400), "model+fold": (300, 250)})
    entrants = loaded.entrants(["a", "a2", "b", "model+fold"])
    assert entrants == [("finalist", "a"), ("finalist", "b"), ("uncompressed", "model+fold"), ("naive", "model")]


def test_of_rivals_that_hold_the_closest_to_the_parent_enters_before_one_that_holds_nothing(tmp_path: Path) -> None:
    loaded = Loaded(tmp_path, {"a": (900, 800), "b": (500, 400), "c": (500, 0)}, agreement={"c": 1.0, "b": 0.9})
    assert loaded.entrants(["a", "b", "c"])[:2] == [("finalist", "a"), ("finalist", "b")]
    both = Loaded(tmp_path / "both", {"a": (900, 800), "b": (500, 400), "c": (500, 300)}, agreement={"c": 1.0, "b": 0.9})
    assert both.entrants(["a", "b", "c"])[:2] == [("finalist", "a"), ("finalist", "c")]


def test_the_ranking_of_the_search_breaks_ties_of_rates(tmp_path: Path) -> None:
    loaded = Loaded(tmp_path, {"a": (900, 700), "b": (900, 700)})
    assert loaded.entrants(["b", "a"])[0] == ("finalist", "b")
    assert loaded.entrants(["a", "b"])[0] == ("finalist", "a")


def test_one_that_breaks_a_guard_gives_way(tmp_path: Path) -> None:
    loaded = Loaded(tmp_path, {"a": (900, 800), "b": (500, 400), "model": (300, 250)})
    assert loaded.entrants(["a", "b", "model"], refused=["a"]) == [("finalist", "b"), ("finalist", "model"), ("naive", "model")]


def test_when_all_that_was_loaded_is_refused_the_best_predicted_of_another_kind_takes_its_place(tmp_path: Path) -> None:
    loaded = Loaded(tmp_path, {"a": (900, 800), "b": (500, 400), "model": (300, 250)})
    slow, fast = prediction("a2", 105.0), prediction("c", 200.0)
    found = loaded.entrants(["a", "b", "model"], ["a", "b"], [fast, slow])
    assert found == [("finalist", "c"), ("finalist", "model"), ("naive", "model")]
    assert loaded.entrants(["a", "b", "model"], ["a", "b"], [slow])[0] == ("finalist", "model"), "it would bring nothing"
    assert loaded.entrants(["a", "b", "model"], ["a", "b", "c"], [fast])[0] == ("finalist", "model")
    assert loaded.entrants(["a", "b", "model"], ["a"], [fast])[0] == ("finalist", "b"), "nobody is needed"


def test_without_comparison_only_finalists_enter(tmp_path: Path) -> None:
    loaded = Loaded(tmp_path, {"a": (900, 800), "model": (300, 250)}, compare=False)
    assert loaded.entrants(["a", "model"]) == [("finalist", "a"), ("finalist", "model")]


def test_without_comparison_too_one_enters_that_the_report_part_cannot_refuse(tmp_path: Path) -> None:
    loaded = Loaded(tmp_path, {"a": (900, 800), "b": (500, 400), "model": (300, 250)}, compare=False)
    assert loaded.entrants(["a", "b", "model"]) == [("finalist", "a"), ("finalist", "b"), ("uncompressed", "model")]


def test_nothing_loaded_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="at least one candidate"):
        Loaded(tmp_path, {}).entrants([])
