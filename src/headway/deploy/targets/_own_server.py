"""What exports that run Headway's own server share: the bundle copied whole, the server's arguments, and the same server started here."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

import headway
from headway.deploy.asking import Server, ask_rows
from headway.deploy.exporting import Request
from headway.records import (
    BundleError,
    ConfigError,
    Export,
    MissingPackage,
    ObjectiveError,
    ServerPolicy,
    Unsupported,
    parse_objective,
)
from headway.serve import MANIFEST, model_files

BUNDLE = "bundle"
HTTP_PORT, GRPC_PORT = 8000, 8001
READY_S, STOP_S = 120.0, 15.0
LAST_WORDS = 600
BASIS = "Headway's own server: the run's own figure"
MARGIN = 1.25
"""A limit on memory over the objective's bound on resident memory, which a container's page cache is counted beside."""
SERVER_BYTES, FILE_TIMES = 512 * 2**20, 3
"""Memory of the server beside its models [B], and of a session over the bytes of its model's file: a guess on the safe side."""
LONGEST_LABEL = 40
PREFIX = re.compile(r"(/[A-Za-z0-9._+-]+)+")
TOKEN_NOTE = (
    "whoever reaches the port may ask it: set HEADWAY_TOKEN in its environment (it is in no file here), or keep the port to yourself"
)

Arrays = Mapping[str, np.ndarray]


