"""The nodes of a Ray cluster: which live, and what a process on one of them says that it is (extra ``ray``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray

import headway
from headway.cluster.tuning_machines import machine
from headway.measure.environment import environment
from headway.records import Environment


@dataclass(frozen=True, slots=True)
class Told:
    """What a process tells of itself: its machine, its Headway, and what it computes with."""

    machine: str
    version: str
    environment: Environment


def told() -> Told:
    """This process."""
    return Told(machine(), headway.__version__, environment())


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the cluster.

    Attributes:
        like: whether its measurements may be compared with those of the machine that decides.
        places: jobs that it takes at a time when none of them measures.
        cpus: what one of them is counted as; ``all_cpus``: what one that measures is counted as.
    """

    identity: str
    address: str
    machine: str
    like: bool
    places: int
    cpus: float
    all_cpus: float


def differences(mine: Told, other: Told) -> str:
    """What another process computes with that this one does not, in words; empty where nothing differs."""
    pairs = {"headway": (mine.version, other.version), "Python": (mine.environment.python, other.environment.python)}
    ours, theirs = mine.environment.versions, other.environment.versions
    pairs |= {name: (ours.get(name, "none"), theirs.get(name, "none")) for name in sorted({*ours, *theirs})}
    return ", ".join(f"{name} {its} instead of {own}" for name, (own, its) in pairs.items() if own != its)


def living() -> dict[str, dict[str, Any]]:
    """The nodes that live and have a CPU, by identity."""
    return {node["NodeID"]: node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0}


@ray.remote(max_retries=0)
def told_there() -> Told:
    """What a process on some node tells of itself."""
    return told()
