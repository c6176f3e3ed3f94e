"""The sender and the payloads against our own server: every answer under load is the right one, in any format of payload."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import serving
from headway.load import Answer, arrival_times, infer_payload, parse_infer_response, run_http, summarise
from headway.load.generator import OK
from headway.records import Objective


def test_every_answer_under_load_is_the_right_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [rng.standard_normal((size, 4)).astype(np.float32) for size in (1, 3, 8, 1, 2)]
    payloads = [infer_payload({"x": array}) for array in rows]
    answers: list[Answer] = []
    due_s = arrival_times("bursty", 200.0, 1.0, 3)
    opened = serving.bundle(tmp_path / "bundle", serving.entry(serving.affine_model(tmp_path / "m.onnx")))
    with serving.running(opened) as ready:
        url = f"http://127.0.0.1:{ready.port}/v2/models/tiny/infer"
        raw = run_http(
            url, [body for _, body in payloads], [headers for headers, _ in payloads], due_s, on_answer=answers.append, drain_s=30
        )
    assert (raw.status == OK).all()
    assert len(answers) == len(due_s)
    for answer in answers:
        sent = rows[answer.number % len(rows)]
        outputs = parse_infer_response(answer.headers, answer.body)
        assert np.allclose(outputs["y"], 2 * sent + 1)
        assert np.array_equal(outputs["top"], sent.argmax(axis=1))
    point = summarise(raw, target="http", arrivals="bursty", rate_per_s=200.0, objective=Objective(latency_s=30.0), seed=3)
    assert point.completed == point.sent == len(due_s)
    assert point.miss_fraction == 0
