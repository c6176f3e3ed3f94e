"""Run every demo one after another and keep what it measured, as JSON lines with the environment.

    python benchmarks/demos.py [NAME...]              runs them (all by default)
    python benchmarks/demos.py vision=runs/demo-vision  keeps a run that is there already

Appends to ``benchmarks/results/demos.jsonl`` one line a demo (choice, comparison, environment, wall time by stage), and keeps the records of
the vision run that its picture is drawn from. Needs a quiet machine: nothing else should run beside it. ``python benchmarks/tables.py`` then
draws the README's table and picture from these files.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from headway.records import Choice, Comparison, RunStarted, StageTime, read_journal, to_plain

RESULTS = Path(__file__).parent / "results"
NAMES = ("vision", "digits", "text", "speech", "recommend")
PICTURED = "vision"
DRAWN = ("RunStarted", "Variant", "Quality", "Capacity", "LoadRun", "Prediction", "Frontier", "Comparison", "Choice")


def run(name: str, folder: Path) -> None:
    """Run one demo into a folder; an objective that is not met (exit code 3) is a result too."""
    code = subprocess.run([sys.executable, "-m", "headway", "demo", name, "--out", str(folder)], check=False).returncode
    if code not in (0, 3):
        raise SystemExit(f"demo {name} ended with exit code {code}")


def keep(name: str, folder: Path) -> None:
    """Append one line with what a finished run measured."""
    records = read_journal(folder)
    last = {kind: next(line for line in reversed(records) if isinstance(line, kind)) for kind in (RunStarted, Choice, Comparison)}
    started = last[RunStarted]
    stages: dict[str, float] = {}
    for line in records:
        if isinstance(line, StageTime):
            stages[line.stage] = round(stages.get(line.stage, 0.0) + line.duration_s, 1)
    line = {
        "demo": name, "measured": time.strftime("%Y-%m-%d", time.gmtime((folder / "records.jsonl").stat().st_mtime)),
        "version": started.version, "wall_s": round(sum(stages.values()), 1), "stages_s": stages, "objective": to_plain(started.objective),
        "choice": to_plain(last[Choice]), "comparison": to_plain(last[Comparison]), "environment": to_plain(started.environment),
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "demos.jsonl").open("a") as file:
        file.write(anonymous(json.dumps(line)) + "\n")
    if name == PICTURED:
        keep_records(folder / "records.jsonl", RESULTS / f"demo-{name}.jsonl")


def anonymous(line: str) -> str:
    """Without the home folder of whoever measured."""
    return line.replace(str(Path.home()), "~")


def keep_records(source: Path, target: Path) -> None:
    """Copy the lines that the picture needs; raw service times are left out."""
    with source.open() as lines, target.open("w") as kept:
        for line in lines:
            if json.loads(line).get("record", "") in (*DRAWN, ""):
                kept.write(anonymous(line))


def main() -> None:
    """Run or keep the named demos, or run all."""
    with tempfile.TemporaryDirectory(prefix="headway-bench-") as scratch:
        for argument in sys.argv[1:] or NAMES:
            name, _, given = argument.partition("=")
            folder = Path(given) if given else Path(scratch) / name
            if not given:
                run(name, folder)
            keep(name, folder)


if __name__ == "__main__":
    main()
