"""A bundle as an application of Ray Serve: the deployment and its options, from Python or from a configuration file (extra ``ray``).

``serve.yaml`` of ``headway export --to ray`` names ``app`` as its import path.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve import Application

from headway.cluster.serving_parcel import Parcel
from headway.cluster.serving_replica import Order, Replica
from headway.records import BundledVariant, ConfigError
from headway.serve import OpenBundle, Settings, most_in_flight

DEPLOYMENT = "headway"
"""The name of the one deployment of every application."""
DRAINED_S = 20.0
"""How long a replica that is to end may take to answer what it has accepted, before Ray kills it [s]."""
CHECK_S, CHECKED_S = 2.0, 10.0
"""How often Ray looks after a replica, which is how soon it sees that one is gone; and how long it waits for an answer [s]."""
ARGUMENTS = frozenset(("bundle", "digest", "name", "variant", "levels", "deadline_s", "queue_limit", "pad"))


def application(order: Order, **options: Any) -> Application:
    """The application; ``options`` are those of a deployment in Ray Serve."""
    return serve.deployment(Replica, name=DEPLOYMENT, **options).bind(order)


def options_for(bundle: OpenBundle, settings: Settings, *, replicas: int, surge: bool) -> dict[str, Any]:
    """Options of a deployment that leave every decision about requests to Headway.

    Args:
        surge: whether an update starts a new replica before it stops an old one, which takes the cores of one more.
    """
    bundled = chosen(bundle, settings.variant)
    return {
        "num_replicas": replicas,
        "max_ongoing_requests": most_in_flight(bundle, bundled, settings),
        "ray_actor_options": {"num_cpus": bundled.plan.instances * bundled.plan.threads},
        "graceful_shutdown_timeout_s": DRAINED_S,
        "health_check_period_s": CHECK_S,
        "health_check_timeout_s": CHECKED_S,
        "max_surge_percent": math.ceil(100 / replicas) if surge else 0,
    }


def chosen(bundle: OpenBundle, variant: str | None) -> BundledVariant:
    """The variant that is asked for; the first by default.

    Raises:
        ConfigError: the bundle holds no such variant.
    """
    held = {bundled.variant.name: bundled for bundled in bundle.manifest.variants}
    if variant is not None and variant not in held:
        raise ConfigError(f"the variant must be one of {', '.join(held)}, got {variant!r}")
    return held[variant] if variant is not None else bundle.manifest.variants[0]


def app(arguments: dict[str, Any]) -> Application:
    """An application out of the ``args`` of a configuration file; deployment options stand beside them in the file.

    Args:
        arguments: ``bundle``, its folder on every node, relative to the working directory of a replica if it is relative; ``digest`` of the bundle
            that is meant, so that another one in the same place is another application to Ray; ``name`` of the model; and as for ``headway serve``:
            ``variant``, ``levels``, ``deadline_s`` (0: none), ``queue_limit``, ``pad``.

    Raises:
        ConfigError: one of them is not known, or the bundle is not named.
    """
    unknown = sorted(set(arguments) - ARGUMENTS)
    if unknown or not isinstance(arguments.get("bundle"), str):
        raise ConfigError(f"args must hold bundle and may hold {', '.join(sorted(ARGUMENTS - {'bundle'}))}, got {', '.join(arguments)}")
    parcel = Parcel(arguments["bundle"], str(arguments.get("digest", "")))
    return application(Order(parcel=parcel, name=arguments.get("name") or None, settings=_settings(arguments)))


def _settings(arguments: Mapping[str, Any]) -> Settings:
    deadline_s = arguments.get("deadline_s")
    pad = arguments.get("pad")
    return Settings(
        deadline_s=None if deadline_s is None else float(deadline_s) or math.inf, queue_limit=arguments.get("queue_limit") or None,
        levels=int(arguments.get("levels", 1)), variant=arguments.get("variant") or None,
        pad=None if pad is None else {str(name): float(value) for name, value in pad.items()},
    )  # fmt: skip
