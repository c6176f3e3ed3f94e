"""KServe manifests: a ServingRuntime that runs the container's image, an InferenceService with the plan's cores and autoscaling."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from headway.deploy.exporting import Request, Written
from headway.deploy.targets._own_server import (
    BUNDLE,
    HTTP_PORT,
    TOKEN_NOTE,
    Replicas,
    answers_of,
    arguments,
    copy_bundle,
    cores,
    course,
    fallback_notes,
    label,
    memory_guess,
    policy,
)
from headway.deploy.targets._yaml import write_yaml
from headway.records import ConfigError, Export

SETTINGS: Mapping[str, str] = {
    "image": "needed: the image that was built from headway export --to container, with its tag or digest",
    "storage": "where the bundle lies for KServe to fetch, such as s3://BUCKET/PATH or pvc://CLAIM/PATH; by default it is in the image",
    "mode": "knative: scales by requests in flight (the default where a plan has such settings); standard: a fixed number of replicas",
    "utilization": "percentage of the planned requests in flight that Knative aims at; the rest is headroom (by default 70, as Knative's own)",
    "front_cpu": "cores for the front end beside the model's, 0 to 4 (by default 1)",
    "memory": "memory of a replica, such as 2GiB; by default from the objective's bound, or a guess from the files",
}
ASKED = "headway serve, with the arguments of the ServingRuntime, started here without KServe"
"""What ``answers`` asks, in words."""
RUNTIME_FILE, SERVICE_FILE, BUDGET_FILE = "serving-runtime.yaml", "inference-service.yaml", "disruption-budget.yaml"
MODES = KNATIVE, STANDARD = "knative", "standard"
IN_IMAGE, FETCHED = f"/srv/{BUNDLE}", "/mnt/models"
FORMAT = "headway"
USER = 10001
UTILIZATION = 70
START_S = 30
MEMORY_STEP = 64 * 2**20
NOT_APPLIED = "the manifests were made for KServe 0.16 or later and checked against the schemas of its resources; no cluster was asked"
IMAGE = re.compile(r"[a-z0-9][A-Za-z0-9._/:-]*(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}|@sha256:[0-9a-f]{64})")
STORAGE = re.compile(r"[a-z][a-z0-9+.-]*://\S+")


def write(request: Request) -> Written:
    """The manifests, and the bundle that the image or the storage must hold.

    Raises:
        ConfigError: a setting is missing or out of range.
    """
    image, storage, mode, front_cpu = _image(request.settings), _storage(request.settings), _mode(request), _front_cpu(request.settings)
    utilization = _utilization(request.settings)
    replicas = _replicas(request, mode)
    memory, basis = memory_guess(request)
    name = label(request.name)
    runtime = _runtime(request, name, image, FETCHED if storage else IN_IMAGE, _resources(cores(request) + front_cpu, memory))
    _write(request.folder / RUNTIME_FILE, runtime)
    _write(request.folder / SERVICE_FILE, _service(request, name, storage, mode, replicas, utilization))
    files = [RUNTIME_FILE, SERVICE_FILE]
    if replicas.lowest > 1:
        _write(request.folder / BUDGET_FILE, _budget(name))
        files.append(BUDGET_FILE)
    notes = [NOT_APPLIED, TOKEN_NOTE, f"memory of a replica: {basis}", *_scaling_notes(request, mode, replicas), *fallback_notes(request)]
    if name != request.name:
        notes.append(
            f"the resources are called {name!r}, for names in Kubernetes are short and lower case; in URLs the model stays {request.name!r}"
        )
    return Written(
        model=copy_bundle(request), policy=policy(request, front_steals=front_cpu < 1),
        start=tuple(f"kubectl apply -f {file}" for file in files), notes=tuple(notes),
    )  # fmt: skip


def answers(folder: Path, export: Export, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Answers of a server started here with the arguments of the ServingRuntime; no KServe.

    Raises:
        BundleError: it could not be started so, or did not answer.
    """
    container = yaml.safe_load((folder / RUNTIME_FILE).read_text("utf-8"))["spec"]["containers"][0]
    return answers_of([unescaped(word) for word in container["args"]], folder, export, inputs)


def escaped(word: str) -> str:
    """An argument that stands for itself: Kubernetes expands ``$(NAME)``, and KServe fills in Go's templates before."""
    return word.replace("$", "$$").replace("{{", "{{`{{`}}")


def unescaped(word: str) -> str:
    """What ``escaped`` was given."""
    return word.replace("{{`{{`}}", "{{").replace("$$", "$")


def _image(settings: Mapping[str, str]) -> str:
    image = settings.get("image", "")
    if not IMAGE.fullmatch(image) or image.endswith(":latest"):
        raise ConfigError(
            "--set image must name the image built from headway export --to container, with a tag other than latest or a digest, such as "
            f"registry.example/m:1, got {image!r}"
        )
    return image


def _storage(settings: Mapping[str, str]) -> str:
    storage = settings.get("storage", "")
    if storage and not STORAGE.fullmatch(storage):
        raise ConfigError(f"--set storage must be a URI such as s3://bucket/path, got {storage!r}")
    if re.match(r"[a-z0-9+.-]+://[^/]*@", storage):
        raise ConfigError("--set storage must hold no user or password; give KServe a service account or a secret for that")
    return storage


def _mode(request: Request) -> str:
    mode = request.settings.get("mode") or (KNATIVE if request.scaling is not None else STANDARD)
    if mode not in MODES:
        raise ConfigError(f"--set mode must be one of {', '.join(MODES)}, got {mode!r}")
    return mode


