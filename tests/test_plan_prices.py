"""Price lists, and replicas on machines."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.api.prices import cheapest, pack, read_prices
from headway.records import ConfigError, MachineType

MACHINES = st.builds(
    MachineType, name=st.just("m"), cores=st.integers(1, 128), memory_bytes=st.integers(1, 10**6), price_per_hour=st.floats(0.01, 100)
)
GOOD = 'currency = "EUR"\n[[machine]]\nname = "m"\ncores = 4\nmemory_gib = 16\nprice_per_hour = 0.36\n'


@given(MACHINES, st.integers(1, 10_000), st.integers(1, 64), st.integers(1, 10**5))
def test_machines_hold_their_replicas_and_no_more_are_taken_than_that_needs(
    machine: MachineType, replicas: int, cores: int, memory_bytes: int
) -> None:
    placed = pack(machine, replicas, cores=cores, memory_bytes=memory_bytes, rate_per_s=100.0)
    if placed is None:
        assert cores > machine.cores or memory_bytes > machine.memory_bytes
        return
    each = placed.replicas_per_machine
    assert each * cores <= machine.cores and each * memory_bytes <= machine.memory_bytes
    full = {"cores": (each + 1) * cores > machine.cores, "memory": (each + 1) * memory_bytes > machine.memory_bytes}
    assert full[placed.limited_by]
    assert (placed.machines - 1) * each < replicas <= placed.machines * each
    assert placed.price_per_hour == pytest.approx(placed.machines * machine.price_per_hour)
    assert placed.price_per_million * 100.0 * 3600 / 1e6 == pytest.approx(placed.price_per_hour)


@given(st.lists(MACHINES, min_size=1, max_size=5), st.integers(1, 500), st.integers(1, 64), st.integers(1, 10**5))
def test_the_cheapest_of_several_types(machines: list[MachineType], replicas: int, cores: int, memory_bytes: int) -> None:
    every = [pack(machine, replicas, cores=cores, memory_bytes=memory_bytes, rate_per_s=1.0) for machine in machines]
    found = cheapest(tuple(machines), replicas, cores=cores, memory_bytes=memory_bytes, rate_per_s=1.0)
    prices = [placed.price_per_hour for placed in every if placed]
    assert (found is None) == (not prices)
    assert found is None or found.price_per_hour == pytest.approx(min(prices))


def test_of_equal_price_the_smaller_machine_loses_less_when_it_fails() -> None:
    machines = [MachineType(name=str(size), cores=size, memory_bytes=10**9, price_per_hour=0.05 * size) for size in (8, 2)]
    found = cheapest(tuple(machines), 8, cores=1, memory_bytes=1, rate_per_s=1.0)
    assert found is not None and (found.machine.name, found.machines) == ("2", 4)


def test_a_file_and_the_example(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(GOOD)
    prices = read_prices(file)
    assert (prices.currency, prices.example) == ("EUR", False)
    assert prices.machines == (MachineType(name="m", cores=4, memory_bytes=16 * 2**30, price_per_hour=0.36),)
    assert read_prices(None).example and len(read_prices(None).machines) >= 2


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (GOOD.replace("cores = 4", "cores = 0"), r"machine\[0\].cores|machine\[...\].cores"),
        (GOOD.replace("cores = 4\n", ""), "cores"),
        (GOOD.replace("0.36", '"cheap"'), "price_per_hour"),
        (GOOD + "spot = true\n", "spot"),
        (GOOD + GOOD.split("\n", 1)[1], "once"),
        (GOOD.replace('"m"', '"a=b"'), "name"),
        ('currency = "EUR"\nmachine = []\n', "machine"),
        ("[[machine\n", "price list"),
        ("", "currency"),
    ],
)
def test_a_broken_file_is_a_sentence(text: str, word: str, tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=word) as told:
        read_prices(file)
    assert "prices.toml" in str(told.value)


def test_a_missing_file_and_bytes_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can be read"):
        read_prices(tmp_path / "none.toml")
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="price list"):
        read_prices(tmp_path / "x.toml")
