"""Help, version, doctor and inspect: what the commands tell before anything long."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import headway
from headway.cli import commands, entry, main
from headway.cli.output import address, drawn_progress
from headway.discovery import names
from headway.records import BundleError, ConfigError, MissingPackage, ObjectiveNotMet


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, digits: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in ("model.onnx", "val.npz"):
        os.link(digits / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("COLUMNS", "200")
    yield tmp_path


def run(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 0) -> str:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    said = capsys.readouterr()
    assert (ended.value.code or 0) == code, said.err
    return said.out


def test_help_lists_every_command_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    told = run(["--help"], capsys)
    assert set(names(commands)) == {"demo", "doctor", "explain", "export", "inspect", "load", "plan", "report", "serve", "tune", "verify"}
    for name in names(commands):
        assert re.search(rf"^  {name} +\w.{{15}}", told, re.MULTILINE), name


@pytest.mark.parametrize("name", names(commands))
def test_every_command_has_help_and_json(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = run([name, "--help"], capsys)
    assert f"headway {name}" in told
    assert "--json" in told


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert re.fullmatch(r"headway \d+\.\d+\S*\n", run(["--version"], capsys))


def test_doctor_tells_the_machine_and_every_plug_in(capsys: pytest.CaptureFixture[str]) -> None:
    told = json.loads(run(["doctor", "--json"], capsys))
    assert told["machine"]["cores"] >= 1
    assert told["runtimes"]["onnx_runtime"].startswith("usable on cpu")
    assert {"fold", "quantize_dynamic", "quantize_static", "precision"} <= set(told["techniques"])
    assert {"poisson", "constant", "bursty"} <= set(told["arrival processes"])
    assert {"tensorboard", "wandb"} <= set(told["trackers"])
    assert all(state.startswith(("usable on ", "missing: needs the package")) for state in told["runtimes"].values())
    assert "onnx_runtime" in run(["doctor"], capsys)


def test_inspect_tells_cost_and_ceilings(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = json.loads(run(["inspect", "model.onnx", "--json"], capsys))
    operators = {operator["op_type"]: operator["flop"] for operator in line["cost"]["operators"]}
    assert operators["Conv"] == 2 * 64 * 192 * 9 * 64
    assert line["cost"]["inputs"][0]["name"] == "image"
    assert line["cost"]["parameters"] == 64 * 9 + 64 * 192 * 9 + 10 * 192 * 16 + 10
    assert line["ceilings"]["flop_per_s"]["float32"] > 0
    assert "Conv" in run(["inspect", "model.onnx", "--data", "val.npz"], capsys)


def test_help_needs_no_package_of_any_extra(folder: Path, cache: Path) -> None:
    said = headway(["--help"], folder, cache)
    assert said.code == 0 and "tune" in said.out and said.err == ""


def test_settings_beside_the_model_are_used_and_the_command_line_wins(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "headway.toml").write_text('data = "nowhere.npz"\nslo = "p99<=1ms"\nmodels = ["model.onnx"]\n')
    with pytest.raises(SystemExit):
        main(["tune"])
    assert "nowhere.npz" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["tune", "--data", "elsewhere.npz"])
    assert "elsewhere.npz" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"), [("127.0.0.1:8000", ("127.0.0.1", 8000)), ("[::1]:0", ("::1", 0)), ("host:65535", ("host", 65535))]
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert address(text) == expected


@pytest.mark.parametrize("text", ["8000", ":8000", "host:", "host:http", "host:65536", "host:-1", ""])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        address(text)


def broken(error: BaseException) -> types.ModuleType:
    """A command that ends with an error."""
    module = types.ModuleType("broken")

    def command() -> None:
        raise error

    module.command = command  # type: ignore[attr-defined]
    return module


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (BundleError("no bundle"), 2, "error: no bundle"),
        (MissingPackage("no package"), 2, "error: no package"),
        (ObjectiveNotMet("not met"), 3, "error: not met"),
        (OSError(28, "No space left on device", "run/x"), 2, "error: run/x: No space left on device"),
        (OSError(30, "Read-only file system", "run/x"), 2, "error: run/x: Read-only file system"),
        (KeyboardInterrupt(), 130, "continue with --resume"),
        (PermissionError(13, "Permission denied", "run/x"), 2, "error: run/x: Permission denied"),
    ],
)
def test_errors_become_exit_codes(
    error: BaseException, code: int, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(entry, "_import", lambda name: broken(error))
    with pytest.raises(SystemExit) as ended:
        main(["tune"])
    assert ended.value.code == code
    assert told in capsys.readouterr().err


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "_import", lambda name: broken(ZeroDivisionError("a defect")))
    with pytest.raises(ZeroDivisionError):
        main(["tune"])


def test_an_unknown_log_level_is_an_error_with_the_known_ones(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWAY_LOG", "nonsense")
    with pytest.raises(SystemExit) as ended:
        main(["doctor"])
    told = capsys.readouterr().err
    assert ended.value.code == 2 and "HEADWAY_LOG" in told and "WARNING" in told and "Traceback" not in told


@pytest.mark.parametrize("ask", ["stage", "step"])
def test_a_swallowed_ctrl_c_comes_up_again(ask: str) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), drawn_progress() as progress:
        with contextlib.suppress(KeyboardInterrupt):  # as a destructor or another library's callback would
            signal.raise_signal(signal.SIGINT)
        progress.stage("next", 1) if ask == "stage" else progress.step("next")
    assert signal.getsignal(signal.SIGINT) is before
