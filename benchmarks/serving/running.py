"""A server's life: started on one core, asked until it answers right, watched, told to stop, and nothing of it left behind."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import models
import psutil
from client import Client
from servers import SERVERS, Server, Start, environment_of

MARK = "HEADWAY_BENCHMARK"
SERVER_CORE, LOAD_CORE = 0, 1
READY_S, STOP_S = 90.0, 30.0
NICE = -10
"""Servers and generator run before other work where the system allows it."""


@dataclass
class Running:
    """A started server.

    Attributes:
        mark: in the environment of all of its processes, whoever their parent is.
        ready_s: from the start to the first right answer [s].
    """

    server: Server
    model: str
    port: int
    process: subprocess.Popen[bytes]
    mark: str
    log: Path
    ready_s: float = 0.0
    orphans: int = 0
    _family: list[psutil.Process] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where requests go."""
        return f"http://127.0.0.1:{self.port}{self.path}"

    @property
    def path(self) -> str:
        """The path of requests."""
        return self.server.path.format(model=self.model)

    def requests(self) -> tuple[list[bytes], list[dict[str, str]]]:
        """Bodies and headers, one for each row."""
        asked = [self.server.wire.ask(row) for row in models.rows()]
        return [body for _, body in asked], [headers for headers, _ in asked]

    def family(self) -> list[psutil.Process]:
        """Every process of the server, found by its mark."""
        return marked(self.mark)

    def cpu_s(self) -> float:
        """CPU time of all its processes so far, those it has ended included [s]."""
        return sum(cpu_s(process) for process in self.family())

    def resident_bytes(self) -> int:
        """Resident memory of all its processes; pages that they share count for each [B]."""
        return sum(resident_bytes(process) for process in self.family())

    def last_words(self) -> str:
        """The end of what it printed."""
        return self.log.read_text(errors="replace").strip()[-800:]


def cpu_s(process: psutil.Process) -> float:
    """CPU time of a process and its ended children [s]; 0 when it is gone."""
    with contextlib.suppress(psutil.Error):
        return float(sum(process.cpu_times()[:4]))
    return 0.0


def resident_bytes(process: psutil.Process) -> int:
    """Resident memory of a process [B]; 0 when it is gone."""
    with contextlib.suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0


def marked(mark: str) -> list[psutil.Process]:
    """Processes that carry a mark in their environment, zombies left out."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def port_is_free(port: int) -> bool:
    """Whether a new server could listen there."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
            one.listen(1)
        except OSError:
            return False
        return True


@contextlib.contextmanager
def running(
    name: str, model: str, latency_s: float = 0.02, *, repository: Path | None = None, versions: tuple[int, ...] = (0,), pinned: bool = True
) -> Iterator[Running]:
    """A server that answers right; stopped at the end of the block, and whatever it left is killed and counted.

    Args:
        repository: Headway serves this folder of models instead of a bundle.
        versions: seeds of the weights of which any may answer at the start.
        pinned: on the servers' core; else on any.

    Raises:
        RuntimeError: it did not answer right in time; the message holds its last words.
    """
    server = SERVERS[name]
    mark, folder = secrets.token_hex(8), Path(tempfile.mkdtemp(prefix="serving-"))
    port, second = free_ports(2)
    start = Start(model, port, second, folder, latency_s)
    command = server.command(start)
    if repository is not None:
        at = command.index("--json") + 1
        command[at : at + 1] = ["--repository", str(repository)]
    log = folder / "log.txt"
    with log.open("wb") as file:
        began = time.perf_counter()
        process = subprocess.Popen(
            [*on_core(SERVER_CORE if pinned else None), *command], stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=folder, start_new_session=True,
            env={**environment_of(server, start), MARK: mark, "TMPDIR": str(folder)},
        )  # fmt: skip
    held = Running(server, model, port, process, mark, log)
    try:
        _await(held, versions)
        held.ready_s = time.perf_counter() - began
        yield held
    finally:
        stop(held)
        shutil.rmtree(folder, ignore_errors=True)


def on_core(core: int | None) -> list[str]:
    """What to put before a command so that it stays on a core, or may use all, and runs before other work."""
    further = NICE - min(0, max(NICE, psutil.Process().nice()))  # what this process has already is inherited
    nice = ["nice", "-n", str(further)] if os.geteuid() == 0 else []
    return ["taskset", "-c", f"0-{(os.cpu_count() or 1) - 1}" if core is None else str(core), *nice]


def stop(held: Running) -> None:
    """SIGTERM, then patience, then SIGKILL for whatever is left of it."""
    if held.process.poll() is None:
        held.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            held.process.wait(STOP_S)
    time.sleep(0.2)
    left = held.family()
    held.orphans = len([process for process in left if process.pid != held.process.pid])
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, 5)
    held.process.wait(5)


def _await(held: Running, seeds: tuple[int, ...]) -> None:
    """Ask until every row gets its right answer."""
    bodies, headers = held.requests()
    answers, problem = [models.expected(held.model, seed) for seed in seeds], "nothing"
    end_s = time.perf_counter() + READY_S
    while time.perf_counter() < end_s and held.process.poll() is None:
        try:
            with Client(held.port, held.path) as client:
                for row, (body, own) in enumerate(zip(bodies, headers, strict=True)):
                    status, told, data = client.ask(body, own)
                    if status != 200 or not any(models.right(held.server.wire.read(told, data), wanted[row]) for wanted in answers):
                        problem = f"status {status}: {data[:200]!r}"
                        break
                else:
                    return
        except (OSError, ValueError, KeyError) as error:
            problem = f"{type(error).__name__}: {error}"
        time.sleep(0.05)
    raise RuntimeError(f"{held.server.name} must answer right within {READY_S:g} s, got {problem}; it said: {held.last_words()}")
