"""``headway serve --on``: a bundle deployed on a Ray cluster, and taken away again at the end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import orjson
from rich.console import Console

import headway.cluster
from headway.cli.output import print_line
from headway.cluster.where import check_where
from headway.discovery import find
from headway.records import ConfigError, MissingPackage
from headway.serve import OpenBundle, Settings, open_bundle

ANYWHERE = ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What was asked for.

    Attributes:
        refused: options by their names that were given and mean nothing on a cluster.
        stays: whether the application is left running.
    """

    where: str
    bundles: Sequence[Path]
    name: str
    settings: Settings
    token: str | None
    replicas: int
    route: str
    http: tuple[str, int]
    grpc: tuple[str, int] | None
    refused: Mapping[str, bool]
    stays: bool


def serve_on(wish: Wish, *, as_json: bool) -> None:
    """Deploy, say where to ask, and wait for SIGTERM or Ctrl-C; nothing of it is left then.

    Raises:
        ConfigError: an option cannot be kept on a cluster. MissingPackage: Ray is not installed.
    """
    _check(wish)
    found = find(headway.cluster, "serving")
    if "serving" in found.missing:
        raise MissingPackage(f"--on {wish.where}: {found.missing['serving']}. Run: pip install 'headway[ray]'")
    serving = found.present["serving"]
    bundle = open_bundle(wish.bundles[0])
    serving.enter(wish.where)
    try:
        _live(serving, bundle, wish, as_json)
    finally:
        serving.leave()


def _live(serving: ModuleType, bundle: OpenBundle, wish: Wish, as_json: bool) -> None:
    console = Console(stderr=True, highlight=False)
    ended = threading.Event()
    with _signals(ended):
        asked = serving.Asked(
            where=wish.where, bundle=bundle, name=wish.name, settings=wish.settings, token=wish.token, replicas=wish.replicas,
            route=wish.route, http=wish.http, grpc_port=None if wish.grpc is None else wish.grpc[1],
        )  # fmt: skip
        deployed = serving.deploy(asked, lambda text: console.print(f"  {text}", markup=False, style="yellow"), ended.is_set)
        if as_json:
            _print_json(deployed)
        else:
            _print(console, deployed, wish)
        if not wish.stays:
            ended.wait()
            console.print("taking it away: what it has accepted is answered first", markup=False)
            serving.remove(deployed)


def _check(wish: Wish) -> None:
    check_where(wish.where)
    given = [name for name, there in wish.refused.items() if there]
    if given:
        raise ConfigError(
            f"{', '.join(given)}: must be left out with --on: a replica on a cluster has no {'sockets, files or control' if len(given) > 1 else 'such thing'} of its own; see docs/export_ray.md"
        )
    if len(wish.bundles) != 1:
        raise ConfigError(
            f"--on takes one run or bundle, got {len(wish.bundles)}; deploy each by itself, with --name and --route; a new version of a model is deployed over the old one"
        )
    if not wish.route.startswith("/") or (wish.route != "/" and wish.route.endswith("/")):
        raise ConfigError(f"--route must be / or a path such as /vision, got {wish.route!r}")
    if not wish.http[1]:
        raise ConfigError("--http: the port must be given with --on, for the proxies of all nodes listen at the same one, got 0")
    if wish.grpc is not None and (wish.grpc[0] not in ANYWHERE or not wish.grpc[1]):
        raise ConfigError(
            "--grpc must read 0.0.0.0:PORT with --on, for Ray's proxies take gRPC on every address of their nodes; keep the port to yourself"
        )


class _signals:
    """SIGINT and SIGTERM set an event during the block; a second one ends the program."""

    def __init__(self, ended: threading.Event) -> None:
        self._ended, self._before = ended, {}  # type: threading.Event, dict[int, Any]

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._heard)

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self._ended.is_set():
            raise KeyboardInterrupt
        self._ended.set()


def _print_json(deployed: Any) -> None:
    line = {
        "url": deployed.url, "grpc_port": deployed.grpc_port, "model": deployed.model, "variant": deployed.variant, "plan": deployed.plan,
        "replicas": deployed.replicas, "updated": deployed.updated, "notes": list(deployed.notes),
    }  # fmt: skip
    print_line(orjson.dumps(line).decode())


def _print(console: Console, deployed: Any, wish: Wish) -> None:
    also = f" and gRPC on port {deployed.grpc_port}" if deployed.grpc_port else ""
    verb = "updated" if deployed.updated else "ready"
    console.print(f"[bold]{deployed.model}[/bold] {verb} at {deployed.url}/v2/models/{deployed.model}/infer{also}")
    replicas = f"{deployed.replicas} replicas" if deployed.replicas > 1 else "1 replica"
    console.print(f"  {replicas} of {deployed.variant} on {deployed.plan}", markup=False)
    if not deployed.everywhere:
        console.print("  only the nodes themselves reach it; with --http 0.0.0.0:PORT every machine does, at any node", markup=False)
    for note in deployed.notes:
        console.print(f"  note: {note}", markup=False, style="yellow")
    console.print(f"  load it:  headway load {deployed.url} --rate 50 --for 10s", markup=False)
    if wish.stays:
        console.print("  it stays; update it with the same command, end it with: serve shutdown", markup=False)
