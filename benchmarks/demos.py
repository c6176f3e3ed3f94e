"""Run every demo one after another and keep what it measured, as JSON lines with the environment.

    python benchmarks/demos.py [NAME...]

Appends to ``benchmarks/results/demos.jsonl`` one line a demo (its Summary and wall time), and keeps the records of the vision run
that its picture is drawn from. Needs a quiet machine: nothing else should run beside it. ``python benchmarks/tables.py`` then
draws the README's table and picture from these files.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results"
NAMES = ("vision", "digits", "text", "speech", "recommend")
PICTURED = "vision"
DRAWN = ("RunStarted", "Variant", "Quality", "Capacity", "LoadRun", "Prediction", "Frontier", "Comparison", "Choice")


def run(name: str, folder: Path) -> None:
    """Run one demo and keep its summary, also when the objective was not met (exit code 3)."""
    began = time.time()
    done = subprocess.run(
        [sys.executable, "-m", "headway", "demo", name, "--out", str(folder / name), "--json"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 3):
        raise SystemExit(f"demo {name} ended with exit code {done.returncode}")
    summary = json.loads(done.stdout)
    summary["run"] = f"runs/demo-{name}"
    line = {"demo": name, "measured": time.strftime("%Y-%m-%d"), "wall_s": round(time.time() - began, 1), "summary": summary}
    with (RESULTS / "demos.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    if name == PICTURED:
        keep_records(folder / name / "records.jsonl", RESULTS / f"demo-{name}.jsonl")


def keep_records(source: Path, target: Path) -> None:
    """Copy the lines that the picture needs; raw service times are left out."""
    with source.open() as lines, target.open("w") as kept:
        for line in lines:
            if json.loads(line).get("record", "") in (*DRAWN, ""):
                kept.write(line)


def main() -> None:
    """Run the named demos, or all."""
    RESULTS.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="headway-bench-"))
    try:
        for name in sys.argv[1:] or NAMES:
            run(name, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
