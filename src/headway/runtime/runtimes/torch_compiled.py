"""PyTorch's compiler on the CPU or an NVIDIA GPU: any ONNX graph, lifted to torch, traced once and compiled by ``torch.compile``.

Compiling happens at the first run and again at the first run of another kind (one row, several rows, another thread count): two programs
serve every batch size. That takes seconds to minutes, so ``tune`` considers this runtime only when it is named.

Threads: torch has one setting for the process, and each thread that runs a session has a pool of that size. So several instances run with
the same number of threads each, and a session of another number is refused while one is open. Between calls the pool of GNU OpenMP, which
torch brings, spins for some milliseconds. On a GPU, threads are those of the host.

Precision: float32 products are computed in float32, also on a GPU (TF32 is off). A graph that asks for bfloat16 (on a GPU also float16) is
run under ``torch.autocast``, which picks the operators that gain. Graphs with quantize nodes are refused: the lift computes them in float.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from headway.records import ConfigError, DataError, HeadwayError, Unsupported
from headway.runtime.session import check_feeds
from headway.runtime.sharing import Shared
from headway.runtime.torch_tracing import Traced, trace

DEVICES = ("cpu", "cuda")
ASKED = True
"""Considered only when it is named: compiling one graph takes as long as measuring several."""
BACKEND = "inductor"
"""The compiler behind ``torch.compile``; the contract suite runs some graphs with a cheaper one."""
_COMPILER_ERRORS = ("BackendCompilerFailed", "InductorError")
"""By name: where they are defined stands the whole compiler, which whoever only looks what runtimes there are should not have to import."""
_NARROW = {"cpu": ("bfloat16",), "cuda": ("bfloat16", "float16")}


def versions() -> dict[str, str]:
    """The library's version, without its build."""
    return {"torch": torch.__version__.split("+")[0]}


def usable() -> tuple[str, ...]:
    """The devices that torch finds here."""
    return DEVICES if torch.cuda.is_available() else DEVICES[:1]


def gpus() -> tuple[str, ...]:
    """Name and memory of each NVIDIA GPU that torch finds."""
    if not torch.cuda.is_available():
        return ()
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return tuple(f"{each.name}, {each.total_memory / 2**30:.0f} GiB" for each in found)


def refuse(path: Path, *, device: str = "cpu") -> str | None:
    """Why the graph cannot be honoured: no device or compiler, no lift, 8-bit nodes, a precision, rows that are not free; none when it can."""
    try:
        _check_place(device)
        _programs[device].get(path, functools.partial(Compiled, device=device))
    except HeadwayError as error:
        return str(error)
    return None


def open_session(path: Path, *, threads: int, device: str = "cpu") -> TorchSession:
    """A session of ``threads`` threads; it compiles at its first runs.

    Raises:
        ConfigError: threads below one. ModelError: no ONNX graph. Unsupported: as ``refuse``, or a session of another number of threads is open.
    """
    if threads < 1:
        raise ConfigError(f"threads must be at least 1, got {threads}")
    _check_place(device)
    other = next((session.threads for session in list(_open) if session.threads != threads), threads)
    if other != threads:
        raise Unsupported(
            f"torch has one number of threads for a whole process: a session of {other} is open and one of {threads} was asked for; "
            "close it, give both the same number, or serve them in processes of their own"
        )
    return TorchSession(_programs[device].get(path, functools.partial(Compiled, device=device)), threads)


