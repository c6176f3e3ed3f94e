"""The demos' own networks, through both exporters: the lifted graph answers as ONNX Runtime does."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from demo_models import NAMES, demo
from headway.lift import lift, write_back


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_demo_answers_the_same_and_every_weight_has_a_gradient(name: str) -> None:
    models, arrays = demo(name, 4)
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