def _utilization(settings: Mapping[str, str]) -> int:
    text = settings.get("utilization", str(UTILIZATION))
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise ConfigError(f"--set utilization must be a percentage from 1 to 100, got {text!r}")
    return int(text)


def _front_cpu(settings: Mapping[str, str]) -> float:
    text = settings.get("front_cpu", "1")
    if not re.fullmatch(r"[0-4](\.\d{1,3})?", text) or float(text) > 4:
        raise ConfigError(f"--set front_cpu must be a number of cores from 0 to 4, got {text!r}")
    return float(text)


def _replicas(request: Request, mode: str) -> Replicas:
    """For Knative from the day's trough (with what must be ready for its steepest rise) to its peak, or else as many as the busiest moment needs."""
    planned = course(request)
    if mode == KNATIVE:
        return planned
    fixed = planned.lowest if planned.highest is None else planned.highest
    return Replicas(fixed, fixed)


def _resources(cpu: float, memory_bytes: int) -> dict[str, Any]:
    """Requests equal limits, so that the replica has what it was planned with, at all times."""
    steps = math.ceil(memory_bytes / MEMORY_STEP)
    amounts = {"cpu": f"{round(1000 * cpu)}m" if cpu % 1 else str(int(cpu)), "memory": f"{steps * MEMORY_STEP // 2**20}Mi"}
    return {"requests": dict(amounts), "limits": dict(amounts)}


def _runtime(request: Request, name: str, image: str, bundle: str, resources: dict[str, Any]) -> dict[str, Any]:
    first = START_S if request.scaling is None else max(START_S, math.ceil(2 * (request.scaling.cold_start_s or 0)))
    container = {
        "name": "kserve-container",
        "image": image,
        "command": ["headway"],
        "args": [escaped(word) for word in arguments(request, bundle, f"0.0.0.0:{HTTP_PORT}")],
        "env": [{"name": "HEADWAY_TOKEN", "valueFrom": {"secretKeyRef": {"name": f"{name}-token", "key": "token", "optional": True}}}],
        "ports": [{"containerPort": HTTP_PORT, "protocol": "TCP"}],
        "readinessProbe": _probe("ready", periodSeconds=2, failureThreshold=3),
        "livenessProbe": _probe("live", initialDelaySeconds=first, periodSeconds=10, failureThreshold=3),
        "resources": resources,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {"name": f"{name}-headway", "labels": {"app.kubernetes.io/managed-by": "headway"}},
        "spec": {
            "annotations": {"prometheus.kserve.io/port": str(HTTP_PORT), "prometheus.kserve.io/path": "/metrics"},
            "supportedModelFormats": [{"name": FORMAT, "version": "1", "autoSelect": False}],
            "protocolVersions": ["v2"],
            "containers": [container],
        },
    }


def _probe(what: str, **times: int) -> dict[str, Any]:
    return {"httpGet": {"path": f"/v2/health/{what}", "port": HTTP_PORT}, "timeoutSeconds": 5, **times}


def _service(request: Request, name: str, storage: str, mode: str, replicas: Replicas, utilization: int) -> dict[str, Any]:
    model: dict[str, Any] = {"modelFormat": {"name": FORMAT, "version": "1"}, "runtime": f"{name}-headway", "protocolVersion": "v2"}
    if storage:
        model["storageUri"] = storage
    annotations = {"serving.kserve.io/deploymentMode": mode.capitalize()}
    predictor: dict[str, Any] = {"minReplicas": replicas.lowest}
    if replicas.highest is not None:
        predictor["maxReplicas"] = replicas.highest
    if mode == STANDARD:
        annotations["serving.kserve.io/autoscalerClass"] = "none"
    elif request.scaling is not None:
        annotations["autoscaling.knative.dev/target-utilization-percentage"] = str(utilization)
        predictor |= {"scaleMetric": "concurrency", "scaleTarget": _target(request.scaling.target_in_flight)}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "headway"}, "annotations": annotations},
        "spec": {"predictor": {**predictor, "model": model}},
    }


def _target(in_flight: float) -> int:
    return max(1, math.floor(in_flight))


def _budget(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": f"{name}-headway", "labels": {"app.kubernetes.io/managed-by": "headway"}},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"serving.kserve.io/inferenceservice": name}}},
    }


def _scaling_notes(request: Request, mode: str, replicas: Replicas) -> list[str]:
    scaling = request.scaling
    if scaling is None:
        return ["no autoscaling was planned: the number of replicas is fixed; headway plan writes settings"]
    if mode == STANDARD:
        return [
            f"Kubernetes' own autoscaler knows no requests in flight, and a busy batching server is not a full one: {replicas.lowest} replicas, fixed"
        ]
    notes = []
    if scaling.target_in_flight != _target(scaling.target_in_flight):
        notes.append(
            f"scaleTarget is a whole number: {_target(scaling.target_in_flight)} for the planned {scaling.target_in_flight:.3g} in flight"
        )
    if replicas.highest == replicas.lowest:
        notes.append(
            "the planned rate has no course over the day, so as many replicas at least as at most; raise maxReplicas to let it grow"
        )
    if replicas.highest is None:
        notes.append("no number of replicas was planned: there is no bound on what Knative may start; set maxReplicas")
    return notes


def _write(path: Path, document: Mapping[str, Any]) -> None:
    write_yaml(path, document, "kserve")
