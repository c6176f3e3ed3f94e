"""The page at ``/docs``: the OpenAPI document as a page to read, without scripts; its examples run when they are copied.

Use: ``render(openapi.document(...), base_url, nonce)`` with the header ``content-security-policy: policy(nonce)``; ``base_url`` is where the
server is reached, such as ``http://127.0.0.1:8000``.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from typing import Any


def policy(nonce: str) -> str:
    """The content security policy that the page keeps to."""
    return f"default-src 'none'; style-src 'nonce-{nonce}'; img-src data:; base-uri 'none'; form-action 'none'"


def render(document: Mapping[str, Any], base_url: str, nonce: str) -> str:
    """The whole page; every text of the document is escaped."""
    style = (files("headway.serve.assets") / "page.css").read_text("utf-8")
    token = "security" in document
    parts = [
        _operation(path, method, entry[method], base_url, token)
        for path, entry in document["paths"].items()
        for method in ("get", "post")
        if method in entry
    ]
    info = document["info"]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy(nonce))}"><link rel="icon" href="data:,">'
        f'<title>HTTP interface - Headway</title><style nonce="{escape(nonce)}">{style}</style></head><body>'
        f'<header><h1>HTTP interface</h1><span class="soft">Headway {escape(info["version"])}</span></header><p>{escape(info["description"])} '
        f'The same as <a href="/openapi.json">OpenAPI</a>; back to <a href="/">the live page</a>.</p>{_token_words(token)}'
        f"<main>{''.join(parts)}</main></body></html>"
    )


def _token_words(token: bool) -> str:
    return "<p>Set the variable HEADWAY_TOKEN to the server's token before you run an example.</p>" if token else ""


def _operation(path: str, method: str, operation: Mapping[str, Any], base_url: str, token: bool) -> str:
    rows = "".join(
        f'<tr><th scope="row">{status}</th><td>{escape(answer["description"])}</td></tr>'
        for status, answer in operation["responses"].items()
    )
    headers = "".join(
        f'<tr><th scope="row">{escape(one["name"])}</th><td>{escape(one["description"])}</td></tr>'
        for one in operation.get("parameters", ())
    )
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    schema = f"<details><summary>Body</summary><pre>{escape(json.dumps(content['schema'], indent=2))}</pre></details>" if content else ""
    return (
        f'<details class="card facts"{" open" if path.endswith("/infer") and "{" not in path else ""}><summary><code>{method.upper()} {escape(path)}'
        f"</code> {escape(operation['summary'])}</summary><table>{headers}{rows}</table>{schema}"
        f"{_examples(path, method, content.get('example'), base_url, token)}</details>"
    )


def _examples(path: str, method: str, body: Any, base_url: str, token: bool) -> str:
    if "{" in path:
        return ""
    made = f'<h2>curl</h2><pre data-example="curl">{escape(_curl(base_url + path, method, body, token))}</pre>'
    if path.endswith("/infer") and body:
        model = path.split("/")[3]
        made += f'<h2>Python</h2><pre data-example="urllib">{escape(_urllib(base_url + path, body, token))}</pre>'
        made += f'<h2>Python, tritonclient</h2><pre data-example="tritonclient">{escape(_triton(base_url, model, body, token))}</pre>'
    return made


def _curl(url: str, method: str, body: Any, token: bool) -> str:
    words = ["curl -sS"] + (['-H "Authorization: Bearer $HEADWAY_TOKEN"'] if token else [])
    words += [f"-d {shlex.quote(json.dumps(body))}"] if body is not None else ["-X POST"] if method == "post" else []
    return " ".join([*words, shlex.quote(url)])


def _urllib(url: str, body: Mapping[str, Any], token: bool) -> str:
    headers = ', {"Authorization": "Bearer " + os.environ["HEADWAY_TOKEN"]}' if token else ""
    return (
        f"import json\n{'import os' + chr(10) if token else ''}import urllib.request\n\nimport numpy as np\n\n"
        f"body = json.loads({json.dumps(body)!r})\n"
        f"asked = urllib.request.Request({url!r}, json.dumps(body).encode(){headers})\n"
        "with urllib.request.urlopen(asked) as answer:\n    outputs = json.load(answer)['outputs']\n"
        "for output in outputs:\n    print(output['name'], np.reshape(output['data'], output['shape']))\n"
    )


def _triton(base_url: str, model: str, body: Mapping[str, Any], token: bool) -> str:
    scheme, _, address = base_url.partition("://")
    headers = ', headers={"Authorization": "Bearer " + os.environ["HEADWAY_TOKEN"]}' if token else ""
    lines = [
        *(["import os"] if token else []), "import numpy as np", "import tritonclient.http as triton",
        "from tritonclient.utils import triton_to_np_dtype", "", "inputs = []",
    ]  # fmt: skip
    for tensor in body["inputs"]:
        name, kind, shape = tensor["name"], tensor["datatype"], tensor["shape"]
        lines += [f"inputs.append(triton.InferInput({name!r}, {shape}, {kind!r}))"]
        lines += [f"inputs[-1].set_data_from_numpy(np.zeros({shape}, triton_to_np_dtype({kind!r})))"]
    lines += [f"with triton.InferenceServerClient({address!r}{', ssl=True' if scheme == 'https' else ''}) as client:"]
    lines += [f"    print(client.infer({model!r}, inputs{headers}).get_response())"]
    return "\n".join(lines) + "\n"
