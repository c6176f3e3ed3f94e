"""ONNX's own node tests on lifted graphs; docs/lift.md must name exactly those that do not pass.

After a change of operators or of the ``onnx`` package: ``python tests/lift_list.py`` writes the list again.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lift_cases import cases, problem
from lift_list import DOCUMENT, RANDOM

SHARE = 0.90
EVERY = 12


@pytest.fixture(scope="module")
def listed() -> set[str]:
    return set(re.findall(r"^\| `(test_\w+)`", DOCUMENT.read_text("utf-8"), re.MULTILINE))


def test_a_sample_of_the_cases_passes_unless_it_is_listed(listed: set[str]) -> None:
    sample = [case for position, case in enumerate(cases()) if position % EVERY == 0 and case.name not in listed]
    failed = {case.name: said for case in sample if (said := problem(case))}
    assert not failed
    assert len(sample) > 100


def test_the_document_exists_and_lists_cases(listed: set[str]) -> None:
    assert Path(DOCUMENT).exists()
    assert 0 < len(listed) < 200


@pytest.mark.slow
def test_at_least_nine_in_ten_float_cases_pass_and_the_list_is_true(listed: set[str]) -> None:
    everything = list(cases())
    failed = {case.name for case in everything if problem(case)}
    floats = [case.name for case in everything if case.floats]
    assert sum(name not in failed for name in floats) / len(floats) >= SHARE
    random = {name for name in failed ^ listed if RANDOM.search(name)}
    assert failed - random == listed - random
