"""The export to KServe: its manifests by the schemas of KServe's own resources, and the runtime's arguments started without a cluster."""

from __future__ import annotations

import json
import math
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from headway import __version__
from headway.deploy import Request, verify, write_export
from headway.deploy.targets import kserve
from headway.records import Autoscaling, ConfigError, Export, Objective, Plan
from headway.serve import OpenBundle
from serving import affine_model, bundle, entry

PLAN = Plan(runtime="onnx_runtime", instances=2, threads=3, max_batch=4)
ODD = 'odd "name"\\ $(HOME) $$ {{.Name}} {{{x %h\té\n: #'
IMAGE = "registry.example/m:1"
SCALING = Autoscaling(replica_rate_per_s=900.0, mean_s=0.0051, target_in_flight=4.59, trough_replicas=2, peak_replicas=9)
SCHEMAS = Path(__file__).parent / "schemas"
DNS = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")

GOLDEN_RUNTIME = f"""\
# Made by headway {__version__}, export --to kserve.
apiVersion: serving.kserve.io/v1alpha1
kind: ServingRuntime
metadata:
  name: tiny-headway
  labels:
    app.kubernetes.io/managed-by: headway
spec:
  annotations:
    prometheus.kserve.io/port: "8000"
    prometheus.kserve.io/path: "/metrics"
  supportedModelFormats:
  - name: headway
    version: "1"
    autoSelect: false
  protocolVersions:
  - "v2"
  containers:
  - name: kserve-container
    image: "registry.example/m:1"
    command:
    - headway
    args:
    - serve
    - "/srv/bundle"
    - "--http=0.0.0.0:8000"
    - "--log=json"
    env:
    - name: HEADWAY_TOKEN
      valueFrom:
        secretKeyRef:
          name: tiny-token
          key: token
          optional: true
    ports:
    - containerPort: 8000
      protocol: TCP
    readinessProbe:
      httpGet:
        path: "/v2/health/ready"
        port: 8000
      timeoutSeconds: 5
      periodSeconds: 2
      failureThreshold: 3
    livenessProbe:
      httpGet:
        path: "/v2/health/live"
        port: 8000
      timeoutSeconds: 5
      initialDelaySeconds: 30
      periodSeconds: 10
      failureThreshold: 3
    resources:
      requests:
        cpu: "7"
        memory: "1024Mi"
      limits:
        cpu: "7"
        memory: "1024Mi"
    securityContext:
      runAsNonRoot: true
      runAsUser: 10001
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities:
        drop:
        - ALL
      seccompProfile:
        type: RuntimeDefault
"""
GOLDEN_SERVICE = f"""\
# Made by headway {__version__}, export --to kserve.
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: tiny
  labels:
    app.kubernetes.io/managed-by: headway
  annotations:
    serving.kserve.io/deploymentMode: Knative
    autoscaling.knative.dev/target-utilization-percentage: "70"
spec:
  predictor:
    minReplicas: 2
    maxReplicas: 9
    scaleMetric: concurrency
    scaleTarget: 4
    model:
      modelFormat:
        name: headway
        version: "1"
      runtime: tiny-headway
      protocolVersion: "v2"
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> OpenBundle:
    """Two variants that answer differently."""
    folder = tmp_path_factory.mktemp("two")
    entries = (entry(affine_model(folder / "m.onnx"), "a", PLAN), entry(affine_model(folder / "n.onnx", 3.0), ODD, PLAN))
    return bundle(folder / "b", *entries)


def exported(folder: Path, opened: OpenBundle, *, variant: str = "", name: str = "", **more: Any) -> Export:
    given = {"scaling": more.pop("scaling", None), "replicas": more.pop("replicas", None)}
    return write_export("kserve", opened, folder, variant=variant, name=name, settings={"image": IMAGE, **more}, **given)


def closed(schema: Any) -> Any:
    """A schema that also refuses fields it does not name, as ``kubectl apply`` does."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(part) for key, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and "additionalProperties" not in schema:
        inner["additionalProperties"] = False
    return inner


