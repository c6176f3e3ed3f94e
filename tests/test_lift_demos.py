"""The demos' own networks, through both exporters: the lifted graph answers as ONNX Runtime does."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from headway.demo import store
from headway.lift import lift, write_back
from headway.model import load

NAMES = ("digits", "vision", "text", "speech", "recommend")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_demo_answers_the_same_and_every_weight_has_a_gradient(name: str) -> None:
    case = importlib.import_module(f"headway.demo.demos.{name}").build(store.home(), lambda *_: None)
    with np.load(Path(case.data), allow_pickle=False) as data:
        arrays = {key: data[key][:4] for key in data.files if data[key].dtype.kind in "fiub" and key not in ("label", "cluster")}
    models = load(case.model, arrays).models
    assert {model.origin for model in models} == {"torch-dynamo", "torch-script"}
    for model in models:
        feeds = {spec.name: arrays[spec.name] for spec in model.inputs}
        lifted = lift(model).eval()
        found = lifted({key: torch.from_numpy(value) for key, value in feeds.items()})
        session = onnxruntime.InferenceSession(model.to_bytes(), providers=["CPUExecutionProvider"])
        for value, wanted in zip(found.values(), session.run(None, feeds), strict=True):
            scale = max(1.0, float(np.abs(wanted).max()))
            assert np.abs(value.detach().numpy() - wanted).max() / scale < 1e-5
        sum(value.square().sum() for value in found.values() if value.is_floating_point()).backward()
        assert all(weight.grad is not None for weight in lifted.parameters())
        assert write_back(model, lifted).to_bytes() == model.to_bytes()
