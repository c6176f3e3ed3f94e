"""Devices: which are here, what is refused without them, and that looking at one runtime imports no other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnxruntime as ort
import pytest

from headway.api.config import known_names
from headway.measure import ceilings
from headway.records import ConfigError, ModelError, Plan, Unsupported
from headway.runtime import asked_only, devices, gpus, missing, open_session, refuse, runtimes
from headway.runtime.runtimes import onnx_runtime
from headway.testing.runtimes import EXACT, ROWS, error_of, is_sentence, onnx_case

GPU_PROVIDERS = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
without_a_gpu = pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="the library has a GPU's provider")


def test_every_runtime_tells_its_devices() -> None:
    for name, module in runtimes().present.items():
        assert devices(name)[0] == "cpu" and set(devices(name)) <= set(module.DEVICES)
    with pytest.raises(ConfigError, match="did you mean 'openvino'"):
        devices("openvno")
    assert all(is_sentence(gpu) for gpu in gpus())


@without_a_gpu
@pytest.mark.parametrize("device", GPU_PROVIDERS)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_provider_that_is_not_built_in_is_refused(device: str, threads: int, tmp_path: Path) -> None:
    path = onnx_case("mlp", tmp_path).path
    assert devices("onnx_runtime") == ("cpu",)
    with pytest.raises(Unsupported, match="onnxruntime-gpu") as refused:
        open_session(Plan(runtime="onnx_runtime", device=device, threads=threads), path)
    assert is_sentence(str(refused.value)) and GPU_PROVIDERS[device] in str(refused.value)
    assert refuse("onnx_runtime", path, device) == str(refused.value)


@without_a_gpu
@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.parametrize("device", GPU_PROVIDERS)
def test_a_silent_fall_back_to_the_processor_is_refused(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is made to claim the provider; it then opens the session on the processor without an error."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: [*GPU_PROVIDERS.values(), "CPUExecutionProvider"])
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    with pytest.raises(Unsupported, match=f"{GPU_PROVIDERS[device]} did not start") as refused:
        open_session(Plan(runtime="onnx_runtime", device=device), onnx_case("mlp", tmp_path).path)
    assert is_sentence(str(refused.value))


def test_a_device_needs_both_the_provider_and_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(onnx_runtime, "_gpu_is_here", lambda: True)
    assert devices("onnx_runtime") == ("cpu", "cuda")
    monkeypatch.setattr(onnx_runtime, "_gpu_is_here", lambda: False)
    assert devices("onnx_runtime") == ("cpu",)


def test_no_provider_computes_in_tf32() -> None:
    for device, providers in onnx_runtime._PROVIDERS.items():
        assert providers[-1] == "CPUExecutionProvider"
        settings = dict(provider for provider in providers if isinstance(provider, tuple))
        assert device == "cpu" or settings["CUDAExecutionProvider"]["use_tf32"] == "0"


def test_what_must_be_asked_for_is_neither_tuned_nor_timed_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "torch_compiled" in asked_only()
    assert "torch_compiled" not in known_names("runtime", (), runtimes(), hidden=asked_only())
    assert known_names("runtime", ("torch_compiled",), runtimes(), hidden=asked_only()) == ("torch_compiled",)
    opened: list[str] = []

    def noted(plan: Plan, path: Path) -> object:
        opened.append(plan.runtime)
        raise Unsupported("this test opens nothing")

    monkeypatch.setattr(ceilings, "open_session", noted)
    with pytest.raises(Exception, match="headway doctor"):
        ceilings._rates({"float32": Path("absent.onnx")}, 1)
    assert "onnx_runtime" in opened and "torch_compiled" not in opened


def test_looking_at_one_runtime_imports_no_other(tmp_path: Path) -> None:
    path = onnx_case("mlp", tmp_path).path
    program = f"""
import sys
from pathlib import Path
from headway.records import Plan
from headway.runtime import devices, missing, open_session
assert missing("onnx_runtime") is None and missing("of no such name") is None and devices("onnx_runtime")
open_session(Plan(runtime="onnx_runtime"), Path({str(path)!r})).close()
print(sorted({{"torch", "onnx", "openvino"}} & set(sys.modules)))
sys.modules["torch"] = None
print(missing("torch_compiled"))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]", "needs the package torch, which is not installed"]
    assert missing("onnx_runtime") is None


@pytest.mark.gpu
@pytest.mark.parametrize("device", GPU_PROVIDERS)
@pytest.mark.parametrize("graph", ["mlp", "residual", "transformer"])
def test_a_gpu_gives_the_same_answers(device: str, graph: str, tmp_path: Path) -> None:
    if device not in devices("onnx_runtime"):
        pytest.skip(f"{device} is not here")
    case = onnx_case(graph, tmp_path)
    session = open_session(Plan(runtime="onnx_runtime", device=device), case.path)
    for rows in (1, 2, ROWS):
        assert error_of(session.run(case.rows(0, rows)), case.answers) < EXACT, "is TF32 at work?"


@without_a_gpu
@pytest.mark.parametrize("broken", [False, True])
def test_a_provider_that_fails_is_told_from_a_graph_that_does(broken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is made to fail as it does when the GPU's driver is too old."""
    real = ort.InferenceSession

    def fails_on_a_gpu(path: str, options: ort.SessionOptions, providers: list[object], **more: object) -> ort.InferenceSession:
        if providers != ["CPUExecutionProvider"]:
            raise RuntimeError("CUDA failure 35: CUDA driver version is insufficient")
        return real(path, options, providers=providers, **more)

    monkeypatch.setattr(ort, "InferenceSession", fails_on_a_gpu)
    monkeypatch.setattr(onnx_runtime, "_prepare", lambda device: None)
    path = onnx_case("mlp", tmp_path).path
    if broken:
        path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ModelError if broken else Unsupported) as raised:
        open_session(Plan(runtime="onnx_runtime", device="cuda"), path)
    assert is_sentence(str(raised.value)) and ("driver version" in str(raised.value)) != broken
