"""The machine under nested control groups and without optional packages, other processes' share, and the ceilings with their cache."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pytest

from headway.measure import ceilings, environment
from headway.measure.ceilings import cache_folder, measure_ceilings
from headway.measure.environment import Watch, named, noise_ratio, shares
from headway.records import Ceilings, MeasurementError
from headway.runtime.cores import cgroup_cores, cgroup_memory_bytes, usable_cores


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "own", "cores"),
    [
        ({"a/b/cpu.max": "max 100000\n", "a/cpu.max": "400000 100000\n"}, "0::/a/b\n", 4.0),
        ({"a/b/cpu.max": "200000 100000\n", "a/cpu.max": "400000 100000\n"}, "0::/a/b\n", 2.0),
        ({"cpu.max": "300000 100000\n"}, "0::/docker/not-mounted-here\n", 3.0),
        ({"cpu/x/cpu.cfs_quota_us": "250000\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, "4:memory:/x\n3:cpu,cpuacct:/x\n", 2.5),
        ({"cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}, "3:cpu,cpuacct:/\n", None),
        ({"../outside/cpu.max": "100000 100000\n"}, "0::/../outside\n", None),
        ({}, "", None),
    ],
)
def test_the_smallest_quota_on_the_way_up_counts(tmp_path: Path, files: dict[str, str], own: str, cores: float | None) -> None:
    (tmp_path / "top").mkdir()
    assert cgroup_cores(write(tmp_path / "top", files), own) == cores


@pytest.mark.parametrize(
    ("files", "own", "limit"),
    [
        ({"a/memory.max": "1000\n", "memory.max": "5000\n"}, "0::/a\n", 1000),
        ({"a/memory.max": "max\n", "memory.max": "5000\n"}, "0::/a\n", 5000),
        ({"memory/g/memory.limit_in_bytes": "2048\n"}, "7:memory:/g\n0::/\n", 2048),
        ({}, "garbage", None),
    ],
)
def test_the_smallest_memory_limit_counts(tmp_path: Path, files: dict[str, str], own: str, limit: int | None) -> None:
    assert cgroup_memory_bytes(write(tmp_path, files), own) == limit


def test_instruction_sets_carry_one_name_each() -> None:
    assert named(["fpu", "sse", "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_tile", "amx_int8"]) == (
        "amx_int8", "avx2", "avx512_bf16", "avx512_vnni", "avx512f", "avx_vnni",
    )  # fmt: skip
    assert named(["fp", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve"]) == ("arm_bf16", "arm_fp16", "asimddp", "i8mm", "neon", "sve")
    assert named([]) == ()


def test_without_the_extra_packages_it_still_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    full = environment.usable_memory_bytes()
    monkeypatch.setattr(environment, "cpuinfo", None)
    monkeypatch.setattr(environment, "psutil", None)
    assert abs(environment.usable_memory_bytes() - full) < 0.1 * full
    monkeypatch.setattr(environment, "_CPUINFO", Path("/nowhere"))
    environment.instruction_sets.cache_clear()
    assert environment.instruction_sets() == ()
    monkeypatch.undo()
    environment.instruction_sets.cache_clear()


def test_noise_is_finite() -> None:
    assert 1.0 <= noise_ratio(20) < math.inf


def test_shares_of_steal_and_of_others() -> None:
    # user, nice, system, idle, iowait, irq, softirq, steal: 100 ticks, 40 of them busy, 10 stolen; this process had 0.15 s = 15 ticks
    assert shares([30, 0, 10, 45, 5, 0, 0, 10], 0.15, 100.0) == (0.1, 0.25)
    assert shares([], 1.0, 100.0) == (0.0, 0.0)
    assert shares([0] * 8, 1.0, 100.0) == (0.0, 0.0)
    assert shares([10, 0, 0, 90, 0, 0, 0, 0], 5.0, 100.0) == (0.0, 0.0)


def test_a_watch_ends_with_fractions() -> None:
    with Watch() as watch:
        ends = time.perf_counter() + 0.05
        while time.perf_counter() < ends:
            pass
    assert 0.0 <= watch.steal_fraction <= 1.0 and 0.0 <= watch.others_fraction <= 1.0


# --- ceilings: measured for real once, small; the cache without measuring


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "SIZE", 128)
    monkeypatch.setattr(ceilings, "SECONDS", 0.01)
    monkeypatch.setattr(ceilings, "STREAM_BYTES", 2**24)


def test_ceilings_are_measured_through_the_runtimes(monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    found = ceilings.measure(usable_cores())
    assert {"float32", "int8"} <= set(found.flop_per_s_one_thread) == set(found.flop_per_s)
    for rates in (found.flop_per_s, found.flop_per_s_one_thread):
        assert all(1e7 < rate < 1e16 for rate in rates.values())
    assert 1e7 < found.bytes_per_s_one_thread <= found.bytes_per_s < 1e13
    assert all(found.flop_per_s[precision] >= rate for precision, rate in found.flop_per_s_one_thread.items())
    assert 0 < found.overhead_s < 0.1


def test_no_ceilings_without_a_runtime_that_multiplies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    small(monkeypatch)
    null = only_null()
    monkeypatch.setattr(ceilings, "runtimes", lambda: null)
    with pytest.raises(MeasurementError, match="headway doctor"):
        measure_ceilings(tmp_path)
    assert not list(tmp_path.iterdir()), "a failure is not cached"


def only_null() -> object:
    found = ceilings.runtimes()
    return type(found)(present={"null": found.present["null"]})


CANNED = Ceilings(
    flop_per_s={"float32": 2e11}, flop_per_s_one_thread={"float32": 1e11}, bytes_per_s=2e10, bytes_per_s_one_thread=1e10, overhead_s=1e-5
)


def test_ceilings_are_measured_once_and_again_when_asked_or_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def canned(cores: int) -> Ceilings:
        calls.append(cores)
        return CANNED

    monkeypatch.setattr(ceilings, "measure", canned)
    folder = tmp_path / "cache"
    assert measure_ceilings(folder) == measure_ceilings(folder) == CANNED and len(calls) == 1
    measure_ceilings(folder, refresh=True)
    assert len(calls) == 2
    (file,) = folder.iterdir()
    assert json.loads(file.read_text())["record"] == "Ceilings"
    file.write_text("torn")
    assert measure_ceilings(folder) == CANNED and len(calls) == 3
    assert measure_ceilings(folder) == CANNED and len(calls) == 3
    (tmp_path / "a file").write_text("")
    assert measure_ceilings(tmp_path / "a file") == CANNED, "a cache that cannot be written is no error"


def test_the_cache_lies_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "headway"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "headway"