def copy_bundle(request: Request) -> str:
    """The bundle with all of its variants at ``bundle/``, readable by every user; the path there of the variant's own file."""
    root, manifest = request.bundle.root, request.bundle.manifest
    files = {root / MANIFEST, root / manifest.golden}
    for bundled in manifest.variants:
        files |= {*model_files(root, bundled.file)}
    for file in sorted(files):
        place = request.folder / BUNDLE / file.relative_to(root)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
    for path in (request.folder / BUNDLE, *(request.folder / BUNDLE).rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return f"{BUNDLE}/{request.bundled.file}"


def arguments(request: Request, bundle: str, http: str, *, grpc: str = "", log: str = "json") -> tuple[str, ...]:
    """Arguments of ``headway`` that serve the bundle at the path ``bundle``; without ``--variant`` it may fall back to the others.

    Raises:
        Unsupported: no command line can hold the variant's name.
    """
    found = ["serve", bundle, f"--http={http}", f"--log={log}"]
    if grpc:
        found.append(f"--grpc={grpc}")
    if request.name != request.bundle.manifest.name:
        found.append(f"--name={request.name}")
    if request.index:
        if "\0" in request.bundled.variant.name:
            raise Unsupported(f"the variant's name {request.bundled.variant.name!r} holds a null character, which no command line can")
        found.append(f"--variant={request.bundled.variant.name}")
    return tuple(found)


class Replicas(NamedTuple):
    """How many at least and at most; ``highest`` none: no bound."""

    lowest: int
    highest: int | None


def course(request: Request) -> Replicas:
    """From the day's trough (with what must be ready for its steepest rise) to its peak; the planned ones where the rate has no course."""
    scaling, planned = request.scaling, request.replicas
    if scaling is None or scaling.trough_replicas is None or scaling.peak_replicas is None:
        return Replicas(planned or 1, planned if scaling is not None else planned or 1)
    highest = max(scaling.peak_replicas, 1)
    return Replicas(min(highest, max(1, scaling.trough_replicas + (scaling.cold_start_replicas or 0))), highest)


def cores(request: Request) -> int:
    """That the model's threads keep busy."""
    return request.bundled.plan.instances * request.bundled.plan.threads


def policy(request: Request, front_steals: bool | None = None) -> ServerPolicy:
    """Of Headway's server: the plan itself. Its front end has a core of its own where the machine measured had one left."""
    if front_steals is None:
        front_steals = cores(request) >= request.bundle.manifest.environment.cores
    return ServerPolicy(plan=request.bundled.plan, refuses=True, front_s=None, front_steals=front_steals, basis=BASIS)


def fallback_notes(request: Request) -> tuple[str, ...]:
    """That a variant chosen by hand has nothing to fall back to."""
    if not request.index:
        return ()
    name = request.bundled.variant.name
    return (f"the variant {name!r} is not the bundle's first: it is served alone, and the server does not fall back to another",)


def memory_bound(request: Request) -> tuple[int, str] | None:
    """A limit on the server's memory [B] and where it comes from; none where neither a setting nor the objective says any.

    Raises:
        ConfigError: the setting is no size.
    """
    text = request.settings.get("memory", "")
    if text:
        return _size_bytes(text), "as set"
    bound = request.bundle.manifest.objective.memory_bytes
    return None if bound is None else (math.ceil(MARGIN * bound), f"{MARGIN:g} times the objective's bound on resident memory")


def _size_bytes(text: str) -> int:
    try:
        size = parse_objective(f"memory<={text}").memory_bytes if "," not in text else None
    except ObjectiveError:
        size = None
    if size is None:
        raise ConfigError(f"--set memory must be a size such as 800MiB or 2GB, got {text!r}")
    return size


def memory_guess(request: Request) -> tuple[int, str]:
    """``memory_bound``, or a guess from the files where there is none [B]."""
    bound = memory_bound(request)
    if bound is not None:
        return bound
    root, variants = request.bundle.root, request.bundle.manifest.variants
    largest = max(sum(file.stat().st_size for file in model_files(root, bundled.file)) for bundled in variants)
    guess = SERVER_BYTES + FILE_TIMES * request.bundled.plan.instances * largest
    return guess, f"{SERVER_BYTES // 2**20} MiB and {FILE_TIMES} times the largest model's file for each instance, not measured; set memory"


def label(name: str) -> str:
    """A model's name as DNS labels, images and resources of Kubernetes allow: lower case, digits and single hyphens, a letter first."""
    found = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    found = found if found[:1].isalpha() else f"m-{found}".strip("-")
    return found[:LONGEST_LABEL].strip("-")


def address(text: str, name: str) -> str:
    """A setting of the form HOST:PORT.

    Raises:
        ConfigError: it is not of that form.
    """
    host, _, port = text.rpartition(":")
    if not re.fullmatch(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]", host) or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ConfigError(f"--set {name} must read HOST:PORT, such as 127.0.0.1:8000, got {text!r}")
    return text


def lies_at(request: Request) -> str:
    """The setting ``prefix``: the folder that the bundle lies in where it is served.

    Raises:
        ConfigError: it is no plain absolute path.
    """
    prefix = request.settings.get("prefix") or f"/opt/headway/{request.name}"
    parts = PurePosixPath(prefix).parts
    if not PREFIX.fullmatch(prefix) or ".." in parts or "." in parts:
        raise ConfigError(f"--set prefix must be an absolute path of letters, digits and ._+-, such as /opt/headway/m, got {prefix!r}")
    return prefix


def switch(request: Request, name: str) -> bool:
    """A setting that is on or off; off by default.

    Raises:
        ConfigError: it is neither.
    """
    text = request.settings.get(name, "off")
    if text not in ("on", "off"):
        raise ConfigError(f"--set {name} must be on or off, got {text!r}")
    return text == "on"


def answers_of(words: Sequence[str], folder: Path, export: Export, inputs: Arrays) -> dict[str, np.ndarray]:
    """Answers of a server started here from inside the folder, with an exported command line but for places: rows one by one.

    Args:
        words: ``serve``, the bundle's path there, and options as ``--NAME=VALUE``.

    Raises:
        MissingPackage: it is to offer gRPC, and the packages for that are not here. Unsupported: here it falls back to another variant.
        BundleError: it did not start, or did not answer.
    """
    if any(word.startswith("--grpc=") for word in words) and importlib.util.find_spec("grpc") is None:
        raise MissingPackage("to start it here as exported, the extra grpc must be installed; run: pip install 'headway[grpc]'")
    moved = {"--http": "--http=127.0.0.1:0", "--grpc": "--grpc=127.0.0.1:0"}
    options = [moved.get(word.partition("=")[0], word) for word in words[2:]]
    with _running([words[0], BUNDLE, *options, "--deadline=none", "--json"], folder) as ready:
        if ready["variant"] != export.variant:
            raise Unsupported(f"the server here serves {ready['variant']!r} instead of {export.variant!r}: {'; '.join(ready['notes'])}")
        return ask_rows(
            Server("127.0.0.1", int(ready["port"]), "the server started here"), export.model, inputs, export.inputs, export.outputs
        )


@contextlib.contextmanager
def _running(words: Sequence[str], folder: Path) -> Iterator[dict[str, Any]]:
    """What a server says that is ready; it is ended with the block."""
    kept = {name: value for name, value in os.environ.items() if name != "HEADWAY_TOKEN"}
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, (str(Path(headway.__file__).parent.parent), kept.get("PYTHONPATH", ""))))
    kept["PYTHONDONTWRITEBYTECODE"] = "1"
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "headway", *words], cwd=folder, env=kept, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said
        )
        patience = threading.Timer(READY_S, process.kill)
        patience.start()
        try:
            ready = _ready(process.stdout.readline() if process.stdout else b"")
            patience.cancel()
            if ready is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_S)
                said.seek(0)
                last = said.read().decode("utf-8", "replace").strip()[-LAST_WORDS:]
                raise BundleError(f"{folder}: the exported command line must start the server, and it did not; it said: {last}")
            yield ready
        finally:
            patience.cancel()
            _end(process)


def _ready(line: bytes) -> dict[str, Any] | None:
    """The one line of a server that is ready; a failure is told over several lines."""
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return said if isinstance(said, dict) and {"port", "variant", "notes"} <= set(said) else None


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
