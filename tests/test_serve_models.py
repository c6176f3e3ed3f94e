"""Several models and versions of one server: loading, swapping, sharing out, shadowing, stepping, deadlines. Over real sockets."""

from __future__ import annotations

import json
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import InferenceServerException

from headway.records import BundleError, HeadwayError, Plan
from headway.serve import OpenBundle, Ready, open_bundle
from headway.serve.repository import scan
from headway.serve.served import deadline_s
from headway.serve.start import within_cores
from headway.serve.traffic import Comparison, Shares
from serving import affine_model, bundle, entry, json_body, running, slow_model

X = np.array([[1, 2, 3, 4]], np.float32)
PLAN = Plan(runtime="onnx_runtime", max_batch=8)


def ask(url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """Status and JSON of an answer; a body makes it a POST."""
    asked = urllib.request.Request(url, body, headers or {})
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def infer(client: triton.InferenceServerClient, name: str = "m", version: str = "", **options: Any) -> np.ndarray:
    given = triton.InferInput("x", list(X.shape), "FP32")
    given.set_data_from_numpy(X)
    return client.infer(name, [given], model_version=version, **options).as_numpy("y")


@pytest.fixture
def server(repository: Path) -> Iterator[Ready]:
    with running(repository=repository, control=True) as ready:
        yield ready


@pytest.fixture
def client(server: Ready) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"{server.host}:{server.port}") as opened:
        yield opened


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Model ``m`` in version 1 (times 2) and ``other`` (times 5), in their folders."""
    root = tmp_path / "models"
    for folder, scale in (("m/1", 2.0), ("other", 5.0)):
        place(root / folder, tmp_path, scale)
    return root


def place(folder: Path, space: Path, scale: float, name: str = "whatever") -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    bundle(folder, entry(affine_model(space / f"{scale}.onnx", scale), plan=PLAN), name=name)


# --- the repository


def test_models_are_named_by_their_folders(client: triton.InferenceServerClient) -> None:
    assert {(entry["name"], entry["version"], entry["state"]) for entry in client.get_model_repository_index()} == {
        ("m", "1", "READY"), ("other", "1", "READY"),
    }  # fmt: skip
    np.testing.assert_array_equal(infer(client), X * 2 + 1)
    np.testing.assert_array_equal(infer(client, "other"), X * 5 + 1)
    assert client.get_model_config("m")["max_batch_size"] == 8


def test_a_new_version_is_loaded_and_answers(client: triton.InferenceServerClient, repository: Path, tmp_path: Path) -> None:
    place(repository / "m" / "2", tmp_path, 3.0)
    client.load_model("m")
    np.testing.assert_array_equal(infer(client), X * 3 + 1)
    np.testing.assert_array_equal(infer(client, version="1"), X * 2 + 1)
    assert client.get_model_metadata("m")["versions"] == ["1", "2"]
    shutil.rmtree(repository / "m" / "1")
    client.load_model("m")
    assert client.get_model_metadata("m")["versions"] == ["2"]
    with pytest.raises(InferenceServerException, match="not ready"):
        infer(client, version="1")


def test_what_cannot_be_loaded_leaves_the_old_one_answering(client: triton.InferenceServerClient, repository: Path) -> None:
    (repository / "m" / "1" / "bundle.json").write_text("{}")
    with pytest.raises(InferenceServerException, match="could not be loaded"):
        client.load_model("m")
    np.testing.assert_array_equal(infer(client), X * 2 + 1)
    reasons = [entry["reason"] for entry in client.get_model_repository_index() if entry["name"] == "m"]
    assert "an older bundle still answers" in reasons[0]


def test_a_model_is_unloaded_and_loaded_again(client: triton.InferenceServerClient) -> None:
    client.unload_model("m")
    assert not client.is_model_ready("m")
    assert client.is_model_ready("other")
    with pytest.raises(InferenceServerException, match="not ready"):
        infer(client)
    client.load_model("m")
    np.testing.assert_array_equal(infer(client), X * 2 + 1)
    with pytest.raises(InferenceServerException, match="must be one of"):
        client.load_model("nobody")


def test_a_swap_under_load_loses_nothing(server: Ready, client: triton.InferenceServerClient, repository: Path, tmp_path: Path) -> None:
    """Every answer is one of the two versions', whole, while the bundle is swapped four times."""
    over = threading.Event()
    seen: set[float] = set()
    count = [0]

    def send() -> None:
        body = json_body(X[0].tolist())
        while not over.is_set():
            status, told = ask(f"{server.url}/v2/models/m/infer", body)
            assert status == 200, told
            y = np.array(told["outputs"][0]["data"]).reshape(1, 4)
            assert any(np.array_equal(y, X * scale + 1) for scale in (2.0, 3.0)), y
            seen.add(float(y[0, 0]))
            count[0] += 1

    with ThreadPoolExecutor(8) as pool:
        senders = [pool.submit(send) for _ in range(8)]
        for scale in (3.0, 2.0, 3.0, 2.0):
            place(tmp_path / "new", tmp_path, scale)
            old = repository / "m" / "1"
            old.rename(tmp_path / f"old-{time.time_ns()}")
            (tmp_path / "new").rename(old)
            client.load_model("m")
        over.set()
        for sender in senders:
            sender.result()
    assert seen == {3.0, 4.0} and count[0] > 100


