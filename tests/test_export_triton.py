"""The export to Triton: its configuration by Triton's own schema, its Python model on a stand-in, and both behind the real server where there is one."""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tritonclient.grpc import model_config_pb2

from headway.deploy import package, verify, write_export
from headway.deploy.asking import Refused, Server, ask
from headway.deploy.targets import triton
from headway.deploy.targets._triton_config import text_of
from headway.deploy.targets._triton_server import VARIABLE, installed, running
from headway.records import Autoscaling, BundleError, ConfigError, Export, MissingPackage, Objective, Plan, Unsupported
from headway.serve import OpenBundle, open_bundle
from serving import ENVIRONMENT, affine_model, bundle, entry, lookup_model, save, slow_model, value

PLAN = Plan(runtime="onnx_runtime", instances=2, threads=3, max_batch=8, max_wait_s=0.002)
ODD = 'a "name"\\with\nall/of: it\u00e9'


def installed_triton() -> bool:
    try:
        installed()
    except MissingPackage:
        return False
    return True


needs_triton = pytest.mark.skipif(not installed_triton(), reason=f"no tritonserver: not on the path, and {VARIABLE} names none")


def flags_model(path: Path, ids: str = "ids") -> Path:
    """``not`` of three booleans, and twice a whole number, whose row has no dimension."""
    nodes = [helper.make_node("Not", ["flags"], ["turned"]), helper.make_node("Add", [ids, ids], ["twice"])]
    inputs = [value("flags", ["batch", 3], TensorProto.BOOL), value(ids, ["batch"], TensorProto.INT64)]
    return save(path, nodes, inputs, [value("turned", ["batch", 3], TensorProto.BOOL), value("twice", ["batch"], TensorProto.INT64)])


def exported(folder: Path, opened: OpenBundle, **settings: str) -> Export:
    return write_export("triton", opened, folder, settings=settings)


def config_of(folder: Path, name: str = "tiny") -> Any:
    """The configuration as Triton's own schema reads it."""
    return text_format.Parse((folder / name / "config.pbtxt").read_text("utf-8"), model_config_pb2.ModelConfig())


@pytest.fixture
def affine(tmp_path: Path) -> OpenBundle:
    return bundle(tmp_path / "b", entry(affine_model(tmp_path / "m.onnx"), plan=PLAN), labels=["a", "b", "c", "d"])


@pytest.mark.parametrize("backend", ["onnxruntime", "python"])
def test_the_configuration_says_what_the_plan_says(tmp_path: Path, affine: OpenBundle, backend: str) -> None:
    export = exported(tmp_path / "e", affine, backend=backend)
    config = config_of(tmp_path / "e")
    assert (config.name, config.backend, config.max_batch_size) == ("tiny", backend, 8)
    assert config.dynamic_batching.max_queue_delay_microseconds == 2000
    assert [(group.kind, group.count) for group in config.instance_group] == [(model_config_pb2.ModelInstanceGroup.KIND_CPU, 2)]
    threads = {name: found.string_value for name, found in config.parameters.items()}
    assert threads == {"intra_op_thread_count": "3", "inter_op_thread_count": "1", "execution_mode": "0"}
    (x,), (y, top) = config.input, config.output
    assert (x.name, x.data_type, list(x.dims), x.HasField("reshape")) == ("x", model_config_pb2.TYPE_FP32, [4], False)
    assert (y.name, y.data_type, list(y.dims)) == ("y", model_config_pb2.TYPE_FP32, [4])
    assert (top.name, top.data_type, list(top.dims), list(top.reshape.shape)) == ("top", model_config_pb2.TYPE_INT64, [1], [])
    assert top.HasField("reshape") and "top" in export.notes[0]
    assert (tmp_path / "e" / "tiny" / "1" / "model.py").exists() == (backend == "python")
    assert export.file == "tiny/1/model.onnx"


def test_the_policy_is_that_of_a_greedy_server_that_refuses_by_no_prediction(tmp_path: Path, affine: OpenBundle) -> None:
    policy = exported(tmp_path / "e", affine, backend="python").policy
    assert policy.plan == PLAN and not policy.refuses and policy.front_steals
    assert policy.front_s == pytest.approx(triton.REQUEST_S + triton.BATCH_S / 4 + triton.BYTE_S * (16 + 16 + 8))
    assert "Python" in policy.basis
    bound = exported(tmp_path / "o", affine).policy
    assert bound.front_s == policy.front_s and "upper bound" in bound.basis
    assert bound.front_steals, "six threads on the two cores of the bundle's machine leave the front end none"


