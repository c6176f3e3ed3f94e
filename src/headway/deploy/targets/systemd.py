"""A systemd unit that serves the whole bundle with Headway, hardened and within the plan's cores."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from headway import __version__
from headway.deploy.exporting import Request, Written
from headway.deploy.targets._own_server import (
    BUNDLE,
    TOKEN_NOTE,
    address,
    answers_of,
    arguments,
    copy_bundle,
    cores,
    fallback_notes,
    lies_at,
    memory_bound,
    policy,
)
from headway.deploy.targets._pinned import extras_for
from headway.records import BundleError, ConfigError, Export
from headway.serve import Limits

SETTINGS: Mapping[str, str] = {
    "prefix": "the folder that the bundle and the Python environment lie in on that machine (by default /opt/headway/NAME)",
    "http": "where HTTP listens, HOST:PORT (by default 127.0.0.1:8000)",
    "grpc": "where gRPC listens, HOST:PORT; by default nowhere",
    "user": "the user that it runs as; by default one that exists only while it runs",
    "cpus": "the cores that it is kept to, such as 0-3,8; by default a quota of the plan's cores and one for the front end",
    "memory": "a limit on its memory, such as 2GiB; by default from the objective's bound, or none",
}
ASKED = "headway serve, with the command line of the unit, started here without systemd"
"""What ``answers`` asks, in words."""
AFTER_DRAIN_S = 7
FILES = 16384
LOWEST_FREE_PORT = 1024
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
"""What the unit cannot see, by ProtectHome and PrivateTmp."""
USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
CPUS = re.compile(r"\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*")
WORD = re.compile(r'"(?:[^"\\]|\\.)*"')
HARDENING = (
    "NoNewPrivileges=yes", "ProtectSystem=strict", "ProtectHome=yes", "PrivateTmp=yes", "PrivateDevices=yes", "ProtectClock=yes",
    "ProtectControlGroups=yes", "ProtectHostname=yes", "ProtectKernelLogs=yes", "ProtectKernelModules=yes", "ProtectKernelTunables=yes",
    "ProtectProc=invisible", "RemoveIPC=yes", "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6", "RestrictNamespaces=yes",
    "RestrictRealtime=yes", "RestrictSUIDSGID=yes", "LockPersonality=yes", "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service", "SystemCallErrorNumber=EPERM", "UMask=0077",
)  # fmt: skip


def write(request: Request) -> Written:
    """``NAME.service``, README.md with the commands that install it, and the bundle.

    Raises:
        ConfigError: a setting is out of range. MissingPackage: headway runs here without being installed.
    """
    unit, prefix = unit_name(request.name), _prefix(request)
    http, grpc = address(request.settings.get("http") or "127.0.0.1:8000", "http"), request.settings.get("grpc", "")
    if grpc:
        address(grpc, "grpc")
    command = arguments(request, f"{prefix}/{BUNDLE}", http, grpc=grpc, log="text")
    sections = {
        "Unit": [f"Description=Headway serving {request.name}", "Wants=network-online.target", "After=network-online.target"],
        "Service": [
            "Type=exec", f"ExecStart={prefix}/venv/bin/headway {' '.join(quoted(word) for word in command)}",
            f"EnvironmentFile=-/etc/headway/{request.name}.env", *_user(request.settings), "Restart=on-failure", "RestartSec=2",
            "RestartPreventExitStatus=2", "KillSignal=SIGTERM", f"TimeoutStopSec={math.ceil(Limits().drain_s) + AFTER_DRAIN_S}",
            f"LimitNOFILE={FILES}", *_cores(request), *_memory(request), *HARDENING, *_capabilities(http, grpc),
        ],
        "Install": ["WantedBy=multi-user.target"],
    }  # fmt: skip
    text = "\n".join(f"[{name}]\n" + "".join(f"{line}\n" for line in lines) for name, lines in sections.items())
    (request.folder / unit).write_text(text, "utf-8")
    start = _start(request, unit, prefix, grpc=bool(grpc))
    (request.folder / "README.md").write_text(_readme(request.name, unit, start), "utf-8")
    model = copy_bundle(request)
    return Written(model=model, policy=policy(request), start=start, notes=(TOKEN_NOTE, *fallback_notes(request)))


def answers(folder: Path, export: Export, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Answers of a server started here with the command line of the unit; no systemd.

    Raises:
        BundleError: it could not be started so, or did not answer.
    """
    lines = (folder / unit_name(export.model)).read_text("utf-8").splitlines()
    command = [line for line in lines if line.startswith("ExecStart=")]
    if not command:
        raise BundleError(f"{folder}: the unit must have a line ExecStart=, and has none. Export again.")
    return answers_of(unquoted(command[0]), folder, export, inputs)