def test_without_control_nothing_is_changed(repository: Path) -> None:
    with running(repository=repository) as ready:
        for path in ("/v2/repository/models/m/load", "/v2/repository/models/m/unload", "/v2/headway/traffic/m"):
            assert ask(ready.url + path, b"{}")[0] == 403
        assert ask(ready.url + "/v2/repository/index", b"")[0] == 200


def test_a_repository_with_one_broken_model_serves_the_others(repository: Path) -> None:
    (repository / "other" / "bundle.json").write_text("{}")
    with running(repository=repository) as ready:
        assert ask(ready.url + "/v2/models/m/ready")[0] == 200
        assert ask(ready.url + "/v2/models/other/ready")[0] == 503
        assert ask(ready.url + "/v2/health/ready")[0] == 503
        states = {entry["name"]: entry["state"] for entry in ask(ready.url + "/v2/repository/index", b"")[1]}
        assert states == {"m": "READY", "other": "UNAVAILABLE"}
    (repository / "m" / "1" / "bundle.json").write_text("{}")
    with pytest.raises(HeadwayError, match="none could be loaded"), running(repository=repository):
        pass


def test_where_models_are_looked_for(repository: Path, tmp_path: Path) -> None:
    assert {name: list(versions) for name, versions in scan(repository).items()} == {"m": ["1"], "other": ["1"]}
    (repository / "empty").mkdir()
    assert "empty" not in scan(repository)
    with pytest.raises(BundleError, match="must be a folder"):
        scan(tmp_path / "nowhere")


# --- versions and traffic


@pytest.fixture
def three(tmp_path: Path) -> list[OpenBundle]:
    """Three versions of ``m``: times 2, times 3, times -2 (another largest place)."""
    bundles = []
    for number, scale in enumerate((2.0, 3.0, -2.0)):
        place(tmp_path / str(number), tmp_path, scale, "m")
        bundles.append(open_bundle(tmp_path / str(number)))
    return bundles


def direct(ready: Ready, **traffic: Any) -> tuple[int, Any]:
    return ask(f"{ready.url}/v2/headway/traffic/m", json.dumps(traffic).encode())


def test_a_canary_gets_exactly_its_share(three: list[OpenBundle]) -> None:
    with running(*three[:2], control=True) as ready:
        assert direct(ready, primary="1", canary={"version": "2", "share": 0.25})[0] == 200
        firsts = [ask(f"{ready.url}/v2/models/m/infer", json_body([1, 2, 3, 4]))[1] for _ in range(40)]
        by_version = [told["model_version"] for told in firsts]
        assert by_version.count("2") == 10
        assert all(told["outputs"][0]["data"][0] == {"1": 3.0, "2": 4.0}[told["model_version"]] for told in firsts)
        assert direct(ready, primary="2")[0] == 200
        assert {ask(f"{ready.url}/v2/models/m/infer", json_body([1, 2, 3, 4]))[1]["model_version"] for _ in range(5)} == {"2"}


def test_a_shadow_computes_and_is_compared(three: list[OpenBundle]) -> None:
    with running(*three, control=True) as ready:
        for version, flips in (("2", 0), ("3", 20)):
            assert direct(ready, primary="1", shadow={"version": version})[0] == 200
            for _ in range(20):
                assert ask(f"{ready.url}/v2/models/m/infer", json_body([1, 2, 3, 4]))[1]["model_version"] == "1"
            deadline = time.monotonic() + 10
            while (told := ask(f"{ready.url}/v2/headway/traffic/m")[1])["compared"]["rows"] < 20 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert told["compared"] == {"rows": 20, "flips": flips, "skipped": 0}
            assert told["shadow"] == {"version": version}


@pytest.mark.parametrize(
    "traffic", [{"canary": {"version": "9", "share": 0.1}}, {"canary": {"version": "1", "share": 2}}, {"primary": 3}, {"surprise": 1}]
)
def test_traffic_that_makes_no_sense_is_refused(three: list[OpenBundle], traffic: dict[str, Any]) -> None:
    with running(*three[:1], control=True) as ready:
        assert direct(ready, **traffic)[0] == 400


