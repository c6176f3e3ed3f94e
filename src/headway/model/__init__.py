"""A model in, from ONNX, PyTorch or Keras/TensorFlow, and what it costs: parameters, FLOP, bytes.

This room knows graphs and frameworks. It does not know data files, compression, runtimes that serve, or any measurement: it runs a
graph only to see that its answers are right. Frameworks are imported in a process of their own, so importing this room needs neither
torch nor TensorFlow.
"""

from headway.model.cost import cost
from headway.model.graph import Model
from headway.model.loading import Loaded, load
from headway.model.specs import synthetic_inputs
from headway.model.weights import graph_bytes, node_count, parameters, weight_bytes, weights

__all__ = ["Loaded", "Model", "cost", "graph_bytes", "load", "node_count", "parameters", "synthetic_inputs", "weight_bytes", "weights"]
