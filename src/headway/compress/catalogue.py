"""The techniques on this machine, and the recipes they allow for a model, mild to harsh."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import cast

from onnx import ModelProto

from headway.compress import techniques as folder
from headway.compress.context import Context
from headway.compress.settings import did_you_mean
from headway.compress.techniques.contract import Rescaling, Searchable, Space, Technique
from headway.discovery import Found, discover
from headway.model import Model
from headway.records import ConfigError, MissingPackage, Step

CLEANING = "fold"
MENDING = "recover"
ASKED_ONLY = 9
"""Techniques of this HARSHNESS make nothing faster; they are tried only when asked for by name."""
NARROWING_ORDER = 60
"""Techniques of a lower ORDER make the graph smaller; from here on they make its numbers narrower."""


def techniques() -> Found:
    """The technique files: those that import, and the reason for each that does not."""
    return discover(folder)


def unasked() -> tuple[str, ...]:
    """Names of the techniques that are tried unless others are asked for."""
    return tuple(name for name, module in sorted(techniques().present.items()) if as_technique(module).HARSHNESS < ASKED_ONLY)


def get(name: str) -> Technique:
    """A technique by name.

    Raises:
        ConfigError: no such file.
        MissingPackage: the file is there, a package it needs is not.
    """
    found = techniques()
    if name in found.missing:
        raise MissingPackage(f"technique {name!r} {found.missing[name]}; install it")
    if name not in found.present:
        raise ConfigError(f"a technique must be known, got {name!r}; {did_you_mean(name, found.present)}")
    return as_technique(found.present[name])


def as_technique(module: ModuleType) -> Technique:
    """A module seen as what the contract promises."""
    return cast(Technique, module)


def refusals(model: Model, context: Context, only: Sequence[str] | None = None) -> dict[str, str]:
    """Why techniques that cannot work or pay here are left out: one sentence by name."""
    names = _names(only)
    if CLEANING in names:
        model = get(CLEANING).apply(model, {}, context)
    reasons = {name: get(name).refuse(model, context) for name in names}
    return {name: reason for name, reason in reasons.items() if reason}


def recipes(model: Model, context: Context, only: Sequence[str] | None = None) -> tuple[tuple[Step, ...], ...]:
    """Recipes to try, mild to harsh: first the model as it came, then cleaned, then every rung of every technique.

    Each starts with ``fold`` (unless ``only`` leaves it out). A technique follows another when its ``FOLLOWS`` says so.
    Techniques that refuse are left out; ``refusals`` says why.

    Raises:
        ConfigError: ``only`` names an unknown technique.
        MissingPackage: ``only`` names one whose package is not installed.
    """
    names = _names(only)
    if CLEANING in names:
        model = get(CLEANING).apply(model, {}, context)  # later steps will see the cleaned graph
    names = tuple(name for name in names if get(name).ORDER is not None)  # what mends has nothing to mend yet
    rungs: dict[str, list[tuple[int, Step]]] = {
        name: [(place, Step(technique=name, settings=settings)) for place, settings in enumerate(get(name).ladder(model, context))]
        for name in names
    }
    start = tuple(step for _, step in rungs.pop(CLEANING, []))
    ranked: list[tuple[tuple[tuple[int, int], ...], tuple[Step, ...]]] = []
    for name, own in rungs.items():
        technique = get(name)
        for place, step in own:
            ranked.append((((technique.HARSHNESS, place),), (step,)))
            for base in technique.FOLLOWS:
                for base_place, base_step in rungs.get(base, []):
                    key = tuple(sorted([(technique.HARSHNESS, place), (get(base).HARSHNESS, base_place)], reverse=True))
                    ranked.append((key, tuple(sorted((base_step, step), key=_order))))
    ranked.sort(key=lambda pair: (pair[0], tuple(map(str, pair[1]))))
    cleaned = ((), start) if start else ((),)
    return cleaned + tuple(start + steps for _, steps in ranked)


def _order(step: Step) -> int:
    return get(step.technique).ORDER or 0


def spaces(model: Model, context: Context, only: Sequence[str] | None = None) -> dict[str, Space]:
    """What may be searched between the rungs of each technique, by name; of those that offer nothing or refuse, nothing."""
    names = _names(only)
    if CLEANING in names:
        model = get(CLEANING).apply(model, {}, context)
    present = techniques().present
    offered = {name: cast(Searchable, present[name]).space(model, context) for name in names if hasattr(present[name], "space")}
    return {name: space for name, space in offered.items() if space}


def rescaled(model: Model, step: Step, context: Context) -> ModelProto | None:
    """The graph whose inner values a step's result is to be compared with; none where the model itself will do."""
    technique = techniques().present.get(step.technique)
    return cast(Rescaling, technique).rescaled(model, step.settings, context) if hasattr(technique, "rescaled") else None


def mending(model: Model, context: Context, only: Sequence[str] | None = None) -> tuple[Step, ...]:
    """The steps that win back what another one cost, short to long; none when they are left out or there is nothing to learn from."""
    if MENDING not in _names(only):
        return ()
    return tuple(Step(technique=MENDING, settings=settings) for settings in get(MENDING).ladder(model, context))


def _names(only: Sequence[str] | None) -> tuple[str, ...]:
    if only is None:
        return unasked()
    for name in only:
        get(name)
    return tuple(sorted(set(only)))
