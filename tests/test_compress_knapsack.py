"""The knapsack against all combinations, and its promises."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.compress.knapsack import Option, choose
from headway.records import ConfigError

options = st.builds(Option, st.integers(0, 20).map(float), st.integers(0, 20).map(float))
problems = st.lists(st.lists(options, min_size=1, max_size=4), min_size=1, max_size=5)


def sums(items: list[list[Option]], chosen: tuple[int, ...]) -> tuple[float, float]:
    """Cost and loss of a choice."""
    picked = [row[index] for row, index in zip(items, chosen, strict=True)]
    return sum(option.cost for option in picked), sum(option.loss for option in picked)


@given(problems, st.integers(0, 80))
def test_it_loses_as_little_as_the_best_of_all_combinations(items: list[list[Option]], budget: int) -> None:
    every = [sums(items, choice) for choice in itertools.product(*(range(len(row)) for row in items))]
    fitting = [loss for cost, loss in every if cost <= budget]
    cost, loss = sums(items, choose(items, budget))
    if fitting:
        assert cost <= budget and loss == min(fitting)
    else:
        assert cost == min(cost for cost, _ in every)


@given(problems, st.integers(0, 80), st.integers(2, 6))
def test_with_few_states_the_budget_still_holds(items: list[list[Option]], budget: int, states: int) -> None:
    cost, _ = sums(items, choose(items, budget, states=states))
    assert cost <= budget or cost == sum(min(option.cost for option in row) for row in items)


def test_widths_ranks_and_precisions_share_one_budget() -> None:
    widths = [Option(10, 0), Option(6, 1)]
    precisions = [Option(10, 0), Option(3, 0.5), Option(2, 4)]
    assert choose([widths, precisions], 13) == (0, 1)
    assert choose([widths, precisions], 9) == (1, 1)
    assert choose([widths, precisions], 1) == (1, 2)


def test_an_item_without_options_is_an_error() -> None:
    with pytest.raises(ConfigError, match="option"):
        choose([[]], 1)
