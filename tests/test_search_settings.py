"""Settings asked for by Optuna, on a toy whose best answer is known: found, within the bound, the same twice, never the same again."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.compress.techniques.contract import Range
from headway.records import Step
from headway.search.settings import Finding, SettingsSearch, Space, Steps, identity, open_settings

BOUND = 0.01
SPACES: dict[str, Space] = {
    "cut": {"keep": Range(0.3, 0.95), "by": ("work",)},
    "round": {"scope": ("all", "some"), "share": Range(0.02, 0.3, when=("scope", "some"))},
    "drop": {"count": Range(1.0, 3.0, whole=True)},
}
STRUCTURES = (("cut",), ("round",), ("cut", "round"))


def cut(keep: float) -> Step:
    return Step(technique="cut", settings={"keep": keep, "by": "work"})


ROUND = Step(technique="round", settings={"scope": "all"})
LADDER = ((cut(0.75),), (cut(0.5),), (ROUND,), (cut(0.75), ROUND))


def measured(steps: Steps) -> Finding:
    """Rate 100 / keep, doubled by rounding; the drop grows with the square of what is cut, and by 0.004 for all layers rounded."""
    rate, drop = 100.0, 0.0
    for step in steps:
        if step.technique == "cut":
            rate /= float(step.settings["keep"])
            drop += 0.05 * (1 - float(step.settings["keep"])) ** 2
        else:
            share = float(step.settings.get("share", 0.0))
            rate *= 2 / (1 + share)
            drop += 0.004 * (1 - share / 0.3)
    return Finding(steps, rate if drop <= BOUND else 0.0, drop, max(0.0, drop - BOUND))


def best_rate() -> float:
    """The highest rate within the bound: by a grid over the share, with the keep that just holds the bound there."""
    shares = np.linspace(0.0, 0.3, 301)
    keeps = 1 - np.sqrt((BOUND - 0.004 * (1 - shares / 0.3)) / 0.05)
    return float(np.max(200 / (1 + shares) / keeps))


def asked(count: int, seed: int, start: Sequence[Steps] = LADDER) -> list[Finding]:
    """The start and ``count`` questions, each answered at once."""
    search, found = SettingsSearch(STRUCTURES, SPACES, seed), [measured(steps) for steps in start]
    for _ in range(count):
        steps = search.ask(found)
        assert steps is not None
        found.append(measured(steps))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_a_dozen_questions_come_near_the_best_there_is_and_beat_the_ladder(seed: int) -> None:
    ladder = max(measured(steps).rate_per_s for steps in LADDER)
    best = max(finding.rate_per_s for finding in asked(12, seed) if finding.excess == 0)
    assert ladder < 0.9 * best_rate(), "else the toy asks for nothing"
    assert best > 0.97 * best_rate()


def test_of_what_the_study_asks_little_breaks_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """By chance 31% of such questions break it."""
    monkeypatch.setattr(SettingsSearch, "_at_the_edge", lambda *_: None)
    late = [finding for seed in range(5) for finding in asked(40, seed)[-20:]]
    assert sum(finding.excess > 0 for finding in late) < 0.15 * len(late)


def test_the_edge_is_half_way_to_the_nearest_that_breaks_the_bound_until_both_are_close() -> None:
    search, found = SettingsSearch((("cut",),), SPACES, 0), [measured((cut(keep),)) for keep in (0.75, 0.5, 0.35)]
    keeps = []
    for _ in range(8):
        steps = search.ask(found)
        assert steps is not None
        if len(found) % 2:
            keeps.append(float(steps[0].settings["keep"]))
            found.append(measured(steps))
        else:
            found.append(Finding((Step(technique="gone"),), 1.0, 0.0, 0.0))
    assert keeps[:3] == [0.62, 0.56, 0.53], "the bound lies at keep 0.553"


def test_where_nothing_breaks_the_bound_the_end_to_which_the_rate_rises_is_next() -> None:
    found = [Finding((cut(keep),), 100 / keep, 0.0, 0.0) for keep in (0.75, 0.5, 0.4)]
    search = SettingsSearch((("cut",),), SPACES, 0)
    assert search.ask(found) == (cut(0.3),)
    found += [Finding((cut(0.3),), 300.0, 0.0, 0.0), Finding((cut(0.9),), 111.0, 0.0, 0.0)]
    assert search.ask(found) == search._of_study(found, {identity(finding.steps) for finding in found}), "no edge is left"


def test_a_larger_drop_with_the_same_rate_is_not_what_it_looks_for() -> None:
    """Both ends of the front are asked for: some late questions lose less than the fastest and some are faster than the mildest."""
    late = [finding for finding in asked(40, 0)[-20:] if finding.excess == 0]
    fastest, mildest = max(late, key=lambda f: f.rate_per_s), min(late, key=lambda f: f.drop)
    assert mildest.drop < 0.7 * fastest.drop and mildest.rate_per_s < fastest.rate_per_s


@settings(max_examples=25)
@given(seed=st.integers(0, 2**20), count=st.integers(0, 4))
def test_the_same_findings_give_the_same_question(seed: int, count: int) -> None:
    found = asked(count, seed)
    assert found == asked(count, seed)
    again = SettingsSearch(STRUCTURES, SPACES, seed)
    assert again.ask(found) == SettingsSearch(STRUCTURES, SPACES, seed).ask(found)


def test_another_seed_asks_for_something_else() -> None:
    assert asked(6, 0) != asked(6, 1)


def test_nothing_is_asked_twice() -> None:
    found = asked(60, 3)
    assert len({identity(finding.steps) for finding in found}) == len(found)


def test_it_ends_when_everything_was_tried() -> None:
    search, found = SettingsSearch((("drop",),), SPACES, 0), []
    while (steps := search.ask(found)) is not None:
        found.append(Finding(steps, 1.0, 0.0, 0.0))
    assert sorted(finding.steps[0].settings["count"] for finding in found) == [1.0, 2.0, 3.0]
    assert all(isinstance(finding.steps[0].settings["count"], float) for finding in found), "of the type of the range's ends"


def test_settings_that_mean_nothing_are_left_out_and_numbers_are_round() -> None:
    for finding in asked(40, 2, start=()):
        for step in finding.steps:
            if step.technique == "round":
                assert ("share" in step.settings) == (step.settings["scope"] == "some")
            else:
                keep = float(step.settings["keep"])
                assert 0.3 <= keep <= 0.95 and keep == round(keep, 2) and step.settings["by"] == "work"


def test_findings_of_other_techniques_are_no_hindrance() -> None:
    other = Finding((Step(technique="gone", settings={"depth": 3}),), 50.0, 0.0, 0.0)
    search = SettingsSearch(STRUCTURES, SPACES, 0)
    assert search.ask([other, *map(measured, LADDER)]) is not None


def test_a_space_of_single_values_leaves_nothing_to_choose() -> None:
    assert open_settings(SPACES["cut"]) and open_settings({"a": (1, 2)})
    assert not open_settings({"a": (1,), "b": Range(2.0, 2.0)}) and not open_settings({})


def test_the_program_keeps_its_own_warnings_and_lines(capfd: pytest.CaptureFixture[str]) -> None:
    optuna.logging.set_verbosity(optuna.logging.INFO)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        asked(3, 0)
    assert optuna.logging.get_verbosity() == optuna.logging.INFO
    assert not seen
    assert capfd.readouterr().err == ""
