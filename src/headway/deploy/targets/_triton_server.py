"""A Triton of this machine: found, started on a model repository on a loopback port, and ended with all of its processes.

Two layouts are known: Triton's own (``bin/tritonserver`` beside ``backends/``), and that of PyTriton's wheel, which holds only the Python backend
and keeps its process's binaries by Python version elsewhere; its models then use the packages of the Python that runs this.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from headway.deploy.asking import ASK_S, LAST_WORDS, Server
from headway.records import BundleError, MissingPackage, Unsupported

VARIABLE, BINARY = "HEADWAY_TRITON", "tritonserver"
READY_S, LOOK_S, STOP_S = 120.0, 0.05, 10.0
HOST = "127.0.0.1"
NEEDED = ("numpy", "onnxruntime")
"""What ``model.py`` imports."""


@dataclass(frozen=True, slots=True)
class Installed:
    """A Triton of this machine.

    Attributes:
        stubs: PyTriton's folder with the Python backend's processes, by Python version; none in Triton's own layout.
    """

    binary: Path
    backends: Path
    stubs: Path | None


@dataclass(frozen=True, slots=True)
class Running:
    """A server that is ready."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def where(self) -> Server:
        """For requests."""
        return Server(HOST, self.port, BINARY)


def installed() -> Installed:
    """The Triton that ``HEADWAY_TRITON`` names, or the one on the path.

    Raises:
        MissingPackage: there is none.
    """
    named = os.environ.get(VARIABLE, "")
    found = shutil.which(named or BINARY)
    if found is None:
        wrong = f"{VARIABLE} names {named!r}, which is no program" if named else f"no {BINARY} is on the path"
        raise MissingPackage(
            f"to start it here, a Triton must be installed, and {wrong}. Set {VARIABLE} to its binary; "
            f"the package nvidia-pytriton holds one (pytriton/{BINARY}/bin/{BINARY}) with the Python backend"
        )
    binary = Path(found).resolve()
    root = binary.parent.parent
    stubs = root / "python_backend_stubs"
    return Installed(binary, root / "backends", stubs if stubs.is_dir() else None)


@contextlib.contextmanager
def running(repository: Path, model: str, backend: str) -> Iterator[Running]:
    """A server of a model repository, from the moment its model is ready; it and all of its processes are ended with the block.

    Raises:
        MissingPackage: there is no Triton, or none for this Python. Unsupported: it lacks the backend.
        BundleError: it could not serve the model; the message holds its last words.
    """
    triton = installed()
    if not (triton.backends / backend).is_dir():
        raise Unsupported(f"the Triton found here ({triton.binary.name} without the folder backends/{backend}) has no {backend} backend")
    with tempfile.TemporaryDirectory(prefix="headway-triton-", ignore_cleanup_errors=True) as scratch, contextlib.ExitStack() as stack:
        mark = Path(scratch).name
        port, log = _free_port(), Path(scratch) / "log.txt"
        command = [
            str(triton.binary), "--model-repository", str(repository.resolve()), "--backend-directory", str(_backends(triton, Path(scratch))),
            "--backend-config", f"python,shm-region-prefix-name={mark}", "--http-address", HOST, "--http-port", str(port),
            "--allow-grpc", "false", "--allow-metrics", "false", "--log-info", "false",
        ]  # fmt: skip
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=scratch, env=_environment(triton), start_new_session=True
            )
        compiled = repository / model / "1" / "__pycache__"
        if not compiled.exists():  # Triton's Python ignores every setting that would keep it from writing there
            stack.callback(shutil.rmtree, compiled, ignore_errors=True)
        stack.callback(_end, process, mark)
        _await(process, port, model, log)
        yield Running(port, process)


def _await(process: subprocess.Popen[bytes], port: int, model: str, log: Path) -> None:
    end_s = time.monotonic() + READY_S
    while time.monotonic() < end_s and process.poll() is None:
        if _ready(port, model):
            return
        time.sleep(LOOK_S)
    state = f"ended with {process.returncode}" if process.poll() is not None else f"was not ready within {READY_S:g} s"
    words = log.read_text("utf-8", "replace").strip()[-LAST_WORDS:]
    raise BundleError(f"tritonserver must serve the model {model!r}, and it {state}; it said: {words}")


def _ready(port: int, model: str) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=ASK_S)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", f"/v2/models/{model}/ready")
        return connection.getresponse().status == http.HTTPStatus.OK
    return False


def _end(process: subprocess.Popen[bytes], mark: str) -> None:
    """SIGTERM and patience, then SIGKILL for whatever is left of its session; and its shared memory."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for left in Path("/dev/shm").glob(f"{mark}*"):
        left.unlink(missing_ok=True)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind((HOST, 0))
        return int(one.getsockname()[1])


def _backends(triton: Installed, scratch: Path) -> Path:
    """Where the backends lie: for PyTriton's layout a copy with the process for this Python, which it keeps apart."""
    if triton.stubs is None:
        return triton.backends
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = triton.stubs / version / "triton_python_backend_stub"
    if not stub.is_file():
        raise MissingPackage(f"PyTriton must hold the Python backend's process for Python {version}, and does not; use another Python")
    shutil.copytree(triton.backends / "python", scratch / "backends" / "python")
    shutil.copy(stub, scratch / "backends" / "python")
    _bring_packages(scratch / "backends" / "python")
    return scratch / "backends"


def _bring_packages(folder: Path) -> None:
    """Links to the packages of this Python in the folder that the Python backend looks in; it takes none from PYTHONPATH."""
    found = [importlib.util.find_spec(name) for name in NEEDED]
    for place in dict.fromkeys(Path(spec.origin).parent.parent for spec in found if spec is not None and spec.origin):
        for entry in place.iterdir():
            if not (folder / entry.name).exists():
                (folder / entry.name).symlink_to(entry.resolve())


def _environment(triton: Installed) -> dict[str, str]:
    """This process's, without what points into another Python's packages; for PyTriton's layout with the library of this Python."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME")}
    kept["ORT_DISABLE_TELEMETRY"] = "1"
    if triton.stubs is None:
        return kept
    bundled = triton.binary.parents[3] / "nvidia_pytriton.libs"
    libraries = [str(bundled), str(sysconfig.get_config_var("LIBDIR") or ""), kept.get("LD_LIBRARY_PATH", "")]
    return {**kept, "LD_LIBRARY_PATH": os.pathsep.join(part for part in libraries if part)}
