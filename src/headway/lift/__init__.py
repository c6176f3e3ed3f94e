"""An ONNX graph as a trainable ``torch.nn.Module``, and its values back into the same graph.

This room executes graphs with torch operators so that gradients flow; it knows no loss, no schedule and no compression.
Operators stand in ``operators/``, one family a file, found by name and opset.
"""

from headway.lift.lifted import Lifted, lift
from headway.lift.writing import write_back

__all__ = ["Lifted", "lift", "write_back"]
