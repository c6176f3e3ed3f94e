"""Every technique file passes the shipped contract suite; a new file is picked up without a list to edit."""

from __future__ import annotations

import pytest

from headway.compress import get, techniques
from headway.compress.techniques.contract import Technique
from headway.model import Model
from headway.testing.small_graphs import GRAPHS
from headway.testing.techniques import Applied, TechniqueContract


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
