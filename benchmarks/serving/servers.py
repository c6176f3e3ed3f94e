"""Every server of the comparison: its environment, how it is started and asked, and where its settings come from.

Settings follow each server's own documentation for throughput under a latency bound; each app's docstring says them. All use the same ONNX
file, one thread, batches of up to 64.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from models import bundle, onnx_file
from wires import BINARY, MSGPACK, PLAIN, ROWS, V2, Wire

HERE = Path(__file__).parent
PEERS = HERE / "peers"
ENVIRONMENTS = Path.home() / ".cache" / "headway" / "peers-serving"
GROUPS = ("fastapi", "mosec", "litserve", "triton", "mlserver", "bentoml", "ray", "tools")
BOUNDS_S = (0.02, 0.05)


@dataclass(frozen=True)
class Start:
    """What a server is started for.

    Attributes:
        folder: empty, for whatever it writes.
        latency_s: the bound it shall hold; only Headway can be told.
    """

    model: str
    port: int
    second_port: int
    folder: Path
    latency_s: float


@dataclass(frozen=True)
class Server:
    """One server with one protocol.

    Attributes:
        group: its environment; empty for Headway's own.
        packages: whose versions are recorded.
        command: the command line.
        path: where requests go; ``{model}`` stands for the model's name.
        guess: requests a second within 20 ms to begin the search at, by model.
        takes_bound: whether it is told the bound, so that each bound needs a server of its own.
    """

    name: str
    group: str
    wire: Wire
    path: str
    command: Callable[[Start], list[str]]
    guess: dict[str, float]
    packages: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    takes_bound: bool = False

    @property
    def python(self) -> bool:
        """Whether its front end is written in Python."""
        return self.group in ("fastapi", "litserve", "mlserver", "bentoml", "ray")


def _headway(start: Start) -> list[str]:
    folder = bundle(start.model, start.latency_s)
    return [sys.executable, "-m", "headway", "serve", "--json", str(folder), "--http", f"127.0.0.1:{start.port}", "--control"]


def _floor(start: Start) -> list[str]:
    return [sys.executable, str(PEERS / "floor_app.py"), str(onnx_file(start.model)), str(start.port)]


def _script(group: str, file: str) -> Callable[[Start], list[str]]:
    return lambda start: [str(ENVIRONMENTS / group / "bin" / "python"), str(PEERS / file)]


def _bentoml(start: Start) -> list[str]:
    where = ["--host", "127.0.0.1", "--port", str(start.port), "--working-dir", str(PEERS)]
    return [str(ENVIRONMENTS / "bentoml" / "bin" / "bentoml"), "serve", "bentoml_app:Model", *where]


def _triton(start: Start) -> list[str]:
    """The binary out of PyTriton's wheel, on a model folder of its own: greedy dynamic batching, one CPU instance."""
    version = start.folder / "models" / start.model / "1"
    version.mkdir(parents=True)
    shutil.copyfile(PEERS / "triton_model.py", version / "model.py")
    (version.parent / "config.pbtxt").write_text((PEERS / "triton_config.pbtxt").read_text().replace("NAME", start.model))
    held = packages_of("triton") / "pytriton" / "tritonserver"
    backend = start.folder / "backends" / "python"
    shutil.copytree(held / "backends" / "python", backend)
    shutil.copy(held / "python_backend_stubs" / "3.11" / "triton_python_backend_stub", backend)
    return [
        str(held / "bin" / "tritonserver"), "--model-repository", str(start.folder / "models"), "--backend-directory", str(backend.parent),
        "--http-address", "127.0.0.1", "--http-port", str(start.port), "--allow-grpc", "false", "--allow-metrics", "false", "--log-info", "false",
        "--exit-on-error", "true",
    ]  # fmt: skip


def packages_of(group: str) -> Path:
    """Where an environment holds its packages."""
    return next((ENVIRONMENTS / group / "lib").glob("python3*")) / "site-packages"


