"""Every technique file passes the shipped contract suite; a new file is picked up without a list to edit."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from headway.compress import get, techniques
from headway.compress.techniques.contract import Technique
from headway.model import Model
from headway.testing.techniques import GRAPHS, Applied, TechniqueContract


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
