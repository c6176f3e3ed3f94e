"""A Ray Serve application: the configuration for serve deploy and serve run, with the plan's cores and autoscaling, and the bundle."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

import headway
from headway import __version__
from headway.deploy.asking import Server, ask_rows
from headway.deploy.exporting import Request, Written
from headway.deploy.targets._own_server import (
    BUNDLE,
    Replicas,
    address,
    copy_bundle,
    cores,
    course,
    fallback_notes,
    lies_at,
    switch,
)
from headway.deploy.targets._pinned import extras_for
from headway.deploy.targets._yaml import write_yaml
from headway.records import BundleError, ConfigError, Export, MissingPackage, ServerPolicy
from headway.serve import Settings, bundle_digest, most_in_flight

SETTINGS: Mapping[str, str] = {
    "prefix": "the folder that the bundle lies in on every node of the cluster (by default /opt/headway/NAME)",
    "working_dir": "instead: where Ray fetches this folder from, as a .zip, such as s3://BUCKET/m.zip or https://HOST/m.zip",
    "http": "where the proxies of all nodes take HTTP, HOST:PORT (by default 127.0.0.1:8000)",
    "grpc": "the port at which they take gRPC, on every address of their nodes; by default none",
    "route": "what stands before /v2 in the URLs, for several applications on a cluster (by default /)",
    "surge": "on: an update starts a new replica before it stops an old one, which takes the cores of one more; off by default",
}
ASKED = "Ray Serve, with this configuration on a cluster started here"
"""What ``answers`` asks, in words."""
FILE = "serve.yaml"
IMPORT_PATH = "headway.cluster.serving_application:app"
SERVICER = "headway.cluster.serving_grpc:add_servicer"
DEPLOYMENT = "headway"
DRAINED_S, CHECK_S, CHECKED_S = 20.0, 2.0, 10.0
"""As ``headway serve --on ray`` has them."""
BASIS = "Ray's proxies and actor calls take time of their own, on cores that the plan does not count, and it was not measured by the run"
WHERE = re.compile(r"[a-z][a-z0-9+.-]*://\S+\.zip")
ROUTE = re.compile(r"/|(/[A-Za-z0-9._~-]+)+")
READY_S, STOP_S, LOOK_S = 180.0, 30.0, 0.3
LAST_WORDS = 1200
FAILED = "Failed to update the deployments"
REASON = re.compile(r"headway\.records\.errors\.\w+: (.+)")
"""What Ray's controller writes when an application cannot be started, and what a replica does."""
TOKEN_NOTE = "whoever reaches a proxy may ask it: set HEADWAY_TOKEN in the environment of every node (it is in no file here), or keep the ports to yourself"


def write(request: Request) -> Written:
    """``serve.yaml``, README.md with the commands, and the bundle.

    Raises:
        ConfigError: a setting is out of range.
    """
    http, grpc = address(request.settings.get("http") or "127.0.0.1:8000", "http"), _grpc(request.settings)
    route, working_dir = _route(request.settings), _working_dir(request.settings)
    prefix = lies_at(request)
    replicas = course(request)
    host, _, port = http.rpartition(":")
    document: dict[str, Any] = {"proxy_location": "EveryNode", "http_options": {"host": host.strip("[]"), "port": int(port)}}
    if grpc is not None:
        document["grpc_options"] = {"port": grpc, "grpc_servicer_functions": [SERVICER]}
    application: dict[str, Any] = {"name": request.name, "route_prefix": route, "import_path": IMPORT_PATH}
    if working_dir:
        application["runtime_env"] = {"working_dir": working_dir}
    application["args"] = _arguments(request, BUNDLE if working_dir else f"{prefix}/{BUNDLE}")
    application["deployments"] = [_deployment(request, replicas)]
    write_yaml(request.folder / FILE, {**document, "applications": [application]}, "ray")
    start = _start(request, prefix, working_dir)
    (request.folder / "README.md").write_text(_readme(request, start), "utf-8")
    notes = [TOKEN_NOTE, *_notes(request, replicas, grpc), *fallback_notes(request)]
    policy = ServerPolicy(plan=request.bundled.plan, refuses=True, front_s=None, front_steals=False, basis=BASIS)
    copy_bundle(request)
    return Written(model=f"{BUNDLE}/{request.bundled.file}", policy=policy, start=start, notes=tuple(notes))


