"""What every file of ``deploy/targets`` must do, whatever it writes; a new target is picked up by itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headway.deploy import read_export, target_lines, targets, verify, write_export
from headway.discovery import discover, first_line, names
from headway.records import BundleError, ConfigError, Export, HeadwayError, Plan
from headway.serve import OpenBundle
from serving import affine_model, bundle, entry, lookup_model

FOUND = discover(targets)
NEEDED = {"kserve": {"image": "registry.example/m:1"}}
"""Settings without which a target writes nothing."""
PLAN = Plan(runtime="onnx_runtime", instances=1, threads=1, max_batch=4)
FREE = "My.Model_1"
COSTLY = ("ray",)
"""Targets that start a cluster to be checked: with one of the bundles here, with every one in the slow tests."""


@pytest.fixture(scope="module", params=["free batch", "fixed batch", "ids"])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> OpenBundle:
    folder = tmp_path_factory.mktemp("opened")
    if request.param == "ids":
        return bundle(folder / "b", entry(lookup_model(folder / "m.onnx"), "a", PLAN))
    if request.param == "fixed batch":
        return bundle(folder / "b", entry(affine_model(folder / "m.onnx", batch=2), "a", Plan(runtime="onnx_runtime")))
    return bundle(folder / "b", entry(affine_model(folder / "m.onnx"), "a", PLAN), name=FREE)


@pytest.fixture(params=names(targets))
def target(request: pytest.FixtureRequest) -> str:
    if request.param in FOUND.missing:
        pytest.skip(FOUND.missing[request.param])
    return str(request.param)


def written(target: str, opened: OpenBundle, folder: Path) -> Export:
    try:
        return write_export(target, opened, folder, settings=NEEDED.get(target, {}))
    except HeadwayError as error:
        assert not folder.exists()
        assert re.search(r"\bmust\b|needs?\b|cannot\b", str(error)), "a refusal is a sentence"
        pytest.skip(f"refused: {error}")


def test_help_names_it(target: str) -> None:
    assert f"{target}: {first_line(targets, target)}" in target_lines()
    for name, meaning in FOUND.present[target].SETTINGS.items():
        assert name.isidentifier() and len(meaning.split()) > 2


def test_the_folder_reads_back_and_answers_as_the_bundle(target: str, opened: OpenBundle, tmp_path: Path) -> None:
    if target in COSTLY and opened.manifest.name != FREE:
        pytest.skip("starts a cluster: make test-slow")
    reads_back(target, opened, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("target", COSTLY, indirect=True)
def test_so_does_one_that_starts_a_cluster(target: str, opened: OpenBundle, tmp_path: Path) -> None:
    reads_back(target, opened, tmp_path)


def reads_back(target: str, opened: OpenBundle, tmp_path: Path) -> None:
    export = written(target, opened, tmp_path / "e")
    assert read_export(tmp_path / "e") == export
    assert export.target == target and export.variant == "a" and export.start
    found = verify(tmp_path / "e")
    assert found.files == len(export.files)
    assert found.model_difference is None or found.model_difference <= export.tolerance
    assert found.server_difference is not None or found.asked
    assert read_export(tmp_path / "e") == export, "checking changes nothing"


def test_no_path_of_this_machine_is_in_it(target: str, opened: OpenBundle, tmp_path: Path) -> None:
    written(target, opened, tmp_path / "e")
    here = {str(tmp_path).encode(), str(opened.root).encode(), str(Path(__file__).parent.parent).encode()}
    for path in (tmp_path / "e").rglob("*"):
        if path.is_file() and path.suffix not in (".onnx", ".npz"):
            assert not any(place in path.read_bytes() for place in here), path.name


def test_the_same_again_gives_the_same_files_and_replaces_them(target: str, opened: OpenBundle, tmp_path: Path) -> None:
    first = written(target, opened, tmp_path / "e")
    again = written(target, opened, tmp_path / "e")
    assert {name: digest for name, digest in first.files.items() if name != first.golden} == {
        name: digest for name, digest in again.files.items() if name != again.golden
    }


def test_unknown_settings_are_refused_before_anything_is_written(target: str, opened: OpenBundle, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no_such_setting"):
        write_export(target, opened, tmp_path / "e", settings={"no_such_setting": "1"})
    assert not list(tmp_path.iterdir())


def test_a_changed_file_is_named(target: str, opened: OpenBundle, tmp_path: Path) -> None:
    export = written(target, opened, tmp_path / "e")
    for name in export.files:
        path = tmp_path / "e" / name
        before = path.read_bytes()
        path.write_bytes(before + b" ")
        with pytest.raises(BundleError, match=re.escape(repr(name))):
            read_export(tmp_path / "e")
        path.write_bytes(before)
    read_export(tmp_path / "e")
