"""A bundle written, and exported for other servers: folders that appear whole or not at all, with a digest of every file.

This room does not choose what goes into a bundle, and it measures and predicts nothing; it is told.
"""

from headway.deploy.asking import ask_rows, server_at
from headway.deploy.exporting import Request, Written, target_lines, target_module, write_export, write_manifest
from headway.deploy.package import Entry, Expected, package
from headway.deploy.synthetic import synthetic_inputs
from headway.deploy.verifying import Ask, read_export, verify

__all__ = [
    "Ask", "Entry", "Expected", "Request", "Written", "ask_rows", "package", "read_export", "server_at", "synthetic_inputs", "target_lines", "target_module", "verify", "write_export",
    "write_manifest",
]  # fmt: skip
