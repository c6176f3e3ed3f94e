"""The cores and the memory that this process may use, by its affinity and its control group. Files of Linux; elsewhere no limit is found."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Cores that this process may use: its affinity, bounded by the control group's quota (rounded down, at least one)."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_cores(_CGROUPS, _read(_OWN_CGROUP))
    return max(1, min(allowed, int(quota))) if quota is not None else allowed


def cgroup_cores(root: Path, own: str) -> float | None:
    """The smallest CPU quota of this process's control group and the groups around it [cores]; none when there is no limit.

    Args:
        root: where control groups are mounted. own: the text of ``/proc/self/cgroup``.
    """
    found = []
    for group in _groups(root, own, "cpu"):
        limit, _, period = _read(group / "cpu.max").strip().partition(" ")  # version 2: "max 100000" or "150000 100000"
        if not limit:
            limit, period = _read(group / "cpu.cfs_quota_us").strip(), _read(group / "cpu.cfs_period_us").strip()  # version 1: -1 is none
        if limit.isdecimal() and period.isdecimal() and int(period):
            found.append(int(limit) / int(period))
    return min(found, default=None)


def cgroup_memory_bytes(root: Path, own: str) -> int | None:
    """The smallest memory limit of this process's control group and the groups around it [B]; none when there is no limit."""
    texts = [_read(group / name).strip() for group in _groups(root, own, "memory") for name in ("memory.max", "memory.limit_in_bytes")]
    return min((int(text) for text in texts if text.isdecimal()), default=None)


def _groups(root: Path, own: str, controller: str) -> list[Path]:
    """Folders of the process's control group and of every group around it, for version 2 and version 1.

    Inside a container the path is often that of the host and not mounted; the mount's own top then carries the container's limit.
    """
    folders = [root, root / controller]
    for line in own.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        top = root / controllers if controllers and (root / controllers).is_dir() else root / controller if controllers else root
        parts = [part for part in path.split("/") if part not in ("", "..")]
        folders += [top.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]
    return folders


def memory_limit_bytes() -> int | None:
    """The memory limit of this process's control group [B]; none when there is no limit."""
    return cgroup_memory_bytes(_CGROUPS, _read(_OWN_CGROUP))


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
