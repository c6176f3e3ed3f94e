"""Draw the README's table and picture from ``benchmarks/results``; nothing in them is typed by hand.

python benchmarks/tables.py
"""

from __future__ import annotations

import json
from pathlib import Path

from headway.report.picture import frontier_png

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- table: benchmarks/tables.py -->", "<!-- /table -->"


def newest() -> dict[str, dict]:
    """The newest line of each demo."""
    lines = [json.loads(line) for line in (RESULTS / "demos.jsonl").read_text().splitlines()]
    return {line["demo"]: line for line in lines}


def interval(found: dict | None, form: str) -> str:
    """``3.1 [2.9, 3.4]``, or a dash."""
    if found is None:
        return "-"
    return f"{form.format(found['value'])} [{form.format(found['low'])}, {form.format(found['high'])}]"


def latency_ms(points: list[dict], percentile: float) -> str:
    """Median over rounds of the percentile, with the smallest and the largest [ms]."""
    values = sorted(
        min(p["percentiles"], key=lambda found: abs(found["q"] - percentile))["latency_s"] * 1e3 for p in points if p["percentiles"]
    )
    if not values:
        return "-"
    return f"{values[len(values) // 2]:.3g} [{values[0]:.3g}, {values[-1]:.3g}]"


def row(name: str, line: dict) -> str:
    """One demo's row."""
    choice, objective, compared = line["choice"], line["objective"], line["comparison"]
    quality = choice.get("quality")
    rates, ratios = compared["capacity_per_s"], compared["capacity_ratio"]
    goal = f"p{objective['percentile'] * 100:g} <= {objective['latency_s'] * 1e3:g} ms at {objective['rate_per_s']:g}/s"
    drop = "-" if quality is None else f"{interval({key: 100 * quality['drop'][key] for key in ('value', 'low', 'high')}, '{:.1f}')}"
    cells = [
        name, goal, "yes" if choice["met"] else "no", interval(rates.get("naive"), "{:.0f}"), interval(rates.get("uncompressed"), "{:.0f}"),
        interval(rates.get("chosen"), "{:.0f}"), interval(ratios.get("naive"), "{:.1f}"), interval(ratios.get("uncompressed"), "{:.1f}"),
        latency_ms(compared["points"].get("naive", []), objective["percentile"]), latency_ms(compared["points"].get("chosen", []), objective["percentile"]),
        drop, str(quality["n"]) if quality else "-", f"{line['wall_s'] / 60:.1f}",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def table() -> str:
    """The whole table, with the machine it holds for."""
    lines = newest()
    here = next(iter(lines.values()))["environment"]
    head = (
        "| demo | objective | met | naive holds [1/s] | best uncompressed | chosen | chosen / naive | chosen / uncompressed "
        "| naive p99 at the rate [ms] | chosen p99 [ms] | quality lost [points] | rows | wall time [min] |"
    )
    rule = "|" + " --- |" * 13
    note = f"\n\nMeasured on {here['cpu']}, {here['cores']} cores ({', '.join(here['instruction_sets'])}), client and server on the same machine, over HTTP; "
    note += "rates are the highest that keep the percentile, medians of interleaved rounds with the smallest and largest; ratios with 95% intervals."
    return "\n".join([head, rule, *(row(name, line) for name, line in lines.items())]) + note


def main() -> None:
    """Rewrite the README's table, and the picture."""
    readme = ROOT / "README.md"
    text = readme.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    readme.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}")
    (ROOT / "docs" / "images").mkdir(parents=True, exist_ok=True)
    frontier_png(RESULTS / "demo-vision.jsonl", ROOT / "docs" / "images" / "frontier.png")


if __name__ == "__main__":
    main()
