"""The sender over TLS against our own server: certificates are checked, answers are whole, and mid-run connections greet without blocking."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import numpy as np
import pytest

import serving
from headway.api.load_http import HttpTarget
from headway.api.load_target import Sending
from headway.load import Answer, Trust, infer_payload, parse_infer_response, run_http
from headway.load.generator import OK
from headway.records import ConfigError, MeasurementError
from headway.serve import TlsFiles

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """URL and certificate of a server with a self-signed certificate."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "c.pem", folder / "k.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key, "-out", cert,
         "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    opened = serving.bundle(folder / "bundle", serving.entry(serving.affine_model(folder / "m.onnx")))
    with serving.running(opened, tls=TlsFiles(cert, key)) as ready:
        yield f"https://127.0.0.1:{ready.port}", str(cert)


@pytest.mark.parametrize("spin", [False, True])
@pytest.mark.parametrize("rows", [1, 20_000])
def test_every_answer_over_tls_is_whole_and_right(server: tuple[str, str], rows: int, spin: bool) -> None:
    url, cert = server
    given = np.random.default_rng(rows).standard_normal((rows, 4)).astype(np.float32)
    headers, body = infer_payload({"x": given})
    answers: list[Answer] = []
    count = 60 if rows == 1 else 4
    raw = run_http(
        f"{url}/v2/models/tiny/infer", [body], headers, np.zeros(count),
        drain_s=30.0, trust=Trust(cert), on_answer=answers.append, spin=spin,
    )  # fmt: skip
    if rows == 1:
        assert (raw.status == OK).all() and len(answers) == count, "more at once than were connected before the start"
        assert np.allclose(parse_infer_response(answers[-1].headers, answers[-1].body)["y"], 2 * given + 1)
    assert {answer.status for answer in answers} <= {200, 400, 413} and len(answers) == count


def test_a_large_request_and_answer_pass_in_many_records(server: tuple[str, str]) -> None:
    url, cert = server
    given = np.random.default_rng(5).standard_normal((8, 4)).astype(np.float32)
    headers, body = infer_payload({"x": given})
    padded = {**headers, "X-Long": "a" * 20_000}
    answers: list[Answer] = []
    run_http(f"{url}/v2/models/tiny/infer", [body], padded, np.zeros(2), drain_s=30.0, trust=Trust(cert), on_answer=answers.append)
    assert len(answers) == 2


def test_a_certificate_that_is_not_believed_ends_the_run(server: tuple[str, str]) -> None:
    url, cert = server
    with pytest.raises(MeasurementError, match="--insecure"):
        run_http(f"{url}/", [b"x"], {}, np.zeros(1))
    with pytest.raises(ConfigError, match="--insecure"):
        HttpTarget(url, "")
    with pytest.raises(ConfigError, match="PEM"):
        Trust(f"{cert}.none").context()


@pytest.mark.parametrize("insecure", [False, True])
def test_a_target_over_tls_answers(server: tuple[str, str], insecure: bool) -> None:
    url, cert = server
    target = HttpTarget(url, "", Sending(trust=Trust("" if insecure else cert, insecure)))
    target.senders = 2 if insecure else 1
    ran = target.run([{"x": np.ones((1, 4), np.float32)}], np.linspace(0, 0.2, 20), drain_s=30.0, keep_answers=not insecure)
    assert (ran.raw.status == OK).all()
    assert insecure or len(ran.answers) == 20