def answers(folder: Path, export: Export, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Answers of the application on a cluster that is started here for it, with the exported configuration but for places: rows one by one.

    Raises:
        MissingPackage: Ray is not installed. BundleError: it could not be started so, or did not answer.
    """
    if importlib.util.find_spec("ray") is None or importlib.util.find_spec("ray.serve") is None:
        raise MissingPackage("to start it here, the extra ray must be installed; run: pip install 'headway[ray]'")
    document = yaml.safe_load((folder / FILE).read_text("utf-8"))
    (application,) = document["applications"]
    port = _free_port()
    document["http_options"] = {"host": "127.0.0.1", "port": port}
    document.pop("grpc_options", None)
    application.pop("runtime_env", None)
    application["args"] |= {"bundle": str((folder / BUNDLE).resolve()), "deadline_s": 0}
    (deployment,) = application["deployments"]
    deployment.pop("autoscaling_config", None)
    deployment["num_replicas"] = 1
    route = application["route_prefix"]
    server = Server("127.0.0.1", port, "Ray Serve, started here", "" if route == "/" else route)
    with tempfile.TemporaryDirectory(prefix="headway-ray-") as name, tempfile.TemporaryFile() as said:
        (Path(name) / FILE).write_text(yaml.safe_dump(document), "utf-8")
        with _running(Path(name), said, deployment["ray_actor_options"]["num_cpus"]) as process:
            _wait(process, server, said)
            return ask_rows(server, export.model, inputs, export.inputs, export.outputs)


@contextlib.contextmanager
def _running(folder: Path, said: Any, cpus: float) -> Iterator[subprocess.Popen[bytes]]:
    """``serve run`` on a cluster of its own, of this process's machine; both are ended with the block."""
    source = str(Path(headway.__file__).parent.parent)
    kept = {name: value for name, value in os.environ.items() if name not in ("HEADWAY_TOKEN", "RAY_ADDRESS")}
    kept |= {"PYTHONPATH": os.pathsep.join(filter(None, (source, kept.get("PYTHONPATH", "")))), "PYTHONDONTWRITEBYTECODE": "1"}
    kept |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_OVERRIDE_RESOURCES": f'{{"CPU": {max(math.ceil(cpus), 1)}}}'}
    process = subprocess.Popen(
        [sys.executable, "-m", "ray.serve.scripts", "run", FILE, "--address", "local"],
        cwd=folder, env=kept, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], server: Server, said: Any) -> None:
    """Until the application is ready.

    Raises:
        BundleError: it does not become so.
    """
    until_s = time.monotonic() + READY_S
    while process.poll() is None and time.monotonic() < until_s and FAILED not in _said(said):
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://{server.host}:{server.port}{server.prefix}/v2/health/ready", timeout=LOOK_S),
        ):
            return
        time.sleep(LOOK_S)
    words = _said(said)
    reasons = REASON.findall(words)
    raise BundleError(
        f"{FILE}: Ray Serve must be able to run the exported configuration, and did not; it said: {reasons[-1] if reasons else words[-LAST_WORDS:]}"
    )


def _said(said: Any) -> str:
    """All that Ray wrote so far."""
    size = os.fstat(said.fileno()).st_size
    return os.pread(said.fileno(), size, 0).decode("utf-8", "replace").strip()


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


def _grpc(settings: Mapping[str, str]) -> int | None:
    text = settings.get("grpc", "")
    if text and (not text.isdecimal() or not 1 <= int(text) <= 65535):
        raise ConfigError(
            f"--set grpc must be a port, such as 9000, for Ray's proxies take gRPC on every address of their nodes; got {text!r}"
        )
    return int(text) if text else None


