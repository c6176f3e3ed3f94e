"""Histograms lose nothing, thresholds do what their papers say, and memory does not grow with the number of samples."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from headway.compress.calibration import (
    METHODS,
    StreamingHistogram,
    channel_means,
    channel_peaks,
    collect,
    entropy,
    mean_squared_error,
    min_max,
    percentile,
    products,
)
from headway.records import DataError, Unsupported
from headway.testing.small_graphs import cnn, mlp, samples

FLOATS = st.floats(-1e6, 1e6, width=32)


def histogram_of(*batches: np.ndarray, bins: int = 4096) -> StreamingHistogram:
    histogram = StreamingHistogram(bins)
    for batch in batches:
        histogram.update(batch)
    return histogram


@settings(max_examples=60, deadline=None)
@given(st.lists(arrays(np.float32, st.integers(1, 30), elements=FLOATS), min_size=1, max_size=6))
def test_every_value_is_counted_in_its_bin_whatever_the_batches(batches: list[np.ndarray]) -> None:
    streamed, values = histogram_of(*batches, bins=64), np.concatenate(batches).astype(np.float64)
    assert streamed.counted == len(values) == streamed.counts.sum()
    assert (streamed.minimum, streamed.maximum) == (values.min(), values.max())
    assert len(streamed.counts) <= 64
    expected = [((values >= left) & (values < right)).sum() for left, right in zip(streamed.edges, streamed.edges[1:], strict=False)]
    assert streamed.counts.tolist() == expected


@settings(max_examples=40, deadline=None)
@given(arrays(np.float32, st.integers(1, 200), elements=FLOATS), st.sampled_from(sorted(METHODS)))
def test_every_range_holds_zero_and_stays_inside_the_values(values: np.ndarray, method: str) -> None:
    low, high = METHODS[method](histogram_of(values))
    assert min(float(values.min()), 0.0) <= low <= 0.0 <= high <= max(float(values.max()), 0.0)


def test_doubling_keeps_zero_an_edge_and_the_resolution_fine() -> None:
    rng = np.random.default_rng(0)
    histogram = histogram_of(rng.normal(0, 1, 5000), rng.normal(0, 37, 5000), np.array([900.0]))
    assert 0.0 in histogram.edges
    assert np.log2(histogram.width).is_integer() and 1024 <= len(histogram.counts) <= 4096


def test_a_large_array_is_thinned_but_its_extremes_are_exact() -> None:
    values = np.zeros(100_000)
    values[77_777], values[3] = 5.0, -7.0
    histogram = StreamingHistogram()
    histogram.update(values, most=1000)
    assert (histogram.minimum, histogram.maximum) == (-7.0, 5.0) and histogram.counted <= 1000


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        StreamingHistogram().update(np.array([1.0, np.nan]))


def test_min_max_is_numpys() -> None:
    values = np.random.default_rng(1).normal(0, 1, 1000)
    assert min_max(histogram_of(values)) == (values.min(), values.max())


def test_percentile_agrees_with_numpy_on_both_tails() -> None:
    values = np.random.default_rng(2).normal(0, 1, 200_000)
    low, high = percentile(histogram_of(values), 99.0)
    assert np.allclose((low, high), np.percentile(values, [0.5, 99.5]), atol=0.02)


def test_one_sided_values_are_cut_on_their_side_only() -> None:
    values = np.abs(np.random.default_rng(3).normal(0, 1, 100_000))
    low, high = percentile(histogram_of(values), 99.0)
    assert low == 0.0 and np.isclose(high, np.percentile(values, 99), atol=0.02)


def quantization_error(values: np.ndarray, low: float, high: float) -> float:
    scale = (high - low) / 255
    zero = np.round(-low / scale)
    return float(np.square((np.clip(np.round(values / scale) + zero, 0, 255) - zero) * scale - values).mean())


@pytest.mark.parametrize("draw", ["normal", "laplace", "standard_t"])
def test_mse_is_no_worse_than_min_max_on_the_values_themselves(draw: str) -> None:
    rng = np.random.default_rng(4)
    values = rng.standard_t(3, 50_000) if draw == "standard_t" else getattr(rng, draw)(0, 1, 50_000)
    histogram = histogram_of(values)
    assert quantization_error(values, *mean_squared_error(histogram)) <= 1.01 * quantization_error(values, *min_max(histogram))


def test_entropy_cuts_an_outlier_that_min_max_keeps() -> None:
    """ONNX Runtime's entropy calibrator returns min-max here: its fine and its coarse bins are equally many."""
    values = np.append(np.random.default_rng(5).laplace(0, 1, 200_000), 60.0)
    low, high = entropy(histogram_of(values))
    assert high < 30 and low > -30