@given(st.floats(0, 1), st.integers(1, 500))
def test_shares_are_exact_over_any_stretch(share: float, count: int) -> None:
    shares = Shares(share)
    given = [shares.next() for _ in range(count)]
    assert abs(sum(given) - share * count) <= 1 + 1e-6


def test_flips_are_counted_by_kind() -> None:
    comparison = Comparison()
    scores = np.array([[0.1, 0.9], [0.8, 0.2]], np.float32)
    comparison.compare([scores], [scores[:, ::-1]], 2)
    assert (comparison.rows, comparison.flips) == (2, 2)
    comparison.compare([scores], [scores + np.float32(0.01)], 2)
    assert (comparison.rows, comparison.flips) == (4, 2)
    comparison.compare([np.array([1, 2])], [np.array([1, 3])], 2)
    assert (comparison.rows, comparison.flips) == (6, 3)
    comparison.compare([np.array([1.0, 2.0])], [np.array([1.0, 2.2])], 2)
    assert (comparison.rows, comparison.flips) == (8, 4)


# --- deadlines, priorities, levels


@pytest.fixture
def slow(tmp_path: Path) -> OpenBundle:
    return bundle(
        tmp_path / "slow", entry(slow_model(tmp_path / "s.onnx", 20_000), plan=Plan(runtime="onnx_runtime", max_batch=2)), name="m"
    )


def body(**parameters: Any) -> bytes:
    return json_body([1, 2, 3, 4], parameters=parameters)


def test_a_timeout_that_cannot_be_met_is_refused_at_once(slow: OpenBundle) -> None:
    with running(slow, deadline_s=60.0) as ready:
        url = f"{ready.url}/v2/models/m/infer"
        assert ask(url, body(timeout=1))[0] == 429
        assert ask(url, body(timeout=10_000_000))[0] == 200
        assert ask(url, body(timeout="soon"))[0] == 400
        assert ask(url, body(priority=-1))[0] == 400


def test_overload_is_refused_and_what_is_accepted_is_in_time(slow: OpenBundle) -> None:
    with running(slow, deadline_s=0.25) as ready, ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda _: ask(f"{ready.url}/v2/models/m/infer", body()), range(200)))
    statuses = [status for status, _ in answers]
    assert set(statuses) == {200, 429}
    assert any("deadline" in told["error"] for status, told in answers if status == 429)


def test_a_deadline_is_as_asked_or_follows_the_objective_and_the_machine() -> None:
    assert deadline_s(0.5, 0.02, 0.001) == 0.5
    assert deadline_s(None, 0.02, 0.001) == 0.02
    assert deadline_s(None, 0.02, 0.1) == pytest.approx(0.3)
    assert deadline_s(None, None, 0.1) == float("inf")


def test_overload_steps_to_the_faster_variant_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headway.batching.policy.CALM_S", 0.5)
    entries = [
        entry(slow_model(tmp_path / f"{rounds}.onnx", rounds), f"rounds-{rounds}", Plan(runtime="onnx_runtime", max_batch=2))
        for rounds in (20_000, 200)
    ]
    opened = bundle(tmp_path / "b", *entries, name="m")
    with running(opened, levels=2, deadline_s=0.2) as ready:
        url = f"{ready.url}/v2/models/m/infer"
        assert variant_of(url) == "rounds-20000"
        over = threading.Event()
        with ThreadPoolExecutor(16) as pool:
            for _ in range(16):
                pool.submit(lambda: [ask(url, body()) for _ in iter(over.is_set, True)])
            assert becomes(url, "rounds-200")
            over.set()
        assert becomes(url, "rounds-20000")


def variant_of(url: str) -> str:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body()), timeout=10) as answer:
            return str(answer.headers["headway-variant"])
    except urllib.error.HTTPError as error:
        error.close()
        return ""


def becomes(url: str, variant: str) -> bool:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if variant_of(url) == variant:
            return True
        time.sleep(0.1)
    return False


def test_threads_stay_within_the_cores() -> None:
    notes: list[str] = []
    plan = Plan(runtime="onnx_runtime", instances=4, threads=2)
    assert within_cores(plan, 8, notes) is plan and not notes
    for cores, (instances, threads) in {4: (2, 2), 3: (1, 2), 1: (1, 1)}.items():
        fitted = within_cores(plan, cores, notes)
        assert (fitted.instances, fitted.threads) == (instances, threads)
    assert len(notes) == 3
