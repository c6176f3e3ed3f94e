"""The programs in ``examples`` run as a stranger runs them: in a process of their own, in a folder of their own."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from digits_model import write_digits
from headway.deploy import Entry, package
from headway.measure.environment import environment
from headway.model import cost, load
from headway.records import Plan, Variant, parse_objective

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
LIMIT_S = 240
"""A run that hangs is ended after this [s]; a quiet machine needs a tenth."""


def run(name: str, folder: Path, *arguments: str) -> str:
    """What an example printed."""
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "XDG_CACHE_HOME": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, f"{name} ended with {done.returncode}: {done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_short_and_says_what_it_is(example: Path) -> None:
    text = example.read_text("utf-8")
    assert len(text.splitlines()) < 60
    assert ast.get_docstring(ast.parse(text))


def test_make_model(tmp_path: Path) -> None:
    assert "val.npz" in run("make_model.py", tmp_path)
    with np.load(tmp_path / "val.npz") as arrays:
        assert arrays["pixels"].shape == (500, 64) and arrays["label"].shape == (500,)
    loaded = load(str(tmp_path / "model.onnx"))
    assert [spec.name for spec in loaded.models[0].inputs] == ["pixels"]


def test_own_metric(tmp_path: Path) -> None:
    printed = run("own_metric.py", tmp_path)
    assert "relative loss" in printed and "verdict: " in printed


def test_tune_from_python(tmp_path: Path) -> None:
    printed = run("tune_from_python.py", tmp_path, str(tmp_path))
    assert "choice: model" in printed
    assert (tmp_path / "run" / "records.jsonl").is_file() and (tmp_path / "run" / "report.html").is_file()


def test_serve_and_ask(tmp_path: Path) -> None:
    write_digits(tmp_path)
    model = load(str(tmp_path / "model.onnx")).models[0]
    counted, path = cost(model), tmp_path / "model.onnx"
    model.save(path)
    variant = Variant(
        name="model", source="model", origin="onnx", recipe=(), parent_digest=model.digest, digest=model.digest, path=path.name,
        parameters=counted.parameters, flop=counted.flop, weight_bytes=counted.weight_bytes, file_bytes=path.stat().st_size, precision="float32",
    )  # fmt: skip
    package(
        tmp_path / "bundle", name="digits", entries=[Entry(variant, path, Plan(runtime="onnx_runtime", max_batch=4), {})],
        objective=parse_objective("p99<=1s"), environment=environment(),
    )  # fmt: skip
    printed = run("serve_and_ask.py", tmp_path, str(tmp_path / "bundle"))
    assert "serving model on onnx_runtime" in printed
    assert "scores [1, 10]" in printed
