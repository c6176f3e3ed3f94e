"""What a server shows to people and to those who read its interface: the live page, its data, the OpenAPI document and the page of it."""

from __future__ import annotations

import json
import secrets
import shlex
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import orjson

from headway.serve import docs_page, openapi, page
from headway.serve.about import metadata
from headway.serve.control import Page
from headway.serve.models import Models
from headway.serve.served import Served
from headway.serve.wire import batchable

HTML, JSON = "text/html; charset=utf-8", "application/json"
LABELS_SHOWN = 12


class Pages:
    """Every page of one server; each is made when it is asked for, on another thread than the event loop's.

    Args:
        recent: what the last minutes were like, given what is so now; ready for JSON.
        connections: how many clients are connected.
        token: whether the server asks for one: the page at ``/`` then holds no fact.

    Attributes:
        url: where the server is reached; told once it listens.
    """

    def __init__(
        self, models: Models, recent: Callable[[dict[str, Any]], dict[str, Any]], connections: Callable[[], int], *, token: bool
    ) -> None:
        self.url = ""
        self._models, self._recent, self._connections, self._token = models, recent, connections, token

    def by_path(self) -> dict[bytes, Page]:
        """The pages by their paths."""
        return {
            b"/": (HTML, self._page),
            b"/docs": (HTML, self._docs),
            b"/openapi.json": (JSON, lambda: (orjson.dumps(self._document()), "")),
            b"/v2/headway/live": (JSON, lambda: (orjson.dumps(self._recent(self._gauges())), "")),
        }

    def _page(self) -> tuple[bytes, str]:
        nonce = secrets.token_urlsafe(16)
        facts = {"token": True} if self._token else {"models": [self._facts(served) for served in self._models.all()]}
        return page.render(facts, nonce).encode(), _safe(page.policy(nonce))

    def _docs(self) -> tuple[bytes, str]:
        nonce = secrets.token_urlsafe(16)
        return docs_page.render(self._document(), self.url, nonce).encode(), _safe(docs_page.policy(nonce))

    def _document(self) -> dict[str, Any]:
        return openapi.document(_described(self._models.all()), control=self._models.control, token=self._token)

    def _gauges(self) -> dict[str, Any]:
        versions = list(self._models.all())
        return {
            "ready": self._models.ready,
            "draining": self._models.draining,
            "waiting": sum(served.waiting for served in versions),
            "in_flight": sum(served.in_flight - served.waiting for served in versions),
            "connections": self._connections(),
            "models": [self._gauge(known) for known in self._models.index()],
        }

    def _gauge(self, known: dict[str, Any]) -> dict[str, Any]:
        """A version of the index, with what is served of it."""
        found = (one for one in self._models.all() if (one.name, one.version) == (known["name"], known["version"]))
        served = next(found, None)
        if served is None:
            return known
        objective = served.bundle.manifest.objective
        return known | {
            "variant": served.variant.variant.name,
            "plan": str(served.plan),
            "rate_per_s": served.variant.rate_per_s,
            "bound_s": objective.latency_s,
            "bound_percentile": objective.percentile_name,
        }

    def _facts(self, served: Served) -> dict[str, Any]:
        manifest, variant = served.bundle.manifest, served.variant
        described = _description(served)
        return {
            "name": served.name,
            "version": served.version,
            "variant": variant.variant.name,
            "recipe": ", ".join(map(str, variant.variant.recipe)) or "the model as it came",
            "precision": variant.variant.precision,
            "plan": str(served.plan),
            "objective": str(manifest.objective),
            "measured": _measured(served),
            "measured on": f"{manifest.environment.cpu}, {manifest.environment.cores} cores",
            "labels": _labels(manifest.labels),
            "notes": served.started.notes,
            "inputs": [{**told, "shape": spec.shape} for told, spec in zip(described["inputs"], manifest.inputs, strict=True)],
            "outputs": [{**told, "shape": spec.shape} for told, spec in zip(described["outputs"], manifest.outputs, strict=True)],
            "example": f"curl -d {shlex.quote(json.dumps(openapi.example(described)))} {self.url}/v2/models/{served.name}/infer",
        }


def _described(versions: Iterable[Served]) -> list[dict[str, Any]]:
    """Each model once, by the first of its versions."""
    models: dict[str, dict[str, Any]] = {}
    for served in versions:
        if served.name in models:
            models[served.name]["versions"].append(served.version)
        else:
            models[served.name] = _description(served)
    return list(models.values())


def _description(served: Served) -> dict[str, Any]:
    manifest = served.bundle.manifest
    joins = batchable(manifest.inputs, manifest.outputs)
    return metadata(served, [served.version]) | {"max_batch": served.plan.max_batch if joins else 0}


def _measured(served: Served) -> str:
    variant = served.variant
    parts = []
    if variant.latency_s is not None:
        parts.append(f"{variant.latency_s * 1e3:.3g} ms")
    if variant.rate_per_s is not None:
        parts.append(f"{variant.rate_per_s:.4g} requests/s within the objective")
    if variant.drop is not None:
        parts.append(f"{variant.drop * 100:.2g} points lost against the original")
    return ", ".join(parts) or "not recorded"


def _labels(labels: Sequence[str]) -> str:
    shown = ", ".join(labels[:LABELS_SHOWN])
    return f"{shown}, and {len(labels) - LABELS_SHOWN} more" if len(labels) > LABELS_SHOWN else shown


def _safe(policy: str) -> str:
    return f"content-security-policy: {policy}\r\nx-content-type-options: nosniff\r\nreferrer-policy: no-referrer\r\ncache-control: no-store\r\n"
