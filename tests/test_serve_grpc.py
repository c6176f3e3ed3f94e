"""The gRPC front with the field's own clients: what they ask is answered as over HTTP."""

from __future__ import annotations

import asyncio
import json
import queue
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton

from headway.protocol.messages import SERVICE, InferRequest, InferResponse
from headway.records import InputError
from headway.serve import Ready
from headway.serve.fronts import grpc as front
from headway.serve.fronts.grpc import open_front
from headway.serve.limits import Limits
from headway.serve.seen import Refused
from serving import SOURCE, affine_model, bundle, entry, lookup_model, running, slow_model

ANYWHERE = ("127.0.0.1", 0)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ready]:
    folder = tmp_path_factory.mktemp("served")
    opened = (
        bundle(folder / "a", entry(affine_model(folder / "a.onnx")), labels=("w", "x", "y", "z")),
        bundle(folder / "b", entry(lookup_model(folder / "b.onnx")), name="lookup"),
    )
    with running(*opened, grpc=ANYWHERE, control=True) as told:
        yield told


@pytest.fixture
def client(ready: Ready) -> Iterator[Any]:
    with triton.InferenceServerClient(f"127.0.0.1:{ready.grpc_port}") as made:
        yield made


def tensor(array: np.ndarray, name: str = "x", kind: str = "FP32") -> Any:
    made = triton.InferInput(name, list(array.shape), kind)
    made.set_data_from_numpy(array)
    return made


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)


def test_an_inference_gives_the_numbers_shapes_id_and_variant(client: Any) -> None:
    given = rows(3)
    result = client.infer("tiny", [tensor(given)], request_id="seven")
    np.testing.assert_array_equal(result.as_numpy("y"), given * 2 + 1)
    np.testing.assert_array_equal(result.as_numpy("top"), given.argmax(axis=1))
    response = result.get_response()
    assert (response.id, response.model_name, response.model_version) == ("seven", "tiny", "1")
    assert response.parameters["headway-variant"].string_param == "a"


def test_only_the_outputs_that_were_asked_for_come_in_their_order(client: Any) -> None:
    result = client.infer("tiny", [tensor(rows(2))], outputs=[triton.InferRequestedOutput(name) for name in ("top", "y")])
    assert [output.name for output in result.get_response().outputs] == ["top", "y"]
    result = client.infer("tiny", [tensor(rows(2))], outputs=[triton.InferRequestedOutput("top")])
    assert result.as_numpy("y") is None


def test_classes_come_as_strings(client: Any) -> None:
    given = np.array([[0, 3, 1, 2]], np.float32)
    result = client.infer("tiny", [tensor(given)], outputs=[triton.InferRequestedOutput("y", class_count=2)])
    assert result.as_numpy("y").tolist() == [[b"7.000000:1:x", b"5.000000:3:z"]]


def test_nan_and_infinity_travel(client: Any) -> None:
    given = np.array([[np.nan, np.inf, -np.inf, 0]], np.float32)
    np.testing.assert_array_equal(client.infer("tiny", [tensor(given)]).as_numpy("y"), given * 2 + 1)


def test_answers_equal_those_over_http(ready: Ready, client: Any) -> None:
    given = rows(2, seed=3)
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 4], "data": given.tolist()}]}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{ready.url}/v2/models/tiny/infer", body), timeout=10) as answer:
        outputs = {output["name"]: output["data"] for output in json.load(answer)["outputs"]}
    result = client.infer("tiny", [tensor(given)])
    assert result.as_numpy("y").ravel().tolist() == np.array(outputs["y"], np.float32).tolist()
    assert result.as_numpy("top").tolist() == outputs["top"]


def call(port: int, method: str, request: Any, answer: Any, **more: Any) -> Any:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        body = channel.unary_unary(f"/{SERVICE}/{method}")(request.SerializeToString(), timeout=10, **more)
    return answer.FromString(body)


