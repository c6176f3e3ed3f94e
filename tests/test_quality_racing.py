"""A race stops when it is sure and seldom wrongly: closed forms, simulated races, bounds of every kind, records."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from headway.data import Dataset
from headway.quality import Race, Task, compare, first_rows, metric, stopped
from headway.quality.flips import loss_above_p
from headway.quality.racing import ERROR, loss_below_p
from headway.quality.verdict import TRUSTED_ROWS
from headway.records import ModelError, Objective, Quality, from_json, to_json

RACES = 2000
Outputs = np.ndarray


def race(name: str, labels: np.ndarray | None, n: int, objective: Objective, worth_sparing: int = 1, **more: np.ndarray) -> Race:
    samples = Dataset({"x": np.zeros(n)}, labels, **more)  # type: ignore[arg-type]
    return Race(samples, {"": Task(metric(name), labels)}, objective, worth_sparing)


def end(racing: Race, mine: Outputs, parent: Outputs) -> tuple[str, int]:
    """How a race ends and after how many rows."""
    for rows in racing.looks:
        standing = racing.standing(rows, {"y": mine[:rows]}, {"y": parent[:rows]})
        if standing:
            return standing, rows
    return "", len(racing.samples)


def answers(steps: np.ndarray) -> tuple[Outputs, Outputs, np.ndarray]:
    """(variant's scores, parent's scores, labels) where a row went from right to wrong (1), from wrong to right (-1) or stayed right (0)."""
    labels = np.arange(steps.size) % 4
    mine, parent = (labels + (steps == 1)) % 4, (labels + (steps == -1)) % 4
    return np.eye(4, dtype=np.float32)[mine], np.eye(4, dtype=np.float32)[parent], labels


def steps(generator: np.random.Generator, n: int, drop: float, gained: float) -> np.ndarray:
    return generator.choice([1, -1, 0], size=n, p=[drop + gained, gained, 1 - drop - 2 * gained])


@given(st.integers(20, 400), st.floats(0.001, 0.5))
def test_rows_without_flips_prove_what_the_binomial_says(n: int, bound: float) -> None:
    assert loss_below_p(0, 0, n, bound) == pytest.approx((1 - bound) ** n, rel=1e-6, abs=1e-300)
    assert loss_below_p(0, 0, n, 0.0) == 1.0


@pytest.mark.parametrize(("worse", "better", "n", "bound"), [(2, 1, 30, 0.1), (0, 3, 25, 0.05), (5, 5, 40, 0.2), (4, 0, 60, 0.15)])
def test_the_tail_is_that_of_the_walk_at_the_likeliest_share(worse: int, better: int, n: int, bound: float) -> None:
    def unlikelihood(gained: float) -> float:
        still = n - worse - better
        return -(worse * math.log(gained + bound) + better * math.log(gained) + still * math.log(1 - 2 * gained - bound))

    gained = minimize_scalar(unlikelihood, bounds=(1e-9, (1 - bound) / 2 - 1e-9), method="bounded", options={"xatol": 1e-10}).x
    walk = np.ones(1)
    for _ in range(n):
        walk = np.convolve(walk, [gained, 1 - 2 * gained - bound, gained + bound])
    assert loss_below_p(worse, better, n, bound) == pytest.approx(walk[: n + worse - better + 1].sum(), rel=1e-4)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(60, 300), st.floats(0.005, 0.3))
@settings(max_examples=50)
def test_the_two_tails_share_one_point(worse: int, better: int, n: int, bound: float) -> None:
    both = loss_above_p(worse, better, n, bound) + loss_below_p(worse, better, n, bound)
    assert 1 - 1e-9 <= both <= 2
    assert loss_below_p(worse + 1, better, n, bound) >= loss_below_p(worse, better, n, bound) - 1e-9


def test_many_rows_take_the_score() -> None:
    exact, rough = (loss_below_p(185, 20, n, 0.01) for n in (20_000, 20_001))
    assert rough == pytest.approx(exact, rel=0.2) and 1e-3 < exact < 0.1


@pytest.mark.parametrize(
    ("drop", "gained"), [(0.03, 0.0), pytest.param(0.03, 0.03, marks=pytest.mark.slow), pytest.param(0.1, 0.02, marks=pytest.mark.slow)]
)
def test_a_variant_exactly_at_the_bound_is_seldom_stopped(drop: float, gained: float) -> None:
    generator = np.random.default_rng(11)
    ends = {"beyond": 0, "within": 0, "": 0}
    for _ in range(RACES):
        mine, parent, labels = answers(steps(generator, 600, drop, gained))
        ends[end(race("accuracy", labels, 600, Objective(drop=drop)), mine, parent)[0]] += 1
    assert ends["beyond"] <= ERROR * RACES and ends["within"] <= ERROR * RACES
    assert ends[""] >= (1 - 2 * ERROR) * RACES


def rare(generator: np.random.Generator) -> tuple[np.ndarray, float]:
    """Losses that few rows hold, and their mean."""
    return 0.5 * (generator.random(600) < 0.02), 0.01


def dense(generator: np.random.Generator) -> tuple[np.ndarray, float]:
    """Losses that most rows hold, and their mean."""
    return generator.exponential(0.05, 600).clip(0, 1), 0.05


@pytest.mark.parametrize("losses", [rare, dense])
def test_so_is_one_without_right_and_wrong(losses: Callable[[np.random.Generator], tuple[np.ndarray, float]]) -> None:
    generator = np.random.default_rng(12)
    parent = np.tile([1.0, 0.0], (600, 1))
    stops = 0
    for _ in range(RACES // 2):
        lost, bound = losses(generator)
        mine = np.stack([1 - lost, np.sqrt(1 - (1 - lost) ** 2)], axis=1)
        stops += end(race("cosine_to_parent", None, 600, Objective(drop=bound)), mine, parent)[0] != ""
    assert stops <= ERROR * RACES / 2


def test_so_is_one_whose_errors_grow_by_the_bound() -> None:
    generator = np.random.default_rng(23)
    beyond = 0
    for _ in range(RACES // 2):
        parent = generator.normal(size=1000)
        mine = parent * np.sqrt(1 + generator.uniform(0, 0.2, 1000))
        beyond += end(race("mse", np.zeros(1000), 1000, Objective(drop=0.1)), mine, parent)[0] == "beyond"
    assert beyond <= ERROR * RACES / 2


def test_so_is_one_whose_rows_come_in_clusters() -> None:
    generator = np.random.default_rng(20)
    ends = {"beyond": 0, "within": 0, "": 0}
    for _ in range(RACES // 4):
        clusters = generator.permutation(np.repeat(np.arange(60), 20))
        lost = generator.random(1200) < generator.beta(0.5, 9.5, 60)[clusters]  # one in twenty, most of them in few clusters
        mine, parent, labels = answers(lost)
        ends[end(race("accuracy", labels, 1200, Objective(drop=0.05), clusters=clusters), mine, parent)[0]] += 1
    assert ends["beyond"] <= ERROR * RACES / 4 and ends["within"] <= ERROR * RACES / 4


def test_groups_share_the_error() -> None:
    generator = np.random.default_rng(13)
    beyond = 0
    names = np.array([f"g{row % 8}" for row in range(800)])
    for _ in range(RACES // 10):
        mine, parent, labels = answers(steps(generator, 800, 0.05, 0.01))
        beyond += end(race("accuracy", labels, 800, Objective(group_drop=0.05), groups=names), mine, parent)[0] == "beyond"
    assert beyond <= 2


def test_the_clearly_bad_stops_at_the_first_look_and_the_clearly_good_early() -> None:
    generator = np.random.default_rng(14)
    bad, good, between = (steps(generator, 2000, drop, 0.002) for drop in (0.3, 0.0, 0.03))
    ends = []
    for made in (bad, good, between):
        mine, parent, labels = answers(made)
        ends.append(end(race("accuracy", labels, 2000, Objective(drop=0.03)), mine, parent))
    assert ends == [("beyond", 64), ("within", 256), ("", 2000)]


def test_what_is_surely_in_is_not_stopped_for_the_sake_of_few_rows() -> None:
    mine, parent, labels = answers(np.zeros(2000))
    found = {worth: end(race("accuracy", labels, 2000, Objective(drop=0.05), worth), mine, parent) for worth in (1, 1800, 2000)}
    assert found == {1: ("within", 256), 1800: ("", 2000), 2000: ("", 2000)}
    assert min(rows for _, rows in found.values()) >= TRUSTED_ROWS


def test_no_bound_and_a_bound_of_nothing_run_to_the_end() -> None:
    mine, parent, labels = answers(np.zeros(2000))
    for objective in (Objective(), Objective(drop=0.0)):
        assert end(race("accuracy", labels, 2000, objective), mine, parent) == ("", 2000)


def test_outputs_that_are_not_finite_are_out() -> None:
    mine, parent, labels = answers(np.zeros(200))
    mine[100, 2] = np.nan
    assert end(race("accuracy", labels, 200, Objective()), mine, parent) == ("beyond", 128)


def test_one_group_that_loses_is_enough_to_be_out_and_every_group_is_needed_to_be_in() -> None:
    names = np.array([f"g{row % 4}" for row in range(4000)])
    lost = np.where((names == "g2") & (np.arange(4000) % 3 == 0), 1, 0)
    mine, parent, labels = answers(lost)
    assert end(race("accuracy", labels, 4000, Objective(group_drop=0.05), groups=names), mine, parent)[0] == "beyond"
    mine, parent, labels = answers(np.zeros(4000))
    assert end(race("accuracy", labels, 4000, Objective(group_drop=0.05), groups=names), mine, parent) == ("within", 512)
    names[2500:2560] = "rare"
    assert end(race("accuracy", labels, 4000, Objective(group_drop=0.05), groups=names), mine, parent) == ("", 4000)
    assert end(race("accuracy", labels, 4000, Objective(drop=0.05), groups=names), mine, parent) == ("within", 256)


def test_classes_are_groups() -> None:
    mine, parent, labels = answers(np.where(np.arange(1000) % 4 == 2, 1, 0))
    assert end(race("accuracy", labels, 1000, Objective(drop=0.5)), mine, parent) == ("within", 256)
    assert end(race("accuracy", labels, 1000, Objective(drop=0.5, group_drop=0.1)), mine, parent)[0] == "beyond"


def test_rows_of_few_clusters_say_nothing() -> None:
    mine, parent, labels = answers(np.ones(1000))
    photographs = np.arange(1000) % 19
    assert end(race("accuracy", labels, 1000, Objective(drop=0.01), clusters=photographs), mine, parent) == ("", 1000)
    assert end(race("accuracy", labels, 1000, Objective(drop=0.01), clusters=np.arange(1000) % 40), mine, parent)[0] == "beyond"
    same, parent, labels = answers(np.zeros(1000))
    assert end(race("accuracy", labels, 1000, Objective(drop=0.05), clusters=np.arange(1000) % 40), same, parent) == ("", 1000)


def test_a_mean_is_never_surer_than_rows_without_a_loss() -> None:
    parent = np.random.default_rng(15).normal(size=(2000, 8))
    ends = {
        bound: end(race("cosine_to_parent", None, 2000, Objective(drop=bound)), parent * 1.01, parent)
        for bound in (0.004, 0.005, 0.02, 0.05)
    }
    assert ends == {0.004: ("", 2000), 0.005: ("within", 1024), 0.02: ("within", 512), 0.05: ("within", 256)}
    far = parent + 3 * np.random.default_rng(16).normal(size=parent.shape)
    assert end(race("cosine_to_parent", None, 2000, Objective(drop=0.05)), far, parent) == ("beyond", 64)


def test_metrics_of_the_whole() -> None:
    generator = np.random.default_rng(17)
    labels = generator.integers(0, 2, 600)
    parent = labels + 0.3 * generator.normal(size=600)
    noise = generator.normal(size=600)
    ends = [end(race("auc", labels, 600, Objective(drop=0.05)), parent + size * noise, parent) for size in (3.0, 0.01)]
    assert ends == [("beyond", 256), ("within", 256)]


def test_a_metric_that_few_rows_do_not_have_waits_for_more() -> None:
    generator = np.random.default_rng(18)
    labels = (np.arange(1000) >= 300).astype(int)
    parent = labels + 0.3 * generator.normal(size=1000)
    worse = parent + 3 * generator.normal(size=1000)
    assert end(race("auc", labels, 1000, Objective(drop=0.05)), worse, parent) == ("beyond", 512)


def test_an_error_without_upper_end_is_never_surely_kept() -> None:
    generator = np.random.default_rng(21)
    labels, parent = np.zeros(2000), generator.normal(size=2000)
    ends = [end(race("mse", labels, 2000, Objective(drop=0.1)), parent * grown, parent) for grown in (1.001, 1.3)]
    assert ends == [("", 2000), ("beyond", 256)]


def test_opposite_vectors_lose_more_than_one_and_are_out() -> None:
    parent = np.random.default_rng(22).normal(size=(200, 8))
    assert end(race("cosine_to_parent", None, 200, Objective(drop=0.5)), -parent, parent) == ("beyond", 64)


def test_calibration_may_be_surely_out_but_never_surely_in() -> None:
    generator = np.random.default_rng(19)
    sure = generator.uniform(0.6, 1.0, 2000)
    labels = np.where(generator.random(2000) < sure, 1, 0)
    parent = np.stack([1 - sure, sure], axis=1)
    boastful = np.stack([(1 - sure) / 50, 1 - (1 - sure) / 50], axis=1)
    objective = Objective(drop=0.05, ece=0.05)
    assert end(race("accuracy", labels, 2000, objective), boastful, parent) == ("beyond", 512)
    assert end(race("accuracy", labels, 2000, Objective(drop=0.05)), boastful, parent) == ("within", 256)
    assert end(race("accuracy", labels, 2000, objective), parent, parent) == ("", 2000)  # few rows never prove that it did not rise


def test_every_task_must_be_in_and_one_is_enough_to_be_out() -> None:
    numbers = np.arange(1000)
    labels = {"kind": numbers % 4, "odd": numbers % 2}
    parent = {name: np.eye(4)[known] for name, known in labels.items()}
    tasks = {name: Task(metric(f"accuracy@{name}"), known) for name, known in labels.items()}
    samples = Dataset({"x": np.zeros(1000)}, labels["kind"])

    def standing(rows: int, **changed: np.ndarray) -> str:
        first = [{name: array[:rows] for name, array in side.items()} for side in (parent | changed, parent)]
        return Race(samples, tasks, Objective(drop=0.05)).standing(rows, *first)

    turned = {name: np.roll(array, 1, axis=1) for name, array in parent.items()}
    slight = {name: np.where((numbers % 25 == 0)[:, None], turned[name], parent[name]) for name in parent}  # 4% lost
    assert standing(256) == "within" and standing(128) == ""
    for name in parent:
        assert standing(64, **{name: turned[name]}) == "beyond"
        assert standing(512, **{name: slight[name]}) == ""
    with pytest.raises(ModelError, match="shape"):
        standing(64, odd=parent["odd"][:, :3])


@pytest.mark.parametrize(("made", "standing"), [(lambda n: np.arange(n) % 2, "beyond"), (np.zeros, "within")])
def test_the_record_says_that_it_is_a_part(made: Callable[[int], np.ndarray], standing: str) -> None:
    mine, parent, labels = answers(made(2000))
    objective = Objective(drop=0.05)
    racing = race("accuracy", labels, 2000, objective)
    ended, rows = end(racing, mine, parent)
    whole, part = (
        compare(
            variant="v", runtime="null", part="selection", metric=metric("accuracy"), outputs={"y": mine[:n]}, parent_outputs={"y": parent[:n]},
            dataset=first_rows(racing.samples, n), objective=objective,
        ) for n in (2000, rows)
    )  # fmt: skip
    found = stopped(part, ended, rows, 2000)
    assert ended == standing and found.verdict == {"beyond": "violated", "within": "proven"}[standing]
    assert (found.n, found.of_rows, found.stopped_early, whole.stopped_early) == (rows, 2000, True, False)
    assert found.reason.endswith(f"stopped early: surely {standing} after {rows} of 2,000 rows") and found.reason.startswith(part.reason)
    assert from_json(to_json(found), Quality) == found and b'"of_rows":2000' in to_json(found)
    assert b"of_rows" not in to_json(whole)


def test_looks_come_in_order_and_share_the_rows() -> None:
    looks = race("accuracy", None, 5000, Objective(drop=0.1)).looks
    assert looks[0] == 64 and all(later == 2 * earlier for earlier, later in itertools.pairwise(looks))
