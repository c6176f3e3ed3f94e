"""A scenario by its name."""

from __future__ import annotations

import dataclasses
import difflib
import functools
from typing import cast

from headway.discovery import Found, discover
from headway.load import scenarios as scenario_files
from headway.load.scenarios.contract import Asked, Drive, Rules, Scenario, ScenarioResult
from headway.records import ConfigError


@functools.cache
def scenarios() -> Found:
    """Every scenario, by its name (``single-stream``)."""
    found = discover(scenario_files)
    return Found({_spoken(name): module for name, module in found.present.items()}, {_spoken(n): why for n, why in found.missing.items()})


def scenario_rules(name: str, *, quick: bool = False, seconds: float | None = None) -> Rules:
    """The rules of a scenario: MLPerf's, or shorter ones whose result does not conform and says so.

    Args:
        seconds: shortest duration instead of the rules' own [s].

    Raises:
        ConfigError: no such scenario.
    """
    scenario = _scenario(name)
    rules = scenario.QUICK if quick else scenario.RULES
    return rules if seconds is None else dataclasses.replace(rules, seconds=seconds)


def play(name: str, drive: Drive, rules: Rules, asked: Asked) -> ScenarioResult:
    """One run of a scenario.

    Raises:
        ConfigError: no such scenario, or it needs what was not asked for.
    """
    return _scenario(name).run(drive, rules, asked)


def _scenario(name: str) -> Scenario:
    known = scenarios().present
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
        raise ConfigError(f"the scenario must be known, got {name!r}; {hint}")
    return cast(Scenario, known[name])


def _spoken(name: str) -> str:
    return name.replace("_", "-")
