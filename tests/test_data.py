"""Readers, the fit to a model, and every way in which samples can be wrong."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headway.data import Dataset, ImageSettings, check, dataset_from_arrays, load
from headway.records import DataError, TensorSpec

settings.register_profile("steady", deadline=None)  # timing never decides a test
settings.load_profile("steady")

X = TensorSpec(name="x", dtype="float32", shape=("batch", 4))
ROWS = np.arange(48, dtype=np.float32).reshape(12, 4)


def saved(folder: Path, **arrays: object) -> str:
    path = folder / "val.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return str(path)


def test_npz(tmp_path: Path) -> None:
    reference = saved(
        tmp_path,
        x=ROWS,
        label=np.arange(12) % 3,
        group=np.array(["a", "b"] * 6),
        cluster=np.arange(12) // 2,
        labels=np.array(["p", "q", "r"]),
    )
    data = load(reference)
    assert len(data) == 12
    assert set(data.inputs) == {"x"}
    assert data.groups is not None and data.groups.tolist()[:2] == ["a", "b"]
    assert data.clusters is not None and data.labels is not None
    assert data.class_names == ("p", "q", "r")
    assert data.source == reference
    assert check(data, (X,)).inputs["x"].dtype == np.float32


def test_text_labels_become_class_indices(tmp_path: Path) -> None:
    data = load(saved(tmp_path, x=ROWS, label=np.array(["dog", "cat"] * 6)))
    assert data.class_names == ("cat", "dog")
    assert data.labels is not None and data.labels.tolist() == [1, 0] * 6
    named = load(saved(tmp_path, x=ROWS, label=np.array(["dog", "cat"] * 6), labels=np.array(["dog", "cat", "cow"])))
    assert named.labels is not None and named.labels.tolist() == [0, 1] * 6
    with pytest.raises(DataError, match="'cat'; add it there"):
        load(saved(tmp_path, x=ROWS, label=np.array(["dog", "cat"] * 6), labels=np.array(["dog"])))


def test_number_groups_become_text() -> None:
    data = dataset_from_arrays({"x": ROWS, "group": np.arange(12)}, "here")
    assert data.groups is not None and data.groups[3] == "3"


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "val.parquet"
    table = pa.table(
        {
            "x": [row.tolist() for row in ROWS],
            "cube": [[[1, 2], [3, 4], [5, 6]]] * 12,
            "fixed": pa.array([[1.0, 2.0]] * 12, pa.list_(pa.float32(), 2)),
            "one": np.arange(12.0),
            "flag": [True, False] * 6,
            "label": pa.array(["no", "yes"] * 6).dictionary_encode(),
            "group": ["old", "new"] * 6,
        }
    )
    pq.write_table(table, path, row_group_size=5)
    data = load(str(path))
    shapes = {name: array.shape for name, array in data.inputs.items()}
    assert shapes == {"x": (12, 4), "cube": (12, 3, 2), "fixed": (12, 2), "one": (12,), "flag": (12,)}
    assert np.array_equal(data.inputs["x"], ROWS)
    assert data.class_names == ("no", "yes")
    assert data.labels is not None and data.labels.tolist() == [0, 1] * 6
    one = check(Dataset({"one": data.inputs["one"]}), (TensorSpec(name="one", dtype="float32", shape=("n", 1)),))
    assert one.inputs["one"].shape == (12, 1)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"x": [[1.0, 2.0], [1.0]]}, "same length, got 2 in row 0 and 1 in row 1"),
        ({"x": [[[1], [2]], [[3], [4, 5]]]}, "and 2 in row 1"),
        ({"x": [[1.0, None], [1.0, 2.0]]}, "empty one in row 0"),
        ({"x": [[1.0], None]}, "empty one in row 1"),
        ({"x": [1.0, None]}, "empty one in row 1"),
        ({"x": [{"a": 1}, {"a": 2}]}, "numbers, text or lists"),
        ({"label": [1, 2]}, "at least one array named as a model input"),
    ],
)
def test_parquet_refuses(tmp_path: Path, columns: dict[str, object], message: str) -> None:
    path = tmp_path / "val.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(DataError, match=message):
        load(str(path))


def paint(folder: Path, name: str, colour: tuple[int, int, int], count: int = 2, size: tuple[int, int] = (10, 6)) -> None:
    (folder / name).mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", size, colour).save(folder / name / f"{number}.png")


def test_image_folder(tmp_path: Path) -> None:
    paint(tmp_path, "red", (255, 0, 0))
    paint(tmp_path, "blue", (0, 0, 255), count=3)
    (tmp_path / "red" / "notes.txt").write_text("no image")
    (tmp_path / ".cache").mkdir()
    first = load(str(tmp_path), inputs=(TensorSpec(name="pixels", dtype="float32", shape=("n", 3, 4, 5)),))
    assert first.inputs["pixels"].shape == (5, 3, 4, 5)
    assert first.class_names == ("blue", "red")
    assert first.labels is not None and first.labels.tolist() == [0, 0, 0, 1, 1]
    assert np.allclose(first.inputs["pixels"][3, :, 0, 0], [1, 0, 0])
    last = load(str(tmp_path), inputs=(TensorSpec(name="pixels", dtype="uint8", shape=("n", 4, 5, 3)),))
    assert last.inputs["pixels"][3, 0, 0].tolist() == [255, 0, 0]
    grey = load(str(tmp_path), inputs=(TensorSpec(name="pixels", dtype="float32", shape=("n", 1, 4, 5)),))
    assert grey.inputs["pixels"].shape == (5, 1, 4, 5)
    plain = load(str(tmp_path))
    assert plain.inputs["image"].shape == (5, 3, 6, 10)


def test_image_settings(tmp_path: Path) -> None:
    paint(tmp_path, "a", (255, 0, 0), size=(40, 30))
    spec = (TensorSpec(name="pixels", dtype="float32", shape=("n", 3, "h", "w")),)
    settings = ImageSettings(mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 0.5), size=(8, 6), crop=0.875)
    data = load(str(tmp_path), inputs=spec, images=settings)
    assert data.inputs["pixels"].shape == (2, 3, 8, 6)
    assert np.allclose(data.inputs["pixels"][0, :, 0, 0], [2, -1, -1])
    with pytest.raises(DataError, match="leaves the image size free"):
        load(str(tmp_path), inputs=spec)
    with pytest.raises(DataError, match="1 or 3 values"):
        load(str(tmp_path), inputs=spec, images=ImageSettings(mean=(0.1, 0.2), size=(4, 4)))


def test_number_folders_are_the_class_numbers(tmp_path: Path) -> None:
    for name in ("0", "2", "10"):
        paint(tmp_path, name, (1, 2, 3), count=1)
    data = load(str(tmp_path))
    assert data.labels is not None and data.labels.tolist() == [0, 2, 10]
    assert data.class_names == ()


def test_image_folder_refuses(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="one folder a class, got none"):
        load(str(tmp_path))
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="must hold images"):
        load(str(tmp_path))
    (tmp_path / "a" / "0.png").write_bytes(b"\x89PNG not really")
    with pytest.raises(DataError, match=r"0\.png: must be a readable image"):
        load(str(tmp_path))
    for shape, message in ((("n", 5), "four dimensions"), (("n", 7, 8, 9), "channels")):
        with pytest.raises(DataError, match=message):
            load(str(tmp_path), inputs=(TensorSpec(name="x", dtype="float32", shape=shape),))


def module(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    (folder / "samples_here.py").write_text(body)
    monkeypatch.chdir(folder)
    monkeypatch.delitem(sys.modules, "samples_here", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))


def test_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module(tmp_path, monkeypatch, "def make():\n    return {'x': [[1.0, 2.0]] * 11, 'label': [True] * 11}\n")
    data = load("python:samples_here:make")
    assert data.inputs["x"].shape == (11, 2)
    assert data.labels is not None and data.labels.dtype == np.int64


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("python:samples_here", "python:module:callable"),
        ("python:samples_here:", "python:module:callable"),
        ("python:no_such_module_here:make", "must import, got ModuleNotFoundError"),
        ("python:samples_here:nothing", "got nothing of that name"),
        ("python:samples_here:NUMBER", "got int"),
        ("python:samples_here:fail", "got ZeroDivisionError"),
        ("python:samples_here:number", "mapping of names to arrays, got int"),
        ("python:samples_here:ragged", "'x' must be an array"),
        ("python:samples_here:objects", "got object"),
    ],
)
def test_function_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str, message: str) -> None:
    body = "NUMBER = 3\ndef fail(): return 1 / 0\ndef number(): return 3\ndef ragged(): return {'x': [[1], [1, 2]]}\n"
    module(tmp_path, monkeypatch, body + "def objects(): return {'x': [None, object()]}\n")
    with pytest.raises(DataError, match=message):
        load(reference)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    ragged = np.empty(2, dtype=object)
    ragged[:] = [[1], [1, 2]]
    with pytest.raises(DataError, match="never unpickled"):
        load(saved(tmp_path, x=ragged))


def damage_text(path: Path) -> None:
    path.write_text("this is no archive\n" * 100)


def damage_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-120])


def damage_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(bytes(content))


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_stranger(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("readme.txt", "hello")


@pytest.mark.parametrize("damage", [damage_text, damage_cut, damage_byte, damage_empty, damage_stranger])
def test_damaged_npz(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = Path(saved(tmp_path, x=ROWS, label=np.arange(12)))
    damage(path)
    with pytest.raises(DataError, match=r"val\.npz: "):
        load(str(path))


def test_npz_with_a_lying_header(tmp_path: Path) -> None:
    path = tmp_path / "val.npz"
    header = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + b"{'descr': '<f4', 'fortran_order': False, 'shape': (9000000000000, 4), }"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header.ljust(127) + b"\n" + b"0" * 64)
    with pytest.raises(DataError, match="member 'x' must be a plain array"):
        load(str(path))


def test_what_is_no_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        load(str(tmp_path / "none.npz"))
    (tmp_path / "val.csv").write_text("a,b\n")
    with pytest.raises(DataError, match=r"ending in '\.csv'"):
        load(str(tmp_path / "val.csv"))
    (tmp_path / "val.parquet").write_text("no table")
    with pytest.raises(DataError, match="must be a Parquet file"):
        load(str(tmp_path / "val.parquet"))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": ROWS, "label": np.arange(11)}, "same number of rows, got x 12, label 11"),
        ({"x": ROWS, "group": np.arange(3)}, "group 3"),
        ({"x": ROWS, "y": ROWS[:2]}, "x 12, y 2"),
        ({"x": 3.0}, "got a single value"),
        ({"x": ROWS, "group": ROWS}, "one value a row"),
        ({"x": ROWS, "labels": np.arange(12)}, "class names as text"),
        ({}, "got nothing"),
        ({"x": ROWS.astype(complex)}, "numbers or text, got complex"),
    ],
)
def test_arrays_that_do_not_fit_together(arrays: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        dataset_from_arrays(arrays, "here")


def nan_at(row: int, value: float) -> np.ndarray:
    rows = ROWS.copy()
    rows[row:, 2] = value
    return rows


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Dataset({"X": ROWS}), "input 'x', got X; add"),
        (Dataset({"xx": ROWS}), "did you mean 'xx'"),
        (Dataset({}), "got nothing; add"),
        (Dataset({"x": ROWS, "lable": ROWS}), "got 'lable'; did you mean 'label'"),
        (Dataset({"x": ROWS, "id": ROWS}), "got 'id'; remove it"),
        (Dataset({"x": ROWS[:, :3]}), "axis 1 must be 4, not 3"),
        (Dataset({"x": ROWS[:, None]}), "give 2 axes, not 3"),
        (Dataset({"x": ROWS[:9]}), "at least 10 rows .* got 9"),
        (Dataset({"x": ROWS[:0]}), "got 0"),
        (Dataset({"x": nan_at(7, np.nan)}), r"got NaN first in row 7, 5 row\(s\)"),
        (Dataset({"x": nan_at(3, np.inf)}), "got infinity first in row 3"),
        (Dataset({"x": ROWS}, labels=np.array([0.0] * 11 + [np.nan])), "'label' must hold finite .* row 11"),
        (Dataset({"x": ROWS}, labels=np.zeros(5)), "x 12, label 5"),
        (Dataset({"x": ROWS.astype(str)}), "must be float32, got <U"),
        (Dataset({"x": ROWS.astype(np.float64) * 1e39}), "scale it down"),
        (Dataset({"x": ROWS.astype(np.int64) + 2**40}), "would lose values"),
    ],
)
def test_samples_that_do_not_fit_the_model(data: Dataset, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check(data, (X,))


@pytest.mark.parametrize(
    ("given_type", "wanted", "fits"),
    [
        ("float64", "float32", True),
        ("float16", "float32", True),
        ("float32", "float64", True),
        ("float32", "float16", False),
        ("int32", "int64", True),
        ("int64", "int32", True),
        ("int64", "float32", True),
        ("uint8", "float32", True),
        ("float32", "int64", False),
        ("float32", "bool", False),
        ("bool", "bool", True),
        ("int64", "bfloat16", False),
        ("int64", "object", False),
    ],
)
def test_types(given_type: str, wanted: str, fits: bool) -> None:
    data = Dataset({"x": ROWS.astype(given_type)})
    spec = TensorSpec(name="x", dtype=wanted, shape=("batch", 4))
    if fits:
        assert check(data, (spec,)).inputs["x"].dtype == wanted
    else:
        with pytest.raises(DataError):
            check(data, (spec,))


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=10, max_size=10), st.sampled_from(["int8", "int32", "uint8", "uint64", "float32"])
)
def test_whole_numbers_are_cast_only_when_each_survives(values: list[int], wanted: str) -> None:
    data, spec = Dataset({"x": np.array(values)}), TensorSpec(name="x", dtype=wanted, shape=("n",))
    try:
        assert check(data, (spec,)).inputs["x"].astype(object).tolist() == values
    except DataError:
        info = (-(2**24), 2**24) if wanted == "float32" else (int(np.iinfo(wanted).min), int(np.iinfo(wanted).max))
        assert min(values) < info[0] or max(values) > info[1]


def test_inputs_come_in_the_models_order_and_share_dimensions() -> None:
    specs = tuple(TensorSpec(name=name, dtype="int64", shape=("n", "length")) for name in ("ids", "mask"))
    fine = check(Dataset({"mask": np.ones((10, 7), int), "ids": np.ones((10, 7), int)}), specs)
    assert list(fine.inputs) == ["ids", "mask"]
    with pytest.raises(DataError, match="same 'length', got 7 and 6"):
        check(Dataset({"mask": np.ones((10, 6), int), "ids": np.ones((10, 7), int)}), specs)


def test_channels_on_the_wrong_side() -> None:
    spec = TensorSpec(name="x", dtype="float32", shape=("n", 3, 8, 9))
    with pytest.raises(DataError, match=r"use transpose\(0, 3, 1, 2\)"):
        check(Dataset({"x": np.zeros((10, 8, 9, 3), np.float32)}), (spec,))


def test_no_values_in_a_row() -> None:
    with pytest.raises(DataError, match="at least one value a row"):
        check(Dataset({"x": np.zeros((10, 0), np.float32)}), (TensorSpec(name="x", dtype="float32", shape=("n", "m")),))


def test_digest_is_of_the_content() -> None:
    labels = np.arange(12)
    one = Dataset({"x": ROWS, "y": ROWS}, labels, source="here")
    assert one.digest == Dataset({"y": ROWS.copy(), "x": ROWS}, labels.copy(), source="there").digest
    changed = ROWS.copy()
    changed[11, 3] += 1
    others = [
        Dataset({"x": ROWS, "y": changed}, labels),
        Dataset({"x": ROWS, "y": ROWS}, labels[::-1]),
        Dataset({"x": ROWS, "z": ROWS}, labels),
        Dataset({"x": ROWS, "y": ROWS}, groups=labels),
        Dataset({"x": ROWS, "y": ROWS}, labels, class_names=("a",)),
        Dataset({"x": ROWS.astype(np.float64), "y": ROWS}, labels),
    ]
    assert len({one.digest, *(other.digest for other in others)}) == 7


def test_take_keeps_rows_together() -> None:
    data = Dataset({"x": ROWS}, np.arange(12), np.arange(12).astype(str), np.arange(12), "here", ("a",))
    part = data.take([5, 2])
    assert len(part) == 2
    assert part.inputs["x"].tolist() == ROWS[[5, 2]].tolist()
    assert part.labels is not None and part.labels.tolist() == [5, 2]
    assert part.groups is not None and part.groups.tolist() == ["5", "2"]
    assert part.class_names == ("a",)