def unit_name(name: str) -> str:
    """The file of the unit; the prefix keeps it apart from the units of other programs."""
    return f"headway-{name}.service"


def quoted(word: str) -> str:
    """An argument of ``ExecStart`` that stands for itself: in quotes, with specifiers and variables taken for text."""
    return json.dumps(word, ensure_ascii=False).replace("%", "%%").replace("$", "$$")


def unquoted(line: str) -> list[str]:
    """The arguments that ``quoted`` wrote into a line."""
    return [json.loads(word.replace("$$", "$").replace("%%", "%")) for word in WORD.findall(line)]


def _prefix(request: Request) -> str:
    prefix = lies_at(request)
    if any(PurePosixPath(prefix).is_relative_to(hidden) for hidden in HIDDEN):
        raise ConfigError(f"--set prefix must lie outside {', '.join(HIDDEN)}, which the unit cannot see, got {prefix!r}")
    return prefix


def _user(settings: Mapping[str, str]) -> list[str]:
    user = settings.get("user", "")
    if not user:
        return ["DynamicUser=yes"]
    if not USER.fullmatch(user):
        raise ConfigError(f"--set user must be the name of a user, got {user!r}")
    return [f"User={user}"]


def _cores(request: Request) -> list[str]:
    cpus = request.settings.get("cpus", "")
    if not cpus:
        return [f"CPUQuota={100 * (cores(request) + 1)}%"]
    if not CPUS.fullmatch(cpus):
        raise ConfigError(f"--set cpus must be numbers and ranges of cores, such as 0-3,8, got {cpus!r}")
    return [f"CPUAffinity={cpus.replace(',', ' ')}"]


def _memory(request: Request) -> list[str]:
    bound = memory_bound(request)
    return [] if bound is None else [f"MemoryMax={bound[0]}"]


def _capabilities(*addresses: str) -> list[str]:
    """None, but for ports that only the system may open."""
    low = any(0 < int(where.rpartition(":")[2]) < LOWEST_FREE_PORT for where in addresses if where)
    only = "CAP_NET_BIND_SERVICE" if low else ""
    return [f"CapabilityBoundingSet={only}", f"AmbientCapabilities={only}"]


def _start(request: Request, unit: str, prefix: str, *, grpc: bool) -> tuple[str, ...]:
    runtimes = {bundled.plan.runtime for bundled in request.bundle.manifest.variants}
    extras = ",".join(sorted({*extras_for(runtimes), *(["grpc"] if grpc else [])}))
    package = f"'headway{f'[{extras}]' if extras else ''}=={__version__}'"
    return (
        f"sudo install -d {prefix} && sudo cp -R {BUNDLE} {prefix}/",
        f"sudo python3 -m venv {prefix}/venv && sudo {prefix}/venv/bin/pip install {package}",
        f"sudo cp ./{unit} /etc/systemd/system/",
        f"sudo systemctl daemon-reload && sudo systemctl enable --now {unit}",
    )


def _readme(name: str, unit: str, start: tuple[str, ...]) -> str:
    commands = "\n".join(start)
    return (
        f"# {unit}\n\nFrom inside this folder:\n\n```sh\n{commands}\n```\n\n"
        f"A token that clients must send goes into `/etc/headway/{name}.env`, readable by root only: `HEADWAY_TOKEN=...`\n"
    )