def _route(settings: Mapping[str, str]) -> str:
    route = settings.get("route") or "/"
    if not ROUTE.fullmatch(route):
        raise ConfigError(f"--set route must be / or a path such as /vision, got {route!r}")
    return route


def _working_dir(settings: Mapping[str, str]) -> str:
    text = settings.get("working_dir", "")
    if text and (not WHERE.fullmatch(text) or settings.get("prefix")):
        raise ConfigError(
            f"--set working_dir must be the address of a .zip, such as s3://BUCKET/m.zip, and stand in the place of prefix, got {text!r}"
        )
    return text


def _arguments(request: Request, bundle: str) -> dict[str, Any]:
    """Of the application's builder. The digest makes another bundle in the same place another application, which Ray then updates."""
    found: dict[str, Any] = {"bundle": bundle, "digest": bundle_digest(request.bundle)}
    if request.name != request.bundle.manifest.name:
        found["name"] = request.name
    if request.index:
        found["variant"] = request.bundled.variant.name
    return found


def _deployment(request: Request, replicas: Replicas) -> dict[str, Any]:
    """Options that leave every decision about requests to Headway, and the number of replicas to the plan."""
    found: dict[str, Any] = {"name": DEPLOYMENT}
    scaling, highest = request.scaling, replicas.highest or replicas.lowest
    if scaling is None or highest == replicas.lowest:
        found["num_replicas"] = highest
    else:
        found["autoscaling_config"] = {
            "min_replicas": replicas.lowest,
            "initial_replicas": replicas.lowest,
            "max_replicas": highest,
            "target_ongoing_requests": round(scaling.target_in_flight, 3),
        }
    surge = math.ceil(100 / replicas.lowest) if switch(request, "surge") else 0
    return found | {
        "max_ongoing_requests": most_in_flight(request.bundle, request.bundled, Settings()),
        "ray_actor_options": {"num_cpus": cores(request)},
        "graceful_shutdown_timeout_s": DRAINED_S,
        "health_check_period_s": CHECK_S,
        "health_check_timeout_s": CHECKED_S,
        "max_surge_percent": surge,
    }


def _notes(request: Request, replicas: Replicas, grpc: int | None) -> list[str]:
    notes = []
    if grpc is not None:
        notes.append("Ray's proxies take gRPC on every address of their nodes, without TLS")
    if request.scaling is None:
        notes.append("no autoscaling was planned: the number of replicas is fixed; headway plan writes settings")
    elif (replicas.highest or replicas.lowest) == replicas.lowest:
        notes.append("the planned rate has no course over the day: the number of replicas is fixed")
    if not switch(request, "surge"):
        notes.append("an update stops an old replica before it starts a new one; with room for one more, --set surge=on turns that round")
    return notes


def _start(request: Request, prefix: str, working_dir: str) -> tuple[str, ...]:
    runtimes = {bundled.plan.runtime for bundled in request.bundle.manifest.variants}
    extras = ",".join(sorted({*extras_for(runtimes), "ray"}))
    bring = (
        (f"zip -r {PurePosixPath(working_dir).name} . && echo 'now put it at {working_dir}'",)
        if working_dir
        else (f"sudo install -d {prefix} && sudo cp -R {BUNDLE} {prefix}/",)
    )
    return (f"pip install 'headway[{extras}]=={__version__}'", *bring, f"serve deploy {FILE}", "serve status")


def _readme(request: Request, start: tuple[str, ...]) -> str:
    install, bring, deploy, status = start
    return (
        f"# {request.name} on Ray Serve\n\nOn every node of the cluster, from inside this folder:\n\n```sh\n{install}\n{bring}\n```\n\n"
        f"Then, on one of them (`ray start --head` starts a cluster, `ray start --address HOST:6379` joins it):\n\n```sh\n{deploy}\n{status}\n```\n\n"
        f"`serve run {FILE}` does the same in the foreground. `serve shutdown` ends it. A new export at the same place, and `serve deploy` again, is an update.\n\n"
        f"`ray start` must have been called with HEADWAY_TOKEN in its environment for clients to need a token.\n"
    )
