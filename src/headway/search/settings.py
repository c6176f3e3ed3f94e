"""Which settings to try next, from what all settings tried so far gave: a multi-objective study with a constraint, by Optuna.

Nothing is kept between two questions: every study is built anew from the findings and seeded by their number, so that the same
findings give the same settings. Sampler: the multi-objective tree-structured Parzen estimator (Ozaki et al., 2022,
https://doi.org/10.1613/jair.1.13188), which Optuna documents as able to take several objectives, constraints and settings that exist
in some recipes only; NSGA-II needs populations of trials before it learns anything. A dozen questions are few even so: every other one
is spent half-way between the fastest finding that keeps the bound and its nearest neighbour that breaks it.
This file knows names and values of settings, not what they do.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from headway.records import Setting, Step

Steps = tuple[Step, ...]
Identity = tuple[tuple[str, tuple[tuple[str, Setting], ...]], ...]
REPEATS = 8
"""So often the sampler, and then chance, may name what was tried before; then there is nothing left worth asking for."""
STARTUP = 4
"""With fewer findings, chance asks."""
CLOSE = 1 / 24
"""Neighbours on both sides of the bound that are nearer than this share of the range have nothing worth a question between them."""
STRUCTURE = "structure"
CONSTRAINT = "quality"


class Numbers(Protocol):
    """A setting that is a number between two others; see ``headway.compress.techniques.contract.Range``."""

    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def whole(self) -> bool: ...
    @property
    def when(self) -> tuple[str, Setting] | None: ...


Space = Mapping[str, Numbers | tuple[Setting, ...]]


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one combination of steps.

    Attributes:
        steps: with every setting that counts written out.
        rate_per_s: the most that one core does [1/s]; 0 when nothing may be served.
        drop: loss of quality against the parent, in units of the metric.
        excess: how far the quality bound is broken, above 0; 0 when it is kept.
    """

    steps: Steps
    rate_per_s: float
    drop: float
    excess: float


@dataclass(frozen=True, slots=True)
class SettingsSearch:
    """Techniques that may stand together, what may be set in each, and where chance starts.

    Attributes:
        structures: names of the techniques of a recipe, in their order; each structure is one choice of the study.
        spaces: of each technique, by name.
    """

    structures: tuple[tuple[str, ...], ...]
    spaces: Mapping[str, Space]
    seed: int

    def ask(self, found: Sequence[Finding]) -> Steps | None:
        """Steps that are not among those found; none when no new ones come up.

        In turn what lies at the edge of the bound, and what the study finds most promising: the highest rate and the least drop within it.
        """
        tried = {identity(finding.steps) for finding in found}
        return (self._at_the_edge(found, tried) if len(found) % 2 else None) or self._of_study(found, tried)

    def _at_the_edge(self, found: Sequence[Finding], tried: Collection[Identity]) -> Steps | None:
        """Half-way between a finding that keeps the bound and its nearest neighbour that breaks it, of the fastest that has one."""
        living = [finding for finding in found if finding.excess <= 0 and _structure(finding.steps) in self.structures]
        for finding in sorted(living, key=lambda finding: -finding.rate_per_s):
            for place, step in enumerate(finding.steps):
                for name, offer in self.spaces[step.technique].items():
                    if isinstance(offer, tuple) or name not in step.settings:
                        continue
                    for value in _half_way(finding, found, place, name, offer):
                        changed = Step(technique=step.technique, settings={**step.settings, name: value})
                        steps = (*finding.steps[:place], changed, *finding.steps[place + 1 :])
                        if identity(steps) not in tried:
                            return steps
        return None

    def _of_study(self, found: Sequence[Finding], tried: Collection[Identity]) -> Steps | None:
        known = [self._trial(finding) for finding in found if _structure(finding.steps) in self.structures]
        with _quiet():
            for sampler in _samplers(self.seed, len(found)):
                study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
                study.add_trials(known)
                for _ in range(REPEATS):
                    steps = self._drawn(study.ask())  # left unanswered when known: the sampler keeps away from what it waits for
                    if identity(steps) not in tried:
                        return steps
        return None

    def _drawn(self, trial: Trial) -> Steps:
        structure = trial.suggest_categorical(STRUCTURE, self._names)
        return tuple(Step(technique=name, settings=self._settings(trial, name)) for name in structure.split("+"))

    def _settings(self, trial: Trial, technique: str) -> dict[str, Setting]:
        space = self.spaces[technique]
        drawn: dict[str, Setting] = {}
        for name, offer in sorted(space.items(), key=lambda item: not isinstance(item[1], tuple)):  # numbers may hang on choices
            full = f"{technique}.{name}"
            if isinstance(offer, tuple):
                drawn[name] = cast(Setting, trial.suggest_categorical(full, offer))
            elif offer.when is None or drawn.get(offer.when[0]) == offer.when[1]:
                low, high = offer.low, offer.high
                drawn[name] = _number(
                    offer, trial.suggest_int(full, int(low), int(high)) if offer.whole else trial.suggest_float(full, low, high)
                )
        return {name: drawn[name] for name in space if name in drawn}

    def _trial(self, finding: Finding) -> FrozenTrial:
        """A finding as a finished trial."""
        params: dict[str, Any] = {STRUCTURE: "+".join(_structure(finding.steps))}
        distributions: dict[str, BaseDistribution] = {STRUCTURE: CategoricalDistribution(self._names)}
        for step in finding.steps:
            for name, value in step.settings.items():
                offer = self.spaces[step.technique][name]
                params[f"{step.technique}.{name}"] = value if isinstance(offer, tuple) or not offer.whole else int(value)
                distributions[f"{step.technique}.{name}"] = _distribution(offer)
        return create_trial(
            state=TrialState.COMPLETE, values=[finding.rate_per_s, finding.drop], params=params, distributions=distributions,
            constraints={CONSTRAINT: finding.excess},
        )  # fmt: skip

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple("+".join(structure) for structure in self.structures)


