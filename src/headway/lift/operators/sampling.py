"""Sampling from pictures: grids and regions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from headway.lift.node import Node
from headway.lift.registry import Run, operator

_MODES = {"linear": "bilinear", "bilinear": "bilinear", "nearest": "nearest", "cubic": "bicubic", "bicubic": "bicubic"}


@operator("GridSample")
def _grid(node: Node) -> Run:
    mode, padding = _MODES[node.get("mode", "linear")], node.get("padding_mode", "zeros")
    corners = bool(node.get("align_corners", 0))
    return lambda x, grid: functional.grid_sample(x, grid.to(x.dtype), mode, padding, corners)


@operator("AffineGrid", host=(1,))
def _affine(node: Node) -> Run:
    corners = bool(node.get("align_corners", 0))
    return lambda theta, size: functional.affine_grid(theta, size.tolist(), corners)


@operator("RoiAlign")
def _align(node: Node) -> Run:
    height, width = node.get("output_height", 1), node.get("output_width", 1)
    ratio, scale = node.get("sampling_ratio", 0), node.get("spatial_scale", 1.0)
    half = node.opset >= 16 and node.get("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    highest = node.get("mode", "avg") == "max"

    def run(x: Tensor, rois: Tensor, batches: Tensor) -> Tensor:
        made = []
        for roi, batch in zip(rois, batches.tolist(), strict=True):
            left, top, right, bottom = (value * scale - (0.5 if half else 0.0) for value in roi)
            wide, high = right - left, bottom - top
            if not half:
                wide, high = wide.clamp(min=1.0), high.clamp(min=1.0)
            rows = ratio or int(torch.ceil(high / height))
            columns = ratio or int(torch.ceil(wide / width))
            y = top + (torch.arange(height * rows, device=x.device) + 0.5) * high / (height * rows)
            z = left + (torch.arange(width * columns, device=x.device) + 0.5) * wide / (width * columns)
            made.append(_bins(_corners(x[batch], y, z), (height, rows, width, columns), highest))
        return torch.stack(made) if made else x.new_zeros(0, x.shape[1], height, width)

    return run


def _corners(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """The four weighted neighbours of every point, [4, C, rows, columns]; points outside weigh nothing."""
    height, width = x.shape[1:]
    inside = ((y >= -1) & (y <= height)).unsqueeze(1) & ((z >= -1) & (z <= width))
    y, z = y.clamp(0, height - 1), z.clamp(0, width - 1)
    low_y, low_z = y.floor().long(), z.floor().long()
    high_y, high_z = (low_y + 1).clamp(max=height - 1), (low_z + 1).clamp(max=width - 1)
    share_y, share_z = (y - low_y).unsqueeze(1), z - low_z
    parts = (
        (low_y, low_z, (1 - share_y) * (1 - share_z)), (low_y, high_z, (1 - share_y) * share_z),
        (high_y, low_z, share_y * (1 - share_z)), (high_y, high_z, share_y * share_z),
    )  # fmt: skip
    return torch.stack([x[:, rows][:, :, columns] * weight * inside for rows, columns, weight in parts])


def _bins(corners: Tensor, sizes: tuple[int, int, int, int], highest: bool) -> Tensor:
    height, rows, width, columns = sizes
    if highest:
        return corners.amax(0).reshape(-1, height, rows, width, columns).amax((2, 4))
    return corners.sum(0).reshape(-1, height, rows, width, columns).mean((2, 4))