def test_entropy_of_few_values_clips_nothing() -> None:
    values = np.random.default_rng(6).normal(0, 1, 100)
    assert entropy(histogram_of(values)) == min_max(histogram_of(values))


def test_collect_sees_inputs_and_inner_values_of_every_sample() -> None:
    proto = cnn()
    feeds = samples(proto, 37)
    got = collect(proto, ["x", "v0"], feeds, rows=37)
    assert got["x"].counted == feeds["x"].size and got["x"].maximum == float(feeds["x"].max())
    assert got["v0"].counted == 37 * 8 * 8 * 8


def test_a_fixed_batch_is_honoured() -> None:
    proto = cnn()
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    assert collect(proto, ["x"], samples(proto, 10), rows=10)["x"].counted == 8 * 3 * 8 * 8
    with pytest.raises(DataError, match="fixed batch of 4"):
        collect(proto, ["x"], samples(proto, 3), rows=3)


def test_samples_that_give_no_finite_activation_are_named() -> None:
    feeds = samples(cnn(), 4)
    feeds["x"][2] = np.inf
    with pytest.raises(Unsupported, match="NaN or infinite"):
        collect(cnn(), ["v0"], feeds, rows=4)


def test_a_missing_input_is_named() -> None:
    with pytest.raises(DataError, match="add x"):
        collect(cnn(), ["v0"], {"z": np.zeros((4, 3, 8, 8), np.float32)}, rows=4)


def test_products_means_and_peaks_are_those_of_all_samples_at_once() -> None:
    proto, feeds = mlp(), samples(mlp(), 41)
    x = feeds["x"].astype(np.float64)
    assert np.allclose(products(proto, ["x"], feeds, 41)["x"], x.T @ x, rtol=1e-4, atol=1e-3)
    assert np.allclose(channel_means(proto, {"x": 1}, feeds, 41)["x"], x.mean(axis=0), atol=1e-6)
    assert np.array_equal(channel_peaks(proto, ["x"], feeds, 41)["x"], np.abs(feeds["x"]).max(axis=0))


_PEAK = """
import resource, sys
import numpy as np
from onnx import TensorProto, helper, numpy_helper
from headway.compress.calibration import channel_means, collect, products
weight = numpy_helper.from_array(np.random.default_rng(0).normal(0, 1, (64, 1, 3, 3)).astype(np.float32), "w")
nodes = [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4), helper.make_node("Relu", ["c"], ["y"])]
values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", d, 32, 32]) for n, d in (("x", 1), ("y", 64))]
model = helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:], [weight]), ir_version=8,
                          opset_imports=[helper.make_opsetid("", 17)])
rows = int(sys.argv[1])
samples = {"x": np.random.default_rng(0).normal(0, 1, (rows, 1, 32, 32)).astype(np.float32)}
collect(model, ["x", "c", "y"], samples, rows)
products(model, ["y"], samples, rows)
channel_means(model, {"c": 1}, samples, rows)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_peak_memory_at_2048_samples_is_that_at_256() -> None:
    peaks = {
        rows: int(subprocess.run([sys.executable, "-c", _PEAK, str(rows)], check=True, capture_output=True, text=True).stdout)
        for rows in (256, 2048)
    }
    assert peaks[2048] <= 1.2 * peaks[256]  # every activation of 2,048 samples would be 1 GB
