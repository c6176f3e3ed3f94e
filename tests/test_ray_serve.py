"""A bundle behind Ray Serve on a real cluster of two nodes on this machine: its answers, its refusals, a replica that is killed, an update under load."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

pytest.importorskip("ray.serve", reason="needs the extra ray")

import tritonclient.grpc as triton
from ray import serve
from ray.cluster_utils import Cluster
from tritonclient.utils import InferenceServerException

from headway.cluster import serving
from headway.cluster.serving import Asked, Deployed, deploy, enter, leave, remove
from headway.cluster.serving_parcel import Parcel, parcel
from headway.records import BundleError, ConfigError, HeadwayError, Plan
from headway.serve import OpenBundle, Settings, open_bundle
from headway.serve.golden import difference, tolerance
from serving import affine_model, binary_body, binary_outputs, bundle, entry, json_body, lookup_model, process, slow_model

pytestmark = pytest.mark.filterwarnings("default")  # Ray's own
NODE: dict[str, Any] = {"num_cpus": 2, "object_store_memory": 100_000_000}
PLAN = Plan(runtime="onnx_runtime", max_batch=4)
CLIENTS, TRIES = 4, 30
SOON_S = 60.0


def free_port() -> int:
    with contextlib.closing(socket.socket()) as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    before = {process.pid for process in psutil.process_iter()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        running = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        try:
            own = {"RAY_SERVE_WORKER_PROXY_HTTP_PORT": str(free_port()), "RAY_SERVE_WORKER_PROXY_GRPC_PORT": str(free_port())}
            running.add_node(**NODE, env_vars=own)
            yield running
        finally:
            running.shutdown()
    left = [process for process in psutil.process_iter(["name"]) if process.pid not in before and "ray" in process.info["name"]]
    _, alive = psutil.wait_procs(left, timeout=SOON_S)
    assert not alive, "no process of the cluster is left"


@pytest.fixture(scope="module")
def affine(tmp_path_factory: pytest.TempPathFactory) -> OpenBundle:
    folder = tmp_path_factory.mktemp("affine")
    return bundle(folder / "b", entry(affine_model(folder / "m.onnx"), "a", PLAN), labels=("w", "x", "y", "z"))


@pytest.fixture(scope="module")
def asked(cluster: Cluster, affine: OpenBundle) -> Asked:
    return Asked(where=f"ray:{cluster.address}", bundle=affine, http=("127.0.0.1", free_port()), grpc_port=free_port(), replicas=2)


@pytest.fixture(scope="module")
def deployed(asked: Asked) -> Iterator[Deployed]:
    enter(asked.where)
    try:
        told = deploy(asked, print)
        yield told
        remove(told)
        assert not serve.status().proxies, "Serve was started for this, and ends with it"
    finally:
        leave()


@dataclass
class Client:
    """One connection; ``errors`` are statuses that no replica of Headway gave."""

    port: int
    errors: list[int] = field(default_factory=list)
    connection: http.client.HTTPConnection | None = None

    def ask(self, path: str, body: bytes | None = None, headers: str = "", method: str = "") -> tuple[int, dict[str, str], bytes]:
        if self.connection is None:
            self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SOON_S)
        pairs = dict(line.split(": ", 1) for line in headers.splitlines())
        self.connection.request(method or ("GET" if body is None else "POST"), path, body, pairs)
        answer = self.connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()

    def insist(self, path: str, body: bytes, headers: str) -> tuple[int, dict[str, str], bytes]:
        """Ask again where the answer is not a replica's own: an inference may be repeated."""
        for _ in range(TRIES):
            try:
                told = self.ask(path, body, headers)
            except (OSError, http.client.HTTPException):
                self.close()
                self.errors.append(0)
                continue
            if "headway-replica" in told[1]:
                return told
            self.errors.append(told[0])
        raise AssertionError(f"no replica answered: {self.errors}")

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None


@pytest.fixture
def client(asked: Asked, deployed: Deployed) -> Iterator[Client]:
    with contextlib.closing(Client(asked.http[1])) as made:
        yield made


# --- answers


def test_it_says_what_runs_and_where(asked: Asked, deployed: Deployed) -> None:
    assert deployed.url == f"http://127.0.0.1:{asked.http[1]}" and deployed.grpc_port == asked.grpc_port
    assert (deployed.model, deployed.variant, deployed.replicas, deployed.updated) == ("tiny", "a", 2, False)
    assert not deployed.everywhere and any("every address" in note for note in deployed.notes)


