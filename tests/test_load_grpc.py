"""The sender over gRPC against our own server: answers are right, refusals and failures are told apart, what is missing is said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import serving
from headway.api.load_grpc import GrpcTarget
from headway.api.load_session import LoadAsked, loading
from headway.api.load_target import Sending
from headway.load import senders
from headway.load.generator import FAILED, OK, REFUSED
from headway.records import ConfigError, DataError, MeasurementError
from headway.serve import Ready

pytest.importorskip("grpc")

from headway.load.senders.grpc import GrpcSender, open_sender

ROW = np.ones((1, 4), np.float32)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ready]:
    folder = tmp_path_factory.mktemp("grpc")
    opened = serving.bundle(folder / "bundle", serving.entry(serving.affine_model(folder / "m.onnx")))
    with serving.running(opened, grpc=("127.0.0.1", 0)) as told:
        yield told


def test_every_answer_is_the_one_to_its_request(ready: Ready) -> None:
    rows = [{"x": np.full((size, 4), size, np.float32)} for size in (1, 2, 3)]
    with loading(LoadAsked(target=f"grpc://127.0.0.1:{ready.grpc_port}", model="tiny")) as opened:
        assert opened.target.kind == "grpc" and opened.target.inputs[0].name == "x"
        ran = opened.target.run(rows, np.linspace(0, 0.3, 60), drain_s=30.0, keep_answers=True)
        one_by_one = opened.target.run(rows, np.zeros(5), most_in_flight=1, drain_s=30.0)
        assert opened.alone_s() > 0
    assert (ran.raw.status == OK).all() and len(ran.answers) == 60
    for told in ran.answers:
        assert told.variant == "a" and np.allclose(told.outputs["y"], 2 * rows[told.sample]["x"] + 1)
    assert (np.diff(one_by_one.raw.done_s) > 0).all(), "one at a time, in turn"


def test_a_wrong_request_fails_and_an_overfull_server_refuses(ready: Ready, tmp_path: Path) -> None:
    sender = GrpcSender(f"127.0.0.1:{ready.grpc_port}", None, "")
    try:
        wrong = sender.request("tiny", {"y": ROW})
        assert (sender.run([wrong], np.zeros(3), drain_s=30.0).status == FAILED).all()
    finally:
        sender.close()
    slow = serving.bundle(tmp_path / "slow", serving.entry(serving.slow_model(tmp_path / "s.onnx", 20_000)))
    with serving.running(slow, grpc=("127.0.0.1", 0), queue_limit=1) as told:
        target = GrpcTarget(f"grpc://127.0.0.1:{told.grpc_port}", "tiny", Sending())
        status = target.run([{"x": ROW}], np.zeros(40), drain_s=30.0).raw.status
        target.close()
    assert (status == REFUSED).any() and set(status.tolist()) <= {OK, REFUSED}


def test_what_cannot_be_is_said(ready: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    place = f"127.0.0.1:{ready.grpc_port}"
    with pytest.raises(ConfigError, match="ModelMetadata"):
        GrpcTarget(f"grpc://{place}", "other", Sending())
    with pytest.raises(ConfigError, match="HOST:PORT"):
        GrpcTarget("grpc://somewhere", "", Sending())
    with pytest.raises(ConfigError, match="--spin"):
        GrpcTarget(f"grpc://{place}", "", Sending(spin=True))
    with pytest.raises(ConfigError, match="--insecure"):
        GrpcTarget(f"grpcs://{place}", "", Sending(trust=Sending().trust._replace(insecure=True)))
    with pytest.raises(DataError, match="complex64"):
        GrpcSender.request("m", {"x": ROW.astype(np.complex64)})
    with pytest.raises(MeasurementError, match="Open Inference"):
        GrpcSender.outputs(b"\xff\xff")
    nobody = open_sender("127.0.0.1:9", None, "")
    with pytest.raises(MeasurementError, match="start it first"):
        nobody.run([b"x"], np.zeros(1))
    nobody.close()
    monkeypatch.setattr(senders, "__path__", [])
    with pytest.raises(ConfigError, match=r"headway\[grpc\]"):
        GrpcTarget(f"grpc://{place}", "", Sending())


def test_tokens_go_along(tmp_path: Path) -> None:
    opened = serving.bundle(tmp_path / "bundle", serving.entry(serving.affine_model(tmp_path / "m.onnx")))
    with serving.running(opened, grpc=("127.0.0.1", 0), token="secret") as told:
        sender = open_sender(f"127.0.0.1:{told.grpc_port}", None, "secret")
        body = sender.request("tiny", {"x": ROW})
        assert (sender.run([body], np.zeros(2), drain_s=30.0).status == OK).all()
        sender.close()
        without = open_sender(f"127.0.0.1:{told.grpc_port}", None, "")
        assert (without.run([body], np.zeros(2), drain_s=30.0).status == FAILED).all()
        without.close()
