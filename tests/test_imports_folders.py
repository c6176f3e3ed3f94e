"""Models come in from the folders and archives of other servers, with the answers of the graph inside and with how they were served."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from headway.model import load
from headway.model.served.contract import ServedBy
from headway.records import ModelError, Plan
from imported_folders import CONFIG, LABELS, answers, expected, external, graph_bytes, mar, mar_files, mlserver, rows, triton, write


def check(place: Path | str, name: str) -> tuple[str, ...]:
    """The notes of a model that answers as the small graph does."""
    loaded = load(str(place))
    model = loaded.models[0]
    assert (model.name, model.origin) == (name, "onnx")
    feeds = rows()
    assert np.array_equal(answers(model, feeds), expected(feeds))
    return loaded.notes


def test_a_folder_of_triton(tmp_path: Path) -> None:
    folder = triton(tmp_path / "dense")
    assert check(folder, "dense") == (
        "Triton served it with 2 instances of 1 thread, batches of up to 8 (preferred: 4, 8), waiting up to 100 us",
    )
    loaded = load(str(folder))
    assert loaded.labels == LABELS
    assert loaded.served_by == ServedBy(server="Triton", instances=2, threads=1, max_batch=8, max_wait_s=1e-4, preferred=(4, 8))
    assert loaded.served_by.plan(16) == Plan(runtime="onnx_runtime", instances=2, threads=1, max_batch=8, max_wait_s=1e-4)


def test_triton_serves_the_highest_version(tmp_path: Path) -> None:
    files = {
        "1/model.onnx": b"old",
        "3/model.onnx": graph_bytes(),
        "2/model.onnx": b"old",
        "007/model.onnx": b"x",
        "notes/model.onnx": b"x",
    }
    assert "version 3 is taken, the highest of 3" in check(triton(tmp_path / "dense", files=files), "dense")


def test_triton_serves_what_the_policy_names(tmp_path: Path) -> None:
    config = CONFIG + "version_policy: { specific: { versions: [ 1, 2 ] } }"
    files = {"1/model.onnx": b"old", "2/model.onnx": graph_bytes(), "3/model.onnx": b"new"}
    assert "version 2 is taken, the highest of 2" in check(triton(tmp_path / "dense", config, files), "dense")
    with pytest.raises(ModelError, match="must hold version 5 or 7 with the model in it, got only 1, 2, 3"):
        load(str(triton(tmp_path / "dense", CONFIG + "version_policy { specific { versions: 5 versions: 7 } }")))


def test_triton_looks_for_the_named_file(tmp_path: Path) -> None:
    config = CONFIG + 'default_model_filename: "net.onnx"'
    check(triton(tmp_path / "dense", config, {"1/net.onnx": graph_bytes(), "1/model.onnx": b"another"}), "dense")


def test_a_folder_named_as_the_file_holds_weights_beside_the_graph(tmp_path: Path) -> None:
    external(triton(tmp_path / "dense", files={}) / "1" / "model.onnx")
    check(tmp_path / "dense", "dense")


def test_a_repository_of_one_model_is_that_model(tmp_path: Path) -> None:
    triton(tmp_path / "dense")
    write(tmp_path / "export.json", "{}")
    check(tmp_path, "dense")
    triton(tmp_path / "other")
    with pytest.raises(ModelError, match=r"a Triton repository of 2 \(dense, other\); give the folder of one of them"):
        load(str(tmp_path))


def test_a_model_of_triton_without_configuration(tmp_path: Path) -> None:
    write(tmp_path / "dense" / "1" / "model.onnx", graph_bytes())
    assert check(tmp_path / "dense", "dense") == ("no config.pbtxt: how Triton batched is not known",)
    assert load(str(tmp_path / "dense")).served_by is None


@pytest.mark.parametrize(
    ("config", "served"),
    [
        ("max_batch_size: 8", "Triton served it with 2 instances, each request alone"),
        ("max_batch_size: 8 dynamic_batching {}", "Triton served it with 2 instances, batches of up to 8, without waiting for more"),
        ("max_batch_size: 0 dynamic_batching {}", "Triton served it with 2 instances, each request alone"),
        ("max_batch_size: 8 instance_group { count: 3 gpus: [0, 1] }", "Triton served it with 6 instances on gpu, each request alone"),
        ("instance_group { count: 1 } instance_group { count: 2 }", "Triton served it with 3 instances, each request alone"),
        ("instance_group { kind: KIND_GPU }", "Triton served it with 1 instance on gpu, each request alone"),
        (
            'max_batch_size: 4 dynamic_batching { max_queue_delay_microseconds: 2500 } parameters { key: "intra_op_thread_count" value { string_value: "0" } }',
            "Triton served it with 2 instances, batches of up to 4, waiting up to 2.5 ms",
        ),
    ],
)
def test_how_triton_served(tmp_path: Path, config: str, served: str) -> None:
    assert check(triton(tmp_path / "dense", f'backend: "onnxruntime" {config}'), "dense") == (served,)


@pytest.mark.parametrize(
    ("config", "note"),
    [
        ('max_batch_size: 8 input { name: "z" data_type: TYPE_FP32 dims: 12 }', "names the input 'z', but the graph has only 'x'"),
        ('max_batch_size: 8 input { name: "z" data_type: TYPE_FP32 dims: 12 }', "does not name the graph's input 'x'"),
        ('max_batch_size: 8 input { name: "x" data_type: TYPE_INT64 dims: 12 }', "the input 'x' is int64, but in the graph it is float32"),
        ('max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: 13 }', r"'x' has the shape [batch, 13], but in the graph it has [n, 12]"),
        ('max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: [ -1, 12 ] }', r"'x' has the shape [batch, ?, 12], but"),
        ('max_batch_size: 8 output { name: "y" data_type: TYPE_FP32 dims: 5 }', r"the output 'y' has the shape [batch, 5], but"),
        ('max_batch_size: 8 sequence_batching { max_sequence_idle_microseconds: 5 }', "keeps state between requests"),
    ],
)  # fmt: skip
def test_where_the_configuration_and_the_graph_differ_it_is_told(tmp_path: Path, config: str, note: str) -> None:
    assert any(note in said for said in check(triton(tmp_path / "dense", f'backend: "onnxruntime" {config}'), "dense"))


def test_a_configuration_that_fits_is_not_remarked_on(tmp_path: Path) -> None:
    whole = 'max_batch_size: 0 input { name: "x" data_type: TYPE_FP32 dims: [ -1, 12 ] } output { name: "y" data_type: TYPE_FP32 dims: [ -1, 4 ] }'
    reshaped = 'input { name: "x" data_type: TYPE_FP32 dims: [ 3, 4 ] reshape { shape: [ 12 ] } }'
    for config in (whole, f"max_batch_size: 4 {reshaped}"):
        assert check(triton(tmp_path / "dense", f'backend: "onnxruntime" {config}'), "dense")[1:] == ()


@pytest.mark.parametrize(
    ("config", "files", "reason"),
    [
        ('backend: "python"', {"1/model.py": "raise SystemExit"}, "the Python backend executes model.py, and no code of it is executed"),
        ('backend: "python"', {"1/model.py": "", "1/model.onnx": b"x"}, "model.onnx lies beside it: if that is the model, give that file"),
        ('platform: "tensorrt_plan"', {"1/model.plan": b"x"}, "give the ONNX file that it was made from"),
        ('backend: "openvino"', {"1/model.xml": "<net/>"}, "OpenVINO's own format is not read"),
        ('platform: "tensorflow_graphdef"', {"1/model.graphdef": b"x"}, "give the SavedModel folder"),
        ('platform: "ensemble" ensemble_scheduling { step { model_name: "a" } }', {"1/x": b""}, "give the folder of one of them"),
        ('backend: "vllm"', {"1/model.json": "{}"}, "must be onnxruntime, pytorch or tensorflow, got 'vllm'"),
        ('backend: "onnxruntime"', {"1/other.onnx": b"x"}, "the model must lie at 1/model.onnx, got nothing there"),
        ('backend: "onnxruntime"', {}, "must hold a version's folder such as 1"),
        ("max_batch_size: 1", {"1/readme": b""}, "version 1 must hold the model, got none of model.onnx"),
        ("max_batch_size: 1", {"1/model.py": b""}, "the Python backend executes model.py"),
    ],
)
def test_models_of_triton_that_are_refused(tmp_path: Path, config: str, files: dict[str, bytes | str], reason: str) -> None:
    with pytest.raises(ModelError) as refused:
        load(str(triton(tmp_path / "dense", config, files)))
    assert reason in str(refused.value)


MAR_NOTE = "TorchServe's handler image_classifier is not imported"


def test_an_archive_of_torchserve_with_onnx(tmp_path: Path) -> None:
    names = {str(place): ["n0", name] for place, name in enumerate(LABELS)}
    config = 'minWorkers: 2\nmaxWorkers: 4   # at most\n"batchSize": 4\nmaxBatchDelay: 50\nhandler:\n  batchSize: 99\n'
    files = {"dense.onnx": graph_bytes(), "index_to_name.json": json.dumps(names), "model-config.yaml": config}
    path = mar(tmp_path / "shop.mar", files, serializedFile="dense.onnx", handler="image_classifier", configFile="model-config.yaml")
    notes = check(path, "shop")
    assert notes[0] == "TorchServe served it with 2 instances, batches of up to 4, waiting up to 50 ms"
    assert notes[1].startswith(MAR_NOTE) and len(notes) == 2
    assert load(str(path)).labels == LABELS


def test_external_weights_come_out_of_an_archive_with_the_graph(tmp_path: Path) -> None:
    external(tmp_path / "parts")
    files = {name: (tmp_path / "parts" / name).read_bytes() for name in ("model.onnx", "model.data")}
    assert check(mar(tmp_path / "shop.mar", files, serializedFile="model.onnx", handler="base_handler"), "shop") == ()


def test_a_folder_of_torchserve(tmp_path: Path) -> None:
    for name, content in mar_files({"dense.onnx": graph_bytes()}, serializedFile="dense.onnx").items():
        write(tmp_path / "shop" / name, content)
    assert check(tmp_path / "shop", "shop") == ()


def test_code_of_an_archive_is_neither_run_nor_unpacked(tmp_path: Path) -> None:
    """The handler would leave a file; a name that holds it as the model's finds nothing to open."""
    handler = f"open({str(tmp_path / 'ran')!r}, 'w').close()"
    files = {"dense.onnx": graph_bytes(), "handler.py": handler}
    notes = check(mar(tmp_path / "shop.mar", files, serializedFile="dense.onnx", handler="handler.py"), "shop")
    assert "the handler handler.py is not imported" in notes[0]
    with pytest.raises(ModelError, match="it is Python code, and no code of it is executed"):
        load(str(mar(tmp_path / "code.mar", files, serializedFile="handler.py")))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("files", "model", "reason"),
    [
        ({"w.pth": b"\x80\x02}q\x00."}, {"serializedFile": "w.pth", "modelFile": "net.py"}, "an eager model: w.pth are weights for the Python code"),
        ({"handler.py": ""}, {"handler": "handler.py"}, "must name a serializedFile, got none: the handler handler.py makes the model"),
        ({}, {"serializedFile": "gone.onnx"}, "the model must lie at gone.onnx, got nothing there"),
        ({"w.pt": b"\x80\x02}q\x00."}, {"serializedFile": "w.pt"}, "got a pickle, which can run code and is not opened"),
        ({"w.bin": b"x"}, {"serializedFile": "w.bin"}, "a pickle can run code"),
        ({"w.so": b"x"}, {"serializedFile": "w.so"}, "compiled code and is not executed"),
        ({"w.onnx": b"\x00\x01\x02"}, {"serializedFile": "w.onnx"}, "shop.mar/w.onnx: must hold a whole ONNX graph"),
        ({"w.onnx": b"x"}, {"serializedFile": "../w.onnx"}, "do not trust"),
        ({"w.onnx": b"x"}, {"serializedFile": "/etc/passwd"}, "do not trust"),
        ({"w.onnx": b"x"}, {"serializedFile": ["w.onnx"]}, "must name a serializedFile"),
        ({"w.onnx": b"x", "c.yaml": "batchSize: 999999999"}, {"serializedFile": "w.onnx", "configFile": "c.yaml"}, "largest batch must be from 1"),
    ],
)  # fmt: skip
def test_archives_of_torchserve_that_are_refused(
    tmp_path: Path, files: dict[str, bytes | str], model: dict[str, object], reason: str
) -> None:
    path = mar(tmp_path / "shop.mar", files, **model)
    with pytest.raises(ModelError) as refused:
        load(str(path))
    assert reason in str(refused.value)
    assert "headway-" not in str(refused.value), "where it was unpacked is nobody's business"


