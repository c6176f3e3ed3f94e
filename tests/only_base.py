"""Run ``headway`` in an interpreter in which only the base install exists: ``python only_base.py PACKAGE,PACKAGE... ARGUMENT...``.

Every import of a module that is neither of the standard library, nor Headway's, nor of one of the named packages fails as if it were
not installed; the meta path is asked before any finder, so nothing slips through.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.metadata
import sys
from collections.abc import Sequence
from types import ModuleType


class OnlyBase(importlib.abc.MetaPathFinder):
    """Refuses every module that the base install does not bring."""

    def __init__(self, packages: set[str]) -> None:
        provided = importlib.metadata.packages_distributions()
        ours = {module for module, owners in provided.items() if packages & {normal(owner) for owner in owners}}
        self._allowed = {"headway", "__main__", *sys.stdlib_module_names, *ours}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Nothing, so that the next finder is asked; or the refusal."""
        top = fullname.partition(".")[0]
        if top not in self._allowed and not top.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(f"No module named {top!r} in the base install", name=top)
        return None


def normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


if __name__ == "__main__":
    sys.meta_path.insert(0, OnlyBase(set(sys.argv[1].split(","))))
    from headway.cli import main

    main(sys.argv[2:])
