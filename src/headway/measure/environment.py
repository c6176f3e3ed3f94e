"""This machine: processor, instruction sets, cores, memory, library versions; and how quiet it is while something is measured."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import statistics
import time
from pathlib import Path
from types import TracebackType

import cpuinfo
import numpy as np
import psutil

from headway.records import Environment
from headway.runtime import versions

_FLAGS = {
    "avx2": "avx2", "avx512f": "avx512f", "avx512_vnni": "avx512_vnni", "avx_vnni": "avx_vnni", "avx512_bf16": "avx512_bf16",
    "avx512_fp16": "avx512_fp16", "amx_int8": "amx_int8", "amx_bf16": "amx_bf16", "asimd": "neon", "asimddp": "asimddp", "i8mm": "i8mm",
    "bf16": "arm_bf16", "fphp": "arm_fp16", "sve": "sve",
}  # fmt: skip
_PACKAGES = ("numpy", "onnx", "onnx-ir", "onnxslim", "torch", "tensorflow-cpu")
_CPUINFO = Path("/proc/cpuinfo")
_STAT = Path("/proc/stat")


@functools.cache
def instruction_sets() -> tuple[str, ...]:
    """Instruction sets that matter for inference, by their usual names, sorted."""
    if _CPUINFO.is_file():
        lines = _CPUINFO.read_text("utf-8", "replace").splitlines()
        flags = next((line.split(":", 1)[1].split() for line in lines if line.lower().startswith(("flags", "features"))), [])
    else:
        flags = cpuinfo.get_cpu_info().get("flags", [])
    return tuple(sorted({_FLAGS[flag] for flag in flags if flag in _FLAGS}))


def usable_cores() -> int:
    """Cores that this process may use: its affinity, bounded by the control group's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, min(allowed, int(quota))) if quota is not None else allowed


def _cgroup_quota() -> float | None:
    """CPU quota of the control group in cores, version 2 or 1; none when there is no limit."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if limit == "max" else float(limit) / float(period)
    except (OSError, ValueError):
        pass
    try:
        limit_us = int(Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").read_text())
        return limit_us / int(Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text()) if limit_us > 0 else None
    except (OSError, ValueError):
        return None


def usable_memory_bytes() -> int:
    """Memory that this process may use: the machine's, bounded by the control group's limit [B]."""
    total = psutil.virtual_memory().total
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            return min(total, int(Path(file).read_text()))
        except (OSError, ValueError):
            continue
    return total


def environment() -> Environment:
    """The record that goes with every measurement; it names no host and no user."""
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


@functools.cache
def _cpu_name() -> str:
    if _CPUINFO.is_file():
        for line in _CPUINFO.read_text("utf-8", "replace").splitlines():
            if line.lower().startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def noise_ratio(repeats: int = 60) -> float:
    """How much a short fixed computation varies here: its 95th percentile over its median; 1 is a quiet machine."""
    matrix = np.ones((96, 96), dtype=np.float32)
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        for _ in range(4):
            matrix @ matrix
        times.append(time.perf_counter() - began)
    times.sort()
    return times[int(0.95 * len(times))] / statistics.median(times)


class Watch:
    """Watches the machine during a block: ``steal_fraction`` is the share of CPU time that the hypervisor gave to others."""

    def __init__(self) -> None:
        self.steal_fraction = 0.0
        self._before: list[int] = []

    def __enter__(self) -> Watch:
        self._before = _ticks()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        spent = [after - before for after, before in zip(_ticks(), self._before, strict=True)]
        if len(spent) > 7 and sum(spent[:8]) > 0:
            self.steal_fraction = spent[7] / sum(spent[:8])


def _ticks() -> list[int]:
    """The CPU line of the kernel's statistics: user, nice, system, idle, iowait, irq, softirq, steal, ... [ticks]."""
    if not _STAT.is_file():
        return []
    return [int(word) for word in _STAT.read_text().split("\n", 1)[0].split()[1:]]