def test_a_folder_of_mlserver(tmp_path: Path) -> None:
    tensors = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 12]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
    }
    settings = {"parameters": {"uri": "./weights/dense.onnx"}, "max_batch_size": 16, "max_batch_time": 0.005, **tensors}
    folder = mlserver(tmp_path / "shop", {"weights/dense.onnx": graph_bytes(), "settings.json": '{"parallel_workers": 3}'}, **settings)
    notes = check(folder, "dense")
    assert notes[0] == "MLServer served it with 3 instances, batches of up to 16, waiting up to 5 ms"
    assert "the runtime runtime.Onnx is Python code and is not executed" in notes[1] and len(notes) == 2


@pytest.mark.parametrize(
    "settings", [{}, {"parameters": {"uri": "."}}, {"parameters": {"uri": "./weights"}}, {"parameters": {"version": "v1"}}]
)
def test_mlserver_finds_the_only_model(tmp_path: Path, settings: dict[str, object]) -> None:
    where = "weights/any.onnx" if "weights" in str(settings) else "any.onnx"
    notes = check(mlserver(tmp_path / "shop", {where: graph_bytes()}, max_batch_size=16, **settings), "dense")
    assert notes[0] == "MLServer served it with 1 instance, each request alone", "without a time MLServer forms no batches"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"implementation": "mlserver_sklearn.SKLearnModel"}, "a pickle, which can run code and is not opened; convert it with skl2onnx"),
        ({"implementation": "mlserver_xgboost.XGBoostModel"}, "convert it with onnxmltools"),
        ({"implementation": "mlserver_lightgbm.LightGBMModel"}, "convert it with onnxmltools"),
        ({"implementation": "mlserver_mlflow.MLflowRuntime"}, "opened by pickles and Python code, which are not executed"),
        ({"implementation": "mlserver_huggingface.HuggingFaceRuntime"}, "optimum-cli export onnx"),
        ({"implementation": "mlserver_alibi_detect.AlibiDetectRuntime"}, "give that model"),
        ({"parameters": {"uri": "model.joblib"}}, "a pickle can run code"),
        ({"parameters": {"uri": "gone.onnx"}}, "the model must lie at gone.onnx, got nothing there"),
        ({"parameters": {"uri": "s3://bucket/model.onnx"}}, "copy the model into the folder"),
        ({"parameters": {"uri": "../other/model.onnx"}}, "do not trust"),
        ({"parameters": {"uri": "/etc/passwd"}}, "do not trust"),
        ({"parameters": {"uri": 5}}, "must be a file in the folder"),
        ({}, "must hold one ONNX file, got 2 ONNX files"),
        ({"parameters": {"uri": "a.onnx"}, "max_batch_size": "many"}, "max_batch_size must be a number, got 'many'"),
        ({"parameters": {"uri": "a.onnx"}, "max_batch_size": 1e999}, "max_batch_size must be a number"),
        ({"parameters": {"uri": "a.onnx"}, "max_batch_size": 10**8, "max_batch_time": 1}, "largest batch must be from 1"),
    ],
)
def test_models_of_mlserver_that_are_refused(tmp_path: Path, settings: dict[str, object], reason: str) -> None:
    with pytest.raises(ModelError) as refused:
        load(str(mlserver(tmp_path / "shop", {"a.onnx": b"x", "b.onnx": b"x", "model.joblib": b"\x80\x04."}, **settings)))
    assert reason in str(refused.value)


