"""The tables of docs/compression.md out of the results; nothing in them is typed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cases import BATCHES, TITLES
from checks import checks
from journal import Journal, Key, Line

PAGE = Path(__file__).parent.parent.parent / "docs" / "compression.md"
BEGIN, END = "<!-- table: benchmarks/compression -->", "<!-- /table -->"
ORT, OPENVINO = "onnx_runtime", "openvino"
HEADWAY = "headway"


def write(journal: Journal) -> None:
    """Rewrite what stands between the page's markers."""
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n{tables(journal)}\n{END}{after}")


def tables(journal: Journal) -> str:
    """The checks, one table a model, and the machine."""
    parts = [check_table(journal)]
    parts += [f"### {title}\n\n{model_table(journal, model)}" for model, title in TITLES.items() if any(journal.rows(model))]
    return "\n\n".join([*parts, machine(journal)])


def check_table(journal: Journal) -> str:
    """What was promised and what was found."""
    rows = [f"| {one.check} | {one.wanted} | {one.word} | {one.best} |" for one in checks(journal)]
    return "\n".join(["| check | must hold | found | best row |", "|" + " --- |" * 4, *rows])


def model_table(journal: Journal, model: str) -> str:
    """One line a row of the comparison."""
    batches = BATCHES[model]
    head = ["tool", "setting", "drop, ONNX Runtime [points]", "drop, OpenVINO", "same answer", "size"]
    head += [f"ONNX Runtime{label(batches, batch)}" for batch in batches] + [f"OpenVINO{label(batches, batch)}" for batch in batches]
    head += ["Headway at no worse quality"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    order = sorted(journal.rows(model), key=lambda pair: (pair[0].tool != "none", pair[0].tool != HEADWAY, pair[0].tool))
    return "\n".join([*lines, *(row(journal, key, made, batches) for key, made in order)])


def label(batches: tuple[int, ...], batch: int) -> str:
    """The batch size, where several were timed."""
    return f", batch {batch}" if len(batches) > 1 else ""


def row(journal: Journal, key: Key, made: Line, batches: tuple[int, ...]) -> str:
    """The figures of a row, or why there are none."""
    if "reason" in made:
        cells = [key.tool, key.row, f"none: {plain(made['reason'])}", *[""] * (4 + 2 * len(batches))]
        return "| " + " | ".join(cells) + " |"
    scored = {runtime: journal.find("scored", key, runtime) or {} for runtime in (ORT, OPENVINO)}
    parent = journal.find("made", Key(key.model, "none", "float32")) or made
    same = scored[ORT].get("agreement", scored[OPENVINO].get("agreement"))
    cells = [
        key.tool, key.row, drop(scored[ORT]), drop(scored[OPENVINO]), "-" if same is None else f"{same:.1%}", size(made["bytes"], parent["bytes"]),
        *[latency(journal.find("timed", key, runtime, batch)) for runtime in (ORT, OPENVINO) for batch in batches],
        standing(journal, key),
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def drop(scored: dict[str, Any]) -> str:
    """``0.3 [-0.1, 0.8]`` in points, or a dash."""
    if "drop" not in scored:
        return "-"
    found = {name: 100 * value for name, value in scored["drop"].items()}
    return f"{found['value']:.1f} [{found['low']:.1f}, {found['high']:.1f}]"


def size(held: int, parent: int) -> str:
    """Bytes with a unit, and how many times smaller."""
    return f"{held / 1e6:.3g} MB ({parent / held:.1f}x)"


def latency(timed: Line | None) -> str:
    """Milliseconds, and how many times faster than the float32 model in ONNX Runtime."""
    if timed is None:
        return "-"
    faster = timed["faster"]
    return f"{1e3 * timed['latency_s']:.3g} ms, {faster['value']:.2f}x [{faster['low']:.2f}, {faster['high']:.2f}]"


def standing(journal: Journal, key: Key) -> str:
    """Ahead, level or behind by speed in either runtime, and by size."""
    words = []
    for runtime, name in ((f"{ORT} faster", "ONNX Runtime"), (f"{OPENVINO} faster", "OpenVINO"), (f"{ORT} smaller", "size")):
        found = journal.find("stands", key, runtime)
        if found is not None:
            words.append(f"{name}: {found['word']}" + ("" if found["times"] is None else f" {found['times']:.2f}x"))
    return "; ".join(words)


def machine(journal: Journal) -> str:
    """The environment of the newest timed line."""
    timed = [line for line in journal.facts.values() if line["stage"] == "timed"]
    if not timed:
        return "Nothing was timed yet."
    here = journal.facts[("environment", timed[-1]["environment"], "", "", "", "0")]["environment"]
    noise = sorted(line["noise_ratio"] for line in timed)
    versions = ", ".join(f"{name} {version}" for name, version in sorted(here["versions"].items()))
    return (
        f"Measured on {here['cpu']}, {here['cores']} cores ({', '.join(here['instruction_sets'])}), {here['system']}, Python {here['python']}, "
        f"{versions}. One thread. The machine's own noise while timing (95th percentile over median of a fixed computation): "
        f"median {noise[len(noise) // 2]:.2f}, worst {noise[-1]:.2f}."
    )


def plain(text: str) -> str:
    """A reason without what a table cannot hold."""
    return " ".join(text.replace("|", "/").replace("<", "").replace(">", "").split())
