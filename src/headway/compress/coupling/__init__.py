"""Which channels of a graph must be cut together, and the cutting itself."""

from headway.compress.coupling.analysis import couple
from headway.compress.coupling.coupled import Coupling, Family, Layer
from headway.compress.coupling.cutting import cut, masked

__all__ = ["Coupling", "Family", "Layer", "couple", "cut", "masked"]
