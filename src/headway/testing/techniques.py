"""The contract of a compression technique, as tests. Any technique earns them all with three lines::

    class TestMine(TechniqueContract):
        @pytest.fixture(scope="class")
        @classmethod
        def technique(cls): return my_technique

The suite runs every rung of the technique's ladder, and draws from its space where it offers one, on every graph of ``small_graphs`` and ``wild_graphs`` (override ``model`` for others). It checks form and
good behaviour, not speed and not accuracy on real data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import pytest

from headway.compress import Context
from headway.compress.effect import measure_effect
from headway.compress.session import answers, relative_error
from headway.compress.techniques.contract import Range, Searchable, Space, Technique, placed
from headway.model import Model
from headway.records import Setting, Step, Unsupported, to_json
from headway.testing import small_graphs, wild_graphs
from headway.testing.small_graphs import samples

ROWS = 24
GRAPHS = {**small_graphs.GRAPHS, **wild_graphs.GRAPHS}
OTHER_SIZES = (12, 10)
DRAWS = 2


@dataclass(frozen=True)
class Applied:
    """One rung carried out twice on one model."""

    settings: dict[str, Setting]
    bytes_before: bytes
    bytes_after: bytes
    first: Model
    second: Model


class TechniqueContract:
    """Subclass it and give the fixture ``technique``; ``model`` and ``context`` may be overridden too.

    Attributes:
        largest_error: relative L2 error of the answers that still counts as the same function; raise it for what removes weights.
            A technique module may say so itself with ``LARGEST_ERROR``.
    """

    largest_error = 0.1

    @pytest.fixture(scope="class")
    @classmethod
    def technique(cls) -> Technique:
        """The module under test."""
        raise NotImplementedError("a subclass must give the fixture 'technique': the module under test")

    @pytest.fixture(scope="class", params=sorted(GRAPHS))
    @classmethod
    def model(cls, request: pytest.FixtureRequest) -> Model:
        """A model to compress."""
        return Model.from_proto(GRAPHS[request.param](), request.param, "onnx")

    @pytest.fixture(scope="class")
    @classmethod
    def context(cls, model: Model) -> Context:
        """Samples, and a CPU that has everything."""
        every = frozenset({"avx512_vnni", "avx512_bf16", "avx512_fp16"})
        return Context(samples=samples(model.to_proto(), ROWS), instruction_sets=every, seed=0)

    @pytest.fixture(scope="class")
    @classmethod
    def applied(cls, technique: Technique, model: Model, context: Context) -> tuple[Applied, ...]:
        """Every rung carried out twice; empty when the technique refuses the model."""
        results = []
        for settings in technique.ladder(model, context):
            before = model.to_bytes()
            first, second = (technique.apply(model, dict(settings), context) for _ in range(2))
            results.append(Applied(settings, before, model.to_bytes(), first, second))
        return tuple(results)

    def test_it_names_its_source_and_its_place(self, technique: Technique) -> None:
        assert (technique.__doc__ or "").strip(), "the module needs a docstring: its first line is shown by `headway doctor`"
        assert isinstance(technique.ORDER, int | None) and isinstance(technique.HARSHNESS, int)
        assert all(isinstance(name, str) for name in technique.FOLLOWS)

    def test_it_offers_settings_or_says_why_not(self, technique: Technique, model: Model, context: Context) -> None:
        reason, ladder = technique.refuse(model, context), technique.ladder(model, context)
        assert (reason is None) == bool(ladder), f"the ladder must be empty exactly when refuse() gives a reason: {reason!r}, {ladder!r}"
        if reason is not None:
            assert reason.strip() == reason and "\n" not in reason, f"a reason is one sentence: {reason!r}"
            with pytest.raises(Unsupported):
                technique.apply(model, {}, context)

    def test_settings_survive_json(self, technique: Technique, model: Model, context: Context) -> None:
        for settings in technique.ladder(model, context):
            assert json.loads(json.dumps(settings)) == settings
            assert str(Step(technique="it", settings=settings))

    def test_the_input_model_is_untouched(self, applied: tuple[Applied, ...]) -> None:
        for rung in applied:
            assert rung.bytes_before == rung.bytes_after, f"apply({rung.settings}) changed its input"

    def test_same_arguments_give_same_bytes(self, applied: tuple[Applied, ...]) -> None:
        for rung in applied:
            assert rung.first.to_bytes() == rung.second.to_bytes(), f"apply({rung.settings}) gave two different models"

    def test_names_types_and_the_free_batch_are_kept(self, model: Model, applied: tuple[Applied, ...]) -> None:
        for rung in applied:
            assert rung.first.inputs == model.inputs and rung.first.outputs == model.outputs
            assert (rung.first.name, rung.first.origin) == (model.name, model.origin)

    def test_answers_stay_finite_and_near_at_any_batch_and_size(
        self, technique: Technique, model: Model, context: Context, applied: tuple[Applied, ...]
    ) -> None:
        limit = getattr(technique, "LARGEST_ERROR", self.largest_error)
        proto = model.to_proto()
        others = samples(proto, 5, seed=1, free=OTHER_SIZES)
        for rows, given in ((1, context.samples), (5, context.samples), (5, others)):
            expected = answers(proto, given, rows)
            for rung in applied:
                got = answers(rung.first.to_proto(), given, rows)
                assert all(np.isfinite(array).all() for batch in got for array in batch), f"{rung.settings}: answers are not finite"
                error = relative_error(expected, got)
                assert error < limit, f"{rung.settings}: answers moved by {error:.2g} at batch {rows}, {_sizes(given)}"

    def test_its_effect_can_be_reported(self, model: Model, context: Context, applied: tuple[Applied, ...]) -> None:
        before = model.to_proto()
        seen = answers(before, context.samples, 5)
        for rung in applied:
            after = rung.first.to_proto()
            step = Step(technique="it", settings=rung.settings)
            effect = measure_effect(step, (before, after), (seen, answers(after, context.samples, 5)), 0.0)
            assert effect.message and to_json(effect)
            if rung.first.digest == model.digest:
                assert effect.did_nothing

    def test_its_ladder_lies_within_its_space(
        self, technique: Technique, model: Model, context: Context, applied: tuple[Applied, ...]
    ) -> None:
        space = _space(technique, model, context)
        assert bool(space) == bool(applied), "a space is offered exactly where the ladder is"
        for rung in applied:
            full = placed(space, rung.settings)
            assert full is not None, f"{rung.settings} lie outside the space {space}"
            if full != rung.settings:
                again = technique.apply(model, full, context)
                assert again.to_bytes() == rung.first.to_bytes(), f"{rung.settings} must mean the same as {full}"

    def test_whatever_is_drawn_from_its_space_is_carried_out_or_refused(self, technique: Technique, model: Model, context: Context) -> None:
        space, random = _space(technique, model, context), np.random.default_rng(0)
        for _ in range(DRAWS if space else 0):
            settings = drawn(space, random)
            assert placed(space, settings) == settings and json.loads(json.dumps(settings)) == settings
            try:
                made = technique.apply(model, settings, context)
            except Unsupported as error:
                assert str(error).strip(), f"{settings}: a refusal says why"
                continue
            assert made.inputs == model.inputs and made.outputs == model.outputs
            got = answers(made.to_proto(), context.samples, 5)
            assert all(np.isfinite(array).all() for batch in got for array in batch), f"{settings}: answers are not finite"

    def test_a_second_time_is_harmless(self, technique: Technique, context: Context, applied: tuple[Applied, ...]) -> None:
        limit = getattr(technique, "LARGEST_ERROR", self.largest_error)
        for rung in applied:
            if technique.refuse(rung.first, context) is None:
                again = technique.apply(rung.first, dict(rung.settings), context)
                error = relative_error(answers(rung.first.to_proto(), context.samples, 5), answers(again.to_proto(), context.samples, 5))
                assert error < limit, f"{rung.settings}: a second application moved the answers by {error:.2g}"


def drawn(space: Space, random: np.random.Generator) -> dict[str, Setting]:
    """Settings by chance out of a space: those that count together."""
    settings: dict[str, Setting] = {}
    for name, offer in space.items():
        if isinstance(offer, tuple):
            settings[name] = offer[int(random.integers(len(offer)))]
    for name, offer in space.items():
        if isinstance(offer, Range) and (offer.when is None or settings.get(offer.when[0]) == offer.when[1]):
            value = random.uniform(offer.low, offer.high)
            settings[name] = type(offer.low)(round(value)) if offer.whole else round(value, 3)
    return settings


def _space(technique: Technique, model: Model, context: Context) -> Space:
    """What the technique offers to search; a technique need not offer anything."""
    if not hasattr(technique, "space"):
        pytest.skip("offers no space")
    return cast(Searchable, technique).space(model, context)


def _sizes(given: Mapping[str, np.ndarray]) -> str:
    return ", ".join(f"{name} of {list(array.shape[1:])}" for name, array in given.items())
