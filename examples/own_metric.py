"""A metric of your own: a missed disease costs ten times as much as a false alarm.

Headway calls ``cost`` with the outputs by name and the labels, and wants one number. Here lower is better, and a loss is measured as a
share of the original model's cost, so ``drop<=5%`` means "at most 5% more cost". Use it from the folder that holds this file::

    headway tune model.onnx --data val.npz --slo "p99<=20ms, drop<=5%" --metric python:own_metric:cost

Run it with ``python examples/own_metric.py`` to see it judge two sets of outputs.
"""

from collections.abc import Mapping

import numpy as np

from headway.data import Dataset
from headway.quality import compare, metric
from headway.records import parse_objective

MISSED, FALSE_ALARM = 10.0, 1.0


def cost(outputs: Mapping[str, np.ndarray], labels: np.ndarray) -> float:
    """Mean cost of a row; ``labels`` are 1 for ill and 0 for well, the first output holds one score a row."""
    ill = next(iter(outputs.values())).reshape(len(labels)) > 0.5
    return float(np.mean(np.where(labels == 1, MISSED * ~ill, FALSE_ALARM * ill)))


cost.higher_is_better = False
cost.relative = True


def main() -> None:
    """Judge scores that were rounded coarsely against the scores they came from, on the same rows."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    scores = np.clip(0.5 * labels + rng.normal(0.25, 0.2, 400), 0, 1).astype(np.float32)
    rounded = np.round(scores * 32) / 32
    rows = Dataset({"x": np.zeros((400, 1), np.float32)}, labels)
    quality = compare(
        variant="rounded", runtime="none", part="selection", metric=metric("python:own_metric:cost"), outputs={"risk": rounded},
        parent_outputs={"risk": scores}, dataset=rows, objective=parse_objective("drop<=5%"),
    )  # fmt: skip
    print(f"cost: {quality.value.value:.3f}, before: {quality.parent_value:.3f}")
    print(f"relative loss: {quality.drop.value:.1%} (95% interval {quality.drop.low:.1%} to {quality.drop.high:.1%})")
    print(f"verdict: {quality.verdict}: {quality.reason}")


if __name__ == "__main__":
    main()