def test_the_golden_set_is_answered_as_json_as_bytes_and_over_grpc(affine: OpenBundle, client: Client, deployed: Deployed) -> None:
    inputs, (outputs,) = affine.golden.inputs, affine.golden.outputs
    allowed = tolerance(affine.manifest, 0)
    with triton.InferenceServerClient(f"127.0.0.1:{deployed.grpc_port}") as grpc:
        for row in range(len(inputs["x"])):
            x = inputs["x"][row : row + 1]
            status, headers, answer = client.ask("/v2/models/tiny/infer", json_body(*x.tolist(), id="7"))
            assert status == 200 and headers["headway-variant"] == "a" and headers["content-type"] == "application/json"
            told = json.loads(answer)
            assert told["id"] == "7"
            by_json = {one["name"]: np.array(one["data"], outputs[one["name"]].dtype).reshape(one["shape"]) for one in told["outputs"]}
            body, head = binary_body(x)
            _, headers, answer = client.ask("/v2/models/tiny/infer", body, head)
            by_bytes = binary_outputs(headers, answer)
            tensor = triton.InferInput("x", list(x.shape), "FP32")
            tensor.set_data_from_numpy(x)
            result = grpc.infer("tiny", [tensor], request_id="7")
            assert result.get_response().id == "7"
            for name, expected in outputs.items():
                for got in (by_json[name], by_bytes[name], result.as_numpy(name)):
                    assert difference(got, expected[row : row + 1]) <= allowed


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v2/models/tiny/infer", b"{", 400, "valid JSON"),
        ("/v2/models/tiny/infer", json_body([1, 2, 3]), 400, "shape must be"),
        ("/v2/models/tiny/infer", json_body(*[[1, 2, 3, 4]] * 5), 400, "at most 4 rows"),
        ("/v2/models/other/infer", json_body([1, 2, 3, 4]), 404, "must be one of"),
        ("/v2/models/tiny/infer", json_body([1, 2, 3, 4], parameters={"timeout": 1}), 429, "deadline"),
        ("/v2/models/tiny/infer", None, 405, "POST"),
        ("/v2/nothing", None, 404, "the path must be"),
        ("/v2/repository/models/tiny/unload", b"{}", 403, "--control"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_the_servers_own_status(
    client: Client, path: str, body: bytes | None, status: int, said: str
) -> None:
    got, headers, answer = client.ask(path, body)
    assert (got, headers["content-type"]) == (status, "application/json")
    assert said in json.loads(answer)["error"] and headers["headway-replica"]
    assert status != 429 or headers["retry-after"] == "1"


def test_what_is_asked_beside_inferences(client: Client) -> None:
    assert client.ask("/v2/health/live")[0] == client.ask("/v2/health/ready")[0] == client.ask("/v2/models/tiny/ready")[0] == 200
    told = json.loads(client.ask("/v2/models/tiny")[2])
    assert told["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert json.loads(client.ask("/v2/models/tiny/stats")[2])["model_stats"][0]["name"] == "tiny"
    assert b"headway_ready 1.0" in client.ask("/metrics")[2]
    status, headers, answer = client.ask("/v2", method="HEAD")
    assert status == 200 and int(headers["content-length"]) > 0 and answer == b""


def test_grpc_refuses_with_its_own_codes_and_tells_of_the_model(deployed: Deployed) -> None:
    tensor = triton.InferInput("x", [1, 3], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 3), np.float32))
    with triton.InferenceServerClient(f"127.0.0.1:{deployed.grpc_port}") as grpc:
        assert grpc.is_server_live() and grpc.is_server_ready() and grpc.is_model_ready("tiny")
        assert grpc.get_model_metadata("tiny").name == grpc.get_model_config("tiny").config.name == "tiny"
        assert grpc.get_inference_statistics("tiny").model_stats[0].name == "tiny"
        assert grpc.get_server_metadata().name == "headway" and grpc.get_model_repository_index().models[0].name == "tiny"
        for name, code in (("tiny", "INVALID_ARGUMENT"), ("other", "NOT_FOUND")):
            with pytest.raises(InferenceServerException, match="must be") as refused:
                grpc.infer(name, [tensor])
            assert code in str(refused.value.status())


# --- a replica that ends, a bundle that changes


class Load(threading.Thread):
    """Asks without pause until it is told to stop; every answer is compared with its own request."""

    def __init__(self, port: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.client, self._random = Client(port), np.random.default_rng(seed)
        self.stopping = threading.Event()
        self.seen: dict[str, int] = {}
        self.wrong: list[str] = []
        self.start()

    def run(self) -> None:
        try:
            while not self.stopping.is_set():
                self._one()
        except Exception as error:
            self.wrong.append(repr(error))
        finally:
            self.client.close()

    def _one(self) -> None:
        x = self._random.normal(size=(1, 4)).astype(np.float32)
        body, head = binary_body(x)
        status, headers, answer = self.client.insist("/v2/models/tiny/infer", body, head)
        if status == 429:
            return
        variant = headers["headway-variant"]
        scale = {"a": 2, "b": 3}[variant]
        if status != 200 or not np.array_equal(binary_outputs(headers, answer)["y"], np.float32(scale) * x + 1):
            self.wrong.append(f"{status} {headers} {answer!r}")
        self.seen[variant] = self.seen.get(variant, 0) + 1

    def more(self, variant: str, count: int = 20) -> None:
        """Wait for so many further answers of a variant."""
        until, tick = self.seen.get(variant, 0) + count, threading.Event()
        for _ in range(int(SOON_S / 0.02)):
            if self.seen.get(variant, 0) >= until or self.wrong:
                break
            tick.wait(0.02)
        assert self.seen.get(variant, 0) >= until and not self.wrong, (self.seen, self.wrong)


@contextlib.contextmanager
def under_load(port: int) -> Iterator[list[Load]]:
    loads = [Load(port, seed) for seed in range(CLIENTS)]
    try:
        yield loads
    finally:
        for load in loads:
            load.stopping.set()
        for load in loads:
            load.join(SOON_S)
    assert not [wrong for load in loads for wrong in load.wrong]


def processes() -> dict[str, int]:
    """Process numbers of both replicas, by their names; a caller hears of new replicas a little after they run."""
    handle, found, tick = serve.get_app_handle("tiny"), {}, threading.Event()
    for _ in range(int(SOON_S / 0.02)):
        told = handle.about.remote().result(timeout_s=SOON_S)
        found[told["replica"]] = told["process"]
        if len(found) == 2:
            break
        tick.wait(0.02)
    return found


@pytest.mark.slow  # minutes on two busy cores
def test_a_killed_replica_costs_at_most_what_was_in_flight_and_an_update_costs_nothing(
    asked: Asked, client: Client, tmp_path: Path
) -> None:
    second = bundle(tmp_path / "b", entry(affine_model(tmp_path / "n.onnx", 3.0), "b", PLAN))
    port = asked.http[1]
    before = processes()
    assert len(before) == 2
    with under_load(port) as loads:
        for load in loads:
            load.more("a")
        os.kill(next(iter(before.values())), signal.SIGKILL)
        for load in loads:
            load.more("a", 50)
        broken = [len(load.client.errors) for load in loads]
        assert max(broken) <= 1, f"only what was in flight: {[load.client.errors for load in loads]}"
        again = deploy(replace(asked, bundle=second), print)
        for load in loads:
            load.more("b")
        assert [len(load.client.errors) for load in loads] == broken, "an update loses nothing"
    assert again.updated and again.variant == "b" and not again.began
    after = processes()
    assert len(after) == 2 and not set(after) & set(before)
    assert json.loads(client.ask("/v2/models/tiny/infer", json_body([1, 2, 3, 4]))[2])["outputs"][0]["data"] == [4, 7, 10, 13]


# --- further applications beside it


def test_a_second_application_has_a_route_and_a_token_of_its_own(asked: Asked, deployed: Deployed, client: Client, tmp_path: Path) -> None:
    other = bundle(tmp_path / "b", entry(lookup_model(tmp_path / "m.onnx"), "c", PLAN))
    told = deploy(replace(asked, bundle=other, name="other", route="/deep/er", token="sesame", replicas=1), print)
    assert told.url.endswith("/deep/er") and not told.began
    tensor = {"name": "ids", "datatype": "INT64", "shape": [1, 2], "data": [1, 4]}
    body = json.dumps({"inputs": [tensor]}).encode()
    assert client.ask("/deep/er/v2/models/other/infer", body)[0] == 401
    assert client.ask("/deep/er/v2/health/ready")[0] == 200
    status, _, answer = client.ask("/deep/er/v2/models/other/infer", body, "Authorization: Bearer sesame")
    assert status == 200 and json.loads(answer)["outputs"][0]["data"] == [2.5]
    with triton.InferenceServerClient(f"127.0.0.1:{deployed.grpc_port}") as grpc:
        named = {"application": "other"}
        assert grpc.is_server_live(headers=named)
        with pytest.raises(InferenceServerException, match="authorization"):
            grpc.get_model_metadata("other", headers=named)
        assert grpc.get_model_metadata("other", headers={**named, "authorization": "Bearer sesame"}).name == "other"
    serve.delete("other")


@pytest.mark.usefixtures("deployed")
def test_what_cannot_be_deployed_says_why(asked: Asked, tmp_path: Path) -> None:
    wide = bundle(tmp_path / "w", entry(affine_model(tmp_path / "m.onnx"), "a", Plan(runtime="onnx_runtime", instances=3)), name="wide")
    for wish, said in (
        (replace(asked, bundle=wide, replicas=1), "its nodes, of 2, 2 cores, hold 0"),
        (replace(asked, http=("127.0.0.1", 1)), f"listens at 127.0.0.1:{asked.http[1]}, which cannot be changed"),
        (replace(asked, grpc_port=1), "without Headway's calls at port 1"),
        (replace(asked, settings=Settings(variant="z")), "the variant must be one of a, got 'z'"),
        (replace(asked, name="third", replicas=1), "being used by application"),
    ):
        with pytest.raises(ConfigError, match=said):
            deploy(wish, print)
    assert set(serve.status().applications) == {"tiny"}


@pytest.mark.usefixtures("deployed")
def test_a_bundle_that_no_node_can_serve_is_taken_away_with_the_reason(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = bundle(tmp_path / "b", entry(affine_model(tmp_path / "m.onnx"), "a", PLAN), name="spoilt")
    monkeypatch.setattr(serving, "parcel", lambda one: Parcel(str(tmp_path / "nowhere")))
    with pytest.raises(HeadwayError, match="the bundle must lie here on every node"):
        deploy(replace(asked, bundle=opened, route="/spoilt", replicas=1), print)
    assert set(serve.status().applications) == {"tiny"}


def test_the_command_deploys_and_takes_away_what_it_deployed(asked: Asked, client: Client, tmp_path: Path) -> None:
    third = bundle(tmp_path / "b", entry(affine_model(tmp_path / "m.onnx", 5.0), "c", PLAN))
    where = ["--on", asked.where, "--name", "third", "--route", "/third", "--http", f"127.0.0.1:{asked.http[1]}"]
    with process("headway", "serve", str(third.root), *where, "--json") as (child, told):
        assert (told["model"], told["variant"], told["url"]) == ("third", "c", f"http://127.0.0.1:{asked.http[1]}/third")
        _, _, answer = client.ask("/third/v2/models/third/infer", json_body([1, 2, 3, 4]))
        assert json.loads(answer)["outputs"][0]["data"] == [6, 11, 16, 21]
        child.send_signal(signal.SIGTERM)
        assert child.wait(SOON_S) == 0 and child.stderr is not None and "Traceback" not in child.stderr.read()
    assert set(serve.status().applications) == {"tiny"}, "and nothing that was there before"


# --- a bundle on its way


def test_a_bundle_travels_whole_or_by_its_path_and_must_be_the_one_that_was_meant(tmp_path: Path) -> None:
    opened = bundle(tmp_path / "b", entry(slow_model(tmp_path / "m.onnx", 2), "a", PLAN))
    whole, by_path = parcel(opened), parcel(opened, most_bytes=10)
    assert set(whole.files) == {"bundle.json", opened.manifest.golden, opened.manifest.variants[0].file} and not by_path.files
    with whole.opened() as there:
        assert there.manifest == opened.manifest and there.root != opened.root
        kept = there.root
    assert not kept.exists()
    with by_path.opened() as there:
        assert there.root == opened.root
    bundle(tmp_path / "b", entry(slow_model(tmp_path / "m.onnx", 3), "a", PLAN))
    assert open_bundle(tmp_path / "b").manifest != opened.manifest
    with pytest.raises(BundleError, match="must be the one that was deployed"), by_path.opened():
        pass
