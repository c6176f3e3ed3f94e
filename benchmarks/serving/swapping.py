"""Model swap and canary change under load, through Headway's control API: with 32 requests always in flight, none lost, none wrong.

Every answer is compared with its own row's, by the weights that the version it names may hold at that moment or held just before.
"""

from __future__ import annotations

import http.client
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import models
import orjson
from client import Checked, fly
from job import Job
from lines import Lines
from running import Running, running
from stopping import IN_FLIGHT, words

from headway.load import parse_infer_response

NAME = "headway-binary"
STEP_S = 2.0
TOLD_S = 60.0
Traffic = dict[str, Any]


def measure(lines: Lines, job: Job) -> None:
    """One line a round."""
    for turn in range(job.rounds):
        if job.over:
            return
        line = one(job.model, 0.4 if job.quick else STEP_S)
        lines.add({"stage": "swap", "model": job.model, "server": NAME, "round": turn, **line, "environment": job.environment})
        job.say(f"round {turn} {job.model} {NAME}: {line}")


def one(model: str, step_s: float) -> dict[str, Any]:
    """A repository of two versions with different weights; canary shares, primaries, a shadow and swaps while requests fly."""
    with tempfile.TemporaryDirectory(prefix="serving-") as scratch:
        repository = Path(scratch) / "models"
        for version, seed in (("1", 0), ("2", 1)):
            shutil.copytree(models.bundle(model, 1.0, seed), repository / model / version)
        others = {seed: models.bundle(model, 1.0, seed) for seed in (0, 2)}
        with running(NAME, model, repository=repository, versions=(0, 1)) as held:
            changes = Changes(held, repository / model / "1", others, step_s)
            changes.start()
            bodies, headers = held.requests()
            flight = fly(held.port, held.path, bodies, headers, checked(model), in_flight=IN_FLIGHT, over=changes.over.is_set)
            changes.join()
        kinds = {word: count for word, count in flight.words.items() if word.startswith("version")}
        told = words(flight)
        told["right"] = sum(kinds.values())
        told["other"] = {word: count for word, count in told["other"].items() if word not in kinds}
        return {
            "in_flight": IN_FLIGHT,
            **told,
            "answers": kinds,
            "changes": changes.told,
            "failed_changes": changes.failed,
            "orphans": held.orphans,
        }


def checked(model: str) -> Checked:
    """``version V weights W`` for an answer that is its row's by the weights W, which version V holds at some time; else ``wrong``."""
    held = {"1": (0, 2), "2": (1,)}
    wanted = {seed: models.expected(model, seed) for seed in (0, 1, 2)}

    def check(row: int, headers: Mapping[str, str], body: bytes) -> str:
        try:
            answer = parse_infer_response(headers, body)["y"].reshape(-1)
            at = int(headers.get("inference-header-content-length", len(body)))
            version = orjson.loads(body[:at])["model_version"]
        except (ValueError, KeyError, TypeError):
            return "wrong"
        for seed in held.get(version, ()):
            if models.right(answer, wanted[seed][row]):
                return f"version {version} weights {seed}"
        return "wrong"

    return check


class Changes(threading.Thread):
    """One change after the other, each given some time.

    Attributes:
        over: set at the end.
        told: what was done, in order, with how long it took [s]. failed: what was answered otherwise than 200.
    """

    def __init__(self, held: Running, place: Path, others: dict[int, Path], step_s: float) -> None:
        super().__init__(daemon=True)
        self._held, self._place, self._others, self._step_s = held, place, others, step_s
        self.over = threading.Event()
        self.told: list[dict[str, Any]] = []
        self.failed: list[str] = []

    def run(self) -> None:
        """The changes."""
        try:
            time.sleep(self._step_s)
            for traffic in (
                {"primary": "1", "canary": {"version": "2", "share": 0.1}}, {"primary": "1", "canary": {"version": "2", "share": 0.7}},
                {"primary": "2"}, {"primary": "1", "shadow": {"version": "2"}}, {"primary": "1"},
            ):  # fmt: skip
                self._post(f"/v2/headway/traffic/{self._held.model}", traffic)
            for seed in (2, 0, 2):
                shutil.rmtree(self._place)
                shutil.copytree(self._others[seed], self._place)
                self._post(f"/v2/repository/models/{self._held.model}/load", {}, f"weights {seed}")
        finally:
            self.over.set()

    def _post(self, path: str, body: Traffic, what: str = "") -> None:
        began = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", self._held.port, timeout=TOLD_S)
        try:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            said = answer.read()
            if answer.status != 200:
                self.failed.append(f"{path} {what}: status {answer.status}: {said[:200].decode(errors='replace')}")
        except OSError as error:
            self.failed.append(f"{path} {what}: {error}")
        finally:
            connection.close()
        self.told.append({"path": path, **({"to": what} if what else {"body": body}), "seconds": round(time.perf_counter() - began, 3)})
        time.sleep(self._step_s)