def test_typed_contents_are_read_and_answered_raw(ready: Ready) -> None:
    inputs = [{"name": "ids", "datatype": "INT64", "shape": [1, 3], "contents": {"int64_contents": [1, 2, 3]}}]
    answer = call(ready.grpc_port, "ModelInfer", InferRequest(model_name="lookup", inputs=inputs), InferResponse)
    assert np.frombuffer(answer.raw_output_contents[0], np.float32).tolist() == [2.0]
    assert not answer.outputs[0].HasField("contents")


def test_health_metadata_configuration_and_index(client: Any) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("tiny") and client.is_model_ready("tiny", "1")
    assert not client.is_model_ready("tiny", "9") and not client.is_model_ready("nowhere")
    assert client.get_server_metadata().name == "headway"
    about = client.get_model_metadata("tiny")
    assert [(one.name, one.datatype, list(one.shape)) for one in about.inputs] == [("x", "FP32", [-1, 4])]
    config = client.get_model_config("tiny").config
    assert (config.name, config.max_batch_size, list(config.input[0].dims), config.input[0].data_type) == ("tiny", 8, [4], 11)
    assert {(one.name, one.state) for one in client.get_model_repository_index().models} == {("tiny", "READY"), ("lookup", "READY")}


def test_a_model_is_unloaded_and_loaded(client: Any) -> None:
    client.unload_model("lookup")
    assert not client.is_model_ready("lookup") and not client.is_server_ready()
    with pytest.raises(triton.InferenceServerException, match="UNAVAILABLE"):
        client.infer("lookup", [tensor(np.array([[1]]), "ids", "INT64")])
    client.load_model("lookup")
    assert client.is_model_ready("lookup")
    with pytest.raises(triton.InferenceServerException, match=r"INVALID_ARGUMENT.*parameters must be left out"):
        client.load_model("lookup", config="{}")


def test_a_stream_answers_every_request_and_goes_on_after_an_error(client: Any) -> None:
    got: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(callback=lambda result, error: got.put((result, error)))
    for place in range(200):
        client.async_stream_infer("tiny" if place != 50 else "nowhere", [tensor(rows(1, place))], request_id=str(place))
    client.stop_stream()
    answers = [got.get(timeout=10) for _ in range(200)]
    errors = [str(error) for _, error in answers if error is not None]
    assert len(errors) == 1 and "the model must be one of" in errors[0]
    responses = {result.get_response().id: result for result, error in answers if error is None}
    assert set(responses) == {str(place) for place in range(200)} - {"50"}
    for name, result in responses.items():
        np.testing.assert_array_equal(result.as_numpy("y"), rows(1, int(name)) * 2 + 1)
        assert result.get_response().parameters["triton_final_response"].bool_param


def test_300_calls_at_once_get_their_own_answers(ready: Ready, client: Any) -> None:
    def ask(seed: int) -> bool:
        given = rows(1 + seed % 3, seed)
        return np.array_equal(client.infer("tiny", [tensor(given)]).as_numpy("y"), given * 2 + 1)

    with ThreadPoolExecutor(64) as pool:
        assert all(pool.map(ask, range(300)))


ASYNC_CLIENT = """
import asyncio, sys
import numpy as np
import tritonclient.grpc.aio as triton

async def main():
    async with triton.InferenceServerClient("127.0.0.1:" + sys.argv[1]) as client:
        async def ask(place):
            given = triton.InferInput("x", [1, 4], "FP32")
            given.set_data_from_numpy(np.full((1, 4), place, np.float32))
            return (await client.infer("tiny", [given])).as_numpy("y")
        answers = await asyncio.gather(*map(ask, range(100)))
        assert all((answer == 2 * place + 1).all() for place, answer in enumerate(answers))
        async def several():
            for place in range(20):
                given = triton.InferInput("x", [1, 4], "FP32")
                given.set_data_from_numpy(np.full((1, 4), place, np.float32))
                yield {"model_name": "tiny", "inputs": [given], "request_id": str(place)}
        seen = {}
        async for result, error in client.stream_infer(several()):
            assert error is None
            seen[result.get_response().id] = result.as_numpy("y")[0, 0]
        assert seen == {str(place): 2.0 * place + 1 for place in range(20)}
    print("done")

asyncio.run(main())
"""


