"""The terminal: what is said, in eighty columns, with nothing but the base install."""

from __future__ import annotations

import io
import subprocess
import sys

import msgspec
from rich.console import Console

from headway.records import Rejection, Summary
from headway.report.terminal import print_doctor, print_inspect, print_summary
from test_report_example import choice, inspected, summary

BLOCKED = """
import sys
for name in ("altair", "jinja2", "vl_convert", "onnx", "torch", "scipy", "pyarrow"):
    sys.modules[name] = None
import headway.report.terminal
"""


def printed(show, *arguments: object, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    show(console, *arguments)
    return console.file.getvalue()


def flat(text: str) -> str:
    return " ".join(text.replace("\N{NO-BREAK SPACE}", " ").replace("\N{MULTIPLICATION SIGN}", "x").split())


def test_summary_says_choice_gains_quality_losers_and_next() -> None:
    text = flat(printed(print_summary, summary()))
    assert "Predicted capacity is off by 10% in the middle of 3 candidates, at worst by -21%." in text
    assert text.startswith(
        "Objective met: p99 ≤ 20 ms, rate ≥ 200/s, drop ≤ 1%, group_drop ≤ 3% Chosen: lite0/fold+static-u8s8 on openvino"
    )
    assert "6.67x [6.20, 7.10] the rate of the naive deployment" in text
    assert "8.4x [7.7, 9.0] lower than the naive deployment's" in text
    assert "0.4 points worse than the original (drop 0.4" in text
    assert ("62.4 [59.3, 64.7]" in text and "48.4 [46, 64.4]" in text) or "48.4 [46.0, 64.4]" in text
    assert "drop 3.1 points is above the bound of 1 point with 95% confidence" in text
    assert "! 12 predicted plans were not loaded: the budget ended" in text
    assert "headway serve runs/demo-vision" in text


def test_everything_fits_in_eighty_columns() -> None:
    for text in (printed(print_summary, summary()), printed(print_inspect, inspected(), ("x " * 200,))):
        assert max(len(line) for line in text.splitlines()) <= 80


def test_not_met_names_the_bound_and_does_not_offer_to_serve() -> None:
    lost = msgspec.structs.replace(choice(), met=False, failing_bound="p99<=20ms", shortfall="p99 is 31 ms, 55% above")
    text = flat(printed(print_summary, msgspec.structs.replace(summary(), choice=lost, comparison=None)))
    assert "Objective not met" in text
    assert "The bound p99<=20ms fails: p99 is 31 ms, 55% above. Nearest: lite0/fold+static-u8s8" in text
    assert "Measured over HTTP: p99 12.1 ms, holds 541/s." in text
    assert "headway serve" not in text


def test_names_are_not_markup_and_many_rejections_are_counted() -> None:
    many = tuple(Rejection(stage="screen", variant=f"[red]v{i}[/red]", plan=None, reason="[bold]why[/]") for i in range(9))
    shown: Summary = msgspec.structs.replace(summary(), rejected=many)
    text = printed(print_summary, shown)
    assert "[red]v0[/red]" in text and "[bold]why[/]" in text
    assert "and 3 more" in text


def test_inspect_prints_cost_ceilings_and_sentences() -> None:
    text = flat(printed(print_inspect, inspected(), ("Bound by memory at batch 1.",)))
    for words in (
        "797 MFLOP",
        "18.6 MB",
        "4,652,008",
        "NonMaxSuppression",
        "190 GFLOP/s",
        "- Bound by memory at batch 1.",
        "Weight-only quantization",
    ):
        assert words in text


def test_doctor_prints_any_facts() -> None:
    facts = {"cores": 2, "noisy": True, "sets": ("AVX2", "VNNI"), "none": [], "ratio": 1.0712, "runtimes": {"[x]": "missing: needs x"}}
    lines = [flat(line) for line in printed(print_doctor, facts).splitlines()]
    assert lines == ["cores 2", "noisy yes", "sets AVX2, VNNI", "none none", "ratio 1.07", "runtimes", "[x] missing: needs x"]


def test_the_terminal_needs_only_the_base_install() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
