"""Requests made of samples or of nothing: as many as asked for, of the size the model takes, and new ones that are really new."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headway.api.load_inputs import REQUESTS_KEPT, Feeds, Samples
from headway.records import ConfigError, TensorSpec

FREE = (TensorSpec(name="x", dtype="float32", shape=("n", 3)),)
FIXED = (TensorSpec(name="x", dtype="float32", shape=(4, 3)),)
IDS = (TensorSpec(name="ids", dtype="int64", shape=("n", 6)),)


def distinct(requests: list[Feeds]) -> int:
    return len({b"".join(array.tobytes() for array in request.values()) for request in requests})


def test_made_up_requests_differ_and_come_out_the_same_again() -> None:
    one, two = Samples(FREE, "", 5).requests(), Samples(FREE, "", 5).requests()
    assert len(one) == distinct(one) == REQUESTS_KEPT
    assert all(np.array_equal(a["x"], b["x"]) for a, b in zip(one, two, strict=True))
    assert {request["x"].shape for request in one} == {(1, 3)}


def test_a_query_of_several_rows_holds_rows_of_its_own() -> None:
    requests = Samples(FREE, "", 0).requests(size=8)
    assert len(requests) == REQUESTS_KEPT // 8 and distinct(requests) == len(requests)
    assert {request["x"].shape for request in requests} == {(8, 3)}


def test_a_model_of_a_fixed_batch_gets_that_and_nothing_else() -> None:
    samples = Samples(FIXED, "", 0)
    requests = samples.requests()
    assert {request["x"].shape for request in requests} == {(4, 3)} and distinct(requests) == len(requests) > 1
    assert distinct(samples.fresh(10, 1)) == 10
    with pytest.raises(ConfigError, match="takes exactly 4"):
        samples.requests(size=8)


def test_fresh_requests_are_new_at_every_seed() -> None:
    samples = Samples(FREE, "", 0)
    assert distinct([*samples.requests(), *samples.fresh(50, 1), *samples.fresh(50, 2)]) == REQUESTS_KEPT + 100


def test_fresh_ids_are_those_of_the_samples_in_another_mixture(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(100, 900, (30, 6))
    np.savez(tmp_path / "d.npz", ids=ids, label=np.zeros(30, np.int64))
    samples = Samples(IDS, str(tmp_path / "d.npz"), 0)
    assert not samples.made_up and len(samples.requests()) == 30
    fresh = samples.fresh(40, 3)
    assert distinct([*fresh, *samples.requests()]) == 70
    for request in fresh:
        assert request["ids"].dtype == np.int64
        assert all(request["ids"][0, at] in ids[:, at] for at in range(6))