def checked(folder: Path, file: str) -> Any:
    """A manifest that its schema accepts."""
    document = yaml.safe_load((folder / file).read_text("utf-8"))
    schema = json.loads((SCHEMAS / f"kserve_{document['kind'].lower()}.json").read_text("utf-8"))
    jsonschema.Draft202012Validator(closed(schema)).validate(document)
    return document


def manifests(folder: Path) -> tuple[Any, Any]:
    runtime, service = checked(folder, "serving-runtime.yaml"), checked(folder, "inference-service.yaml")
    assert service["spec"]["predictor"]["model"]["runtime"] == runtime["metadata"]["name"]
    formats = [one["name"] for one in runtime["spec"]["supportedModelFormats"]]
    assert service["spec"]["predictor"]["model"]["modelFormat"]["name"] in formats
    return runtime, service


def there(word: str) -> str:
    """What a container gets of an argument: KServe executes Go templates, then Kubernetes expands ``$(NAME)`` and ``$$``."""
    quoted = re.sub(r"\{\{`([^`]*)`\}\}", lambda found: found[1].replace("{", "\0"), word)
    assert "{{" not in quoted, "a template would be filled in"
    text, out, at = quoted.replace("\0", "{"), "", 0
    while at < len(text):
        if text[at] == "$" and at + 1 < len(text):
            assert text[at + 1] != "(", "a variable would be filled in"
            at += text[at + 1] == "$"
        out, at = out + text[at], at + 1
    return out


def arguments(runtime: Any) -> list[str]:
    return [there(word) for word in runtime["spec"]["containers"][0]["args"]]


def test_the_text_is_as_it_was(tmp_path: Path, two: OpenBundle) -> None:
    export = exported(tmp_path / "e", two, scaling=SCALING, replicas=9, memory="1GiB")
    assert (tmp_path / "e" / "serving-runtime.yaml").read_text("utf-8") == GOLDEN_RUNTIME
    assert (tmp_path / "e" / "inference-service.yaml").read_text("utf-8") == GOLDEN_SERVICE
    assert export.start == tuple(f"kubectl apply -f {file}.yaml" for file in ("serving-runtime", "inference-service", "disruption-budget"))
    assert any("4 for the planned 4.59" in note for note in export.notes)
    manifests(tmp_path / "e")


@pytest.mark.parametrize("scaling", [None, SCALING, msgspec.structs.replace(SCALING, trough_replicas=None, peak_replicas=None)])
@pytest.mark.parametrize("replicas", [None, 1, 5])
@pytest.mark.parametrize("mode", ["", "knative", "standard"])
def test_every_combination_fits_the_schemas(
    tmp_path: Path, two: OpenBundle, scaling: Autoscaling | None, replicas: int | None, mode: str
) -> None:
    chosen = {"mode": mode} if mode else {}
    exported(tmp_path / "e", two, scaling=scaling, replicas=replicas, **chosen)
    _, service = manifests(tmp_path / "e")
    predictor, annotations = service["spec"]["predictor"], service["metadata"]["annotations"]
    knative = (mode or ("knative" if scaling else "standard")) == "knative"
    assert annotations["serving.kserve.io/deploymentMode"] == ("Knative" if knative else "Standard")
    assert ("scaleMetric" in predictor) == (knative and scaling is not None)
    assert predictor["minReplicas"] <= predictor.get("maxReplicas", math.inf)
    if not knative:
        assert annotations["serving.kserve.io/autoscalerClass"] == "none"
        assert predictor["minReplicas"] == predictor["maxReplicas"] == (9 if scaling == SCALING else replicas or 1)
    budget = tmp_path / "e" / "disruption-budget.yaml"
    assert budget.exists() == (predictor["minReplicas"] > 1)


