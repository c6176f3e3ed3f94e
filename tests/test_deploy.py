"""A bundle appears whole or not at all, and opens."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from headway.deploy import package
from headway.records import InputError, Objective, Plan
from headway.serve import open_bundle
from serving import ENVIRONMENT, affine_model, bundle, entry, lookup_model, slow_model

FIXED = Plan(runtime="onnx_runtime", max_batch=1)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_manifest_says_what_was_given(tmp_path: Path) -> None:
    path = affine_model(tmp_path / "m.onnx")
    manifest = package(
        tmp_path / "b", name="tiny", entries=[entry(path, latency_s=0.01, rate_per_s=99.0, drop=0.0)], objective=Objective(latency_s=0.02),
        environment=ENVIRONMENT, labels=["no", "yes"], seed=3,
    )  # fmt: skip
    opened = open_bundle(tmp_path / "b").manifest
    assert opened == manifest
    assert (opened.variants[0].latency_s, opened.variants[0].rate_per_s, opened.variants[0].drop) == (0.01, 99.0, 0.0)
    assert opened.labels == ("no", "yes")
    assert opened.golden_synthetic
    assert opened.tolerance == 1e-3
    assert names(tmp_path) == {"b", "m.onnx"}
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o755


def test_synthetic_golden_inputs_follow_the_seed(tmp_path: Path) -> None:
    path = affine_model(tmp_path / "m.onnx")
    first, again, other = (bundle(tmp_path / str(index), entry(path), seed=seed).golden.inputs["x"] for index, seed in enumerate((1, 1, 2)))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_real_samples_only_when_given(tmp_path: Path) -> None:
    samples = {"x": np.arange(40, dtype=np.float32).reshape(10, 4), "other": np.zeros(10)}
    opened = bundle(tmp_path / "b", entry(affine_model(tmp_path / "m.onnx")), samples=samples)
    assert not opened.manifest.golden_synthetic
    np.testing.assert_array_equal(opened.golden.inputs["x"], samples["x"][:4])
    np.testing.assert_allclose(opened.golden.outputs[0]["y"], samples["x"][:4] * 2 + 1)
    with pytest.raises(InputError, match="missing \\['x'\\]"):
        bundle(tmp_path / "c", entry(affine_model(tmp_path / "m.onnx")), samples={"z": np.zeros(3)})


def test_a_new_bundle_replaces_an_old_one(tmp_path: Path) -> None:
    bundle(tmp_path / "b", entry(affine_model(tmp_path / "m.onnx")), name="old")
    assert bundle(tmp_path / "b", entry(affine_model(tmp_path / "m.onnx")), name="new").manifest.name == "new"
    assert names(tmp_path) == {"b", "m.onnx"}


def test_what_is_no_bundle_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "precious").write_text("x")
    with pytest.raises(InputError, match="something else"):
        bundle(tmp_path / "b", entry(affine_model(tmp_path / "m.onnx")))
    assert names(tmp_path / "b") == {"precious"}
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="something else"):
        bundle(tmp_path / "file", entry(affine_model(tmp_path / "m.onnx")))


def test_a_full_disk_leaves_the_old_bundle_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = affine_model(tmp_path / "m.onnx")
    before = bundle(tmp_path / "b", entry(path), name="old").manifest

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    for place in (
        "shutil.copyfile",
        "numpy.savez_compressed",
        "os.fsync",
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, full)
            with pytest.raises(InputError, match="No space left"):
                bundle(tmp_path / "b", entry(path), name="new")
        assert open_bundle(tmp_path / "b").manifest == before
        assert names(tmp_path) == {"b", "m.onnx"}


def test_a_full_disk_of_the_system_is_one_sentence(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        return
    with pytest.raises(InputError, match="/dev/full"):
        bundle(Path("/dev/full/b"), entry(affine_model(tmp_path / "m.onnx")))


@pytest.mark.parametrize(
    ("text", "make"),
    [
        ("at least one variant", lambda folder: []),
        ("does not", lambda folder: [entry(folder / "none.onnx")]),
        ("max_batch 1, got 8", lambda folder: [entry(affine_model(folder / "m.onnx", batch=2))]),
        ("same inputs and outputs", lambda folder: [entry(affine_model(folder / "m.onnx")), entry(lookup_model(folder / "n.onnx"))]),
        ("same inputs and outputs", lambda folder: [entry(affine_model(folder / "m.onnx")), entry(slow_model(folder / "n.onnx", 1))]),
        ("expected figures", lambda folder: [entry(affine_model(folder / "m.onnx"), speed=1.0)]),
    ],
)
def test_what_cannot_be_bundled_is_refused(tmp_path: Path, text: str, make) -> None:  # type: ignore[no-untyped-def]
    entries = make(tmp_path)
    with pytest.raises(InputError, match=text):
        bundle(tmp_path / "b", *entries)
    assert "b" not in names(tmp_path)
    assert not [name for name in names(tmp_path) if name.startswith(".")]


@pytest.mark.parametrize(
    ("name", "kept"),
    [("", "model"), ("a/b", "a-b"), ("..", "model"), ("my model (2)", "my-model-2"), ("x" * 200, "x" * 128), ("ok-1.2_b", "ok-1.2_b")],
)
def test_a_name_is_made_fit_for_a_url(tmp_path: Path, name: str, kept: str) -> None:
    assert bundle(tmp_path / "b", entry(affine_model(tmp_path / "m.onnx")), name=name).manifest.name == kept


def test_a_fixed_first_dimension_is_bundled_for_single_runs(tmp_path: Path) -> None:
    opened = bundle(tmp_path / "b", entry(affine_model(tmp_path / "m.onnx", batch=2), plan=FIXED))
    assert opened.golden.inputs["x"].shape == (2, 4)


def test_a_bfloat16_variant_widens_the_tolerance(tmp_path: Path) -> None:
    opened = bundle(tmp_path / "b", entry(affine_model(tmp_path / "m.onnx"), precision="int8"))
    assert opened.manifest.tolerance == 0.05
