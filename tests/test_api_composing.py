"""What is mended and what is put together, with techniques that only have an order and a harshness, and attempts by table."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from headway.api import composing
from headway.api.composing import Recipe, Tried, compose, explore
from headway.records import Step, Variant

TECHNIQUES = {
    "fold": SimpleNamespace(ORDER=0, HARSHNESS=0),
    "prune": SimpleNamespace(ORDER=20, HARSHNESS=5),
    "narrow": SimpleNamespace(ORDER=60, HARSHNESS=3),
    "precision": SimpleNamespace(ORDER=90, HARSHNESS=1),
    "recover": SimpleNamespace(ORDER=None, HARSHNESS=1),
}
FOLD, RECOVER = Step(technique="fold"), Step(technique="recover")


def prune(keep: float) -> Step:
    return Step(technique="prune", settings={"keep": keep})


def narrow(name: str) -> Step:
    return Step(technique="narrow", settings={"name": name})


@pytest.fixture(autouse=True)
def fake_techniques(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composing, "get", lambda name: TECHNIQUES[name])


def tried(recipe: Recipe, alive: bool, agreement: float = 0.9, flop: int = 100) -> Tried:
    variant = Variant(
        name="+".join(map(str, recipe)), source="m", origin="onnx", recipe=recipe, parent_digest="p", digest=str(recipe), path="x",
        parameters=1, flop=flop, weight_bytes=1, file_bytes=1, precision="float32",
    )  # fmt: skip
    return Tried(recipe, variant, int(alive), agreement)


class Attempts:
    """Notes every recipe tried; those in ``saved`` come out alive."""

    def __init__(self, *saved: Recipe) -> None:
        self.saved = saved
        self.seen: list[Recipe] = []

    def __call__(self, recipe: Recipe) -> Tried:
        self.seen.append(recipe)
        return tried(recipe, recipe in self.saved)


def test_a_ladder_is_climbed_with_training_until_training_saves_no_more() -> None:
    rungs = [(FOLD, prune(keep)) for keep in (0.75, 0.5, 0.35, 0.25)]
    attempts = Attempts(rungs[0], (*rungs[1], RECOVER))
    explore(rungs, RECOVER, attempts)
    assert attempts.seen == [rungs[0], rungs[1], (*rungs[1], RECOVER), rungs[2], (*rungs[2], RECOVER)]


def test_without_training_a_ladder_ends_at_the_first_rung_that_breaks() -> None:
    rungs = [(FOLD, prune(keep)) for keep in (0.75, 0.5, 0.35)]
    attempts = Attempts(rungs[0])
    explore(rungs, None, attempts)
    assert attempts.seen == rungs[:2]


def test_every_narrowing_is_tried_and_the_nearest_trained_only_when_none_lives() -> None:
    rungs = [(FOLD, narrow("a")), (FOLD, narrow("b"))]
    attempts = Attempts(rungs[1])
    explore(rungs, RECOVER, attempts)
    assert attempts.seen == rungs[::-1], "the harshest first, each once"
    attempts = Attempts()
    explore(rungs, RECOVER, attempts)
    assert attempts.seen == [*rungs[::-1], (*rungs[0], RECOVER)]


def test_one_rung_of_each_technique_goes_first() -> None:
    rungs = [(FOLD, prune(0.75)), (FOLD, prune(0.5)), (FOLD, narrow("a")), (FOLD, narrow("b"))]
    attempts = Attempts(*rungs)
    found = explore(rungs, None, attempts)
    assert attempts.seen == [rungs[0], rungs[3], rungs[1], rungs[2]]
    assert [one.recipe for one in found] == rungs, "what follows sees them in the ladder's order"


def test_what_a_technique_refused_is_not_trained() -> None:
    seen: list[Recipe] = []

    def refused(recipe: Recipe) -> Tried:
        seen.append(recipe)
        return Tried(recipe, None, 0, 0.0)

    explore([(FOLD, prune(0.75)), (FOLD, prune(0.5)), (FOLD, narrow("a"))], RECOVER, refused)
    assert seen == [(FOLD, prune(0.75)), (FOLD, narrow("a"))]


def test_the_smallest_survivor_is_narrowed_in_every_way_that_survived() -> None:
    small = (FOLD, prune(0.5), RECOVER)
    before = [
        tried((FOLD, prune(0.75)), True, flop=75),
        tried(small, True, flop=50),
        tried((FOLD, prune(0.25)), False, flop=25),
        tried((FOLD, narrow("mild")), True, 0.99),
        tried((FOLD, narrow("harsh")), True, 0.95),
        tried((FOLD, narrow("broken")), False, 0.5),
        tried((FOLD, Step(technique="precision")), True, 0.99),
    ]
    attempts = Attempts((*small, narrow("mild")), (*small, Step(technique="precision")), (*small, narrow("harsh"), RECOVER))
    composed = compose(before, RECOVER, attempts)
    assert attempts.seen == [
        (*small, narrow("mild")),
        (*small, narrow("harsh")),
        (*small, narrow("harsh"), RECOVER),
        (*small, Step(technique="precision")),
    ]
    assert [bool(one.alive) for one in composed] == [True, False, True, True]


def test_nothing_is_composed_without_survivors_on_both_sides() -> None:
    attempts = Attempts()
    assert compose([tried((FOLD, prune(0.5)), False), tried((FOLD, narrow("a")), True)], RECOVER, attempts) == []
    assert compose([tried((FOLD, prune(0.5)), True), tried((FOLD, narrow("a")), False)], None, attempts) == []
    assert attempts.seen == []


def test_without_training_a_composition_that_fails_is_left() -> None:
    attempts = Attempts()
    compose([tried((FOLD, prune(0.5)), True), tried((FOLD, narrow("a")), True)], None, attempts)
    assert attempts.seen == [(FOLD, prune(0.5), narrow("a"))]


def test_pairs_of_steps_are_tried_and_never_trained_or_composed() -> None:
    pair = (FOLD, narrow("a"), Step(technique="precision"))
    attempts = Attempts()
    found = explore([pair], RECOVER, attempts)
    compose([tried((FOLD, prune(0.5)), True), *found], RECOVER, attempts)
    assert attempts.seen == [pair]
