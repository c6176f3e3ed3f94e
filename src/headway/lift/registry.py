"""Operators by domain, name and the opset that introduced their meaning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from headway.lift.node import Node

Run = Callable[..., Any]
Build = Callable[[Node], Run]
STANDARD = ("", "ai.onnx")


@dataclass(frozen=True, slots=True)
class Operator:
    """How to make a node run.

    Attributes:
        build: takes the node once, gives the function of its input tensors (absent ones are None).
        since: first opset with this meaning.
        frame: the function takes the frame (mode, values in scope) before the inputs.
        host: positions of inputs that are read on the CPU, such as shapes.
        random: two runs may differ, so it is never computed beforehand.
    """

    build: Build
    since: int
    frame: bool
    host: frozenset[int]
    random: bool


_FOUND: dict[tuple[str, str], list[Operator]] = {}


def operator(
    *names: str, since: int = 1, domain: str = "", frame: bool = False, host: tuple[int, ...] = (), random: bool = False
) -> Callable[[Build], Build]:
    """Register the decorated builder for operators of these names from opset ``since`` on."""

    def register(build: Build) -> Build:
        for name in names:
            entries = _FOUND.setdefault((domain, name), [])
            entries.append(Operator(build, since, frame, frozenset(host), random))
            entries.sort(key=lambda entry: -entry.since)
        return build

    return register


def plain(functions: dict[str, Run], since: int = 1, host: tuple[int, ...] = ()) -> None:
    """Register functions that need no attribute."""
    for name, function in functions.items():
        operator(name, since=since, host=host)(lambda _, function=function: function)


def find(domain: str, name: str, opset: int) -> Operator | None:
    """The operator that an opset means by a name; none when it is not known."""
    entries = _FOUND.get(("" if domain in STANDARD else domain, name), [])
    return next((entry for entry in entries if entry.since <= opset or domain not in STANDARD), None)


def known() -> tuple[str, ...]:
    """Names of all known operators of the standard domain, sorted."""
    return tuple(sorted(name for domain, name in _FOUND if domain == ""))
