"""The OpenAPI document is valid, and the examples of the page made from it run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import validate

from headway.records import Plan
from headway.serve import Ready
from headway.serve.docs_page import render
from headway.serve.openapi import document, example
from serving import affine_model, bundle, entry, running

TINY = {
    "name": "tiny", "versions": ["1"], "max_batch": 8,
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}, {"name": "top", "datatype": "INT64", "shape": [-1]}],
}  # fmt: skip


def schema() -> dict[str, Any]:
    content = document([TINY], control=True, token=False)["paths"]["/v2/models/tiny/infer"]["post"]["requestBody"]["content"]
    return content["application/json"]["schema"]


@pytest.mark.parametrize("control", [True, False])
@pytest.mark.parametrize("token", [True, False])
@pytest.mark.parametrize("models", [[], [TINY]])
def test_the_document_is_valid(models: list[dict[str, Any]], control: bool, token: bool) -> None:
    made = document(models, control=control, token=token)
    validate(made)
    assert ("security" in made) == token
    assert "403" in made["paths"]["/v2/repository/models/{name}/load"]["post"]["responses"] or control


def test_the_schema_takes_the_example_and_no_other_shape_type_or_name() -> None:
    jsonschema.validate(example(TINY), schema())
    for key, wrong in (("shape", [1, 5]), ("shape", [9, 4]), ("shape", [0, 4]), ("datatype", "FP64"), ("name", "z")):
        request = example(TINY)
        request["inputs"][0][key] = wrong
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(request, schema())


def test_hostile_names_stay_texts() -> None:
    text = render(document([TINY | {"name": "<script>alert(1)</script>"}], control=False, token=False), "http://h", "n")
    assert "<script" not in text


@pytest.fixture(scope="module", params=["", "secret"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ready, str]]:
    folder = tmp_path_factory.mktemp("openapi")
    opened = bundle(folder / "b", entry(affine_model(folder / "m.onnx"), plan=Plan(runtime="onnx_runtime", max_batch=8)))
    with running(opened, token=request.param or None) as ready:
        yield ready, request.param


@pytest.mark.parametrize("kind", ["curl", "urllib", "tritonclient"])
def test_examples_run_as_they_stand_on_the_page(server: tuple[Ready, str], kind: str, tmp_path: Path) -> None:
    ready, token = server
    text = render(document([TINY], control=False, token=bool(token)), ready.url, "n")
    found = [unescape(one) for one in re.findall(rf'<pre data-example="{kind}">(.*?)</pre>', text, re.DOTALL)]
    code = next(one for one in found if "infer" in one)
    command = ["bash", "-c", code] if kind == "curl" else [sys.executable, "-c", code]
    environment = {**os.environ, "HEADWAY_TOKEN": token}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "top" in done.stdout and "error" not in done.stdout
