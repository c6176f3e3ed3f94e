"""What the layers of a graph cost at given widths: measured time where a table has it, multiply-adds elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from headway.compress.coupling import Coupling, Layer
from headway.records import LatencyTable, LayerTime

Widths = tuple[int, int]


class Costs:
    """Cost of a graph from which units are gone. Time [s] when every layer with channels to cut is in the table, else multiply-adds."""

    def __init__(self, coupling: Coupling, table: LatencyTable | None) -> None:
        self._layers = coupling.layers
        grids = {layer.name: _grid([time for time in table.times if time.layer == layer.name]) for layer in self._layers} if table else {}
        movable = {layer.name for layer in self._layers if _moves(layer)}
        self.unit = "s" if grids and all(grids[name] is not None for name in movable) else "macs"
        self._grids = grids if self.unit == "s" else {}

    def layer(self, layer: Layer, gone: Collection[int]) -> float:
        """Cost of one layer."""
        inside, outside = _share(layer.inside, gone), _share(layer.outside, gone)
        if self.unit == "macs":
            return layer.macs * (outside if layer.tied else inside * outside)
        grid = self._grids.get(layer.name)
        if grid is None or layer.kind == "recurrence":
            return 0.0
        return interpolate(*grid, (inside, outside))

    def total(self, gone: Collection[int]) -> float:
        """Cost of all layers."""
        return sum(self.layer(layer, gone) for layer in self._layers)

    def touching(self, units: Collection[int]) -> list[Layer]:
        """Layers that read or make one of these units."""
        wanted = np.array(sorted(units), np.int64)
        return [e for e in self._layers if any(row is not None and np.isin(row, wanted).any() for row in (e.inside, e.outside))]


def _moves(layer: Layer) -> bool:
    return any(row is not None and (row >= 0).any() for row in (layer.inside, layer.outside))


def _share(row: np.ndarray | None, gone: Collection[int]) -> float:
    return 1.0 if row is None or not gone else float(1 - np.isin(row, np.fromiter(gone, np.int64)).mean())


Grid = tuple[np.ndarray, np.ndarray, np.ndarray]


def _grid(times: Sequence[LayerTime]) -> Grid | None:
    """Shares inside, shares outside, and times that never fall with width; none unless the times fill a grid with the whole layer."""
    found: Mapping[Widths, float] = {(t.inside, t.outside): t.time_s for t in times if not t.rank and t.precision == "float32"}
    inside, outside = (sorted({key[side] for key in found}) for side in (0, 1))
    if not found or len(found) != len(inside) * len(outside):
        return None
    values = np.array([[max(found[i, o], 0.0) for o in outside] for i in inside])
    values = np.maximum.accumulate(np.maximum.accumulate(values, axis=0), axis=1)
    return np.array(inside) / inside[-1], np.array(outside) / outside[-1], values


def interpolate(inside: np.ndarray, outside: np.ndarray, values: np.ndarray, at: tuple[float, float]) -> float:
    """Bilinear between grid points, constant outside of them; monotone because the values are."""
    columns = [float(np.interp(at[0], inside, values[:, index])) for index in range(len(outside))]
    return float(np.interp(at[1], outside, columns))
