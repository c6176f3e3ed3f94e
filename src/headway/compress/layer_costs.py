"""What the layers of a graph cost at given widths: measured time, or multiply-adds."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from headway.compress.coupling import Coupling, Layer
from headway.compress.layer_models import moves, whole_widths
from headway.records import LatencyTable, LayerTime, Unsupported


class Costs:
    """Cost of a graph from which units are gone: multiply-adds, or time [s] by a table.

    A table knows layers by name and absolute widths, so it also serves a graph whose layers an earlier step left as they were or made narrower.

    Raises:
        Unsupported: the table lacks a layer that channels can be cut from, or knows it only narrower than it is.
    """

    def __init__(self, coupling: Coupling, table: LatencyTable | None) -> None:
        self._layers = coupling.layers
        self._curves: dict[str, _Curves] = {}
        self._whole = {layer.name: whole_widths(coupling, layer) for layer in self._layers if layer.kind != "recurrence"}
        self.unit = "macs" if table is None else "s"
        if table is not None:
            self._read(table)

    def _read(self, table: LatencyTable) -> None:
        times: dict[str, list[LayerTime]] = {}
        for time in table.times:
            if not time.rank and time.precision == "float32":
                times.setdefault(time.layer, []).append(time)
        for layer in self._layers:
            if layer.kind == "recurrence" or not (moves(layer.inside) or moves(layer.outside)):
                continue
            if layer.name not in times:
                raise Unsupported(f"prune_channels: by 'latency' needs times of every layer, got none of {layer.name!r}; use by 'mac'")
            curves, now = _Curves(times[layer.name]), self._whole[layer.name]
            if not curves.hold(*now, tied=layer.tied):
                raise Unsupported(
                    f"prune_channels: by 'latency' needs times of every layer at its width, got {layer.name!r} of {now[0]} to {now[1]} channels "
                    f"timed up to {curves.inside[-1]} to {curves.outside[-1]}; use by 'mac'"
                )
            self._curves[layer.name] = curves

    def layer(self, layer: Layer, gone: Collection[int]) -> float:
        """Cost of one layer."""
        inside, outside = _share(layer.inside, gone), _share(layer.outside, gone)
        if self.unit == "macs":
            return layer.macs * (outside if layer.tied else inside * outside)
        if layer.name not in self._curves or layer.kind == "recurrence":
            return 0.0
        curves, now = self._curves[layer.name], self._whole[layer.name]
        return curves.at(curves.inside[-1] if layer.tied else inside * now[0], outside * now[1])

    def total(self, gone: Collection[int]) -> float:
        """Cost of all layers."""
        return sum(self.layer(layer, gone) for layer in self._layers)

    def touching(self, units: Collection[int]) -> list[Layer]:
        """Layers that read or make one of these units."""
        wanted = np.array(sorted(units), np.int64)
        return [e for e in self._layers if any(row is not None and np.isin(row, wanted).any() for row in (e.inside, e.outside))]


def _share(row: np.ndarray | None, gone: Collection[int]) -> float:
    return 1.0 if row is None or not gone else float(1 - np.isin(row, np.fromiter(gone, np.int64)).mean())


class _Curves:
    """Time of a layer along each side, the other whole; in between the product of both, which is exact when time is
    outside * (a * inside + b): a layer and what follows it.
    """

    def __init__(self, times: Sequence[LayerTime]) -> None:
        widest_in, widest_out = max(time.inside for time in times), max(time.outside for time in times)
        along_in = sorted((time.inside, time.time_s) for time in times if time.outside == widest_out)
        along_out = sorted((time.outside, time.time_s) for time in times if time.inside == widest_in)
        self.inside, self._in_s = [width for width, _ in along_in], [time_s for _, time_s in along_in]
        self.outside, self._out_s = [width for width, _ in along_out], [time_s for _, time_s in along_out]
        whole = [time.time_s for time in times if (time.inside, time.outside) == (widest_in, widest_out)]
        self._whole_s = whole[0] if whole else 0.0

    def hold(self, inside: int, outside: int, *, tied: bool) -> bool:
        """Whether widths up to these are known."""
        return bool(self.inside and self.outside) and outside <= self.outside[-1] and (tied or inside <= self.inside[-1])

    def at(self, inside: float, outside: float) -> float:
        """Time [s]; straight lines between timed widths, constant below them."""
        if self._whole_s <= 0:
            return 0.0
        return _along(self.inside, self._in_s, inside) * _along(self.outside, self._out_s, outside) / self._whole_s


def _along(widths: Sequence[int], times: Sequence[float], at: float) -> float:
    return float(np.interp(at, widths, times))
