"""The command ``headway``: parses, calls the main path, prints. It decides nothing.

Each command is one file in ``commands``; it is imported only when it is called, so the base install can serve a bundle.
"""

from headway.cli.entry import main

__all__ = ["main"]
