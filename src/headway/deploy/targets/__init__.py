"""Servers that a bundle can be exported to: one file a target, named as the target.

A target's file has

- a docstring whose first line says what it writes, for ``headway export --help``;
- ``SETTINGS: Mapping[str, str]``: the names that ``--set NAME=VALUE`` may give, each with its meaning; others are refused before ``write``;
- ``write(request: Request) -> Written`` (``headway.deploy.exporting``): fills ``request.folder``. It raises ``Unsupported`` when the target
  cannot serve the variant, and ``ConfigError`` when a setting is out of range;
- and, where the real server can be started on this machine, ``answers(folder, export, inputs) -> dict[str, np.ndarray]``: starts what lies in the
  folder, asks it for the golden inputs, and ends it, whatever happens. It raises ``MissingPackage`` when the server is not installed here. ``ASKED: str`` then says in words
  what is asked, where it is not the real server.

It may import any package at its top: a file whose package is missing is reported with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from headway.deploy.exporting import Request, Written


class Target(Protocol):
    """What ``write_export`` needs of a target's file."""

    SETTINGS: Mapping[str, str]

    def write(self, request: Request) -> Written:
        """Fill ``request.folder``."""
        ...


def starts(module: Any) -> bool:
    """Whether a target's file can start the real server here."""
    return hasattr(module, "answers")