def test_replicas_for_a_cold_start_are_ready_within_the_peak(tmp_path: Path, two: OpenBundle) -> None:
    scaling = msgspec.structs.replace(SCALING, cold_start_s=45.0, cold_start_replicas=3)
    exported(tmp_path / "e", two, scaling=scaling)
    runtime, service = manifests(tmp_path / "e")
    assert (service["spec"]["predictor"]["minReplicas"], service["spec"]["predictor"]["maxReplicas"]) == (5, 9)
    assert runtime["spec"]["containers"][0]["livenessProbe"]["initialDelaySeconds"] == 90
    exported(tmp_path / "f", two, scaling=msgspec.structs.replace(scaling, cold_start_replicas=30))
    assert manifests(tmp_path / "f")[1]["spec"]["predictor"]["minReplicas"] == 9


def test_less_than_one_in_flight_is_one(tmp_path: Path, two: OpenBundle) -> None:
    export = exported(tmp_path / "e", two, scaling=msgspec.structs.replace(SCALING, target_in_flight=0.3))
    assert manifests(tmp_path / "e")[1]["spec"]["predictor"]["scaleTarget"] == 1
    assert any("planned 0.3" in note for note in export.notes)


def test_the_budget_lets_one_go_at_a_time(tmp_path: Path, two: OpenBundle) -> None:
    exported(tmp_path / "e", two, replicas=3)
    budget = yaml.safe_load((tmp_path / "e" / "disruption-budget.yaml").read_text("utf-8"))
    assert (budget["apiVersion"], budget["kind"]) == ("policy/v1", "PodDisruptionBudget")
    assert budget["spec"] == {"maxUnavailable": 1, "selector": {"matchLabels": {"serving.kserve.io/inferenceservice": "tiny"}}}
    exported(tmp_path / "f", two, replicas=1)
    assert not (tmp_path / "f" / "disruption-budget.yaml").exists()


@pytest.mark.parametrize(
    ("instances", "threads", "front", "cpu", "steals"),
    [(1, 1, "1", "2", False), (16, 12, "1", "193", False), (1, 4, "0.25", "4250m", True), (2, 2, "0", "4", True)],
)
def test_the_cores_are_the_plans_and_the_front_ends(
    tmp_path: Path, two: OpenBundle, instances: int, threads: int, front: str, cpu: str, steals: bool
) -> None:
    first, second = two.manifest.variants
    changed = msgspec.structs.replace(first, plan=msgspec.structs.replace(PLAN, instances=instances, threads=threads))
    opened = replace(two, manifest=msgspec.structs.replace(two.manifest, variants=(changed, second)))
    written = kserve.write(Request(bundle=opened, folder=tmp_path, name="tiny", settings={"image": IMAGE, "front_cpu": front}))
    resources = manifests(tmp_path)[0]["spec"]["containers"][0]["resources"]
    assert resources["requests"] == resources["limits"]
    assert resources["limits"]["cpu"] == cpu
    assert (written.policy.plan, written.policy.refuses, written.policy.front_s) == (changed.plan, True, None)
    assert written.policy.front_steals is steals


def test_memory_is_as_set_or_bound_or_guessed(tmp_path: Path, two: OpenBundle) -> None:
    def memory(folder: str, opened: OpenBundle, **chosen: str) -> str:
        (tmp_path / folder).mkdir()
        kserve.write(Request(bundle=opened, folder=tmp_path / folder, name="m", settings={"image": IMAGE, **chosen}))
        found = manifests(tmp_path / folder)[0]["spec"]["containers"][0]["resources"]["limits"]["memory"]
        assert isinstance(found, str)
        return found

    bound = replace(two, manifest=msgspec.structs.replace(two.manifest, objective=Objective(memory_bytes=2**30)))
    assert memory("a", two, memory="2GiB") == "2048Mi"
    assert memory("b", bound) == "1280Mi"
    assert memory("c", two) == "576Mi"


def test_storage_is_fetched_to_where_kserve_puts_it(tmp_path: Path, two: OpenBundle) -> None:
    exported(tmp_path / "e", two, storage="s3://bucket/models/tiny")
    runtime, service = manifests(tmp_path / "e")
    assert service["spec"]["predictor"]["model"]["storageUri"] == "s3://bucket/models/tiny"
    assert arguments(runtime)[1] == "/mnt/models"
    assert verify(tmp_path / "e").server_difference is not None


