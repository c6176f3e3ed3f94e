"""The oracle of channel pruning: a graph without units answers as the whole graph in which nobody listens to them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

import pruning_graphs
from headway.compress.coupling import Coupling, couple, cut, masked
from headway.compress.session import answers
from headway.records import Unsupported
from headway.testing import small_graphs

GRAPHS = {**small_graphs.GRAPHS, **pruning_graphs.GRAPHS}
LARGEST = 1e-5


def distance(coupling: Coupling, units: set[int], samples: dict[str, np.ndarray]) -> float:
    """Largest difference of the answers of the cut and the masked graph."""
    rows = len(next(iter(samples.values())))
    one, two = (answers(made(coupling, units), samples, rows)[0] for made in (cut, masked))
    return max(float(np.abs(a - b).max()) for a, b in zip(one, two, strict=True))


def rows_of(name: str, proto: ModelProto, rows: int) -> dict[str, np.ndarray]:
    """Samples for a graph of either module."""
    return (small_graphs if name in small_graphs.GRAPHS else pruning_graphs).samples(proto, rows)


def alive(coupling: Coupling, units: set[int]) -> set[int]:
    """The same units without the first of each row that would be empty."""
    for row in coupling.rows:
        if units and np.isin(row, list(units)).all():
            units = units - {int(row[0])}
    return units


@pytest.mark.parametrize("name", sorted(GRAPHS))
def test_every_family_cut_answers_as_masked(name: str) -> None:
    proto = GRAPHS[name]()
    coupling = couple(proto, rows_of(name, proto, 4))
    whole = answers(proto, rows_of(name, proto, 5), 5)[0]
    everything: set[int] = set()
    for family in coupling.families:
        units = alive(coupling, set(family.units[::2]))
        everything |= units
        if units:
            assert distance(coupling, units, rows_of(name, proto, 5)) <= LARGEST, family
            smaller = cut(coupling, units)
            assert smaller.ByteSize() < coupling.proto.ByteSize()
            assert not np.allclose(answers(smaller, rows_of(name, proto, 5), 5)[0][0], whole[0], atol=1e-4), f"{family} changed nothing"
    everything = alive(coupling, everything)
    assert distance(coupling, everything, rows_of(name, proto, 5)) <= LARGEST
    np.testing.assert_allclose(answers(cut(coupling, set()), rows_of(name, proto, 5), 5)[0][0], whole[0], atol=1e-6)


@pytest.mark.parametrize("name", sorted(set(GRAPHS) - {"shared_weights"}))
def test_single_units_too_and_at_other_batches(name: str) -> None:
    proto = GRAPHS[name]()
    coupling = couple(proto, rows_of(name, proto, 4))
    assert coupling.families
    for family in coupling.families:
        for unit in {family.units[0], family.units[-1]}:
            if alive(coupling, {unit}):
                assert distance(coupling, {unit}, rows_of(name, proto, 1)) <= LARGEST


def families(name: str) -> dict[str, tuple[int, int]]:
    """First layer of each family to the number of its units and their width."""
    proto = GRAPHS[name]()
    return {found.layers[0]: (len(found.units), found.width) for found in couple(proto, rows_of(name, proto, 4)).families}


def test_heads_go_whole_and_hidden_units_alone() -> None:
    assert families("transformer") == {"MatMul1": (2, 8), "MatMul23": (32, 1)}
    assert sorted(families("attention").values()) == [(4, 3), (16, 1)]


def test_groups_go_whole_and_depthwise_channels_with_their_input() -> None:
    assert families("grouped") == {"Conv0": (4, 3), "Conv4": (8, 1)}


def test_recurrent_layers_lose_hidden_units_in_both_directions() -> None:
    assert sorted(families("lstm").values()) == [(5, 1), (6, 1)]
    assert families("gru") == {"GRU1": (6, 1)}


def test_tables_lose_columns() -> None:
    assert sorted(families("embedding").values()) == [(4, 1), (6, 1), (8, 1)]


def test_what_cannot_be_followed_stays_and_says_why() -> None:
    proto = GRAPHS["control_flow"]()
    coupling = couple(proto, rows_of("control_flow", proto, 4))
    assert [family.layers for family in coupling.families] == [("MatMul0",)]
    assert any("If" in why or "ReduceSum" in why for why in coupling.pinned.values())
    proto = GRAPHS["in_a_loop"]()
    coupling = couple(proto, rows_of("in_a_loop", proto, 4))
    assert "Loop" in coupling.pinned["MatMul0"]
    assert len(coupling.families) == 1


def test_nothing_left_of_a_value_is_an_error() -> None:
    proto = GRAPHS["mlp"]()
    coupling = couple(proto, rows_of("mlp", proto, 4))
    with pytest.raises(Unsupported, match="keep a channel"):
        cut(coupling, set(coupling.families[0].units))


def test_without_samples_zeros_tell_the_shapes() -> None:
    proto = GRAPHS["residual"]()
    with_samples, without = couple(proto, rows_of("residual", proto, 4)), couple(proto, {})
    assert [family.units for family in with_samples.families] == [family.units for family in without.families]


@st.composite
def networks(draw: st.DrawFn) -> ModelProto:
    """A random convolutional network: values of 6x6 with several widths, joined at random."""
    b = pruning_graphs.Build(draw(st.integers(0, 1000)))
    pool = {"x": 3}
    for _ in range(draw(st.integers(2, 9))):
        value = draw(st.sampled_from(sorted(pool)))
        width = pool[value]
        step = draw(st.sampled_from(["conv", "depthwise", "add", "concat", "act", "norm", "gate", "split", "slice", "shuffle"]))
        alike = [name for name, size in pool.items() if size == width]
        other = draw(st.sampled_from(sorted(alike)))
        if step == "conv":
            out = draw(st.sampled_from([2, 4, 6]))
            pool[b.conv(value, width, out, draw(st.sampled_from([1, 3])))] = out
        elif step == "depthwise":
            pool[b.conv(value, width, width * 2, group=width) if width < 7 else b.add("Neg", value)] = width * 2 if width < 7 else width
        elif step in ("add", "gate"):
            gate = b.add("GlobalAveragePool", other) if step == "gate" else other
            pool[b.add("Mul" if step == "gate" else "Add", value, gate)] = width
        elif step == "concat":
            joined = draw(st.sampled_from(sorted(pool)))
            pool[b.add("Concat", value, joined, axis=1)] = width + pool[joined]
        elif step == "act":
            pool[
                b.add(draw(st.sampled_from(["Relu", "Sigmoid", "Exp"])), b.add("Clip", value, b.c(-2, np.float32), b.c(2, np.float32)))
            ] = width
        elif step == "norm":
            pool[b.add("BatchNormalization", value, b.w(width), b.w(width), b.w(width), b.c(np.ones(width, np.float32)))] = width
        elif step == "split":
            parts = (f"l{len(b.nodes)}", f"r{len(b.nodes)}")
            if width > 1:
                b.add("Split", value, b.c([1, width - 1]), outputs=parts, axis=1)
                pool.update({parts[0]: 1, parts[1]: width - 1})
        elif step == "slice":
            begin = draw(st.integers(0, width - 1))
            pool[b.add("Slice", value, b.c([begin]), b.c([width]), b.c([1]))] = width - begin
        elif width % 2 == 0:
            apart = b.add("Reshape", value, b.c([0, 2, width // 2, 6, 6]))
            pool[b.add("Reshape", b.add("Transpose", apart, perm=[0, 2, 1, 3, 4]), b.c([0, width, 6, 6]))] = width
    flat = b.add("Flatten", b.add("Concat", *sorted(pool)[-3:], axis=1))
    b.add("Gemm", flat, b.w(36 * sum(pool[name] for name in sorted(pool)[-3:]), 2), b.w(2), outputs=("y",))
    return b.model((3, 6, 6), (2,))


@settings(max_examples=60, deadline=None)
@given(networks(), st.integers(0, 2**32 - 1))
def test_random_networks_cut_as_masked(proto: ModelProto, seed: int) -> None:
    rows = pruning_graphs.samples(proto, 2)
    coupling = couple(proto, rows)
    rng = np.random.default_rng(seed)
    units = {unit for family in coupling.families for unit in family.units if rng.random() < 0.4}
    scale = max(1.0, float(np.abs(answers(masked(coupling, alive(coupling, units)), rows, 2)[0][0]).max()))
    assert distance(coupling, alive(coupling, units), rows) <= LARGEST * scale
