"""The page at ``/``: hostile texts, no outside address, and a real browser that draws what the server tells."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from headway.serve.live import Live
from headway.serve.page import policy, render
from headway.serve.seen import Batch, Refused

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=document.title='owned'>"
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")


def model(name: str = "digits", **more: Any) -> dict[str, Any]:
    return {
        "name": name, "version": "1", "variant": "int8", "recipe": "fold, int8", "plan": "2 instances", "objective": "p99<=20ms",
        "labels": "a, b", "notes": ["one core only"], "inputs": [{"name": "x", "datatype": "FP32", "shape": ["batch", 4]}], "outputs": [],
        "example": "curl http://here", **more,
    }  # fmt: skip


def snapshot(name: str = "digits", *, time_s: float = 0.008, rate: int = 40, draining: bool = False) -> dict[str, Any]:
    live = Live(120)
    for second in range(0 if not rate else 300, 420):
        count = max(0, rate + (second * 7) % 11 - 5) if rate else 0
        late_s = time_s * (1 + 0.2 * ((second * 13) % 7) / 7)
        batches = [
            Batch(name, "1", "int8", 4, (second + 0.5 - late_s,) * 4, second + 0.5 - late_s / 2, second + 0.499, second + 0.5, 0)
        ] * count
        over = [Refused(name, "1", "queue_full", 429, second + 0.1)] * (rate if time_s > 0.02 else 0)
        live.fold(batches, over)
    told = {"name": name, "version": "1", "state": "READY", "reason": "", "variant": "int8", "plan": "2 instances of 1 thread"}
    told |= {"bound_s": 0.02, "bound_percentile": "p99", "rate_per_s": 1000.0}
    gauges = {"ready": not draining, "draining": draining, "waiting": 3, "in_flight": 8, "connections": 5, "models": [told]}
    return live.snapshot(420.0, gauges)


class Site(BaseHTTPRequestHandler):
    """The page, and live figures that say how often they were asked for."""

    page, live, token, asked = "", b"", "", 0

    def do_GET(self) -> None:
        kind = type(self)
        if self.path == "/":
            self._send(200, "text/html; charset=utf-8", kind.page.encode())
        elif kind.token and self.headers.get("authorization") != f"Bearer {kind.token}":
            self._send(401, "application/json", b"{}")
        else:
            kind.asked += 1
            told = json.loads(kind.live)
            told["gauges"]["waiting"] += kind.asked
            self._send(200, "application/json", json.dumps(told).encode())

    def _send(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.send_header("content-security-policy", policy("n0nce"))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def site() -> Iterator[tuple[type[Site], str]]:
    kind = type("OneSite", (Site,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield kind, f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def browse(url: str, folder: Path, *options: str) -> tuple[str, str]:
    """The document after some seconds of the page's own time, and the browser's log."""
    done = subprocess.run(
        [BROWSER or "", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr",
         "--virtual-time-budget=3500", *options, url],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if ":CONSOLE" in line)


def test_hostile_texts_stay_texts() -> None:
    clean = render({"models": [model()]}, "n")
    keys = ("variant", "recipe", "plan", "objective", "labels", "example")
    tensors = [{"name": HOSTILE, "datatype": "FP32", "shape": [HOSTILE]}]
    dirty = render({"models": [model(HOSTILE, **dict.fromkeys(keys, HOSTILE), notes=[HOSTILE], inputs=tensors)]}, "n")
    assert dirty.count("<script") == clean.count("<script") == 1
    assert "<img" not in dirty
    assert dirty.count("&lt;/script&gt;&lt;script&gt;") >= len(keys) + 4


def test_nothing_outside_is_referred_to_and_the_policy_says_so() -> None:
    text = render({"models": [model()]}, "n")
    assert "//" not in text.replace("http://www.w3.org/2000/svg", "").replace("http://here", "")
    assert "connect-src 'self'" in policy("n") and "unsafe" not in policy("n")
    assert "style=" not in text


def test_without_a_script_the_facts_are_there() -> None:
    text = render({"models": [model()]}, "n")
    for words in ("int8", "fold, int8", "2 instances", "p99&lt;=20ms", "one core only", "FP32 [batch, 4]", "curl http://here"):
        assert words in text


def test_the_shell_for_a_server_with_a_token_holds_no_fact() -> None:
    text = render({"token": True}, "n")
    assert "<details" not in text and "Authorization: Bearer TOKEN" in text


@needs_browser
def test_a_browser_shows_the_numbers_and_their_change(site: tuple[type[Site], str], tmp_path: Path) -> None:
    kind, url = site
    kind.page, kind.live = render({"models": [model()]}, "n0nce"), json.dumps(snapshot()).encode()
    document, log = browse(url, tmp_path, "--dump-dom")
    assert log == ""
    assert kind.asked >= 2
    assert f"{3 + kind.asked} waiting" in document or f"{2 + kind.asked} waiting" in document
    assert "within the bound, 20 ms" in document
    assert 'class="bound"' in document


@needs_browser
def test_hostile_names_do_not_run_in_a_browser(site: tuple[type[Site], str], tmp_path: Path) -> None:
    kind, url = site
    kind.page, kind.live = render({"models": [model(HOSTILE)]}, "n0nce"), json.dumps(snapshot(HOSTILE)).encode()
    document, _ = browse(url, tmp_path, "--dump-dom")
    assert "<title>owned" not in document and "<img" not in document
    assert "waiting" in document


@needs_browser
def test_a_browser_is_asked_for_the_token(site: tuple[type[Site], str], tmp_path: Path) -> None:
    kind, url = site
    kind.page, kind.live, kind.token = render({"token": True}, "n0nce"), json.dumps(snapshot()).encode(), "secret"
    document, _ = browse(url, tmp_path, "--dump-dom")
    assert "This server asks for a token." in document
    assert '<form id="ask" class="card">' in document
    assert kind.asked == 0


@needs_browser
def test_a_browser_says_that_the_server_drains(site: tuple[type[Site], str], tmp_path: Path) -> None:
    kind, url = site
    kind.page, kind.live = render({"models": [model()]}, "n0nce"), json.dumps(snapshot(time_s=0.05, draining=True)).encode()
    document, log = browse(url, tmp_path, "--dump-dom")
    assert log == ""
    assert "Draining:" in document and "above the bound, 20 ms" in document and "refused 40/s: queue_full" in document
