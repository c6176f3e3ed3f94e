"""The command ``headway`` as its users start it: a process of its own, and what it said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parent.parent / "src"
LONGEST_S = 400


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON object on standard output; anything beside it is an error."""
        return json.loads(self.out)


def environment(cache: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(SOURCE),
        "PYTHONUNBUFFERED": "1",
        "XDG_CACHE_HOME": str(cache),
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }


def start(arguments: Sequence[object], cwd: Path, cache: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "headway", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=cwd, env=environment(cache), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> Said:
    try:
        out, err = process.communicate(timeout=LONGEST_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    assert "Traceback" not in err, err
    return Said(process.returncode, out, err)


def headway(arguments: Sequence[object], cwd: Path, cache: Path) -> Said:
    return finish(start(arguments, cwd, cache))


@contextmanager
def serving(arguments: Sequence[object], cwd: Path, cache: Path) -> Iterator[dict[str, Any]]:
    """A server that is ready, by what its one line says; ended with SIGTERM, which must be a clean end."""
    process = start(["serve", *arguments, "--http", "127.0.0.1:0", "--json"], cwd, cache)
    try:
        line = process.stdout.readline() if process.stdout else ""
        assert line, finish(process).err
        yield json.loads(line)
        process.send_signal(signal.SIGTERM)
        said = finish(process)
        assert said.code == 0, said.err
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def ask(url: str, body: Any = None) -> tuple[int, str]:
    """Status and text of a GET, or of a POST of JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"} if data else {})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.status, answer.read().decode()
