"""The export to Ray Serve: its configuration word by word, read by Ray's own schema, and run by the real ``serve run`` on a cluster of its own."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from headway import __version__
from headway.cluster.serving_parcel import Parcel
from headway.deploy import Request, verify, write_export
from headway.deploy.targets import ray as target
from headway.records import Autoscaling, BundleError, ConfigError, Export, Plan
from headway.serve import OpenBundle, Settings, bundle_digest
from serving import affine_model, bundle, entry

PLAN = Plan(runtime="onnx_runtime", instances=2, threads=3, max_batch=4)
SCALING = Autoscaling(replica_rate_per_s=900.0, mean_s=0.0051, target_in_flight=4.59, trough_replicas=2, peak_replicas=9)
ODD = 'odd "name"\n: {x}'

GOLDEN = """\
# Made by headway {version}, export --to ray.
proxy_location: EveryNode
http_options:
  host: "127.0.0.1"
  port: 8000
applications:
- name: tiny
  route_prefix: "/"
  import_path: "headway.cluster.serving_application:app"
  args:
    bundle: "/opt/headway/tiny/bundle"
    digest: {digest}
  deployments:
  - name: headway
    num_replicas: 1
    max_ongoing_requests: 264
    ray_actor_options:
      num_cpus: 6
    graceful_shutdown_timeout_s: 20.0
    health_check_period_s: 2.0
    health_check_timeout_s: 10.0
    max_surge_percent: 0
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> OpenBundle:
    """Two variants that answer differently."""
    folder = tmp_path_factory.mktemp("two")
    entries = (entry(affine_model(folder / "m.onnx"), "a", PLAN), entry(affine_model(folder / "n.onnx", 3.0), ODD, PLAN))
    return bundle(folder / "b", *entries)


def exported(folder: Path, opened: OpenBundle, variant: str = "", name: str = "", **chosen: Any) -> Export:
    given = {"scaling": chosen.pop("scaling", None), "replicas": chosen.pop("replicas", None)}
    return write_export("ray", opened, folder, variant=variant, name=name, settings=chosen, **given)


def document(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / "serve.yaml").read_text("utf-8"))
    return found


def application(folder: Path) -> dict[str, Any]:
    (found,) = document(folder)["applications"]
    return dict(found)


def deployment(folder: Path) -> dict[str, Any]:
    (found,) = application(folder)["deployments"]
    return dict(found)


def test_the_configuration_word_by_word(tmp_path: Path, two: OpenBundle) -> None:
    export = exported(tmp_path / "e", two)
    digest = bundle_digest(two)
    text = (tmp_path / "e" / "serve.yaml").read_text("utf-8").replace(f'"{digest}"', digest)
    assert text == GOLDEN.format(version=__version__, digest=digest)
    assert export.start[-2:] == ("serve deploy serve.yaml", "serve status")
    assert all(command in (tmp_path / "e" / "README.md").read_text("utf-8") for command in export.start)
    assert export.policy.refuses and export.policy.plan == PLAN and export.expected is None
    assert any("HEADWAY_TOKEN" in note for note in export.notes) and any("no autoscaling was planned" in note for note in export.notes)


def test_settings_are_in_it(tmp_path: Path, two: OpenBundle) -> None:
    export = exported(
        tmp_path / "e", two, variant=ODD, name="Other_1", prefix="/srv/m", http="[::1]:80", grpc="9000", route="/deep/er", surge="on", replicas=4
    )  # fmt: skip
    told = document(tmp_path / "e")
    assert told["http_options"] == {"host": "::1", "port": 80}
    assert told["grpc_options"] == {"port": 9000, "grpc_servicer_functions": ["headway.cluster.serving_grpc:add_servicer"]}
    own = application(tmp_path / "e")
    assert (own["name"], own["route_prefix"]) == ("Other_1", "/deep/er")
    assert own["args"] == {"bundle": "/srv/m/bundle", "digest": bundle_digest(two), "name": "Other_1", "variant": ODD}
    assert deployment(tmp_path / "e")["max_surge_percent"] == 25 and deployment(tmp_path / "e")["num_replicas"] == 4
    assert any("not the bundle's first" in note for note in export.notes) and any("every address" in note for note in export.notes)


def test_a_working_directory_takes_the_place_of_the_folder(tmp_path: Path, two: OpenBundle) -> None:
    export = exported(tmp_path / "e", two, working_dir="s3://bucket/m.zip")
    own = application(tmp_path / "e")
    assert own["runtime_env"] == {"working_dir": "s3://bucket/m.zip"} and own["args"]["bundle"] == "bundle"
    assert export.start[1].startswith("zip -r m.zip .")


