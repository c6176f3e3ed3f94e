"""A bundle is checked before anything in it is used; what does not agree on this machine is not served."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest

from headway.records import BundledVariant, BundleError, Plan
from headway.serve import MANIFEST, open_bundle
from headway.serve.external import external_files
from headway.serve.golden import difference, tolerance
from headway.serve.start import close, start
from serving import affine_model, bundle, entry, lookup_model, variant


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    bundle(folder / "b", entry(affine_model(folder / "m.onnx")), entry(affine_model(folder / "n.onnx", scale=2.001), "second"))
    return folder / "b"


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / MANIFEST
    manifest = json.loads(path.read_bytes())
    change(manifest)
    path.write_text(json.dumps(manifest))


def refused(folder: Path, text: str) -> None:
    with pytest.raises(BundleError, match=text) as caught:
        open_bundle(folder)
    assert caught.value.exit_code == 2


def test_a_good_bundle_opens_and_starts(made: Path) -> None:
    opened = open_bundle(made)
    assert [spec.name for spec in opened.manifest.inputs] == ["x"]
    assert opened.golden.inputs["x"].shape == (4, 4)
    started = start(opened)
    assert started.variant.variant.name == "a"
    assert started.notes == ()
    close(started.sessions)


def test_a_run_folder_holds_its_bundle(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "run" / "bundle")
    assert open_bundle(tmp_path / "run").root == tmp_path / "run" / "bundle"


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "does not exist")
    refused(tmp_path, "has no bundle.json")


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b"\xff", b'{"format": 1}', b"[" * 100_000])
def test_a_damaged_manifest_is_refused(copy: Path, text: bytes) -> None:
    (copy / MANIFEST).write_bytes(text)
    refused(copy, "bundle.json|too deep")


def test_a_huge_manifest_is_refused_unread(copy: Path) -> None:
    with (copy / MANIFEST).open("r+b") as file:
        file.truncate(2**34)
    refused(copy, "at most 8388608 bytes")


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("format must be 1, got 2", lambda m: m.update(format=2)),
        ("unknown field", lambda m: m.update(surprise=1)),
        ("must be listed", lambda m: m.update(variants=[])),
        ("runtime must be one of .*onnx_runtime.*got 'pickle'", lambda m: m["variants"][0]["plan"].update(runtime="pickle")),
        ("instances must lie between", lambda m: m["variants"][0]["plan"].update(instances=10**9)),
        ("max_batch must lie between", lambda m: m["variants"][0]["plan"].update(max_batch=0)),
        ("the name must be", lambda m: m.update(name="../x")),
        ("the server speaks", lambda m: m["inputs"][0].update(dtype="object")),
        ("stay inside", lambda m: m["variants"][0].update(file="../m.onnx")),
        ("stay inside", lambda m: m["variants"][0].update(file="/etc/passwd")),
        ("stay inside", lambda m: m["variants"][0].update(file="models\\0\\m.onnx")),
        ("stay inside", lambda m: m.update(golden="../golden.npz")),
        ("missing", lambda m: m["variants"][0].update(file="models/none.onnx")),
        ("missing", lambda m: m["variants"][0].update(file="models")),
        ("digest", lambda m: m["variants"][0].update(digest="0" * 64)),
        ("digest", lambda m: m.update(golden_digest="0" * 64)),
    ],
)
def test_a_tampered_manifest_is_refused(copy: Path, text: str, change: Callable[[dict[str, Any]], object]) -> None:
    edit(copy, change)
    refused(copy, text)


def test_a_changed_file_is_refused(copy: Path) -> None:
    model = copy / "models" / "1" / "n.onnx"
    model.write_bytes(model.read_bytes() + b"\0")
    refused(copy, "digest|ONNX")


def test_a_link_that_leads_out_is_refused(copy: Path, made: Path) -> None:
    model = copy / "models" / "0" / "m.onnx"
    model.unlink()
    model.symlink_to(made / "models" / "0" / "m.onnx")
    refused(copy, "a link that leads out")


def replace_golden(folder: Path, write: Callable[[Path], object]) -> None:
    write(folder / "golden.npz")
    digest = hashlib.sha256((folder / "golden.npz").read_bytes()).hexdigest()
    edit(folder, lambda m: m.update(golden_digest=digest))


def test_a_pickle_in_the_golden_set_is_never_opened(copy: Path) -> None:
    def write(path: Path) -> None:
        arrays = dict(np.load(path))
        arrays["input/x"] = np.array([{"a": 1}], dtype=object)
        np.savez(path, **arrays)

    replace_golden(copy, write)
    refused(copy, "plain arrays")


def test_a_golden_set_that_unpacks_to_too_much_is_refused(copy: Path) -> None:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("input/x.npy", "w", force_zip64=True) as file:
            for _ in range(300):
                file.write(bytes(2**20))

    replace_golden(copy, write)
    refused(copy, "unpack to at most")


@pytest.mark.parametrize("data", [b"", b"text", b"PK\x03\x04" + bytes(50)])
def test_a_damaged_golden_set_is_refused(copy: Path, data: bytes) -> None:
    replace_golden(copy, lambda path: path.write_bytes(data))
    refused(copy, "plain arrays")


def external_model(folder: Path, location: str) -> Path:
    model = onnx.load(affine_model(folder / "plain.onnx"))
    weight = model.graph.initializer[0]
    (folder / "weights.bin").write_bytes(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    weight.external_data.add(key="length", value="4")
    path = folder / "external.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_is_found_bundled_and_part_of_the_digest(tmp_path: Path) -> None:
    path = external_model(tmp_path, "weights.bin")
    assert external_files(path) == {"weights.bin"}
    opened = bundle(tmp_path / "b", entry(path))
    close(start(opened).sessions)
    (tmp_path / "b" / "models" / "0" / "weights.bin").write_bytes(np.float32(3).tobytes())
    refused(tmp_path / "b", "digest")


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname"])
def test_external_data_outside_the_bundle_is_refused(copy: Path, tmp_path: Path, location: str) -> None:
    model = copy / "models" / "0" / "m.onnx"
    model.write_bytes(external_model(tmp_path, location).read_bytes())
    edit(copy, lambda m: m["variants"][0].update(digest=hashlib.sha256(model.read_bytes()).hexdigest()))
    refused(copy, "stay inside")


def test_external_files_inside_subgraphs_are_found(tmp_path: Path) -> None:
    inner = onnx.helper.make_tensor("c", onnx.TensorProto.FLOAT, [1], [1.0])
    inner.ClearField("float_data")
    inner.data_location = onnx.TensorProto.EXTERNAL
    inner.external_data.add(key="location", value="deep.bin")
    constant = onnx.helper.make_node("Constant", [], ["k"], value=inner)
    branch = onnx.helper.make_graph([constant], "b", [], [onnx.helper.make_tensor_value_info("k", 1, [1])])
    node = onnx.helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], []))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert external_files(tmp_path / "m.onnx") == {"deep.bin"}


@pytest.mark.parametrize("data", [b"", b"hello, this is text and no model", b"\x3a\xff\xff\xff\xff\x0f", b"\x0b", b"\x80" * 20])
def test_what_is_no_model_is_refused(copy: Path, data: bytes) -> None:
    (copy / "models" / "0" / "m.onnx").write_bytes(data)
    refused(copy, "ONNX model")


def test_a_variant_that_answers_differently_is_passed_over(tmp_path: Path) -> None:
    opened = bundle(tmp_path / "b", entry(affine_model(tmp_path / "m.onnx")), entry(affine_model(tmp_path / "n.onnx"), "second"))
    opened.golden.outputs[0]["y"][:] *= 1.5
    started = start(opened)
    assert started.variant.variant.name == "second"
    assert "'a' is not served" in started.notes[0]
    assert "differs from the golden set by 0.3" in started.notes[0]
    close(started.sessions)
    with pytest.raises(BundleError, match="'a' is not served"):
        start(opened, "a")
    with pytest.raises(BundleError, match="must be one of a, second"):
        start(opened, "third")


def test_when_no_variant_agrees_nothing_is_served(tmp_path: Path) -> None:
    opened = bundle(tmp_path / "b", entry(affine_model(tmp_path / "m.onnx")))
    opened.golden.outputs[0]["top"][:] += 1
    with pytest.raises(BundleError, match=r"output 'top' differs .*by 1"):
        start(opened)


def test_free_sizes_are_replayed_too(tmp_path: Path) -> None:
    opened = bundle(tmp_path / "b", entry(lookup_model(tmp_path / "m.onnx")))
    assert opened.golden.inputs["ids"].shape == (4, 16)
    close(start(opened).sessions)


def test_the_difference_is_relative_and_knows_nan() -> None:
    a = np.array([3.0, 4.0], np.float32)
    assert difference(a, a) == 0
    assert difference(a * np.float32(1.01), a) == pytest.approx(0.01, rel=1e-3)
    assert difference(np.array([np.nan, 1.0]), np.array([np.nan, 1.0])) == 0
    assert difference(np.array([np.nan, 1.0]), np.array([1.0, 1.0])) == float("inf")
    assert difference(np.array([1.0, np.inf]), np.array([1.0, -np.inf])) == float("inf")
    assert difference(a[:1], a) == float("inf")
    assert difference(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5])) == 0.25
    assert difference(np.zeros(3), np.zeros(3)) == 0


def test_a_wide_manifest_does_not_loosen_float32(made: Path) -> None:
    manifest = open_bundle(made).manifest
    plan = Plan(runtime="onnx_runtime")
    variants = tuple(BundledVariant(variant=variant("v", kind), file="f", digest="", plan=plan) for kind in ("float32", "int8"))
    wide = msgspec.structs.replace(manifest, tolerance=0.05, variants=variants)
    assert tolerance(wide, 0) == 1e-3
    assert tolerance(wide, 1) == 0.05