PREDICT, INFER = "/predict", "/v2/models/{model}/infer"
SERVERS = {
    server.name: server
    for server in (
        Server("headway", "", V2, INFER, _headway, {"mlp": 1900, "tiny": 10000, "null": 5000}, takes_bound=True),
        Server("headway-binary", "", BINARY, INFER, _headway, {"mlp": 1900, "tiny": 12000, "null": 5000}, takes_bound=True),
        Server("floor", "", BINARY, INFER, _floor, {"mlp": 1900, "tiny": 15000}),
        Server("triton", "triton", V2, INFER, _triton, {"mlp": 1400, "tiny": 5000}, ("nvidia-pytriton",)),
        Server("triton-binary", "triton", BINARY, INFER, _triton, {"mlp": 1400, "tiny": 5000}, ("nvidia-pytriton",)),
        Server("mosec", "mosec", PLAIN, "/inference", _script("mosec", "mosec_app.py"), {"mlp": 1200, "tiny": 7000}, ("mosec",)),
        Server(
            "mosec-msgpack", "mosec", MSGPACK, "/inference", _script("mosec", "mosec_app.py"), {"mlp": 1200, "tiny": 7000},
            ("mosec", "msgpack"), {"PROTOCOL": "msgpack"},
        ),
        Server(
            "fastapi-batcher", "fastapi", PLAIN, PREDICT, _script("fastapi", "fastapi_batcher_app.py"), {"mlp": 800, "tiny": 2000},
            ("fastapi", "uvicorn"),
        ),
        Server("fastapi", "fastapi", PLAIN, PREDICT, _script("fastapi", "fastapi_app.py"), {"mlp": 250, "tiny": 1000}, ("fastapi", "uvicorn")),
        Server("mlserver", "mlserver", V2, INFER, _script("mlserver", "mlserver_app.py"), {"mlp": 350, "tiny": 500}, ("mlserver",)),
        Server("litserve", "litserve", PLAIN, PREDICT, _script("litserve", "litserve_app.py"), {"mlp": 250, "tiny": 350}, ("litserve",)),
        Server("bentoml", "bentoml", ROWS, PREDICT, _bentoml, {"mlp": 100, "tiny": 100}, ("bentoml",)),
        Server(
            "ray", "ray", PLAIN, "/", _script("ray", "ray_app.py"), {"mlp": 25, "tiny": 50}, ("ray",),
            {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"},
        ),
    )
}  # fmt: skip


def environment_of(server: Server, start: Start) -> dict[str, str]:
    """The variables that a server is started with; nothing that points into another Python's packages."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME")}
    if not server.group:
        return {**os.environ, "OMP_NUM_THREADS": "1"}
    packages = packages_of(server.group)
    found = {
        **kept, **server.environment, "OMP_NUM_THREADS": "1", "MODEL": str(onnx_file(start.model)), "NAME": start.model, "PORT": str(start.port),
        "SECOND_PORT": str(start.second_port), "PATH": f"{ENVIRONMENTS / server.group / 'bin'}:{os.environ['PATH']}",
        "BENTOML_HOME": str(start.folder / "bentoml"), "BENTOML_DO_NOT_TRACK": "True", "DO_NOT_TRACK": "1",
    }  # fmt: skip
    if server.group == "triton":
        found["PYTHONPATH"] = str(packages)
        found["LD_LIBRARY_PATH"] = f"{packages / 'nvidia_pytriton.libs'}:{kept.get('LD_LIBRARY_PATH', '')}"
    return found


def versions(server: Server) -> dict[str, str]:
    """The versions of a server's packages, by asking its own interpreter; Headway's stand in the environment record."""
    if not server.group:
        return {}
    code = "import importlib.metadata as m, sys; print(*(m.version(n) for n in sys.argv[1:]))"
    python = str(ENVIRONMENTS / server.group / "bin" / "python")
    words = subprocess.run([python, "-c", code, *server.packages, "onnxruntime"], check=True, capture_output=True, text=True).stdout.split()
    return dict(zip((*server.packages, "onnxruntime"), words, strict=True))


def set_up(say: Callable[[str], None]) -> None:
    """Make every environment from its pinned packages; those that are there are left alone."""
    for group in GROUPS:
        folder, wanted = ENVIRONMENTS / group, (HERE / "requirements" / f"{group}.txt").read_text()
        done = folder / "installed.txt"
        if done.exists() and done.read_text() == wanted:
            continue
        say(f"installing {group}")
        if not (folder / "bin" / "python").exists():
            venv.create(folder, with_pip=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", str(HERE / "requirements" / f"{group}.txt")], check=True)
        done.write_text(wanted)
