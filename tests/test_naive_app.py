"""The naive deployment answers as the real one does, so that comparing them is fair."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.http as triton

from serving import SOURCE, Wire, affine_model, binary_body, binary_outputs, json_body, process, request

INFER = "/v2/models/any/infer"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    model = affine_model(tmp_path_factory.mktemp("naive") / "m.onnx")
    with process("headway.measure.naive_app", str(model), "--port", "0") as (_, line):
        yield line["port"]


def test_json_and_binary_are_answered(port: int) -> None:
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    with Wire(port) as wire:
        wire.send(request(INFER, json_body(*x.tolist(), id="q")))
        status, _, body = wire.answer()
        assert status == 200
        assert json.loads(body)["id"] == "q"
        assert json.loads(body)["outputs"][0]["data"] == (x * 2 + 1).ravel().tolist()
        given, header = binary_body(x)
        wire.send(request(INFER, given, header))
        status, headers, body = wire.answer()
        np.testing.assert_array_equal(binary_outputs(headers, body)["y"], x * 2 + 1)
        wire.send(request(INFER, b"{"))
        assert wire.answer()[0] == 400


def test_tritonclient_works_with_it(port: int) -> None:
    x = np.ones((1, 4), np.float32)
    with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        assert client.is_server_ready()
        given = triton.InferInput("x", [1, 4], "FP32")
        given.set_data_from_numpy(x)
        np.testing.assert_array_equal(client.infer("any", [given]).as_numpy("y"), x * 2 + 1)


def test_a_missing_model_is_one_sentence() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "headway.measure.naive_app", "/nowhere.onnx"],
        capture_output=True, text=True, env={"PYTHONPATH": str(SOURCE)}, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
