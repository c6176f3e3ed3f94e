"""Every technique file passes the shipped contract suite; a new file is picked up without a list to edit."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.compress import Context, get, techniques
from headway.compress.catalogue import spaces
from headway.compress.techniques.contract import Range, Space, Technique, placed
from headway.model import Model
from headway.records import Setting
from headway.testing.small_graphs import samples
from headway.testing.techniques import GRAPHS, Applied, TechniqueContract, drawn


@pytest.mark.parametrize("name", sorted(techniques().present), scope="class")
class TestEveryTechnique(TechniqueContract):
    @pytest.fixture(scope="class")
    @classmethod
    def technique(cls, name: str) -> Technique:
        return get(name)


def test_no_technique_is_missing_here() -> None:
    assert techniques().missing == {}
    assert {"fold", "precision", "quantize_dynamic", "quantize_static"} <= set(techniques().present)


def test_the_suite_catches_a_technique_that_is_not_pure_or_not_the_same_twice() -> None:
    suite = TechniqueContract()
    one, other = (Model.from_proto(GRAPHS[name](), name, "onnx") for name in ("cnn", "mlp"))
    with pytest.raises(AssertionError, match="changed its input"):
        suite.test_the_input_model_is_untouched((Applied({}, one.to_bytes(), other.to_bytes(), one, one),))
    with pytest.raises(AssertionError, match="two different models"):
        suite.test_same_arguments_give_same_bytes((Applied({}, b"", b"", one, other),))


DIGESTS = """
from headway.compress import Context, LabelledRows, get, techniques
from headway.compress.session import answers
from headway.model import Model
from headway.testing.techniques import GRAPHS, samples
for name in ("lstm", "residual", "transformer"):
    model = Model.from_proto(GRAPHS[name](), name, "onnx")
    rows = samples(model.to_proto(), 24)
    context = Context(rows, seed=3, train=LabelledRows(rows, answers(model.to_proto(), rows, 24)[0][0].argmax(1)), parent=model)
    for technique in sorted(techniques().present):
        for settings in get(technique).ladder(model, context)[-1:]:
            print(name, technique, settings, get(technique).apply(model, settings, context).digest)
"""


def test_two_processes_make_the_same_bytes() -> None:
    """Within one process, sets keep their order and a cache may answer; between two they do not."""
    made = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", DIGESTS],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout.splitlines()
        for seed in ("1", "2")
    ]
    assert made[0] == made[1] and len(made[0]) > 15


SPACE: Space = {
    "keep": Range(0.3, 0.9),
    "scope": ("all", "some"),
    "share": Range(0.1, 0.2, when=("scope", "some")),
    "count": Range(1.0, 4.0, whole=True),
}


@given(seed=st.integers(0, 2**32 - 1))
def test_what_is_drawn_from_a_space_stands_in_it_as_it_is(seed: int) -> None:
    settings = drawn(SPACE, np.random.default_rng(seed))
    assert placed(SPACE, settings) == settings
    assert ("share" in settings) == (settings["scope"] == "some")


@pytest.mark.parametrize(
    "outside",
    [{"keep": 0.2}, {"keep": "all"}, {"keep": True}, {"scope": "none"}, {"share": 0.15}, {"count": 1.5}, {"depth": 1}],
)
def test_what_lies_outside_a_space_stands_nowhere(outside: dict[str, Setting]) -> None:
    assert placed(SPACE, outside) is None


def test_what_is_left_out_stands_at_the_first_value_and_the_low_end() -> None:
    assert placed(SPACE, {}) == {"keep": 0.3, "scope": "all", "count": 1.0}
    assert placed(SPACE, {"scope": "some"}) == {"keep": 0.3, "scope": "some", "share": 0.1, "count": 1.0}


def test_the_suite_catches_a_ladder_outside_its_space_and_a_default_that_means_something_else() -> None:
    suite = TechniqueContract()
    one, other = (Model.from_proto(GRAPHS[name](), name, "onnx") for name in ("cnn", "mlp"))
    technique: Any = SimpleNamespace(space=lambda model, context: {"keep": Range(0.6, 0.9), "mend": (False, True)}, apply=lambda *_: other)
    with pytest.raises(AssertionError, match="outside the space"):
        suite.test_its_ladder_lies_within_its_space(technique, one, Context(), (Applied({"keep": 0.5}, b"", b"", one, one),))
    with pytest.raises(AssertionError, match="must mean the same"):
        suite.test_its_ladder_lies_within_its_space(technique, one, Context(), (Applied({"keep": 0.7}, b"", b"", one, one),))
    with pytest.raises(AssertionError, match="exactly where the ladder is"):
        suite.test_its_ladder_lies_within_its_space(technique, one, Context(), ())


def test_spaces_are_those_of_the_techniques_that_offer_one_and_do_not_refuse() -> None:
    model = Model.from_proto(GRAPHS["cnn"](), "cnn", "onnx")
    context = Context(samples=samples(model.to_proto(), 24))
    offered = spaces(model, context, ("fold", "prune_channels", "quantize_static", "quantize_dynamic"))
    assert set(offered) == {"prune_channels", "quantize_static"}
    assert spaces(model, Context(), ("fold", "quantize_static")) == {}, "it refuses without samples"
