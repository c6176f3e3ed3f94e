"""This machine: processor, instruction sets, cores, memory, library versions; and how quiet it is while something is measured.

Linux tells everything through ``/proc`` and ``/sys``; elsewhere py-cpuinfo and psutil are asked if they are installed. Nothing here
names the host or its user.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import statistics
import time
from pathlib import Path
from types import TracebackType

import numpy as np

from headway.records import Environment
from headway.runtime import versions
from headway.runtime.cores import memory_limit_bytes, usable_cores

try:  # the base install runs `doctor` and has neither
    import cpuinfo
    import psutil
except ImportError:
    cpuinfo = psutil = None

_FLAGS = {
    "avx2": "avx2", "avx512f": "avx512f", "avx512_vnni": "avx512_vnni", "avx512vnni": "avx512_vnni", "avx_vnni": "avx_vnni",
    "avx512_bf16": "avx512_bf16", "avx512_fp16": "avx512_fp16", "amx_int8": "amx_int8", "amx_bf16": "amx_bf16", "amx_fp16": "amx_fp16",
    "asimd": "neon", "neon": "neon", "asimddp": "asimddp", "i8mm": "i8mm", "bf16": "arm_bf16", "asimdhp": "arm_fp16", "sve": "sve", "sve2": "sve2",
}  # fmt: skip
_PACKAGES = ("numpy", "onnx", "onnx-ir", "onnxslim", "torch", "tensorflow-cpu")
_CPUINFO = Path("/proc/cpuinfo")
_STAT = Path("/proc/stat")


@functools.cache
def instruction_sets() -> tuple[str, ...]:
    """Instruction sets that matter for inference, by their usual names, sorted; cheap, and empty where nothing tells."""
    return named(_flags())


def named(flags: list[str]) -> tuple[str, ...]:
    """The instruction sets behind the kernel's flags, by the names that Headway uses; flags that do not matter are left out."""
    return tuple(sorted({_FLAGS[flag] for flag in flags if flag in _FLAGS}))


def _flags() -> list[str]:
    for line in _lines(_CPUINFO):
        if line.lower().startswith(("flags", "features")):
            return line.partition(":")[2].split()
    return list(cpuinfo.get_cpu_info().get("flags", [])) if cpuinfo is not None else []


@functools.cache
def _cpu_name() -> str:
    lines = _lines(_CPUINFO)
    for line in lines:
        if line.lower().startswith("model name"):
            return line.partition(":")[2].strip()
    brand = cpuinfo.get_cpu_info().get("brand_raw", "") if cpuinfo is not None and not lines else ""
    return str(brand) or platform.processor() or platform.machine()


def usable_memory_bytes() -> int:
    """Memory that this process may use: the machine's, bounded by the control group's limit [B]."""
    total = _total_memory_bytes()
    limit = memory_limit_bytes()
    return min(total, limit) if limit is not None else total


def _total_memory_bytes() -> int:
    if psutil is not None:
        return int(psutil.virtual_memory().total)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def environment() -> Environment:
    """The record that goes with every measurement (a tenth of a second, for the noise)."""
    found = dict(versions())
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return Environment(
        cpu=_cpu_name(), instruction_sets=instruction_sets(), cores=usable_cores(), memory_bytes=usable_memory_bytes(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}", python=platform.python_version(), versions=found,
        noise_ratio=noise_ratio(),
    )  # fmt: skip


def noise_ratio(repeats: int = 100) -> float:
    """How much a short fixed computation varies here: its 95th percentile over its median; 1 is a quiet machine.

    One repetition is about half a millisecond of sorting on one core: long enough to be hit by a neighbour, short enough to be hit seldom.
    """
    numbers = np.random.default_rng(0).random(20_000)
    np.sort(numbers)
    times = []
    for _ in range(max(20, repeats)):
        began = time.perf_counter()
        for _ in range(4):
            np.sort(numbers)
        times.append(time.perf_counter() - began)
    times.sort()
    return times[int(0.95 * len(times))] / statistics.median(times)


class Watch:
    """Watches the machine during a block; zeros where the kernel does not tell (elsewhere than on Linux).

    Attributes:
        steal_fraction: share of all CPU time that the hypervisor gave to other machines.
        others_fraction: share of all CPU time that other processes than this one and its ended children used.
    """

    def __init__(self) -> None:
        self.steal_fraction = 0.0
        self.others_fraction = 0.0
        self._before: tuple[list[int], float] = ([], 0.0)

    def __enter__(self) -> Watch:
        self._before = (_ticks(), _own_s())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        ticks, own_s = self._before
        spent = [after - before for after, before in zip(_ticks(), ticks, strict=False)]
        self.steal_fraction, self.others_fraction = shares(spent, _own_s() - own_s, _ticks_a_second())


def shares(spent: list[int], own_s: float, ticks_per_s: float) -> tuple[float, float]:
    """Steal and other processes' shares of all CPU time, each in [0, 1].

    Args:
        spent: growth of the kernel's counters: user, nice, system, idle, iowait, irq, softirq, steal [ticks]; guests count in user.
        own_s: CPU time of this process in the meantime [s].
    """
    total = sum(spent[:8])
    if len(spent) < 8 or total <= 0:
        return 0.0, 0.0
    busy = total - spent[3] - spent[4] - spent[7]
    others = busy - own_s * ticks_per_s
    return min(1.0, max(0.0, spent[7] / total)), min(1.0, max(0.0, others / total))


def _ticks() -> list[int]:
    """The first eight counters of the machine's CPU line [ticks]; empty where there is none."""
    return [int(word) for word in _read(_STAT).partition("\n")[0].split()[1:9]]


def _ticks_a_second() -> float:
    return float(os.sysconf("SC_CLK_TCK")) if hasattr(os, "sysconf") else 100.0


def _own_s() -> float:
    return sum(os.times()[:4])


def _lines(file: Path) -> list[str]:
    return _read(file).splitlines()


def _read(file: Path) -> str:
    """A file's text; empty when it cannot be read."""
    try:
        return file.read_text("utf-8", "replace")
    except OSError:
        return ""
