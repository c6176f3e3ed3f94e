"""A bundle deployed on a Ray cluster, behind Ray Serve's proxies: ``headway serve --on ray`` (extra ``ray``)."""

from __future__ import annotations

import contextlib
import io
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.context import _get_global_client
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ApplicationStatus

from headway.cluster.joining import join, last_line
from headway.cluster.serving_application import application, chosen, options_for
from headway.cluster.serving_grpc import add_servicer
from headway.cluster.serving_parcel import parcel
from headway.cluster.serving_replica import Order
from headway.records import ConfigError, HeadwayError
from headway.serve import OpenBundle, Settings, check_name

LOOK_S = 0.25
"""How often Ray is asked whether the application runs [s]."""
PATIENCE_S = 30.0
"""After so long without a running application it is said what Ray waits for [s]."""
ANSWER_S = 60.0
SERVICER = f"{add_servicer.__module__}:{add_servicer.__qualname__}"
SERVE_LOGGER = "ray.serve"
ANYWHERE = ("0.0.0.0", "::", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is to be deployed.

    Attributes:
        where: the cluster, as ``--on`` names it.
        name: of the model and of the application; empty: the bundle's.
        route: the path before ``/v2`` at which the application is reached.
        http: where the proxies of all nodes listen; ``grpc_port`` the same for gRPC, none: nowhere.
    """

    where: str
    bundle: OpenBundle
    name: str = ""
    settings: Settings = field(default_factory=Settings)
    token: str | None = None
    replicas: int = 1
    route: str = "/"
    http: tuple[str, int] = ("127.0.0.1", 8000)
    grpc_port: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """What runs on the cluster.

    Attributes:
        url: of the application, on the machine that has the cluster's head; ``everywhere``: whether other machines reach it.
        updated: whether an application of this name was there before.
        began: whether Serve did not run before.
    """

    url: str
    grpc_port: int | None
    everywhere: bool
    model: str
    variant: str
    plan: str
    replicas: int
    updated: bool
    began: bool
    notes: tuple[str, ...]


def enter(where: str) -> None:
    """Join the cluster that ``--on`` names, quietly. Ray takes SIGTERM for itself here; who wants it takes it back afterwards.

    Raises:
        ConfigError: none is named, or none runs there.
    """
    join(where)
    logging.getLogger(SERVE_LOGGER).setLevel(logging.ERROR)


def deploy(asked: Asked, note: Callable[[str], None], given_up: Callable[[], bool] = lambda: False) -> Deployed:
    """What runs, once all of it does, on the cluster that this process has joined; it stays joined until ``leave`` or ``remove``.

    Args:
        note: told what is waited for, when it takes long.
        given_up: asked now and then whether to go on waiting; a new application is taken away when not.

    Raises:
        KeyboardInterrupt: it was given up.
        ConfigError: the cluster is too small, or its Serve listens elsewhere.
        HeadwayError: the application could not be started; the message holds Ray's reason.
    """
    name = asked.name or asked.bundle.manifest.name
    check_name(name)
    assert ray.is_initialized(), "enter comes first: without it Ray joins whatever cluster it finds"
    before = None
    try:
        before = serve.status()
        cpus = _room(asked, updates=name in before.applications)
        host, port, grpc_port = _started(asked, running=bool(before.proxies or before.applications))
        order = Order(parcel=parcel(asked.bundle), name=name, settings=asked.settings, token=asked.token)
        surge = cpus.free >= cpus.needed
        options = options_for(asked.bundle, asked.settings, replicas=asked.replicas, surge=surge)
        told = _run(application(order, **options), name, asked.route, note, given_up)
    except BaseException:
        if before is not None and name not in before.applications:
            _forget(name, began=not before.proxies)
        raise
    prefix = "" if asked.route == "/" else asked.route
    shown = _head() if host in ANYWHERE else host
    notes = [*told["notes"]]
    if not surge:
        notes.append("no cores are free for a further replica: an update will stop an old replica before it starts a new one")
    if grpc_port is not None:
        notes.append("Ray's proxies take gRPC on every address of their nodes; keep the port to yourself, or set HEADWAY_TOKEN")
    return Deployed(
        url=f"http://{f'[{shown}]' if ':' in shown else shown}:{port}{prefix}", grpc_port=grpc_port, everywhere=host in ANYWHERE,
        model=told["model"], variant=told["variant"], plan=told["plan"], replicas=asked.replicas, updated=name in before.applications,
        began=not before.proxies, notes=tuple(notes),
    )  # fmt: skip


def remove(deployed: Deployed) -> None:
    """Take the application away, once what it has accepted is answered; and Serve itself, if it was started for this and nothing else is left."""
    assert ray.is_initialized(), "enter comes first"
    _forget(deployed.model, began=deployed.began)


def _forget(name: str, *, began: bool) -> None:
    if name in serve.status().applications:
        serve.delete(name)
    if began and not serve.status().applications:
        with contextlib.redirect_stdout(io.StringIO()):  # Ray's threads print that its own last calls failed
            serve.shutdown()


def leave() -> None:
    """Let go of the cluster; what runs there goes on."""
    with contextlib.redirect_stdout(io.StringIO()):
        ray.shutdown()


@dataclass(frozen=True, slots=True)
class _Cpus:
    """Cores that one replica needs, and that are free beside all of them."""

    needed: float
    free: float


def _room(asked: Asked, *, updates: bool) -> _Cpus:
    """Raises:
    ConfigError: no node, or not all nodes together, could ever hold the replicas.
    """
    plan = chosen(asked.bundle, asked.settings.variant).plan
    needed = float(plan.instances * plan.threads)
    held = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
    places = sum(int(cpus // needed) for cpus in held)
    if places < asked.replicas:
        raise ConfigError(
            f"--on {asked.where}: the cluster must have room for {asked.replicas} replicas of {needed:g} cores each ({plan}), and its nodes, of "
            f"{', '.join(f'{cpus:g}' for cpus in held)} cores, hold {places}. Add nodes, or ask for fewer with --replicas."
        )
    free = ray.available_resources().get("CPU", 0.0)
    return _Cpus(needed, free if updates else free - needed * asked.replicas)


def _started(asked: Asked, *, running: bool) -> tuple[str, int, int | None]:
    """Where the proxies listen: host, port, and the port of gRPC.

    Raises:
        ConfigError: Serve runs already, and elsewhere.
    """
    host, port = asked.http
    grpc = {"port": asked.grpc_port, "grpc_servicer_functions": [SERVICER]} if asked.grpc_port is not None else None
    try:
        serve.start(proxy_location="EveryNode", http_options={"host": host, "port": port}, grpc_options=grpc)
    except (RayError, RayServeException, RuntimeError, ValueError, TimeoutError) as error:
        raise ConfigError(f"--http {host}:{port}: Ray Serve must be able to listen there, got: {last_line(error)}") from error
    client = _get_global_client()
    found = client.http_config
    if running and (found.host, found.port) != (host, port):
        raise ConfigError(
            f"--http {host}:{port}: Ray Serve runs on this cluster already and listens at {found.host}:{found.port}, which cannot be changed; "
            f"give --http {found.host}:{found.port}, or end it first with: serve shutdown"
        )
    if grpc is not None and running:
        own = ray.get(client._controller.get_grpc_config.remote())
        if own.port != asked.grpc_port or SERVICER not in own.grpc_servicer_functions:
            raise ConfigError(
                f"--grpc: Ray Serve runs on this cluster already, and without Headway's calls at port {asked.grpc_port}; leave --grpc out, or end it first with: serve shutdown"
            )
    return host, port, asked.grpc_port


def _run(app: Any, name: str, route: str, note: Callable[[str], None], given_up: Callable[[], bool]) -> dict[str, Any]:
    """What a replica of the running application tells of itself.

    Raises:
        HeadwayError: it could not be started.
    """
    try:
        (handle,) = serve.run_many([serve.RunTarget(target=app, name=name, route_prefix=route)], wait_for_applications_running=False)
    except (RayError, RayServeException, ValueError) as error:
        raise ConfigError(f"the application {name!r} must be one that Ray Serve takes, got: {last_line(error)}") from error
    began_s, said = time.monotonic(), False
    while True:
        state = serve.status().applications.get(name)
        if state is not None and state.status == ApplicationStatus.RUNNING:
            break
        if state is not None and state.status in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY):
            reasons = [one.message for one in state.deployments.values() if one.message] or [state.message]
            raise HeadwayError(f"the application {name!r} could not be started on the cluster: {' '.join(reasons)}")
        if given_up():
            raise KeyboardInterrupt
        if not said and time.monotonic() - began_s > PATIENCE_S:
            said = True
            note(f"still waiting for Ray: {_waiting(state)}")
        time.sleep(LOOK_S)
    told: dict[str, Any] = handle.about.remote().result(timeout_s=ANSWER_S)
    return told


def _waiting(state: Any) -> str:
    words = [] if state is None else [one.message for one in state.deployments.values() if one.message]
    return " ".join(words) or "no replica runs yet; are the cores of its nodes taken?"


def _head() -> str:
    """The address of the machine that has the cluster's head, or of any."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    heads = [node for node in nodes if "node:__internal_head__" in node["Resources"]]
    return str((heads or nodes)[0]["NodeManagerAddress"])