def test_the_asynchronous_client_is_answered(ready: Ready) -> None:
    command = [sys.executable, "-c", ASYNC_CLIENT, str(ready.grpc_port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env={"PYTHONPATH": str(SOURCE)})
    assert done.stdout == "done\n", done.stderr


def test_accepted_calls_are_answered_while_the_server_stops(tmp_path: Path) -> None:
    slow = bundle(tmp_path / "s", entry(slow_model(tmp_path / "s.onnx", 60_000)))
    with (
        running(slow, grpc=ANYWHERE, deadline_s=60.0) as told,
        grpc.insecure_channel(f"127.0.0.1:{told.grpc_port}") as channel,
        ThreadPoolExecutor(3) as pool,
    ):
        ask = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        given = np.ones((1, 4), np.float32)
        request = InferRequest(
            model_name="tiny", inputs=[{"name": "x", "datatype": "FP32", "shape": [1, 4]}], raw_input_contents=[given.tobytes()]
        ).SerializeToString()
        grpc.channel_ready_future(channel).result(10)
        accepted = [pool.submit(ask, request, timeout=30) for _ in range(3)]
        while not waiting(told):
            time.sleep(0.005)
        told.stop()
        for answer in accepted:
            output = np.frombuffer(InferResponse.FromString(answer.result(30)).raw_output_contents[0], np.float32)
            np.testing.assert_array_equal(output, given[0] + 60_000)


def waiting(told: Ready) -> bool:
    """Whether three requests are in flight, by the server's own gauge."""
    with urllib.request.urlopen(f"{told.url}/metrics", timeout=10) as answer:
        lines = [line for line in answer.read().decode().splitlines() if line.startswith("headway_in_flight")]
    return any(float(line.rsplit(" ", 1)[1]) == 3 for line in lines)


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1"])
def test_an_address_that_cannot_be_had_is_refused(ready: Ready, host: str) -> None:
    models: Any = None
    with pytest.raises(InputError, match="the address must be free"):
        asyncio.run(open_front(models, host=host, port=ready.grpc_port or 0, limits=Limits(), token=None, tls=None))


def test_statistics_come_from_whoever_counts(client: Any) -> None:
    assert client.get_inference_statistics("tiny") is not None
    with pytest.raises(triton.InferenceServerException, match="NOT_FOUND"):
        client.get_inference_statistics("nowhere")


def test_what_happens_is_told_to_those_who_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[Refused] = []
    arrived: list[tuple[float, int]] = []
    incoming: list[tuple[float, bytes]] = []
    told = {"refused": refused.append, "arrived": lambda *seen: arrived.append(seen), "incoming": lambda *seen: incoming.append(seen)}
    counted = {"statistics": lambda versions: {"model_stats": [{"name": name, "version": v, "inference_count": 7} for name, v in versions]}}
    monkeypatch.setattr(front, "open_front", lambda models, **given: open_front(models, **{**given, **told, **counted}))
    opened = bundle(tmp_path / "b", entry(affine_model(tmp_path / "m.onnx")))
    with running(opened, grpc=ANYWHERE) as ready, triton.InferenceServerClient(f"127.0.0.1:{ready.grpc_port}") as client:
        client.infer("tiny", [tensor(rows(3))], headers={"traceparent": "00-1-2-01"})
        with pytest.raises(triton.InferenceServerException):
            client.infer("nowhere", [tensor(rows(1))])
        assert client.get_inference_statistics("tiny").model_stats[0].inference_count == 7
    assert [count for _, count in arrived] == [3]
    assert incoming == [(arrived[0][0], b"00-1-2-01")]
    assert [(one.model, one.reason, one.status) for one in refused] == [("", "unknown", 404)]


def test_no_thread_of_the_server_is_left(tmp_path: Path) -> None:
    opened = bundle(tmp_path / "b", entry(affine_model(tmp_path / "m.onnx")))
    before = {thread.name for thread in threading.enumerate()}
    with running(opened, grpc=ANYWHERE) as told:
        call(told.grpc_port, "ServerLive", InferRequest(), InferResponse)
    assert {thread.name for thread in threading.enumerate() if not thread.daemon} <= before
