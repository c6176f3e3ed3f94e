"""What a corruption file holds.

In the manner of ImageNet-C (Hendrycks and Dietterich 2019, arXiv 1903.12261): a named change at five stated severities. Implementations and
strengths are our own and work on any size, so figures cannot be set beside that paper's.

A file has ``KIND``, ``SEVERITIES`` (five strengths, mild to harsh, their unit in the docstring) and ``corrupt``:

- ``KIND = "image"``: ``corrupt(pixels, strength, generator)``; float32 [N, H, W, C] within [0, 1], 0 and 1 being the ends of the range that the
  data have in that channel. What leaves [0, 1] is clipped by the caller.
- ``KIND = "series"``: ``corrupt(values, strength, generator)``; float32 [N, T, F] with mean 0 and standard deviation 1 in each of F features.
- ``KIND = "tokens"``: ``corrupt(text, strength, generator)``; a ``Text``.

``corrupt`` changes nothing in place and takes every random number from ``generator``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Text:
    """Rows of token numbers.

    Attributes:
        ids: [N, L].
        inside: [N, L], true for tokens that the model is told to read; all true where it has no mask.
        pool: token numbers seen inside, each as often as it was seen, without first and last of a row.
        filling: the token number that stands outside.
    """

    ids: NDArray[Any]
    inside: NDArray[np.bool_]
    pool: NDArray[Any]
    filling: int

    @property
    def free(self) -> NDArray[np.bool_]:
        """Tokens that may change: inside, but neither first nor last, which are often marks of beginning and end."""
        columns = np.arange(self.ids.shape[1])
        first = np.argmax(self.inside, axis=1)[:, None]
        last = self.ids.shape[1] - 1 - np.argmax(self.inside[:, ::-1], axis=1)[:, None]
        return np.asarray(self.inside & (columns != first) & (columns != last))


class Corruption(Protocol):
    """A corruption file, seen as a type."""

    KIND: str
    SEVERITIES: tuple[float, ...]

    def corrupt(self, given: Any, strength: float, generator: np.random.Generator) -> Any:
        """The samples corrupted, in the same form and shape."""
        ...