def test_the_runtime_there_is_onnx_runtime_and_another_plan_says_so(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    opened = bundle(tmp_path / "b", entry(affine_model(tmp_path / "m.onnx"), plan=Plan(runtime="openvino", max_batch=4)))
    export = exported(tmp_path / "e", opened)
    assert export.policy.plan == Plan(runtime="onnx_runtime", max_batch=4)
    assert any("openvino" in note for note in export.notes)
    assert not export.policy.front_steals, "one thread of two cores leaves the front end one"


def test_a_fixed_batch_is_the_whole_shape(tmp_path: Path) -> None:
    plan = Plan(runtime="onnx_runtime", max_batch=1)
    exported(tmp_path / "e", bundle(tmp_path / "b", entry(affine_model(tmp_path / "m.onnx", batch=2), plan=plan)))
    config = config_of(tmp_path / "e")
    assert config.max_batch_size == 0 and not config.HasField("dynamic_batching")
    assert list(config.input[0].dims) == [2, 4] and [list(output.dims) for output in config.output] == [[2, 4], [2]]
    assert [warm.batch_size for warm in config.model_warmup] == [1]
    assert list(config.model_warmup[0].inputs["x"].dims) == [2, 4]
    assert (tmp_path / "e" / "tiny" / "warmup" / "input-0").stat().st_size == 32


def test_free_dimensions_and_a_plan_without_batches(tmp_path: Path) -> None:
    opened = bundle(tmp_path / "b", entry(lookup_model(tmp_path / "m.onnx"), plan=Plan(runtime="onnx_runtime", max_batch=1)))
    exported(tmp_path / "e", opened)
    config = config_of(tmp_path / "e")
    assert config.max_batch_size == 1 and not config.HasField("dynamic_batching")
    assert list(config.input[0].dims) == [-1]


def test_warm_up_rows_are_the_golden_sets_first(tmp_path: Path) -> None:
    samples = {"flags": np.array([[True, False, True]] * 4), "ids": np.array([7, 8, 9, 10])}
    exported(tmp_path / "e", bundle(tmp_path / "b", entry(flags_model(tmp_path / "m.onnx"), plan=PLAN), samples=samples))
    warm = config_of(tmp_path / "e").model_warmup
    assert [one.batch_size for one in warm] == [1, 8]
    for one in warm:
        flags, ids = one.inputs["flags"], one.inputs["ids"]
        assert (flags.data_type, list(flags.dims)) == (model_config_pb2.TYPE_BOOL, [3])
        assert (ids.data_type, list(ids.dims)) == (model_config_pb2.TYPE_INT64, [1])
        held = tmp_path / "e" / "tiny" / "warmup"
        assert (held / flags.input_data_file).read_bytes() == b"\x01\x00\x01"
        assert (held / ids.input_data_file).read_bytes() == (7).to_bytes(8, "little")


def test_labels_name_the_output_that_has_as_many_classes(tmp_path: Path, affine: OpenBundle) -> None:
    exported(tmp_path / "e", affine)
    assert [output.label_filename for output in config_of(tmp_path / "e").output] == ["labels.txt", ""]
    assert (tmp_path / "e" / "tiny" / "labels.txt").read_text() == "a\nb\nc\nd\n"
    other = bundle(tmp_path / "b2", entry(affine_model(tmp_path / "m.onnx")), labels=["only", "two"])
    exported(tmp_path / "e2", other)
    assert [output.label_filename for output in config_of(tmp_path / "e2").output] == ["", ""]
    assert not (tmp_path / "e2" / "tiny" / "labels.txt").exists()


@pytest.mark.parametrize(
    ("settings", "timeout_us", "most"),
    [
        ({}, 0, 0),
        ({"deadline": "objective"}, 100_000, 0),
        ({"deadline": "35ms", "queue": "12"}, 35_000, 12),
        ({"deadline": "none"}, 0, 0),
        ({"deadline": "none", "queue": "5"}, 0, 5),
    ],
)
def test_the_queue_policy(tmp_path: Path, affine: OpenBundle, settings: dict[str, str], timeout_us: int, most: int) -> None:
    export = exported(tmp_path / "e", affine, **settings)
    batching = config_of(tmp_path / "e").dynamic_batching
    policy = batching.default_queue_policy
    assert batching.HasField("default_queue_policy") == bool(timeout_us or most)
    assert (policy.default_timeout_microseconds, policy.max_queue_size) == (timeout_us, most)
    assert policy.timeout_action == model_config_pb2.ModelQueuePolicy.REJECT
    assert policy.allow_timeout_override == bool(timeout_us)
    assert any("stop answering" in note for note in export.notes) == bool(timeout_us or most)


def test_without_a_latency_bound_nothing_is_refused(tmp_path: Path) -> None:
    file = affine_model(tmp_path / "m.onnx")
    package(tmp_path / "b", name="tiny", entries=[entry(file, plan=PLAN)], objective=Objective(rate_per_s=10.0), environment=ENVIRONMENT)
    exported(tmp_path / "e", open_bundle(tmp_path / "b"), deadline="objective")
    assert not config_of(tmp_path / "e").dynamic_batching.HasField("default_queue_policy")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"backend": "openvino"}, "onnxruntime, python"),
        ({"deadline": "20"}, "time"),
        ({"deadline": "-1s"}, "time"),
        ({"deadline": "7200s"}, "at most"),
        ({"queue": "0"}, "from 1"),
        ({"queue": "many"}, "number"),
        ({"wrong": "1"}, "backend, deadline, queue"),
    ],
)
def test_settings_out_of_range_leave_nothing_behind(tmp_path: Path, affine: OpenBundle, settings: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        exported(tmp_path / "e", affine, **settings)
    assert not (tmp_path / "e").exists()


def test_what_triton_cannot_serve_is_refused_with_the_reason(tmp_path: Path) -> None:
    null = tmp_path / "m.null.json"
    tensor = {"dtype": "float32", "shape": ["n", 1]}
    null.write_text(json.dumps({"tau0_s": 0, "alpha_s": 0, "inputs": [{"name": "x", **tensor}], "outputs": [{"name": "y", **tensor}]}))
    with pytest.raises(Unsupported, match="ONNX Runtime"):
        exported(tmp_path / "e", bundle(tmp_path / "b", entry(null, plan=Plan(runtime="null"))))
    scalar = save(tmp_path / "s.onnx", [helper.make_node("Neg", ["x"], ["y"])], [value("x", [])], [value("y", [])])
    with pytest.raises(Unsupported, match="dimension"):
        exported(tmp_path / "e", bundle(tmp_path / "b2", entry(scalar, plan=Plan(runtime="onnx_runtime"))))
    assert not (tmp_path / "e").exists()


def test_external_weights_lie_beside_the_model(tmp_path: Path) -> None:
    file = affine_model(tmp_path / "m.onnx")
    wide = onnx.load(file)
    wide.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((64, 64), np.float32), "unused"))
    (tmp_path / "wide").mkdir()
    onnx.save(wide, tmp_path / "wide" / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    export = exported(tmp_path / "e", bundle(tmp_path / "b", entry(tmp_path / "wide" / "m.onnx", plan=PLAN)))
    assert {"tiny/1/model.onnx", "tiny/1/weights.bin"} <= set(export.files)
    assert verify_by_file(tmp_path / "e") <= 1e-3


def verify_by_file(folder: Path) -> float:
    found = verify(folder, lambda export, inputs: expected_of(folder), "nobody")
    assert found.model_difference is not None
    return found.model_difference


def expected_of(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "golden.npz") as arrays:
        return {name.removeprefix("output/"): arrays[name] for name in arrays.files if name.startswith("output/")}


def test_planned_scaling_is_left_to_who_runs_the_containers(tmp_path: Path, affine: OpenBundle) -> None:
    scaling = Autoscaling(replica_rate_per_s=10.0, mean_s=0.1, target_in_flight=1.0)
    export = write_export("triton", affine, tmp_path / "e", scaling=scaling)
    assert export.scaling == scaling and any("scale" in note for note in export.notes)


@given(st.text(), st.text())
def test_any_name_comes_back_as_it_was(one: str, other: str) -> None:
    text = text_of(
        {"name": one, "input": [{"name": other, "dims": [-1, 3]}], "parameters": [{"key": one, "value": {"string_value": other}}]}
    )
    assert text.isascii()
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert (config.name, config.input[0].name, list(config.input[0].dims)) == (one, other, [-1, 3])
    assert config.parameters[one].string_value == other


# The Python model, on a stand-in for Triton's module.


class Response:
    def __init__(self, output_tensors: Sequence[Any] = (), error: Any = None) -> None:
        self.arrays = {tensor.name: tensor.array for tensor in output_tensors}
        self.error = error


class Tensor:
    def __init__(self, name: str, array: np.ndarray) -> None:
        self.name, self.array = name, array

    @classmethod
    def from_dlpack(cls, name: str, array: np.ndarray) -> Tensor:
        return cls(name, np.from_dlpack(array))  # what cannot be exported fails here, as there

    def __dlpack__(self, **asked: Any) -> Any:
        return self.array.__dlpack__(**asked)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


@pytest.fixture
def python_model(tmp_path: Path) -> Iterator[Any]:
    """Opens ``model.py`` of an export as Triton would; calls it with requests, which are dictionaries of arrays."""
    stand_in: Any = ModuleType("triton_python_backend_utils")
    stand_in.Tensor, stand_in.InferenceResponse, stand_in.TritonError = Tensor, Response, lambda text: SimpleNamespace(message=lambda: text)
    stand_in.get_input_tensor_by_name = lambda request, name: Tensor(name, request[name])
    sys.modules[stand_in.__name__] = stand_in

    def opened(folder: Path, config: Any) -> Any:
        file = folder / "tiny" / "1" / "model.py"
        spec = importlib.util.spec_from_file_location("exported_model", file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        made = module.TritonPythonModel()
        told = {
            "max_batch_size": config.max_batch_size, "output": [{"name": output.name} for output in config.output],
            "parameters": {name: {"string_value": one.string_value} for name, one in config.parameters.items()},
        }  # fmt: skip
        made.initialize({"model_config": json.dumps(told), "model_repository": str(folder / "tiny"), "model_version": "1"})
        return made

    yield opened
    del sys.modules[stand_in.__name__]


def test_the_python_model_joins_runs_once_and_cuts(tmp_path: Path, affine: OpenBundle, python_model: Any) -> None:
    exported(tmp_path / "e", affine, backend="python")
    model = python_model(tmp_path / "e", config_of(tmp_path / "e"))
    runs = []
    run, model._session = model._session.run, SimpleNamespace(run=lambda *given: runs.append(len(given[1]["x"])) or run(*given))
    rows = np.arange(24, dtype=np.float32).reshape(6, 4)
    answers = model.execute([{"x": rows[:1]}, {"x": rows[1:4]}, {"x": rows[4:]}])
    assert runs == [6]
    np.testing.assert_allclose(np.concatenate([answer.arrays["y"] for answer in answers]), rows * 2 + 1)
    assert [answer.arrays["top"].shape for answer in answers] == [(1,), (3,), (2,)]
    assert all(answer.error is None for answer in answers)


def test_a_request_that_the_model_cannot_take_fails_alone(tmp_path: Path, python_model: Any) -> None:
    exported(tmp_path / "e", bundle(tmp_path / "b", entry(lookup_model(tmp_path / "m.onnx"), plan=PLAN)), backend="python")
    model = python_model(tmp_path / "e", config_of(tmp_path / "e"))
    good, bad = np.array([[1, 2]]), np.array([[1, 99]])
    first, second, third = model.execute([{"ids": good}, {"ids": bad}, {"ids": good + 1}])
    assert (first.arrays["v"].item(), third.arrays["v"].item()) == (1.5, 2.5)
    assert second.error is not None and "could not run" in second.error.message()
    assert first.error is None and third.error is None


def test_the_python_model_takes_rows_without_dimensions_in_either_shape(tmp_path: Path, python_model: Any) -> None:
    exported(tmp_path / "e", bundle(tmp_path / "b", entry(flags_model(tmp_path / "m.onnx"), plan=PLAN)), backend="python")
    model = python_model(tmp_path / "e", config_of(tmp_path / "e"))
    flags = np.array([[True, False, True]])
    one, two = model.execute([{"flags": flags, "ids": np.array([[3]])}, {"flags": ~flags, "ids": np.array([4])}])
    assert one.arrays["twice"].tolist() == [6] and two.arrays["twice"].tolist() == [8]
    assert one.arrays["turned"].tolist() == [[False, True, False]] and one.arrays["turned"].dtype == np.bool_


# The real server.


def test_without_a_triton_nothing_is_asked_and_the_reason_is_said(
    tmp_path: Path, affine: OpenBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported(tmp_path / "e", affine, backend="python")
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = verify(tmp_path / "e")
    assert found.server_difference is None and VARIABLE in found.asked and found.model_difference is not None
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none"))
    with pytest.raises(MissingPackage, match="no program"):
        installed()


def test_a_server_that_ends_at_once_is_an_error_with_its_last_words(
    tmp_path: Path, affine: OpenBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = tmp_path / "triton" / "bin" / "tritonserver"
    (tmp_path / "triton" / "backends" / "python").mkdir(parents=True)
    binary.parent.mkdir()
    binary.write_text("#!/bin/sh\necho the model is broken\nexit 3\n")
    binary.chmod(0o755)
    monkeypatch.setenv(VARIABLE, str(binary))
    exported(tmp_path / "e", affine, backend="python")
    with pytest.raises(BundleError, match="ended with 3; it said: the model is broken"):
        verify(tmp_path / "e")
    exported(tmp_path / "o", affine)
    assert "no onnxruntime backend" in verify(tmp_path / "o").asked


def test_a_server_that_ignores_being_told_to_end_is_killed_with_its_children(
    tmp_path: Path, affine: OpenBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = tmp_path / "triton" / "bin" / "tritonserver"
    (tmp_path / "triton" / "backends" / "python").mkdir(parents=True)
    binary.parent.mkdir()
    binary.write_text(f"#!/bin/sh\ntrap '' TERM\nsleep 1000 &\necho $! > {tmp_path}/child\nwait\nwait\n")
    binary.chmod(0o755)
    monkeypatch.setenv(VARIABLE, str(binary))
    monkeypatch.setattr("headway.deploy.targets._triton_server.READY_S", 0.5)
    monkeypatch.setattr("headway.deploy.targets._triton_server.STOP_S", 0.2)
    exported(tmp_path / "e", affine, backend="python")
    with pytest.raises(BundleError, match="not ready"):
        verify(tmp_path / "e")
    child = int((tmp_path / "child").read_text())
    assert gone(child)


def gone(pid: int) -> bool:
    end_s = time.monotonic() + 10
    while time.monotonic() < end_s:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


@needs_triton
@pytest.mark.parametrize("make", [affine_model, lookup_model, flags_model], ids=["float", "free length", "bool and int64"])
def test_the_real_servers_answers_equal_the_golden_set(tmp_path: Path, make: Any) -> None:
    exported(tmp_path / "e", bundle(tmp_path / "b", entry(make(tmp_path / "m.onnx"), plan=PLAN)), backend="python")
    before = set(Path("/dev/shm").iterdir())
    found = verify(tmp_path / "e")
    assert found.server_difference is not None and found.server_difference <= found.tolerance, found.asked
    assert found.asked == "triton, started here"
    assert verify(tmp_path / "e", lambda export, inputs: expected_of(tmp_path / "e"), "nobody").files == found.files, (
        "it left the folder as it was"
    )
    assert not [left for left in set(Path("/dev/shm").iterdir()) - before if left.name.startswith("headway-triton")]


@needs_triton
@pytest.mark.parametrize("settings", [{}, {"deadline": "50ms", "queue": "9"}], ids=["plain", "queue policy"])
@pytest.mark.parametrize("batch", [2, "batch"])
def test_the_real_server_takes_plans_without_batches(tmp_path: Path, batch: int | str, settings: dict[str, str]) -> None:
    opened = bundle(tmp_path / "b", entry(affine_model(tmp_path / "m.onnx", batch=batch), plan=Plan(runtime="onnx_runtime", max_batch=1)))
    exported(tmp_path / "e", opened, backend="python", **settings)
    found = verify(tmp_path / "e")
    assert found.server_difference == 0.0, found.asked


@needs_triton
def test_the_real_server_joins_cuts_labels_and_fails_a_request_alone(tmp_path: Path) -> None:
    from tritonclient import http

    labelled = bundle(tmp_path / "b", entry(affine_model(tmp_path / "m.onnx"), plan=PLAN), labels=["a", "b", "c", "d"])
    exported(tmp_path / "e", labelled, backend="python")
    rows = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    with running(tmp_path / "e", "tiny", "python") as server:
        answers: dict[int, Any] = {}

        def send(row: int) -> None:
            answers[row] = asked(server.where, {"x": rows[row : row + 1]}, labelled)

        threads = [threading.Thread(target=send, args=(row,)) for row in range(len(rows))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for row, answer in answers.items():
            np.testing.assert_allclose(answer["y"], rows[row : row + 1] * 2 + 1, rtol=1e-6)
            assert answer["top"].tolist() == [[int(rows[row].argmax())]]
        with http.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
            config = client.get_model_config("tiny")
            assert config["max_batch_size"] == 8 and config["instance_group"][0]["count"] == 2
            given = http.InferInput("x", [1, 4], "FP32")
            given.set_data_from_numpy(rows[:1])
            top = client.infer("tiny", [given], outputs=[http.InferRequestedOutput("y", class_count=2)]).as_numpy("y")
            assert [word.decode().split(":")[2] for word in top.reshape(-1)] == ["abcd"[place] for place in np.argsort(-rows[0])[:2]]
        family = psutil.Process(server.process.pid).children(recursive=True)
        assert family, "a process of its own for each instance"
    assert all(gone(one.pid) for one in family)
    assert server.process.poll() is not None


def asked(where: Server, inputs: dict[str, np.ndarray], opened: OpenBundle) -> dict[str, np.ndarray]:
    while True:
        try:
            return ask(where, "tiny", inputs, opened.manifest.outputs)
        except Refused as refused:
            if refused.status != 503:
                raise


@needs_triton
def test_the_real_server_fails_one_request_of_a_batch_alone(tmp_path: Path) -> None:
    opened = bundle(tmp_path / "b", entry(lookup_model(tmp_path / "m.onnx"), plan=PLAN))
    exported(tmp_path / "e", opened, backend="python")
    with running(tmp_path / "e", "tiny", "python") as server:
        assert asked(server.where, {"ids": np.array([[1, 2]])}, opened)["v"].item() == 1.5
        with pytest.raises(BundleError, match="could not run on this input"):
            asked(server.where, {"ids": np.array([[1, 99]])}, opened)
        assert asked(server.where, {"ids": np.array([[3, 4]])}, opened)["v"].item() == 3.5


@needs_triton
def test_the_real_server_refuses_what_waited_beyond_the_deadline(tmp_path: Path) -> None:
    slow = slow_model(tmp_path / "m.onnx", 200_000)
    opened = bundle(tmp_path / "b", entry(slow, plan=Plan(runtime="onnx_runtime", max_batch=1)))
    exported(tmp_path / "e", opened, backend="python", deadline="1ms", queue="3")
    seen: list[str] = []
    with running(tmp_path / "e", "tiny", "python") as server:

        def send() -> None:
            try:
                ask(server.where, "tiny", {"x": np.zeros((1, 4), np.float32)}, opened.manifest.outputs)
                seen.append("answered")
            except Refused as refused:
                seen.append(f"{refused.status}: {refused}")

        threads = [threading.Thread(target=send) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert "answered" in seen and any("timeout" in word or "queue" in word for word in seen), seen


@needs_triton
def test_names_that_need_quoting_reach_the_real_server(tmp_path: Path) -> None:
    exported(tmp_path / "e", bundle(tmp_path / "b", entry(flags_model(tmp_path / "m.onnx", ids=ODD), plan=PLAN)), backend="python")
    assert ODD in [one.name for one in config_of(tmp_path / "e").input]
    found = verify(tmp_path / "e")
    assert found.server_difference == 0.0, found.asked


@needs_triton
def test_the_missing_backend_is_named(tmp_path: Path, affine: OpenBundle) -> None:
    exported(tmp_path / "e", affine)
    if (installed().backends / "onnxruntime").is_dir():
        assert verify(tmp_path / "e").server_difference == pytest.approx(0.0, abs=1e-3)
    else:
        assert "backends/onnxruntime" in verify(tmp_path / "e").asked
