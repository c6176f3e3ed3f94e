"""The OpenAPI 3.1 document of the whole HTTP interface, with the schemas and a working example of each served model. Facts in, JSON out.

Use: ``document(models, control=..., token=...)`` where each model is ``{"name", "versions", "inputs", "outputs", "max_batch"}``, tensors being
``{"name", "datatype", "shape"}`` with -1 for a free size, as in the protocol's metadata, and ``max_batch`` 0 where requests hold no rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headway import __version__

Schema = dict[str, Any]
EXAMPLE_SIZE = 2
_ERRORS = {
    400: "The request does not fit; nothing was run.", 401: "The token is missing or wrong.", 403: "The server was started without control.",
    404: "There is no such path, model or version.", 405: "Another method is needed; see the header Allow.",
    408: "The request arrived too slowly.", 413: "The body is too large.", 415: "The content coding is not known.",
    429: "The answer would come too late: too much is waiting. Send it again later.", 431: "The headers are too large.",
    500: "The model could not run this request.", 503: "Not ready, or shutting down.",
}  # fmt: skip


def document(models_facts: Sequence[Mapping[str, Any]], *, control: bool, token: bool) -> dict[str, Any]:
    """The document: the paths all servers have, and those of each model by its name."""
    errors = (401,) if token else ()
    paths = _server_paths(errors) | _repository_paths(control, errors)
    for model in models_facts:
        paths |= _model_paths(model, control, errors)
    components: dict[str, Any] = {"schemas": _SCHEMAS}
    more: dict[str, Any] = {}
    if token:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        more["security"] = [{"token": []}]
        for path in ("/", "/v2/health/live", "/v2/health/ready"):
            paths[path]["get"]["security"] = []
            paths[path]["get"]["responses"].pop("401")
    about = "Open Inference Protocol v2 with the extensions for binary tensors, classification, statistics and the model repository."
    info = {"title": "Headway", "version": __version__, "description": about}
    return {"openapi": "3.1.0", "info": info, "servers": [{"url": "/"}], "paths": paths, "components": components, **more}


def example(model: Mapping[str, Any]) -> dict[str, Any]:
    """A request that the model answers: zeros, one row, free sizes of 2."""
    rows = bool(model.get("max_batch"))
    return {"inputs": [_example_tensor(spec, rows) for spec in model["inputs"]]}


# --- paths


def _server_paths(errors: Sequence[int]) -> dict[str, Any]:
    html = {"text/html": {"schema": {"type": "string"}}}
    pages = {"/": "The live page", "/docs": "This documentation"}
    paths = {path: {"get": _operation(title, "Pages", html, errors)} for path, title in pages.items()}
    readable = {
        "/v2": ("Name, version and extensions of the server", "Server", "Server"),
        "/v2/health/live": ("Whether the server lives", "Server", "Live"),
        "/v2/health/ready": ("Whether every model accepts requests", "Server", "Ready"),
        "/v2/models/stats": ("Statistics of all versions", "Statistics", "Statistics"),
        "/v2/headway/live": ("The last two minutes, second by second", "Statistics", "Object"),
        "/openapi.json": ("This document as JSON", "Pages", "Object"),
    }
    for path, (title, tag, schema) in readable.items():
        paths[path] = {"get": _operation(title, tag, _json(_ref(schema)), errors)}
    paths["/v2/health/ready"]["get"]["responses"]["503"] = {"description": "Not ready.", "content": _json(_ref("Ready"))}
    paths["/metrics"] = {"get": _operation("Metrics for Prometheus", "Statistics", {"text/plain": {"schema": {"type": "string"}}}, errors)}
    return paths


def _repository_paths(control: bool, errors: Sequence[int]) -> dict[str, Any]:
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}, "description": "Name of a model."}
    index = _operation("All models, versions and their states", "Repository", _json(_ref("Index")), (400, *errors))
    index["requestBody"] = {"content": _json({"type": "object", "properties": {"ready": {"type": "boolean"}}}, {"ready": True})}
    paths: dict[str, Any] = {"/v2/repository/index": {"post": index}}
    for verb, title in (("load", "Load a model, or its changed and new versions"), ("unload", "Unload a model after its last answer")):
        operation = _operation(title, "Repository", _json(_ref("Object")), (404, *errors) if control else (403, *errors))
        if control:
            operation["responses"]["400"] = _error(400)
        else:
            del operation["responses"]["200"]
        paths[f"/v2/repository/models/{{name}}/{verb}"] = {"parameters": [name], "post": operation}
    return paths


def _model_paths(model: Mapping[str, Any], control: bool, errors: Sequence[int]) -> dict[str, Any]:
    name = model["name"]
    root = f"/v2/models/{name}"
    versions = {"name": "version", "in": "path", "required": True, "schema": {"type": "string", "enum": list(model["versions"])}}
    paths: dict[str, Any] = {}
    for base, shared in ((root, {}), (f"{root}/versions/{{version}}", {"parameters": [versions]})):
        for path, (title, schema) in _READ.items():
            read = _operation(f"{title} of {name}", name, _json(_ref(schema)), (404, 503, *errors))
            paths[base + path] = shared | {"get": read}
        ready = paths[f"{base}/ready"]["get"]["responses"]
        ready["503"] = {"description": "Not ready.", "content": _json(_ref("ModelReady"))}
        paths[f"{base}/infer"] = shared | {"post": _infer(model, errors)}
    traffic = f"/v2/headway/traffic/{name}"
    change = _operation(f"Share requests to {name} out", name, _json(_ref("Told")), (400, 404, *errors))
    if not control:
        change["responses"] = {str(status): _error(status) for status in (403, *errors)}
    change["requestBody"] = {"required": True, "content": _json(_ref("Traffic"), {})}
    paths[traffic] = {"get": _operation(f"How requests to {name} are shared out", name, _json(_ref("Told")), errors), "post": change}
    return paths


def _infer(model: Mapping[str, Any], errors: Sequence[int]) -> dict[str, Any]:
    statuses = (400, 404, 405, 408, 413, 415, 429, 431, 500, 503, *errors)
    operation = _operation(f"Ask {model['name']}", model["name"], _json(_answer(model)) | _BINARY, statuses)
    length = "Bytes of the JSON part, when tensors follow it in binary form (little-endian, row-major, in the order of the inputs)."
    operation["parameters"] = [
        _header("Inference-Header-Content-Length", {"type": "integer", "minimum": 0}, length),
        _header("Content-Encoding", {"enum": ["identity", "gzip", "deflate"]}, "How the body is compressed."),
        _header("Accept-Encoding", {"type": "string", "enum": ["identity", "gzip", "deflate"]}, "How the answer may be compressed."),
    ]
    operation["requestBody"] = {"required": True, "content": _json(_request(model), example(model)) | _BINARY}
    return operation


def _operation(title: str, tag: str, content: Schema, errors: Sequence[int]) -> Schema:
    responses = {"200": {"description": "The answer.", "content": content}} | {str(status): _error(status) for status in sorted(errors)}
    return {"summary": title, "tags": [tag], "responses": responses}


def _header(name: str, schema: Schema, text: str) -> Schema:
    return {"name": name, "in": "header", "required": False, "schema": schema, "description": text}


def _error(status: int) -> Schema:
    return {"description": _ERRORS[status], "content": _json(_ref("Error"))}


def _json(schema: Schema, shown: Any = None) -> Schema:
    return {"application/json": {"schema": schema} | ({} if shown is None else {"example": shown})}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


# --- one model's schemas


def _request(model: Mapping[str, Any]) -> Schema:
    inputs, names = model["inputs"], [spec["name"] for spec in model["outputs"]]
    output = _object({"name": {"enum": names}, "parameters": _OUTPUT_PARAMETERS}, "name")
    fields = {
        "id": {"type": "string", "maxLength": 256},
        "parameters": _REQUEST_PARAMETERS,
        "inputs": _tensors(inputs, int(model.get("max_batch") or 0)),
        "outputs": {"type": "array", "items": output, "maxItems": len(names)},
    }
    return _object(fields, "inputs")


def _answer(model: Mapping[str, Any]) -> Schema:
    outputs = [_object({"name": {"const": spec["name"]}, "datatype": {"type": "string"}, "shape": _SHAPE, "data": {"type": "array"}}, "name", "datatype", "shape")
               for spec in model["outputs"]]  # fmt: skip
    listed = {"type": "array", "items": {"anyOf": outputs}}
    text = {"type": "string"}
    return _object({"model_name": text, "model_version": text, "id": text, "outputs": listed, "parameters": _ANY}, "model_name", "outputs")


def _tensors(specs: Sequence[Mapping[str, Any]], max_batch: int) -> Schema:
    return {"type": "array", "prefixItems": [_tensor(spec, max_batch) for spec in specs], "items": False, "minItems": len(specs)}


def _tensor(spec: Mapping[str, Any], max_batch: int) -> Schema:
    sizes: list[Schema] = [{"type": "integer", "minimum": 1} if size == -1 else {"const": size} for size in spec["shape"]]
    if max_batch and sizes:
        sizes[0] = {"type": "integer", "minimum": 1, "maximum": max_batch}
    shape = {"type": "array", "prefixItems": sizes, "items": False, "minItems": len(sizes)}
    kind = spec["datatype"]
    element = "boolean" if kind == "BOOL" else "number" if kind.startswith(("FP", "BF")) else "integer"
    data = {
        "type": "array",
        "items": {"type": [element, "array"]},
        "minItems": 1,
        "description": "Nested as the shape, or flat in row-major order.",
    }
    fields = {
        "name": {"const": spec["name"]},
        "datatype": {"const": spec["datatype"]},
        "shape": shape,
        "data": data,
        "parameters": _INPUT_PARAMETERS,
    }
    return _object(fields, "name", "datatype", "shape", "data")


def _example_tensor(spec: Mapping[str, Any], rows: bool) -> dict[str, Any]:
    shape = [size if size != -1 else 1 if rows and not place else EXAMPLE_SIZE for place, size in enumerate(spec["shape"])]
    count = 1
    for size in shape:
        count *= size
    kind = spec["datatype"]
    zero: Any = False if kind == "BOOL" else 0.0 if kind.startswith(("FP", "BF")) else 0
    return {"name": spec["name"], "datatype": kind, "shape": shape, "data": [zero] * count}


def _object(properties: Schema, *required: str) -> Schema:
    return {"type": "object", "properties": properties} | ({"required": list(required)} if required else {})


_ANY: Schema = {"type": "object"}
_SHAPE: Schema = {"type": "array", "items": {"type": "integer"}}
_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_BINARY: Schema = {"application/octet-stream": {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}}
_INPUT_PARAMETERS = _object({"binary_data_size": _COUNT})
_OUTPUT_PARAMETERS = _object({"binary_data": _FLAG, "classification": _COUNT | {"description": "So many largest classes, as strings."}})
_REQUEST_PARAMETERS = _object(
    {
        "timeout": _COUNT | {"description": "Microseconds after which the answer is of no use; 0: the server's own."},
        "priority": _COUNT | {"description": "1 is served first; 0: the usual."},
        "binary_data_output": _FLAG,
    }
)
_READ = {"": ("Inputs and outputs", "Metadata"), "/ready": ("Readiness", "ModelReady"), "/config": ("Configuration", "Object"), "/stats": ("Statistics", "Statistics")}  # fmt: skip
_TENSOR = _object({"name": _TEXT, "datatype": _TEXT, "shape": _SHAPE}, "name", "datatype", "shape")
_CANARY = _object({"version": _TEXT, "share": {"type": "number", "minimum": 0, "maximum": 1}}, "version", "share")
_SCHEMAS: Schema = {
    "Object": _ANY,
    "Error": _object({"error": _TEXT}, "error"),
    "Live": _object({"live": _FLAG}, "live"),
    "Ready": _object({"ready": _FLAG}, "ready"),
    "ModelReady": _object({"name": _TEXT, "ready": _FLAG}, "name", "ready"),
    "Server": _object({"name": _TEXT, "version": _TEXT, "extensions": {"type": "array", "items": _TEXT}}, "name", "version", "extensions"),
    "Metadata": _object(
        {"name": _TEXT, "versions": {"type": "array", "items": _TEXT}, "platform": _TEXT}
        | {kind: {"type": "array", "items": _TENSOR} for kind in ("inputs", "outputs")},
        "name", "platform", "inputs", "outputs",
    ),
    "Statistics": _object({"model_stats": {"type": "array", "items": _ANY}}, "model_stats"),
    "Index": {"type": "array", "items": _object({"name": _TEXT, "version": _TEXT, "state": _TEXT, "reason": _TEXT}, "name")},
    "Traffic": _object({"primary": _TEXT, "canary": _CANARY, "shadow": _object({"version": _TEXT}, "version")}) | {"additionalProperties": False},
    "Told": _object({"primary": {"type": ["string", "null"]}, "canary": {"type": ["object", "null"]}, "shadow": {"type": ["object", "null"]}, "compared": _ANY}),
}  # fmt: skip
