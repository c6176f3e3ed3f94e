"""KServe's own client against a real server. The package is heavy, so it lives in an environment of its own: HEADWAY_KSERVE names its Python."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from serving import affine_model, bundle, entry, running

PYTHON = Path(os.environ.get("HEADWAY_KSERVE", Path.home() / ".cache/headway/kserve-venv/bin/python"))


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON.exists(), reason="kserve is not installed; HEADWAY_KSERVE names the Python that has it")
def test_the_client_of_kserve_infers(tmp_path: Path) -> None:
    opened = bundle(tmp_path / "b", entry(affine_model(tmp_path / "m.onnx")))
    with running(opened) as ready:
        script = Path(__file__).with_name("kserve_client.py")
        done = subprocess.run(
            [str(PYTHON), str(script), ready.url, "tiny"],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
            env={"PATH": os.environ["PATH"]},
        )
    told = json.loads(done.stdout.splitlines()[-1])
    answer = {"y": [[1.0, 3.0, 5.0, 7.0], [9.0, 11.0, 13.0, 15.0]], "top": [3, 3]}
    assert told == {"health": [True, True, True], "outputs": [answer, answer]}
