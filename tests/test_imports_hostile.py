"""Folders and archives that lie, lead elsewhere or are too large are refused with a sentence, before anything of them is used."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.model import load
from headway.model.served import _archive, _files
from headway.model.torch_file import not_torchscript
from headway.records import ModelError
from imported_folders import CONFIG, graph_bytes, mar, mar_files, mlserver, triton, write

MIB = 2**20


def refused(place: Path | str, *reasons: str) -> None:
    with pytest.raises(ModelError) as error:
        load(str(place))
    assert any(reason in str(error.value) for reason in reasons), str(error.value)


@pytest.mark.parametrize(
    "config",
    [
        "name: 5 {",
        "max_batch_size: many",
        "max_batch_size: 99999999999999999999",
        "instance_group { kind: KIND_OTHER }",
        "a { " * 5000 + "}" * 5000,
        "input { reshape { " * 2000,
        '"' + "x" * 100_000,
        "name: 'never closed",
    ],
)
def test_a_configuration_that_is_none(tmp_path: Path, config: str) -> None:
    refused(triton(tmp_path / "dense", config), "must be in protobuf's text format")


def test_a_configuration_of_other_bytes_or_too_large(tmp_path: Path) -> None:
    folder = triton(tmp_path / "dense")
    write(folder / "config.pbtxt", b"\xff\xfe\x00name")
    refused(folder, "must be a text in UTF-8")
    write(folder / "config.pbtxt", b"#" * (MIB + 1))
    refused(folder, "must be at most 1048576 bytes, got 1048577")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("instance_group { count: 2000000000 }", "instances must be from 1 to 1024"),
        ("max_batch_size: 2000000000 dynamic_batching {}", "largest batch must be from 1"),
        ("max_batch_size: 8 dynamic_batching { max_queue_delay_microseconds: 18446744073709551615 }", "must be from 0 to 3600 s"),
        ('parameters { key: "intra_op_thread_count" value { string_value: "-1" } }', "intra_op_thread_count must be a number"),
        ('parameters { key: "intra_op_thread_count" value { string_value: "' + "9" * 5000 + '" } }', "intra_op_thread_count must be a number"),
        ('default_model_filename: "../../secret.onnx"', "do not trust this folder"),
        ('default_model_filename: "/etc/passwd"', "do not trust this folder"),
        ('default_model_filename: "link.onnx"', "do not trust this folder"),
        ('default_model_filename: "circle.onnx"', "do not trust this folder", ),
        ('output { name: "y" label_filename: "../secret.txt" }', "do not trust this folder"),
    ],
)  # fmt: skip
def test_numbers_and_paths_of_a_configuration(tmp_path: Path, config: str, reason: str) -> None:
    folder = triton(tmp_path / "dense", f'backend: "onnxruntime" {config}')
    for secret in ("secret.onnx", "secret.txt"):
        write(tmp_path / secret, graph_bytes())
    (folder / "1" / "link.onnx").symlink_to(tmp_path / "secret.onnx")
    (folder / "1" / "circle.onnx").symlink_to(folder / "1" / "circle.onnx")
    refused(folder, reason)


@pytest.mark.parametrize("linked", ["config.pbtxt", "1"])
def test_links_out_of_a_folder(tmp_path: Path, linked: str) -> None:
    folder, outside = triton(tmp_path / "dense"), tmp_path / "outside"
    (folder / linked).rename(outside)
    (folder / linked).symlink_to(outside)
    refused(folder, "do not trust this folder")


def test_links_within_a_folder_are_followed(tmp_path: Path) -> None:
    """As Kubernetes mounts a ConfigMap."""
    folder = triton(tmp_path / "dense")
    (folder / "..data").mkdir()
    (folder / "config.pbtxt").rename(folder / "..data" / "config.pbtxt")
    (folder / "config.pbtxt").symlink_to(Path("..data") / "config.pbtxt")
    assert load(str(folder)).served_by is not None


def test_a_saved_model_with_a_link_out_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    write(folder / "1" / "saved_model.pb", b"x")
    (folder / "1" / "variables").symlink_to("/etc")
    refused(folder, "do not trust this folder")


def test_a_folder_of_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_files, "MAX_FILES", 3)
    for name in range(4):
        write(tmp_path / "shop" / "1" / "assets" / str(name), b"")
    write(tmp_path / "shop" / "1" / "saved_model.pb", b"x")
    refused(tmp_path / "shop", "must hold at most 3 files")


@pytest.mark.parametrize("settings", ["", "[]", "nothing", '{"a": ' * 5000, "[" * 100_000, '{"max_batch_size": ' + "9" * 5000 + "}"])
def test_settings_that_are_no_object(tmp_path: Path, settings: str) -> None:
    write(mlserver(tmp_path / "shop", {}) / "model-settings.json", settings)
    refused(tmp_path / "shop", "must hold JSON", "must hold a JSON object")


def archive(path: Path, entries: list[tuple[zipfile.ZipInfo | str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        for entry, content in entries:
            made.writestr(entry, content)
    return path


def link() -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("dense.onnx")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([("../dense.onnx", b"x")], "names another place"),
        ([("/tmp/dense.onnx", b"x")], "names another place"),
        ([("a/../../dense.onnx", b"x")], "names another place"),
        ([("a\\..\\dense.onnx", b"x")], "names another place"),
        ([("C:dense.onnx", b"x")], "names another place"),
        ([(link(), b"/etc/passwd")], "is a link or a device"),
        ([], "MANIFEST.json: must be there"),
        ([("MAR-INF/MANIFEST.json", b"{}")], "must have a 'model'"),
        ([("MAR-INF", b"x"), ("MAR-INF/MANIFEST.json", b"{}")], "must be readable"),
        ([("n" * 300 + "/MANIFEST.json", b"{}")], "must be readable"),
    ],
)
def test_archives_that_lead_elsewhere(tmp_path: Path, entries: list[tuple[zipfile.ZipInfo | str, bytes]], reason: str) -> None:
    refused(archive(tmp_path / "shop.mar", entries), reason)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["shop.mar"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_a_file_twice(tmp_path: Path) -> None:
    refused(archive(tmp_path / "shop.mar", [("a", b"1"), ("a", b"2")]), "is there twice")


def test_archives_that_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = mar(tmp_path / "shop.mar", {"dense.onnx": bytes(10_000)}, serializedFile="dense.onnx")
    monkeypatch.setattr(_archive, "MAX_UNPACKED_BYTES", 9_000)
    refused(path, "must unpack to at most")
    monkeypatch.setattr(_archive, "MAX_FILES", 1)
    refused(path, "must hold at most 1 files, got 2")


def changed(path: Path, change: Callable[[bytearray], None]) -> Path:
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)
    return path


def test_an_archive_whose_directory_lies_about_a_size(tmp_path: Path) -> None:
    """The directory says that the packed zeros are few (a bomb that passes the sum), or many."""
    for size in (10, 10**6):
        path = mar(tmp_path / "shop.mar", {"dense.onnx": bytes(100_000)}, serializedFile="dense.onnx")

        def lie(content: bytearray, size: int = size) -> None:
            start = content.rfind(b"PK\x01\x02")
            struct.pack_into("<I", content, start + 24, size)

        refused(changed(path, lie), "damaged or foreign")


def test_an_archive_whose_directory_is_too_large_to_hold(tmp_path: Path) -> None:
    path = tmp_path / "shop.mar"
    with path.open("wb") as file:
        file.truncate(40 * MIB)
        file.seek(40 * MIB)
        file.write(b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 65535, 65535, 40 * MIB, 0, 0))
    refused(path, "its directory takes 41943040 bytes")


def test_an_encrypted_archive(tmp_path: Path) -> None:
    path = mar(tmp_path / "shop.mar", {}, serializedFile="dense.onnx")

    def lock(content: bytearray) -> None:
        content[content.rfind(b"PK\x01\x02") + 8] |= 1

    refused(changed(path, lock), "is encrypted")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"hello", bytes(1000)])
def test_files_that_are_no_archive(tmp_path: Path, content: bytes) -> None:
    refused(write(tmp_path / "shop.mar", content), "must be a whole zip archive")


def test_every_truncation_and_change_of_an_archive_is_a_clear_error_or_harmless(tmp_path: Path) -> None:
    whole = mar(tmp_path / "shop.mar", {"dense.onnx": b"x" * 40}, serializedFile="dense.onnx").read_bytes()

    @given(st.integers(0, len(whole) - 1), st.integers(0, 255), st.booleans())
    def check(place: int, byte: int, cut: bool) -> None:
        other = bytearray(whole[:place] if cut else whole)
        if not cut:
            other[place] = byte
        (tmp_path / "other.mar").write_bytes(other)
        with pytest.raises(ModelError):  # the graph itself is none, so that nothing can come in
            load(str(tmp_path / "other.mar"))

    check()


TORCH = {"m/constants.pkl": b"x", "m/data.pkl": b"x", "m/version": b"3"}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({**TORCH, "m/code/__torch__.py": b"return torch.relu(x)"}, ""),
        ({**TORCH, "m/code/__torch__.py": b"_0 = torch.save(x, '/tmp/y')"}, "calls the operator save"),
        ({**TORCH, "m/code/__torch__.py": b'return torch.from_file("/etc/passwd", None, 10)'}, "calls the operator from_file"),
        ({**TORCH, "m/code/a/b.py": b"ops.aten.from_file( 5)"}, "calls the operator from_file"),
        ({"m/data.pkl": b"x", "m/data/0": b"x"}, "saved by torch.save (eager mode)"),
        ({"m/models/model.json": b"x"}, "saved by torch.export; give it by itself"),
        ({"a": b"x"}, "no TorchScript archive"),
    ],
)
def test_what_a_file_of_pytorch_is(tmp_path: Path, files: dict[str, bytes], said: str) -> None:
    path = archive(tmp_path / "model.pt", list(files.items()))
    told = not_torchscript(path)
    assert said in told and bool(told) == bool(said)


def test_a_folder_of_torchserve_with_a_link_out_of_it(tmp_path: Path) -> None:
    write(tmp_path / "secret.onnx", graph_bytes())
    for name, content in mar_files({}, serializedFile="dense.onnx").items():
        write(tmp_path / "shop" / name, content)
    os.symlink(tmp_path / "secret.onnx", tmp_path / "shop" / "dense.onnx")
    refused(tmp_path / "shop", "do not trust this folder")


@given(text=st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: raw.decode("latin-1")))
def test_any_text_as_a_configuration_comes_in_or_is_refused(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = triton(tmp_path_factory.mktemp("any") / "dense", CONFIG + text.replace("\r", " "), {"1/model.onnx": b"no graph"})
    with pytest.raises(ModelError):
        load(str(folder))
