"""The ways to split a machine's cores into instances and threads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.search import splits


@pytest.mark.parametrize(
    ("cores", "expected"),
    [
        (1, ((1, 1),)),
        (2, ((1, 1), (1, 2), (2, 1))),
        (3, ((1, 1), (1, 3), (3, 1), (1, 2), (2, 1))),
        (4, ((1, 1), (1, 4), (2, 2), (4, 1), (1, 2), (2, 1))),
        (6, ((1, 1), (1, 6), (2, 3), (3, 2), (6, 1), (1, 4), (2, 2), (4, 1), (1, 2), (2, 1))),
    ],
)
def test_one_core_comes_first_then_all_cores_then_fewer(cores: int, expected: tuple[tuple[int, int], ...]) -> None:
    assert splits(cores) == expected


@given(st.integers(1, 256))
def test_splits_use_a_power_of_two_of_the_cores_or_all_and_never_more(cores: int) -> None:
    found = splits(cores)
    assert found[0] == (1, 1)
    assert len(set(found)) == len(found)
    products = [instances * threads for instances, threads in found]
    assert all(product == cores or (product < cores and product.bit_count() == 1) for product in products)
    assert {(n, cores // n) for n in range(1, cores + 1) if cores % n == 0} <= set(found)
    assert products[1:] == sorted(products[1:], reverse=True)


def test_their_number_stays_moderate_on_large_machines() -> None:
    assert [len(splits(cores)) for cores in (4, 8, 16, 32, 48, 64)] == [6, 10, 15, 21, 31, 28]
