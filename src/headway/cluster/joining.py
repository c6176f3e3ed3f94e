"""The Ray cluster that ``--on`` names: its address, and this process joined to it (extra ``ray``)."""

from __future__ import annotations

import logging
from typing import Any

import ray

from headway.cluster.where import START, address_of
from headway.records import ConfigError


def join(where: str, runtime_env: dict[str, Any] | None = None) -> None:
    """Connect this process to the cluster that ``--on`` names.

    Raises:
        ConfigError: none is named, or none runs there.
    """
    address = address_of(where)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=runtime_env)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise ConfigError(f"--on {where}: a Ray cluster must run there, got: {last_line(error)} {START}") from error


def last_line(error: BaseException) -> str:
    """The last line of what an error says, which is what Ray's long messages end with."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
