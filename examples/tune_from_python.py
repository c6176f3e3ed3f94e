"""Tune from Python: a small model and its samples, an objective, a budget, and the choice that comes back.

Run it with ``python examples/tune_from_python.py [FOLDER]``; it works in a new temporary folder unless you name one.
A budget this small measures little: it shows the calls, not the last per cent. It needs the extra ``tune``.
"""

import sys
import tempfile
from pathlib import Path

from make_model import make

from headway.api.config import TuneConfig
from headway.api.tune import tune


def main(folder: Path) -> None:
    """Make the model, tune it for twenty seconds, and print what was chosen and why."""
    make(folder)
    config = TuneConfig(
        models=(str(folder / "model.onnx"),),
        data=str(folder / "val.npz"),
        slo="p99<=50ms, rate>=50/s, drop<=2%",
        out=str(folder / "run"),
        budget="20s",
        runtimes=("onnx_runtime",),
        techniques=("fold", "quantize_dynamic"),
        compare=False,  # leave out the naive and the uncompressed deployment: this run only wants a choice
    )
    summary = tune(config)
    choice = summary.choice
    print("objective:", summary.objective)
    print("met:", choice.met)
    print("choice:", choice.candidate)
    for reason in choice.reasons:
        print("because:", reason)
    for rejection in summary.rejected:
        print("rejected:", rejection.variant, "-", rejection.reason)
    print("left out for lack of time:", ", ".join(summary.left_out) or "nothing")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