class Compiled:
    """A traced graph and its compiled form, shared by all sessions of a file."""

    def __init__(self, path: Path, device: str) -> None:
        self.traced: Traced = trace(path, device)
        self.device = device
        self.narrow = self.traced.precision != "float32"
        if self.narrow:
            _check_precision(self.traced.precision, device)
        self._kept = {tensor.untyped_storage().data_ptr() for tensor in self.traced.module.state_dict().values()}
        options: dict[str, str | int | bool | Callable[..., object]] | None = {"compile_threads": 1} if BACKEND == "inductor" else None
        self._call = torch.compile(self.traced.module, backend=BACKEND, dynamic=True, options=options)

    def __call__(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """Outputs in order, in memory of their own."""
        with (
            torch.inference_mode(),
            torch.autocast(self.device, getattr(torch, self.traced.precision) if self.narrow else None, self.narrow),
        ):
            given = [_tensor(array) for array in arrays]
            results = self._call(*(tensor.to(self.device) for tensor in given))
        taken = self._kept | {tensor.untyped_storage().data_ptr() for tensor in given}
        found = []
        for result, spec in zip(results, self.traced.outputs, strict=True):
            array = result.to("cpu", getattr(torch, spec.dtype)).contiguous()
            pointer = array.untyped_storage().data_ptr()
            found.append((array.clone() if pointer in taken else array).numpy())
            taken.add(pointer)
        return found


_programs: dict[str, Shared[Compiled]] = {device: Shared() for device in DEVICES}


class TorchSession:
    """One graph compiled by torch."""

    def __init__(self, compiled: Compiled, threads: int) -> None:
        self._compiled: Compiled | None = compiled
        self.threads = threads
        self.inputs, self.outputs = compiled.traced.inputs, compiled.traced.outputs
        if not _open:
            _threads_before[:] = [torch.get_num_threads()]
        _open.add(self)

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name."""
        compiled = self._compiled
        if compiled is None:
            raise HeadwayError("a session must be open to run, and this one was closed; open another")
        check_feeds(self.inputs, feeds)
        if torch.get_num_threads() != self.threads:  # a thread that has run already keeps its own number
            torch.set_num_threads(self.threads)
        try:
            results = compiled([feeds[spec.name] for spec in self.inputs])
        except Exception as error:  # the compiler, kernels and guards raise types of their own
            if type(error).__name__ in _COMPILER_ERRORS:
                raise Unsupported(f"torch.compile cannot compile the graph: {_short(error)}") from error
            raise DataError(f"the graph must run on these inputs, got from torch: {_short(error)}") from error
        return {spec.name: array for spec, array in zip(self.outputs, results, strict=True)}

    def close(self) -> None:
        """Let go of the graph; closing twice is harmless."""
        self._compiled = None
        if self in _open:
            _open.remove(self)
            if not _open:
                torch.set_num_threads(_threads_before[0])


_open: weakref.WeakSet[TorchSession] = weakref.WeakSet()
_threads_before: list[int] = []
"""Torch's number of threads before the first session that is open: training in this process gets it back."""


def _check_place(device: str) -> None:
    """Nothing, when the device and what compiles for it are here. Sets the precision of float32 products, which is one for the process."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler
    from torch.utils._triton import has_triton

    if device == "cuda" and not torch.cuda.is_available():
        what = "finds no GPU" if torch.version.cuda else "was built without CUDA"
        raise Unsupported(
            f"the device cuda needs an NVIDIA GPU and a torch built for it, and torch {torch.__version__} {what}; "
            "install the NVIDIA driver and a CUDA build of torch, or plan for cpu"
        )
    if device == "cuda" and BACKEND == "inductor" and not has_triton():
        raise Unsupported("torch.compile needs Triton for a GPU, and it is not here; run: pip install triton")
    if BACKEND == "inductor":
        try:
            get_cpp_compiler()
        except InvalidCxxCompiler as error:
            raise Unsupported(
                "torch.compile needs a C++ compiler, and none was found; install g++ or name one in the variable CXX"
            ) from error
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


def _check_precision(asked: str, device: str) -> None:
    if asked not in _NARROW[device]:
        known = ", ".join(("float32", *_NARROW[device]))
        raise Unsupported(f"the graph asks for the precision {asked!r}, and torch_compiled on {device} knows {known}")
    if device == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        raise Unsupported(f"the graph asks for {asked}, and torch has no kernels for it on this CPU")
    if device == "cuda" and asked == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise Unsupported(f"the graph asks for {asked}, and this GPU has no instructions for it")


def _tensor(array: np.ndarray) -> torch.Tensor:
    """A tensor on the array's memory; of a copy when that is read-only (torch has no such tensors), strided or not aligned."""
    return torch.from_numpy(np.require(array, requirements=["C", "A", "W"]))


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:300] + "..."
