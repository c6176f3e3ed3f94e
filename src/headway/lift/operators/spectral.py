"""Fourier transforms, windows and mel weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from headway.lift.node import Node
from headway.lift.registry import Run, operator
from headway.lift.tensors import torch_dtype

_WAVES = {"HannWindow": (0.5, 0.5, 0.0), "HammingWindow": (25 / 46, 21 / 46, 0.0), "BlackmanWindow": (0.42, 0.5, 0.08)}


@operator(*_WAVES)
def _window(node: Node) -> Run:
    level, first, second = _WAVES[node.operator]

    def run(size: Tensor) -> Tensor:
        count = int(size)
        turn = torch.arange(count, dtype=torch.float64) * 2 * math.pi / (count if node.get("periodic", 1) else count - 1)
        return (level - first * torch.cos(turn) + second * torch.cos(2 * turn)).to(torch_dtype(node.get("output_datatype", 1)))

    return run


def _complex(x: Tensor) -> Tensor:
    return torch.view_as_complex(x.contiguous()) if x.shape[-1] == 2 else torch.complex(x[..., 0], torch.zeros_like(x[..., 0]))


@operator("DFT", host=(1, 2))
def _fourier(node: Node) -> Run:
    inverse, half = node.get("inverse", 0), node.get("onesided", 0)

    def run(x: Tensor, length: Tensor | None = None, axis: Tensor | None = None) -> Tensor:
        along = node.get("axis", 1 if node.opset < 20 else -2) if axis is None else int(axis)
        along = along % x.dim()
        natural = 2 * (x.shape[along] - 1) if inverse and half else x.shape[along]
        size = natural if length is None else int(length)
        if inverse and half:
            return torch.fft.irfft(_complex(x), size, along).unsqueeze(-1)
        made = (torch.fft.ifft if inverse else torch.fft.fft)(_complex(x), size, along)
        made = torch.view_as_real(made)
        return made.narrow(along, 0, size // 2 + 1) if half else made

    return run


@operator("STFT", host=(1, 3))
def _short_time(node: Node) -> Run:
    half = node.get("onesided", 1)

    def run(x: Tensor, step: Tensor, window: Tensor | None = None, length: Tensor | None = None) -> Tensor:
        signal = _complex(x) if x.dim() == 3 and x.shape[-1] == 2 else x.reshape(x.shape[0], x.shape[1])
        size = int(length) if length is not None else window.shape[0] if window is not None else signal.shape[1]
        frames = signal.unfold(1, size, int(step))
        made = torch.fft.fft(frames if window is None else frames * window)
        made = torch.view_as_real(made)
        return made[:, :, : size // 2 + 1] if half else made

    return run


@operator("MelWeightMatrix")
def _mel(node: Node) -> Run:
    def run(bins: Tensor, size: Tensor, rate: Tensor, low: Tensor, high: Tensor) -> Tensor:
        count, spectrum = int(bins), int(size) // 2 + 1
        edges = torch.arange(count + 2, dtype=torch.float64)
        first, last = (2595 * math.log10(1 + float(each) / 700) for each in (low, high))
        hertz = 700 * (10 ** ((edges * (last - first) / (count + 2) + first) / 2595) - 1)
        places = torch.floor((int(size) + 1) * hertz / int(rate)).long().tolist()
        made = torch.zeros(spectrum, count, dtype=torch.float64)
        for band, (start, middle, end) in enumerate(zip(places, places[1:], places[2:], strict=False)):
            if middle == start:
                made[middle, band] = 1
            else:
                made[start : middle + 1, band] = (torch.arange(start, middle + 1) - start) / (middle - start)
            if end > middle:
                made[middle:end, band] = (end - torch.arange(middle, end)) / (end - middle)
        return made.to(torch_dtype(node.get("output_datatype", 1)))

    return run
