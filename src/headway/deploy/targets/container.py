"""A container context: Dockerfile, pinned requirements and the whole bundle, served by Headway as a user without rights."""

from __future__ import annotations

import json
import re
import shutil
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from headway import __version__
from headway.deploy.exporting import Request, Written
from headway.deploy.targets._own_server import (
    BUNDLE,
    GRPC_PORT,
    HTTP_PORT,
    TOKEN_NOTE,
    answers_of,
    arguments,
    copy_bundle,
    fallback_notes,
    label,
    policy,
    switch,
)
from headway.deploy.targets._pinned import extras_for, pinned
from headway.records import BundleError, ConfigError, Export

SETTINGS: Mapping[str, str] = {
    "base": "the image to build on, with its tag (by default python:3.N-slim, of the Python that exports)",
    "digest": "its digest, sha256:...; with it the same image is built on for ever",
    "wheel": "a wheel file of headway to copy into the context; by default headway comes from the package index",
    "requirements": "a requirements file to take instead of the one made here, such as a lock file with hashes",
    "grpc": f"on: gRPC too, on port {GRPC_PORT}; off (the default)",
}
ASKED = "headway serve, with the command line of the Dockerfile, started here without a container"
"""What ``answers`` asks, in words."""
PLACE = "/srv"
USER = 10001
HEALTH_S = 5
PROBE = (
    "import urllib.request as u; "
    f"u.build_opener(u.ProxyHandler({{}})).open('http://127.0.0.1:{HTTP_PORT}/v2/health/ready', timeout={HEALTH_S - 1})"
)
FILE = "Dockerfile"
REQUIREMENTS = "requirements.txt"
WHEELS = "wheels"
NOT_BUILT = (
    "the image was not built here: no container engine was asked; headway verify starts the command line of the Dockerfile without one"
)
BUILD_ON = re.compile(r"[a-z0-9][A-Za-z0-9._/:-]*:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
WHEEL = re.compile(r"headway-[A-Za-z0-9_.!+]+-[A-Za-z0-9_.]+-[A-Za-z0-9_.]+-[A-Za-z0-9_.]+\.whl")


def write(request: Request) -> Written:
    """Dockerfile, ``.dockerignore``, ``requirements.txt`` and the bundle.

    Raises:
        ConfigError: a setting is out of range. MissingPackage: a package whose version is to be pinned is not installed.
    """
    grpc = switch(request, "grpc")
    base = _base(request.settings)
    wheel = _copy_wheel(request)
    hashed = _write_requirements(request, grpc=grpc, wheel=wheel)
    model = copy_bundle(request)
    command = arguments(
        request, f"{PLACE}/{BUNDLE}", f"0.0.0.0:{HTTP_PORT}", grpc=f"0.0.0.0:{GRPC_PORT}" if grpc else ""
    )  # fmt: skip
    (request.folder / FILE).write_text(_dockerfile(base, command, wheel=wheel, hashed=hashed, grpc=grpc), "utf-8")
    kept = [BUNDLE, REQUIREMENTS, *([WHEELS] if wheel else [])]
    (request.folder / ".dockerignore").write_text("*\n" + "".join(f"!{name}\n" for name in kept), "utf-8")
    return Written(
        model=model, policy=policy(request), start=_start(request, grpc), notes=(NOT_BUILT, TOKEN_NOTE, *_notes(hashed), *fallback_notes(request))
    )  # fmt: skip


def answers(folder: Path, export: Export, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Answers of a server started here with the command line of the Dockerfile; no container.

    Raises:
        BundleError: it could not be started so, or did not answer.
    """
    lines = (folder / FILE).read_text("utf-8").splitlines()
    command = [json.loads(line.removeprefix("CMD ")) for line in lines if line.startswith("CMD ")]
    if not command:
        raise BundleError(f"{folder / FILE}: must have a line CMD [...], and has none. Export again.")
    return answers_of(command[-1][1:], folder, export, inputs)


def _base(settings: Mapping[str, str]) -> str:
    base = settings.get("base") or f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"
    if not BUILD_ON.fullmatch(base) or base.endswith(":latest"):
        raise ConfigError(f"--set base must be an image with a tag other than latest, such as python:3.12-slim, got {base!r}")
    digest = settings.get("digest", "")
    if digest and not DIGEST.fullmatch(digest):
        raise ConfigError(f"--set digest must be sha256: and 64 hexadecimal digits, got {digest!r}")
    return f"{base}@{digest}" if digest else base


def _copy_wheel(request: Request) -> str:
    """The wheel's file name; empty: none was given."""
    given = request.settings.get("wheel", "")
    if not given:
        return ""
    path = Path(given)
    if not WHEEL.fullmatch(path.name) or not path.is_file() or not zipfile.is_zipfile(path):
        raise ConfigError(f"--set wheel must be a wheel file of headway (headway-VERSION-py3-none-any.whl), got {given!r}")
    (request.folder / WHEELS).mkdir()
    shutil.copyfile(path, request.folder / WHEELS / path.name)
    return path.name


def _write_requirements(request: Request, *, grpc: bool, wheel: str) -> bool:
    """The file; whether it holds hashes."""
    given = request.settings.get("requirements", "")
    place = request.folder / REQUIREMENTS
    if given:
        try:
            text = Path(given).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--set requirements must be a readable text file, got {given!r}: {error}") from error
        place.write_text(text, "utf-8")
        return "--hash=" in text
    runtimes = {bundled.plan.runtime for bundled in request.bundle.manifest.variants}
    found = pinned({*extras_for(runtimes), *(["grpc"] if grpc else [])})
    if not wheel:
        found["headway"] = __version__
    head = f"# What headway {__version__} needs to serve this bundle, in the versions that were installed where it was exported.\n"
    place.write_text(head + "".join(f"{name}=={version}\n" for name, version in sorted(found.items())), "utf-8")
    return False


def _dockerfile(base: str, command: tuple[str, ...], *, wheel: str, hashed: bool, grpc: bool) -> str:
    install = "pip install --no-cache-dir --disable-pip-version-check --no-deps"
    steps = [
        f"{install} {'--require-hashes ' if hashed else ''}-r {REQUIREMENTS}",
        *([f"{install} ./{WHEELS}/{wheel}"] if wheel else []),
        "pip check",
    ]
    lines = [
        "# A bundle served by Headway: no shell is needed to run it, nothing is written, no rights are needed.",
        f"FROM {base}",
        "",
        "ENV PYTHONUNBUFFERED=1",
        f"WORKDIR {PLACE}",
        "",
        f"COPY {REQUIREMENTS} ./",
        *([f"COPY {WHEELS} {WHEELS}"] if wheel else []),
        "RUN " + " \\\n  && ".join(steps),
        "",
        f"COPY {BUNDLE} {BUNDLE}",
        "",
        f"USER {USER}:{USER}",
        f"EXPOSE {HTTP_PORT}{f' {GRPC_PORT}' if grpc else ''}",
        "STOPSIGNAL SIGTERM",
        f"HEALTHCHECK --interval=10s --timeout={HEALTH_S}s --start-period=60s --retries=3 \\",
        f"  CMD {json.dumps(['python', '-c', PROBE])}",
        f"CMD {json.dumps(['headway', *command])}",
        "",
    ]
    return "\n".join(lines)


def _start(request: Request, grpc: bool) -> tuple[str, ...]:
    image = f"{label(request.name)}:{__version__}"
    ports = [HTTP_PORT, *([GRPC_PORT] if grpc else [])]
    published = " ".join(f"-p 127.0.0.1:{port}:{port}" for port in ports)
    safe = "--read-only --cap-drop=ALL --security-opt=no-new-privileges"
    return f"docker build -t {image} .", f"docker run --rm {safe} --env HEADWAY_TOKEN {published} {image}"


def _notes(hashed: bool) -> tuple[str, ...]:
    if hashed:
        return ()
    return (
        "requirements.txt has exact versions and no hashes, for installed packages keep none; give a lock file that has: --set requirements=FILE",
    )
