"""Writes the list of node tests that do not pass into docs/lift.md: ``python tests/lift_list.py``."""

from __future__ import annotations

import re
from pathlib import Path

import onnx

from lift_cases import cases, problem

DOCUMENT = Path(__file__).parent.parent / "docs" / "lift.md"
MARK = "<!-- below: written by tests/lift_list.py -->"
RANDOM = re.compile("bernoulli")
REASONS = (
    (re.compile("training_dropout"), "the cases ask for dropout in evaluation, where a lifted module never drops"),
    (RANDOM, "random numbers: torch's generator is not numpy's"),
    (re.compile("FLOAT4E2M1|float4e2m1|FLOAT8E8M0|e8m0"), "torch has no such element type on the CPU"),
    (re.compile("bf16|fp16"), "within one rounding step of the 16-bit type; the cases ask for more"),
    (re.compile("image_decoder|string|regex"), "pictures and strings are not numbers; decode them before the model"),
    (re.compile("qlinear"), "integer kernels have no gradient; write the graph with QuantizeLinear and DequantizeLinear"),
    (re.compile("quantizelinear_e[45]m"), "rounding to 8-bit floats is not lifted"),
    (re.compile("no_saturate"), "torch casts values beyond the range otherwise"),
    (re.compile("dft_inverse|deform_conv_with_padding"), "float32 rounding of about 1e-6 where the sum is near 0; the case asks for 1e-7"),
    (re.compile("col2im_5d"), "torch folds pictures of two axes only"),
    (re.compile("empty_set_bool"), "the maximum of no booleans"),
)


def reason(name: str, said: str) -> str:
    """The reason in one sentence."""
    return next((why for pattern, why in REASONS if pattern.search(name)), said)


def main() -> None:
    """Run all cases, write the list."""
    everything = list(cases())
    failed = {case.name: said for case in everything if (said := problem(case))}
    floats = [case.name for case in everything if case.floats]
    passed = sum(name not in failed for name in floats)
    lines = [
        MARK,
        "",
        f"With onnx {onnx.__version__}: {passed} of {len(floats)} cases with a float input or output pass ({passed / len(floats):.1%}), "
        f"{len(everything) - len(failed)} of all {len(everything)}.",
        "",
        "| case | operators | reason |",
        "| --- | --- | --- |",
    ]
    for case in sorted(everything, key=lambda case: case.name):
        if case.name in failed:
            operators = case.operators if len(case.operators) < 40 else f"{case.operators[:36]} ..."
            lines.append(f"| `{case.name}` | {operators} | {reason(case.name, failed[case.name])} |")
    head = DOCUMENT.read_text("utf-8").split(MARK)[0]
    DOCUMENT.write_text(head + "\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