@pytest.mark.parametrize("which", [0, 1])
def test_the_arguments_of_the_runtime_serve_the_variant(tmp_path: Path, two: OpenBundle, which: int) -> None:
    export = exported(tmp_path / "e", two, variant=two.manifest.variants[which].variant.name, name="Other_1")
    runtime, service = manifests(tmp_path / "e")
    assert (f"--variant={ODD}" in arguments(runtime)) == bool(which)
    assert service["metadata"]["name"] == "other-1" and "--name=Other_1" in arguments(runtime)
    assert any("'other-1'" in note for note in export.notes)
    found = verify(tmp_path / "e")
    assert found.server_difference is not None and found.server_difference <= export.tolerance


def test_no_secret_is_in_any_file(tmp_path: Path, two: OpenBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWAY_TOKEN", "hush-hush-4711")
    exported(tmp_path / "e", two)
    assert not [path for path in (tmp_path / "e").rglob("*") if path.is_file() and b"hush-hush-4711" in path.read_bytes()]
    assert verify(tmp_path / "e").server_difference is not None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image", ""), ("image", "m:latest"), ("image", "m"), ("image", "m:1\nkind: x"), ("storage", "bucket/path"),
        ("storage", "s3://user:secret@host/path"), ("mode", "serverless"), ("utilization", "0"), ("utilization", "101"), ("front_cpu", "-1"),
        ("front_cpu", "many"), ("memory", "lots"),
    ],
)  # fmt: skip
def test_settings_out_of_range_write_nothing(tmp_path: Path, two: OpenBundle, name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"--set {name} must"):
        exported(tmp_path / "e", two, **{name: value})
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=40)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30))
def test_any_name_of_a_variant_comes_through_yaml_templates_and_expansion(two: OpenBundle, name: str) -> None:
    first, second = two.manifest.variants
    renamed = msgspec.structs.replace(second, variant=msgspec.structs.replace(second.variant, name=name))
    opened = replace(two, manifest=msgspec.structs.replace(two.manifest, variants=(first, renamed)))
    with tempfile.TemporaryDirectory() as folder:
        kserve.write(Request(bundle=opened, folder=Path(folder), index=1, name="m", settings={"image": IMAGE}))
        assert arguments(manifests(Path(folder))[0])[-1] == f"--variant={name}"


@settings(max_examples=40)
@given(st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}", fullmatch=True))
def test_any_name_of_a_model_makes_resources(two: OpenBundle, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        kserve.write(Request(bundle=two, folder=Path(folder), name=name, settings={"image": IMAGE}))
        runtime, service = manifests(Path(folder))
        for found in (runtime["metadata"]["name"], service["metadata"]["name"]):
            assert DNS.fullmatch(found) and len(found) <= 53
        assert name == "tiny" or f"--name={name}" in arguments(runtime)


@pytest.mark.parametrize(
    "text", ["y", "n", "no", "on", "Yes", "1e3", "0o17", "0x1", "null", "~", "1.0", "12:30:45", "v2", ".inf", "nan", "", " a"]
)
def test_text_that_looks_like_something_else_is_quoted(tmp_path: Path, text: str) -> None:
    kserve._write(tmp_path / "x.yaml", {"value": text})
    assert (tmp_path / "x.yaml").read_text("utf-8").endswith(f'value: "{text}"\n')


def test_the_schemas_refuse_what_is_wrong(tmp_path: Path, two: OpenBundle) -> None:
    exported(tmp_path / "e", two, scaling=SCALING)
    text = (tmp_path / "e" / "inference-service.yaml").read_text("utf-8")
    for wrong in (
        text.replace("concurrency", "happiness"),
        text.replace("scaleTarget: 4", "scaleTarget: 4.5"),
        text.replace("minR", "leastR"),
    ):
        (tmp_path / "wrong.yaml").write_text(wrong, "utf-8")
        with pytest.raises(jsonschema.ValidationError):
            checked(tmp_path, "wrong.yaml")