def test_a_folder_of_none_of_them_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    with pytest.raises(ModelError) as refused:
        load(str(tmp_path))
    for sought in ("saved_model.pb", "config.pbtxt", "MAR-INF/MANIFEST.json", "model-settings.json", "1/saved_model.pb"):
        assert sought in str(refused.value)


def test_a_folder_of_two_servers_must_be_named(tmp_path: Path) -> None:
    mlserver(triton(tmp_path / "dense"), {}, parameters={"uri": "1/model.onnx"})
    with pytest.raises(ModelError, match=r"what looks like mlserver and triton; write mlserver:\S+ or triton:\S+"):
        load(str(tmp_path / "dense"))
    assert check(f"mlserver:{tmp_path / 'dense'}", "dense")[0].startswith("MLServer served it")
    assert check(f"triton:{tmp_path / 'dense'}", "dense")[0].startswith("Triton served it")


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("triton:{}/nowhere", "nothing there"),
        ("mlserver:{}/dense", "the folder must look so: MLServer: model-settings.json"),
        ("mar:{}/dense/1/model.onnx", "a file of kind .mar, got a file of kind '.onnx'"),
        ("{}/dense/config.pbtxt", "give the folder, not the file in it"),
        ("{}/dense.tar.gz", "unpack it and give the folder"),
        ("{}/" + "x" * 5000, "nothing there"),
        ("{}/zero\0byte", "nothing there"),
    ],
)
def test_references_that_do_not_fit(tmp_path: Path, reference: str, reason: str) -> None:
    triton(tmp_path / "dense")
    write(tmp_path / "dense.tar.gz", b"x")
    with pytest.raises(ModelError) as refused:
        load(reference.format(tmp_path))
    assert reason in str(refused.value)