def open_settings(space: Space) -> bool:
    """Whether a space leaves anything to choose."""
    return any(len(offer) > 1 if isinstance(offer, tuple) else offer.low < offer.high for offer in space.values())


def identity(steps: Steps) -> Identity:
    """What two combinations that mean the same have in common."""
    return tuple((step.technique, tuple(sorted(step.settings.items()))) for step in steps)


def _structure(steps: Steps) -> tuple[str, ...]:
    return tuple(step.technique for step in steps)


def _samplers(seed: int, count: int) -> Iterator[BaseSampler]:
    mixed = int(np.random.SeedSequence((seed, count)).generate_state(1)[0])
    yield TPESampler(n_startup_trials=STARTUP, seed=mixed, multivariate=True, group=True)
    yield RandomSampler(seed=mixed)


def _distribution(offer: Numbers | tuple[Setting, ...]) -> BaseDistribution:
    if isinstance(offer, tuple):
        return CategoricalDistribution(offer)
    return IntDistribution(int(offer.low), int(offer.high)) if offer.whole else FloatDistribution(offer.low, offer.high)


def _number(offer: Numbers, value: float) -> float:
    """A number of the type of the range's ends, rounded to about a hundredth of the range."""
    if offer.whole or offer.high <= offer.low:
        return type(offer.low)(round(value))
    digits = 2 - math.ceil(math.log10(offer.high - offer.low))
    return min(offer.high, max(offer.low, round(value, digits)))


def _half_way(finding: Finding, found: Sequence[Finding], place: int, name: str, offer: Numbers) -> Iterator[float]:
    """Below and above a finding that keeps the bound, the middle to the nearest one that breaks it with that one number changed.

    One with fewer steps counts too, since another step seldom mends. Nothing where another that keeps the bound lies between. Where nothing
    breaks the bound on a side to which the rate rises, the end of the range.
    """
    here = float(finding.steps[place].settings[name])
    beside = [(value, other) for other in found if (value := _apart(finding, other, place, name)) is not None and value != here]
    kept = [(value, other) for value, other in beside if other.excess <= 0 and len(other.steps) == len(finding.steps)]
    for side, end in ((-1, offer.low), (1, offer.high)):
        broken = [value for value, other in beside if other.excess > 0 and (value - here) * side > 0]
        there = min(broken, key=lambda value: abs(value - here), default=end)
        if abs(there - here) < CLOSE * (offer.high - offer.low) or any(min(here, there) <= value <= max(here, there) for value, _ in kept):
            continue
        if broken:
            yield _number(offer, (here + there) / 2)
        elif any(other.rate_per_s < finding.rate_per_s for value, other in kept if (value - here) * side < 0):
            yield end


def _apart(finding: Finding, other: Finding, place: int, name: str) -> float | None:
    """The value of one setting in a finding that is otherwise the same, perhaps with fewer steps; none when it is not the same."""
    own = finding.steps[place].technique
    steps = {step.technique: step.settings for step in finding.steps}
    value = None
    for step in other.steps:
        expected = steps.get(step.technique)
        if step.technique == own and expected is not None and name in step.settings:
            value = float(step.settings[name])
            expected = {**expected, name: step.settings[name]}
        if step.settings != expected:
            return None
    return value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's lines about every trial, and without its warnings that options of the sampler are experimental."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
