"""Tuning on a real Ray cluster of two nodes on this machine: one node is killed while it works, and nothing tells afterwards."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("ray", reason="needs the extra ray")

import ray
from ray.cluster_utils import Cluster

from elsewhere import begun, compressed_here, files, told, without_timing
from headway.api.compressing import compress
from headway.api.curves import measure_curves
from headway.api.run import Run
from headway.api.variants import Scored
from headway.cluster import tuning
from headway.cluster.tuning import OnRay, differences
from headway.cluster.tuning_work import Job
from headway.records import ConfigError, HeadwayError, Noise, Quality, ServiceCurve, Variant

pytestmark = [
    pytest.mark.filterwarnings("default"),  # Ray's own
]
SOON_S = 60.0
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100_000_000, "include_dashboard": False}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # jobs of this file travel by name
        running = Cluster(initialize_head=True, head_node_args=NODE)
        try:
            yield running
        finally:
            running.shutdown()


@dataclass
class Heard:
    """What a place says."""

    notes: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def step(self, text: str) -> None:
        self.steps.append(text)


@contextlib.contextmanager
def on(cluster: Cluster, heard: Heard) -> Iterator[OnRay]:
    with contextlib.closing(OnRay(f"ray:{cluster.address}", note=heard.note, step=heard.step)) as place:
        yield place


@pytest.fixture(scope="module")
def here(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return compressed_here(tmp_path_factory.mktemp("here") / "run", digits)


def kill(cluster: Cluster, node: Any, place: OnRay) -> None:
    """End the processes of a node as soon as it is at work, and wait until the cluster knows."""
    while not any(flight.node.identity == node.node_id for flight in list(place._flying.values())):
        time.sleep(0.02)
    cluster.remove_node(node, allow_graceful=False)
    while any(told["Alive"] and told["NodeID"] == node.node_id for told in ray.nodes()):
        time.sleep(0.02)


def test_a_node_killed_while_it_works_changes_no_record_and_no_file(
    cluster: Cluster, here: Run, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_timing(monkeypatch)
    second = cluster.add_node(num_cpus=1, object_store_memory=100_000_000)
    heard = Heard()
    with on(cluster, heard) as place:
        killer = threading.Thread(target=kill, args=(cluster, second, place), daemon=True)
        killer.start()
        run, prepared = begun(tmp_path / "run", digits, place)
        compress(run, prepared)
        killer.join(SOON_S)
        assert not killer.is_alive(), "the node was killed"
    assert [note for note in place.notes if "was lost: its work was done again" in note], place.notes
    assert told(run) == told(here), "the same records in the same order, none lost"
    assert files(run) == files(here), "byte for byte"
    assert heard.notes[0].startswith("works on 2 nodes (1 machines)")
    run.journal.release()


@pytest.mark.slow
def test_curves_are_measured_on_the_nodes_one_at_a_time_on_a_machine(cluster: Cluster, here: Run, digits: Path, tmp_path: Path) -> None:
    second = cluster.add_node(num_cpus=1, object_store_memory=100_000_000)
    heard = Heard()
    with on(cluster, heard) as place:
        run, prepared = begun(tmp_path / "run", digits, place)
        (run.folder / "variants").rmdir()
        (run.folder / "variants").symlink_to(here.folder / "variants")
        qualities = {line.variant: line for line in here.journal.of(Quality)}
        alive = [
            Scored(variant, "onnx_runtime", qualities[variant.name]) for variant in here.journal.of(Variant) if variant.name in qualities
        ]
        measure_curves(run, prepared, alive[:2])
    assert [line.variant for line in run.journal.of(ServiceCurve)][:2] == [scored.variant.name for scored in alive[:2]]
    assert len(run.journal.of(Noise)) == 1
    assert heard.steps and all("(0 at work" in step for step in heard.steps), "two nodes, one machine: never two at a time"
    run.journal.release()
    cluster.remove_node(second, allow_graceful=True)


# --- what jobs do to those who run them


def double(shared: int, item: int, file: Path | None) -> int:
    return shared * item if file is None else shared * int(file.read_text())


def die(shared: int, item: int, file: Path | None) -> int:
    raise SystemExit(item)


def refuse(shared: int, item: int, file: Path | None) -> int:
    raise ValueError("a defect")


def same(value: Any) -> Any:
    return value


def test_jobs_bring_their_files_and_what_they_share(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "number").write_text("21")
    with on(cluster, Heard()) as place, place.ahead(double, lambda: 2, alone=False, brief=same, keep=same) as ahead:
        assert ahead.take(Job("a", 4)) == 8
        assert ahead.take(Job("b", 0, tmp_path / "number")) == 42
        with place.holding(alone=True):
            pass


@pytest.mark.slow
def test_a_job_that_ends_its_process_again_and_again_is_given_up_with_a_reason(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "REST_S", 0.0)
    with on(cluster, Heard()) as place, place.ahead(die, lambda: 2, alone=False, brief=same, keep=same) as ahead:
        with pytest.raises(HeadwayError, match="3 processes on the cluster ended"):
            ahead.take(Job("a", 3))
        assert place.notes == (), "no node was lost"


def test_a_defect_in_a_job_comes_up_where_it_was_asked_for(cluster: Cluster) -> None:
    with (
        on(cluster, Heard()) as place,
        place.ahead(refuse, lambda: 2, alone=False, brief=same, keep=same) as ahead,
        pytest.raises(ValueError, match="a defect"),
    ):
        ahead.take(Job("a", 3))


@pytest.mark.slow
def test_where_no_node_can_measure_who_asks_does_it(cluster: Cluster) -> None:
    own = tuning.told()
    other = tuning.Told(own.machine, own.version, msgspec.structs.replace(own.environment, cores=own.environment.cores + 1))
    with contextlib.closing(OnRay(f"ray:{cluster.address}", note=print, step=print, own=other)) as place:
        assert any("makes variants and measures none" in note for note in place.notes)
        with place.ahead(double, lambda: 2, alone=True, brief=same, keep=same) as ahead:
            assert ahead.take(Job("a", 4)) is None
        with place.ahead(double, lambda: 2, alone=False, brief=same, keep=same) as ahead:
            assert ahead.take(Job("a", 4)) == 8


def test_nodes_with_other_versions_are_refused_with_the_difference(cluster: Cluster) -> None:
    own = tuning.told()
    other = tuning.Told(own.machine, "9.9", own.environment)
    assert differences(own, own) == "" and differences(other, own) == f"headway {own.version} instead of 9.9"
    with pytest.raises(ConfigError, match=f"must hold the same versions as this process, got headway {own.version} instead of 9.9"):
        OnRay(f"ray:{cluster.address}", note=print, step=print, own=other)
    assert not ray.is_initialized()


def test_where_nothing_runs_it_says_how_to_start_it() -> None:
    with pytest.raises(ConfigError, match="ray start --head"):
        OnRay("ray:127.0.0.1:1", note=print, step=print)
