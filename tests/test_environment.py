"""The record of the machine: what it may use, what it is, how quiet it is; and nothing that names it."""

from __future__ import annotations

import getpass
import platform
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from headway.measure import environment as room
from headway.measure.environment import (
    Watch,
    environment,
    instruction_sets,
    noise_ratio,
    usable_memory_bytes,
)
from headway.records import Environment, from_json, to_json
from headway.runtime import cores as cores_room
from headway.runtime.cores import usable_cores


@pytest.fixture(autouse=True)
def _no_memory_of_it() -> Iterator[None]:
    for cached in (instruction_sets, room._cpu_name):
        cached.cache_clear()
    yield
    for cached in (instruction_sets, room._cpu_name):
        cached.cache_clear()


@pytest.mark.parametrize(("quota", "cores"), [(None, 16), (2.0, 2), (2.5, 2), (0.5, 1), (99.0, 16)])
def test_cores_are_bounded_by_the_quota(monkeypatch: pytest.MonkeyPatch, quota: float | None, cores: int) -> None:
    monkeypatch.setattr(cores_room, "cgroup_cores", lambda root, own: quota)
    monkeypatch.setattr(cores_room.os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    assert usable_cores() == cores


def test_memory_is_bounded_by_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    total = psutil.virtual_memory().total
    for limit, usable in ((None, total), (2**20, 2**20), (2**63 - 4096, total)):
        monkeypatch.setattr(cores_room, "cgroup_memory_bytes", lambda root, own, limit=limit: limit)
        assert usable_memory_bytes() == usable


def test_instruction_sets_have_their_usual_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(room, "_CPUINFO", file)
    file.write_text(
        "processor : 0\nmodel name : A: b\nflags : fpu sse2 avx2 avx512f avx512_vnni amx_bf16\n\nprocessor : 1\nflags : avx_vnni\n"
    )
    assert instruction_sets() == ("amx_bf16", "avx2", "avx512_vnni", "avx512f")
    assert room._cpu_name() == "A: b"
    instruction_sets.cache_clear()
    room._cpu_name.cache_clear()
    file.write_text("processor : 0\nFeatures : fp asimd asimddp i8mm bf16\n")
    assert instruction_sets() == ("arm_bf16", "asimddp", "i8mm", "neon")
    assert room._cpu_name()


def test_instruction_sets_come_from_elsewhere_without_the_kernel_s_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(room, "_CPUINFO", tmp_path / "none")
    monkeypatch.setattr(room.cpuinfo, "get_cpu_info", lambda: {"flags": ["avx2", "other"]})
    assert instruction_sets() == ("avx2",)


def test_the_record_names_versions_and_neither_host_nor_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "node", lambda: "a-secret-host")
    monkeypatch.setattr(socket, "gethostname", lambda: "a-secret-host")
    here = environment()
    assert from_json(to_json(here), Environment) == here
    assert here.cores >= 1 and here.memory_bytes > 0 and here.noise_ratio >= 1
    assert {"onnxruntime", "openvino", "numpy", "onnx"} <= set(here.versions)
    text = to_json(here).decode()
    assert "a-secret-host" not in text and str(Path.home()) not in text
    assert all(getpass.getuser() != word for word in (here.cpu, here.system, here.python))


def test_noise_is_a_ratio_of_at_least_one() -> None:
    assert noise_ratio(5) >= 1


def stat(path: Path, *ticks: int) -> None:
    path.write_text("cpu  " + " ".join(map(str, ticks)) + "\ncpu0 1 2 3\n")


def test_a_watch_tells_the_share_that_was_stolen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "stat"
    monkeypatch.setattr(room, "_STAT", file)
    stat(file, 100, 0, 50, 1000, 0, 0, 0, 10, 5, 0)
    with Watch() as watch:
        stat(file, 160, 0, 60, 1010, 0, 0, 0, 30, 65, 0)  # the guest's own time, last but one, is in user already
    assert watch.steal_fraction == pytest.approx(20 / 100)
    with Watch() as quiet:
        pass
    assert quiet.steal_fraction == 0


def test_a_watch_without_the_kernel_s_file_says_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(room, "_STAT", tmp_path / "none")
    with Watch() as watch:
        pass
    assert watch.steal_fraction == 0
