"""The base install serves a bundle: no torch, no onnx, no scipy, nothing that only deciding needs."""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packaging.requirements import Requirement

from command_line import ask
from only_base import normal
from serving import affine_model, bundle, entry

ROOT = Path(__file__).parent.parent
BANNED = (
    "torch",
    "onnx",
    "onnx_ir",
    "scipy",
    "sklearn",
    "pandas",
    "altair",
    "psutil",
    "openvino",
    "tensorflow",
    "PIL",
    "pyarrow",
    "fastapi",
    "optuna",
    "sqlalchemy",
    "numba",
)


def closure() -> set[str]:
    """Names of the packages in pyproject's base ``dependencies``, and of all that those need."""
    wanted = [Requirement(text) for text in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]]
    found: set[str] = set()
    while wanted:
        requirement = wanted.pop()
        if normal(requirement.name) in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(normal(requirement.name))
        wanted += [Requirement(text) for text in importlib.metadata.requires(requirement.name) or ()]
    return found


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    return bundle(folder / "bundle", entry(affine_model(folder / "affine.onnx"))).root


def base(*arguments: str) -> list[str]:
    return [sys.executable, str(Path(__file__).parent / "only_base.py"), ",".join(sorted(closure())), *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src")}


def said(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(base(*arguments), env=environment(), capture_output=True, text=True, check=False, timeout=120)


@contextmanager
def served(command: Sequence[str], variables: dict[str, str]) -> Iterator[dict[str, Any]]:
    """What a server says when it is ready; SIGTERM must end it cleanly."""
    process = subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline() if process.stdout else ""
        assert line, process.communicate()[1]
        yield json.loads(line)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0 and "Traceback" not in err, err
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def answers(ready: dict[str, Any]) -> None:
    rows = np.arange(8, dtype=np.float32).reshape(2, 4)
    tensor = {"name": "x", "shape": [2, 4], "datatype": "FP32", "data": rows.ravel().tolist()}
    _, text = ask(f"{ready['url']}/v2/models/{ready['model']}/infer", {"inputs": [tensor]})
    outputs = {output["name"]: output["data"] for output in json.loads(text)["outputs"]}
    assert outputs["y"] == (2 * rows + 1).ravel().tolist()
    assert outputs["top"] == [3, 3]


def test_the_base_install_is_small() -> None:
    names = closure()
    assert {"numpy", "onnxruntime", "msgspec", "typer"} <= names
    assert not names & {normal(name) for name in BANNED}


@pytest.mark.parametrize("name", BANNED)
def test_the_barrier_holds(name: str) -> None:
    check = (
        f"import sys; sys.argv = ['only_base.py', {','.join(sorted(closure()))!r}]; sys.path.insert(0, {str(Path(__file__).parent)!r}); "
    )
    check += f"from only_base import OnlyBase; sys.meta_path.insert(0, OnlyBase(set(sys.argv[1].split(',')))); import {name}"
    ended = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert ended.returncode == 1 and "in the base install" in ended.stderr


def test_a_bundle_is_served_by_the_base_install(packed: Path) -> None:
    with served(base("serve", str(packed), "--http", "127.0.0.1:0", "--json"), environment()) as ready:
        answers(ready)
        assert ask(f"{ready['url']}/v2/health/ready")[0] == 200
        assert "headway" in ask(f"{ready['url']}/metrics")[1]


def test_help_and_version_work_in_the_base_install() -> None:
    told = said("--help")
    assert told.returncode == 0, told.stderr
    assert "serve" in told.stdout and "tune" in told.stdout
    assert said("--version").stdout.startswith("headway ")
    assert said("serve", "--help").returncode == 0


@pytest.mark.parametrize(
    "command",
    [["tune", "model.onnx"], ["inspect", "model.onnx"], ["doctor"], ["report", "run"], ["demo", "vision"], ["load", "run", "--rate", "1"]],
)
def test_a_command_of_an_extra_says_what_to_install(command: list[str]) -> None:
    ended = said(*command)
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "pip install 'headway[" in ended.stderr


@pytest.mark.slow
@pytest.mark.network
def test_a_bare_environment_serves_a_bundle(packed: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(ROOT)]
    installed = subprocess.run(install, capture_output=True, text=True, check=False)
    assert installed.returncode == 0, installed.stderr
    for name in BANNED:
        assert subprocess.run([str(python), "-c", f"import {name}"], capture_output=True, check=False).returncode == 1, name
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with served([str(tmp_path / "venv" / "bin" / "headway"), "serve", str(packed), "--http", "127.0.0.1:0", "--json"], variables) as ready:
        answers(ready)


def test_starting_a_bundle_imports_only_its_runtime(packed: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from headway.serve.bundle import open_bundle; from headway.serve.start import close, start; "
        f"close(start(open_bundle(Path({str(packed)!r}))).sessions); print(sorted({{'torch', 'openvino', 'onnx'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr
