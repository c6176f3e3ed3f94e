"""What all tests share: one profile for hypothesis (timing never decides a test), and small models with real labels."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from digits_model import write_digits

settings.register_profile("headway", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.load_profile("headway")
signal.signal(signal.SIGINT, signal.default_int_handler)
"""A shell that starts the tests in the background lets them, and all that they start, ignore Ctrl-C, which some of them press."""


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``model.onnx`` (a small CNN for handwritten digits) and ``val.npz`` (samples that it has not seen)."""
    folder = tmp_path_factory.mktemp("digits")
    write_digits(folder)
    return folder


@pytest.fixture(scope="session")
def digits_samples(digits: Path) -> dict[str, np.ndarray]:
    """The arrays of ``val.npz``."""
    with np.load(digits / "val.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder of this session's own, so that no test sees what an earlier one left."""
    return tmp_path_factory.mktemp("cache")
