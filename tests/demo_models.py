"""The demos' own networks through every exporter, with a few rows of their data."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from headway.demo import find_demo, store
from headway.model import Model, load

NAMES = ("digits", "vision", "text", "speech", "recommend")


@lru_cache(maxsize=1)
def demo(name: str, rows: int) -> tuple[tuple[Model, ...], dict[str, np.ndarray]]:
    """The exported models and numeric arrays (rows, ...) by name; the test is skipped where the demo's packages are missing."""
    found = find_demo(name)
    if name in found.missing:
        pytest.skip(f"the demo {name} {found.missing[name]}")
    case = found.present[name].build(store.home(), lambda *_: None)
    with np.load(Path(case.data), allow_pickle=False) as data:
        arrays = {key: data[key][:rows] for key in data.files if data[key].dtype.kind in "fiub" and key not in ("label", "cluster")}
    return load(case.model, arrays).models, arrays
