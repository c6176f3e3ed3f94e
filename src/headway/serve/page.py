"""The page at ``/``: what is served here, how it does now, and how to ask it. One self-contained HTML text; it knows no server.

Use: ``nonce = secrets.token_urlsafe(16)``, send ``render(facts, nonce)`` with the header ``content-security-policy: policy(nonce)``.
With a token, serve ``/`` openly with ``facts = {"token": True}``: the page then holds no fact, asks for the token, keeps it in the tab's
sessionStorage and sends it as a header to ``/v2/headway/live``. Without one, ``facts`` is ``{"models": [MODEL, ...]}``, each with ``name``,
``version`` and, if known, ``variant``, ``recipe``, ``plan``, ``objective``, ``measured``, ``labels``, ``notes`` (texts; notes a list of
them), ``inputs`` and ``outputs`` (lists of ``{"name", "datatype", "shape"}``) and ``example`` (a command).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any
from urllib.parse import quote

_ROWS = ("variant", "recipe", "precision", "plan", "objective", "measured", "measured on", "labels")
_CHARTS = (
    ("chart-rate", "Requests a second"),
    ("chart-time", "Total time"),
    ("chart-queue", "Queue and service time"),
    ("chart-rows", "Batch size"),
)
_TILES = (
    ("Answered", "rate", "refused", ""),
    ("p99 of total time", "tail", "tail-bound", "tail-name"),
    ("Queue", "waiting", "flight", ""),
    ("Mean batch", "batch", "service", ""),
    ("Variant", "variant", "variants", ""),
)
_COLUMNS = ("Model", "State", "Variant", "Plan", "Share", "Rate seen", "Rate measured", "Tail seen", "Bound")


def policy(nonce: str) -> str:
    """The content security policy that the page keeps to."""
    inline = f"script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'"
    return f"default-src 'none'; {inline}; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'"


def render(facts: Mapping[str, Any], nonce: str) -> str:
    """The whole page; every text in ``facts`` is escaped."""
    folder = files("headway.serve.assets")
    style, script = ((folder / name).read_text("utf-8") for name in ("page.css", "page.js"))
    models = facts.get("models", ())
    title = ", ".join(dict.fromkeys(str(model["name"]) for model in models)) or "Headway"
    nonce = escape(nonce)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy(nonce))}"><link rel="icon" href="data:,">'
        f'<title>{escape(title)} - Headway</title><style nonce="{nonce}">{style}</style></head><body>'
        f'<header><h1>{escape(title)}</h1><span class="soft">served by Headway over the Open Inference Protocol v2</span>'
        f'<select id="which" aria-label="Show" hidden></select></header>'
        f'<p id="state" role="status" aria-live="polite"></p>{_ask(bool(facts.get("token")))}<div id="live" hidden>{_live()}</div>'
        f"<main>{''.join(_model(model) for model in models)}</main>{_links()}"
        f'<script nonce="{nonce}">{script}</script></body></html>'
    )


def _ask(needed: bool) -> str:
    hint = "<noscript><p>Send the header <code>Authorization: Bearer TOKEN</code>, for example with curl.</p></noscript>" if needed else ""
    return (
        '<form id="ask" class="card" hidden><label for="token">Token of this server </label>'
        '<input id="token" type="password" autocomplete="off" required> <button>Show</button>'
        f'<p class="soft">It stays in this tab and is sent to this server only.</p></form>{hint}'
    )


def _live() -> str:
    tiles = "".join(
        f'<div class="card"><dt{f" id={name}" if name else ""}>{title}</dt><dd id="{big}" class="big">-</dd><dd id="{small}" class="sub"></dd></div>'
        for title, big, small, name in _TILES
    )
    charts = "".join(
        f'<figure id="{name}" class="card"><h2>{title}</h2><div class="plot"><svg role="img" viewBox="0 0 119 100" preserveAspectRatio="none"></svg>'
        f'<span class="top"></span><span class="low">0</span></div><figcaption></figcaption></figure>'
        for name, title in _CHARTS
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in _COLUMNS)
    return (
        f'<dl class="tiles">{tiles}</dl><div class="charts">{charts}</div><div class="wide card" tabindex="0" role="region" '
        f'aria-label="Models and versions"><table><thead><tr>{head}</tr></thead><tbody id="models"></tbody></table></div>'
    )


def _model(model: Mapping[str, Any]) -> str:
    rows = [(name.capitalize(), str(model[name])) for name in _ROWS if model.get(name)]
    rows += [(f"{kind} {spec['name']}", _tensor(spec)) for kind in ("Input", "Output") for spec in model.get(f"{kind.lower()}s", ())]
    notes = "".join(f"<p><strong>Note:</strong> {escape(str(note))}</p>" for note in model.get("notes", ()))
    example = f"<h2>Ask it</h2><pre>{escape(str(model['example']))}</pre>" if model.get("example") else ""
    path = escape(f"/v2/models/{quote(str(model['name']), safe='')}/versions/{quote(str(model['version']), safe='')}")
    return (
        f'<details class="card facts" open><summary>{escape(str(model["name"]))} {escape(str(model["version"]))}</summary>{notes}{_table(rows)}'
        f'{example}<p><a href="{path}">metadata</a> &middot; <a href="{path}/config">configuration</a> &middot; '
        f'<a href="{path}/stats">statistics</a></p></details>'
    )


def _tensor(spec: Mapping[str, Any]) -> str:
    return f"{spec['datatype']} [{', '.join(str(size) for size in spec['shape'])}]"


def _table(rows: Sequence[tuple[str, str]]) -> str:
    return "<table>" + "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in rows) + "</table>"


def _links() -> str:
    links = (("/docs", "documentation"), ("/openapi.json", "OpenAPI"), ("/v2/health/ready", "ready"), ("/metrics", "metrics"))
    return "<footer><p>" + " &middot; ".join(f'<a href="{path}">{name}</a>' for path, name in links) + "</p></footer>"
