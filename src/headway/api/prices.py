"""Machine types and their prices from a file, and equal replicas packed on machines of one type."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from headway.records import ConfigError, MachineType, Placement, PriceList

EXAMPLE = Path(__file__).with_name("prices_example.toml")
GIB = 2**30
Name = Annotated[str, msgspec.Meta(min_length=1, pattern="^[^=]*$")]


class _Machine(msgspec.Struct, forbid_unknown_fields=True):
    name: Name
    cores: Annotated[int, msgspec.Meta(ge=1)]
    memory_gib: Annotated[float, msgspec.Meta(gt=0, le=1e6)]
    price_per_hour: Annotated[float, msgspec.Meta(gt=0, le=1e6)]


class _Prices(msgspec.Struct, forbid_unknown_fields=True):
    currency: Annotated[str, msgspec.Meta(min_length=1)]
    machine: Annotated[list[_Machine], msgspec.Meta(min_length=1)]


def read_prices(file: Path | None) -> PriceList:
    """The price list of a file, or the built-in example.

    Raises:
        ConfigError: the file cannot be read, is no TOML, has other keys or values, or names a machine twice.
    """
    path = file or EXAMPLE
    form = "it needs currency and, for each [[machine]], name, cores, memory_gib and price_per_hour"
    try:
        prices = msgspec.toml.decode(path.read_bytes(), type=_Prices)
    except OSError as error:
        raise ConfigError(f"--prices: {path} must be a file that can be read, got: {error.strerror or error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--prices: {path} must be a price list, got: {error}; {form}") from error
    names = [machine.name for machine in prices.machine]
    if len(set(names)) < len(names):
        raise ConfigError(f"--prices: {path} must name each machine once, got {', '.join(names)}")
    machines = tuple(
        MachineType(
            name=machine.name, cores=machine.cores, memory_bytes=round(machine.memory_gib * GIB), price_per_hour=machine.price_per_hour
        )
        for machine in prices.machine
    )  # fmt: skip
    return PriceList(source=str(path) if file else "built-in example", currency=prices.currency, machines=machines, example=file is None)


def pack(machine: MachineType, replicas: int, *, cores: int, memory_bytes: int, rate_per_s: float) -> Placement | None:
    """Equal replicas on machines of one type, as many on each as its cores and memory hold; none where it does not hold one.

    Args:
        cores, memory_bytes: of one replica.
        rate_per_s: of the whole fleet, for the price of a million requests [1/s].
    """
    by_cores, by_memory = machine.cores // cores, machine.memory_bytes // memory_bytes
    each = min(by_cores, by_memory)
    if each < 1:
        return None
    machines = -(-replicas // each)
    per_hour = machines * machine.price_per_hour
    return Placement(
        machine=machine, replicas_per_machine=each, limited_by="cores" if by_cores <= by_memory else "memory", machines=machines,
        price_per_hour=per_hour, price_per_million=per_hour / (3600 * rate_per_s) * 1e6,
    )  # fmt: skip


def cheapest(machines: tuple[MachineType, ...], replicas: int, *, cores: int, memory_bytes: int, rate_per_s: float) -> Placement | None:
    """The cheapest placement on one of several types; none where no type holds a replica.

    Among equals it is the one with the fewest replicas on a machine: they are what fails with it.
    """
    placed = (pack(machine, replicas, cores=cores, memory_bytes=memory_bytes, rate_per_s=rate_per_s) for machine in machines)
    return min((p for p in placed if p is not None), key=lambda p: (round(p.price_per_hour, 9), p.replicas_per_machine), default=None)
