"""Every technique file passes the shipped contract suite; a new file is picked up without a list to edit."""

from __future__ import annotations

import pytest

from headway.compress import get, techniques
from headway.compress.techniques.contract import Technique
from headway.testing.techniques import TechniqueContract


@pytest.mark.parametrize("name", sorted(techniques().present), scope="class")
class TestEveryTechnique(TechniqueContract):
    @pytest.fixture(scope="class")
    @classmethod
    def technique(cls, name: str) -> Technique:
        return get(name)


def test_no_technique_is_missing_here() -> None:
    assert techniques().missing == {}
    assert {"fold", "precision", "quantize_dynamic", "quantize_static"} <= set(techniques().present)