@pytest.mark.parametrize(
    "chosen",
    [
        {"prefix": "opt"}, {"prefix": "/opt/../etc"}, {"prefix": "/a b"}, {"working_dir": "folder"}, {"working_dir": "s3://b/m.zip", "prefix": "/m"},
        {"http": "8000"}, {"http": "127.0.0.1:0"}, {"grpc": "0"}, {"grpc": "127.0.0.1:9000"}, {"route": "deep"}, {"route": "/deep/"}, {"surge": "yes"},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(tmp_path: Path, two: OpenBundle, chosen: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=f"--set {next(iter(chosen))} must"):
        exported(tmp_path / "e", two, **chosen)
    assert not list(tmp_path.iterdir())


def test_autoscaling_follows_the_plan(tmp_path: Path, two: OpenBundle) -> None:
    export = exported(tmp_path / "e", two, scaling=SCALING, replicas=9)
    assert deployment(tmp_path / "e")["autoscaling_config"] == {
        "min_replicas": 2, "initial_replicas": 2, "max_replicas": 9, "target_ongoing_requests": 4.59,
    }  # fmt: skip
    assert "num_replicas" not in deployment(tmp_path / "e") and export.scaling == SCALING
    flat = msgspec.structs.replace(SCALING, trough_replicas=None, peak_replicas=None)
    export = exported(tmp_path / "e", two, scaling=flat, replicas=9)
    assert deployment(tmp_path / "e")["num_replicas"] == 9 and any("no course over the day" in note for note in export.notes)
    risen = msgspec.structs.replace(SCALING, cold_start_s=45.0, cold_start_replicas=3)
    exported(tmp_path / "e", two, scaling=risen, replicas=9)
    assert deployment(tmp_path / "e")["autoscaling_config"]["min_replicas"] == 5


def test_another_bundle_in_the_same_place_is_another_application(tmp_path: Path, two: OpenBundle) -> None:
    exported(tmp_path / "e", two)
    before = application(tmp_path / "e")
    exported(tmp_path / "e", bundle(tmp_path / "b", entry(affine_model(tmp_path / "m.onnx", 5.0), "a", PLAN)))
    assert application(tmp_path / "e")["args"]["digest"] != before["args"]["digest"]
    with pytest.raises(BundleError, match="must be the one that was deployed"), Parcel(str(two.root), "0" * 64).opened():
        pass


@settings(max_examples=20)
@given(st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}", fullmatch=True))
def test_any_name_of_a_model_stays_what_it_is(two: OpenBundle, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        target.write(Request(bundle=two, folder=Path(folder), name=name, settings={}))
        own = application(Path(folder))
    assert own["name"] == name and own["args"].get("name", "tiny") == name and own["args"]["bundle"] == f"/opt/headway/{name}/bundle"


# --- with Ray


@pytest.mark.filterwarnings("default")  # Ray's own
@pytest.mark.parametrize("more", [{}, {"scaling": SCALING, "replicas": 9, "grpc": "9000", "surge": "on", "working_dir": "s3://b/m.zip"}])
def test_rays_own_schema_takes_it(tmp_path: Path, two: OpenBundle, more: dict[str, Any]) -> None:
    schema = pytest.importorskip("ray.serve.schema", reason="needs the extra ray")
    exported(tmp_path / "e", two, **more)
    read = schema.ServeDeploySchema.model_validate(document(tmp_path / "e"))
    assert read.applications[0].name == "tiny" and read.http_options.port == 8000


@pytest.mark.filterwarnings("default")
def test_it_is_what_headway_itself_deploys(tmp_path: Path, two: OpenBundle) -> None:
    made = pytest.importorskip("headway.cluster.serving_application", reason="needs the extra ray")
    grpc = pytest.importorskip("headway.cluster.serving_grpc", reason="needs the extra ray")
    exported(tmp_path / "e", two, replicas=3, surge="on")
    own = deployment(tmp_path / "e")
    assert own.pop("name") == made.DEPLOYMENT
    assert own == made.options_for(two, Settings(), replicas=3, surge=True)
    assert application(tmp_path / "e")["import_path"] == f"{made.__name__}:{made.app.__name__}"
    assert f"{grpc.__name__}:{grpc.add_servicer.__name__}" == target.SERVICER
    app = made.app(application(tmp_path / "e")["args"])
    assert app._bound_deployment.name == "headway"
    with pytest.raises(ConfigError, match="args must hold bundle and may hold"):
        made.app({"bundle": "b", "budle": "c"})


@pytest.mark.slow  # starts a cluster; the contract of targets starts the real one too
def test_the_real_server_answers_as_the_golden_set(tmp_path: Path, two: OpenBundle) -> None:
    pytest.importorskip("ray.serve", reason="needs the extra ray")
    export = exported(tmp_path / "e", two, variant=ODD, name="Other_1", route="/deep/er", scaling=SCALING, replicas=9, grpc="9000")
    found = verify(tmp_path / "e")
    assert found.server_difference is not None and found.server_difference <= export.tolerance
    assert found.asked == target.ASKED


@pytest.mark.slow  # starts a cluster; the contract of targets starts the real one too
def test_a_server_that_cannot_start_says_what_it_said(tmp_path: Path, two: OpenBundle) -> None:
    pytest.importorskip("ray.serve", reason="needs the extra ray")
    export = exported(tmp_path / "e", two)
    (tmp_path / "e" / "bundle" / "bundle.json").write_text("{}")
    with pytest.raises(
        BundleError,
        match=r"Ray Serve must be able to run the exported configuration, and did not; it said: .*bundle\.json: the format must be 1",
    ):
        target.answers(tmp_path / "e", export, {"x": two.golden.inputs["x"]})
