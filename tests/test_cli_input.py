"""What users get wrong: one clear message, exit code 2, no traceback, and nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import environment, headway
from headway.cli import main
from headway.records import read_journal

SLO = "p99<=50ms, drop<=5%"
Arguments = list[str]


def tree(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*")}


@pytest.fixture
def folder(tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in, with the model and good samples."""
    for name in ("model.onnx", "val.npz"):
        os.link(digits / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.parent / "cache"))
    yield tmp_path


def refused(arguments: Arguments, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The message of a command that must be refused and change nothing."""
    before = tree(folder)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    said = capsys.readouterr()
    assert ended.value.code == 2, said.err
    assert "Traceback" not in said.err
    errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, said.err
    assert tree(folder) == before, "nothing is left behind"
    return errors[0] + said.err[said.err.index(errors[0]) + len(errors[0]) :]


def tune(model: str = "model.onnx", data: str = "val.npz", slo: str = SLO, *more: str, out: str = "out") -> Arguments:
    return ["tune", model, "--data", data, "--slo", slo, "--out", out, *more]


def samples(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Arguments:
    """``tune`` on samples that were changed for the worse."""
    with np.load(folder / "val.npz") as arrays:
        np.savez(folder / "bad.npz", **change(dict(arrays)))
    return tune(data="bad.npz")


def without(arrays: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: array for key, array in arrays.items() if key != name}


def with_nan(arrays: dict[str, Any]) -> dict[str, Any]:
    arrays["image"][17, 0, 3, 3] = np.nan
    return arrays


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda a: {**without(a, "image"), "images": a["image"]}, ["'image'", "images", "rename"]),
        (lambda a: without(a, "image"), ["bad.npz", "input", "got label"]),
        (lambda a: {**a, "image": a["image"][:, :, :, :7]}, ["image", "1, 8, 7"]),
        (lambda a: {**a, "image": a["image"].reshape(900, 64)}, ["image", "64"]),
        (with_nan, ["NaN", "row 17"]),
        (lambda a: {**a, "label": a["label"].astype(float) * np.nan}, ["NaN"]),
        (lambda a: {**a, "label": a["label"][:-1]}, ["900", "899"]),
        (lambda a: {key: array[:0] for key, array in a.items()}, ["bad.npz", "no row"]),
        (lambda a: {key: array[:5] for key, array in a.items()}, ["at least 10 rows", "5"]),
        (lambda a: {}, ["bad.npz"]),
        (lambda a: {**a, "image": np.array(["x"] * 900)}, ["image"]),
        (lambda a: {**a, "image": np.array([object()] * 900)}, ["bad.npz"]),
        (lambda a: {**a, "lable": a["label"]}, ["'lable'", "'label'"]),
    ],
)
def test_bad_samples(change: Any, told: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(samples(folder, change), folder, capsys)
    assert [word for word in told if word not in message] == []


@pytest.mark.parametrize("name", ["model.onnx", "model.pt2", "model.keras", "model.txt"])
def test_a_text_file_is_no_model(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "text").mkdir()
    (folder / "text" / name).write_text("This is no model.\n")
    assert name in refused(tune(f"text/{name}"), folder, capsys)


@pytest.mark.parametrize("name", ["val.npz", "val.parquet", "val.csv"])
def test_a_text_file_is_no_data(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "text").mkdir()
    (folder / "text" / name).write_text("This is no data.\n")
    assert name in refused(tune(data=f"text/{name}"), folder, capsys)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["tune"], ["MODEL must be given"]),
        (["tune", "model.onnx"], ["--data must be given"]),
        (["tune", "model.onnx", "--data", "val.npz"], ["--slo must be given"]),
        (tune("nowhere.onnx"), ["nowhere.onnx"]),
        (tune("python:nowhere:make"), ["nowhere"]),
        (tune(data="nowhere.npz"), ["nowhere.npz", "must exist"]),
        (tune(data="python:nowhere:make"), ["nowhere"]),
        (tune(slo="p99<=50 parsecs"), ["unit"]),
        (tune(slo="p99<=50ms, dorp<=1%"), ["did you mean 'drop'"]),
        (tune(slo="p99<=50ms, arrivals=poison"), ["poison", "poisson"]),
        (tune("model.onnx", "val.npz", SLO, "--techniques", "quantise_static"), ["quantise_static", "did you mean 'quantize_static'"]),
        (tune("model.onnx", "val.npz", SLO, "--runtimes", "openvinno"), ["openvinno", "did you mean 'openvino'"]),
        (tune("model.onnx", "val.npz", SLO, "--metric", "acuracy"), ["acuracy", "accuracy"]),
        (tune("model.onnx", "val.npz", SLO, "--metric", "python:nowhere:make"), ["nowhere"]),
        (tune("model.onnx", "val.npz", SLO, "--track", "tensorbord"), ["tensorbord", "did you mean 'tensorboard'"]),
        (tune("model.onnx", "val.npz", SLO, "--budget", "soon"), ["budget", "soon"]),
        (tune("model.onnx", "val.npz", SLO, "--budget", "-5m"), ["budget"]),
        (tune("model.onnx", "val.npz", SLO, "--budget", "0s"), ["budget"]),
        (tune("model.onnx", "val.npz", SLO, "--train", "nowhere.npz"), ["nowhere.npz"]),
        (tune(out="val.npz/run"), ["val.npz/run"]),
        (tune(out="val.npz"), ["val.npz"]),
        (["demo", "visoin"], ["visoin", "did you mean 'vision'"]),
        (["inspect", "nowhere.onnx"], ["nowhere.onnx"]),
        (["report", "nowhere"], ["nowhere"]),
        (["serve", "nowhere"], ["nowhere"]),
        (["serve", "model.onnx"], ["model.onnx"]),
        (["serve", "nowhere", "--http", "8000"], ["HOST:PORT"]),
        (["load", "nowhere", "--rate", "5"], ["nowhere"]),
        (["load", "nowhere", "--rate", "5", "--for", "soon"], ["--for", "soon"]),
        (["load", "http://127.0.0.1:9", "--rate", "5"], ["127.0.0.1:9"]),
        (["load", "ftp://127.0.0.1:9", "--rate", "5"], ["ftp"]),
    ],
    ids=lambda value: " ".join(value)[-45:] if isinstance(value, list) else value,
)
def test_bad_words(arguments: Arguments, told: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(arguments, folder, capsys)
    assert [word for word in told if word not in message] == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('slow = "p99<=1ms"', ["'slow'", "did you mean 'slo'"]),
        ("budget = 5", ["budget"]),
        ('slo = "p99<=1ms', ["headway.toml", "TOML"]),
        ('slo = "p99<=1"', ["unit"]),
        ('seed = "a"', ["seed"]),
    ],
)
def test_bad_settings_beside_the_model(text: str, told: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "headway.toml").write_text(text)
    message = refused(["tune", "model.onnx", "--data", "val.npz", "--out", "out"], folder, capsys)
    assert [word for word in told if word not in message] == []


def test_an_error_is_told_in_json_too(folder: Path, cache: Path) -> None:
    said = headway(tune("nowhere.onnx", "val.npz", SLO, "--json"), folder, cache)
    assert said.code == 2
    assert said.json["error"]["exit_code"] == 2 and "nowhere.onnx" in said.json["error"]["message"]
    assert said.err.count("error: ") == 1
    assert not (folder / "out").exists()


def test_a_full_disk_is_told_and_leaves_nothing_half_written(folder: Path, cache: Path) -> None:
    """No file may grow beyond 100 kB, as on a disk with little room; the model needs more."""
    limited = [
        "-c",
        "import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); runpy.run_module('headway', run_name='__main__')",
    ]
    command = [sys.executable, *limited, *tune("model.onnx", "val.npz", SLO, "--json")]
    ended = subprocess.run(command, cwd=folder, env=environment(cache), capture_output=True, text=True, check=False)
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stderr.count("error: ") == 1 and "Free space" in ended.stderr
    left = [path for path in (folder / "out").rglob("*") if path.is_file()]
    assert [path.name for path in left] in ([], ["records.jsonl"])
    if left:
        assert read_journal(folder / "out")


@pytest.mark.parametrize("words", [["tnue"], ["tune", "--nothing"], ["load", "http://127.0.0.1:9", "--rate", "fast"], ["load"], ["serve"]])
def test_a_usage_error_ends_with_two(words: Arguments, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "Traceback" not in capsys.readouterr().err
