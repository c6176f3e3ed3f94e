"""How a cluster is named, by ``--on``. Needs no package of a cluster."""

from __future__ import annotations

import socket

from headway.records import ConfigError

RAY = "ray"
ANSWER_S = 5.0
"""How long the address of a cluster may take to accept a connection [s]."""
START = "Start one with: ray start --head; then join other machines with: ray start --address HOST:6379"


def check_where(where: str) -> None:
    """Nothing.

    Raises:
        ConfigError: the text names no cluster.
    """
    if where != RAY and not (where.startswith(f"{RAY}:") and len(where) > len(RAY) + 1 and where != "ray://"):
        raise ConfigError(f"--on: must be ray (a cluster that runs on this machine), ray:HOST:PORT or ray://HOST:PORT, got {where!r}")


def address_of(where: str) -> str:
    """The address as Ray wants it. One that names a host is asked whether anything listens there: Ray itself would ask for many minutes.

    Raises:
        ConfigError: the text names no cluster, or nothing listens there.
    """
    check_where(where)
    rest = where.removeprefix(RAY).removeprefix(":")
    if not rest:
        return "auto"
    host, _, port = rest.removeprefix("//").partition("?")[0].rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"--on: must name HOST:PORT, such as ray:10.0.0.1:6379, got {where!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()
    except OSError as error:
        raise ConfigError(f"--on {where}: a Ray cluster must run there, got: {error.strerror or error}. {START}") from error
    return where if rest.startswith("//") else rest
