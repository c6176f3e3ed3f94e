"""The compression benchmark's journal, checks and page, on made-up figures; nothing is compressed and nothing is timed."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks" / "compression"
DROP = {"value": 0.002, "low": -0.001, "high": 0.005}
ENVIRONMENT = {
    "cpu": "a processor",
    "cores": 2,
    "instruction_sets": ["avx2"],
    "system": "Linux",
    "python": "3.11",
    "versions": {"onnx": "1"},
}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.syspath_prepend(str(FOLDER))
    names = ("journal", "checks", "table", "peers", "recipes", "standing")
    return SimpleNamespace(**{name: importlib.import_module(name) for name in names})


def filled(journal: ModuleType, path: Path):
    held = journal.Journal(path)
    held.environment({**ENVIRONMENT, "noise_ratio": 1.1, "steal_fraction": 0.0})
    name = held.environment(ENVIRONMENT)
    for tool, row, size, faster in (("none", "float32", 1000, 1.0), ("headway", "small", 250, 6.0), ("peer 1", "good", 200, 3.0)):
        key = {"model": "digits", "tool": tool, "row": row}
        held.add({"stage": "made", **key, "settings": {}, "file": "f", "bytes": size, "digest": "d"})
        held.add({"stage": "scored", **key, "runtime": "onnx_runtime", "digest": "d", "drop": DROP, "agreement": 0.99})
        for batch in (1, 32):
            figures = {"latency_s": 1e-3 / faster, "faster": {"value": faster, "low": faster - 0.1, "high": faster + 0.1}}
            line = {"stage": "timed", **key, "runtime": "onnx_runtime", "batch": batch, "digest": "d", **figures}
            held.add({**line, "noise_ratio": 1.1, "environment": name})
    held.add({"stage": "made", "model": "digits", "tool": "peer 1", "row": "bad", "settings": {}, "reason": "<Error>: a | b"})
    held.add(
        {
            "stage": "stands",
            "model": "digits",
            "tool": "peer 1",
            "row": "good",
            "runtime": "onnx_runtime faster",
            "word": "ahead",
            "by": "small",
            "times": 2.0,
        }
    )
    return held


def test_a_journal_reads_back_what_it_wrote_and_the_newest_line_holds(bench: SimpleNamespace, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    first = filled(bench.journal, path)
    key = bench.journal.Key("digits", "headway", "small")
    first.add({**first.find("made", key), "bytes": 100})
    again = bench.journal.Journal(path)
    assert again.facts == first.facts
    assert again.find("made", key)["bytes"] == 100
    assert [made["row"] for _, made in again.rows("digits")] == ["float32", "small", "good", "bad"]


def test_an_environment_is_written_once_and_without_its_noise(bench: SimpleNamespace, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    filled(bench.journal, path)
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    assert [line["environment"] for line in lines if line["stage"] == "environment"] == [ENVIRONMENT]


def test_the_page_holds_every_row_with_figures_or_the_reason(bench: SimpleNamespace, tmp_path: Path) -> None:
    text = bench.table.tables(filled(bench.journal, tmp_path / "results.jsonl"))
    rows = {line.split(" | ")[1]: line for line in text.splitlines() if line.startswith(("| headway", "| peer", "| none"))}
    assert "0.2 [-0.1, 0.5]" in rows["small"] and "4.0x" in rows["small"] and "6.00x [5.90, 6.10]" in rows["small"]
    assert rows["good"].endswith("ONNX Runtime: ahead 2.00x |")
    assert "none: Error: a / b" in rows["bad"]
    assert len({line.count("|") for line in rows.values()}) == 1
    assert "a processor, 2 cores" in text


def test_checks_say_what_holds_and_what_was_not_measured(bench: SimpleNamespace, tmp_path: Path) -> None:
    found = {one.check: one.word for one in bench.checks.checks(filled(bench.journal, tmp_path / "results.jsonl"))}
    assert found["digits CNN, batch 1"] == "holds"
    assert found["MiniLM classifier, batch 1"] == "not measured"
    assert found["against peers: onnx runtime faster"] == "holds"


@pytest.mark.parametrize(("ours", "word"), [(1.1, "ahead"), (0.99, "level"), (0.9, "behind"), (None, "behind")])
def test_a_standing_is_level_within_three_percent(bench: SimpleNamespace, ours: float | None, word: str) -> None:
    peer, mine = bench.journal.Key("digits", "peer 1", "good"), bench.journal.Key("digits", "headway", "small")
    values = {peer: 1.0} if ours is None else {peer: 1.0, mine: ours}
    assert bench.standing.verdict(values, peer)["word"] == word


def test_rows_have_unique_names_and_scripts_that_are_there(bench: SimpleNamespace) -> None:
    for peer in bench.peers.PEERS:
        assert (FOLDER / "scripts" / peer.script).exists()
        names = [(row.name, model) for row in peer.rows for model in row.models]
        assert len(names) == len(set(names))


def test_a_peers_last_error_is_the_reason(bench: SimpleNamespace) -> None:
    assert bench.peers.reason("start\nValueError: no\n  at the end\n", 1) == "ValueError: no"
    assert bench.peers.reason("", 3) == "ended with exit code 3"
