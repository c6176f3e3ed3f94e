"""Bundles to HTTP and gRPC: checked at load, replayed against its golden set, served over the Open Inference Protocol v2.

This room does not know how a bundle was made, what was measured or why the variant was chosen; and it needs no package that
compresses or measures: the base install serves.
"""

from headway.serve.bundle import (
    FORMAT,
    MANIFEST,
    Golden,
    OpenBundle,
    bundle_digest,
    check_name,
    file_digest,
    model_digest,
    model_files,
    open_bundle,
)
from headway.serve.embedded import Embedded
from headway.serve.golden import TOLERANCE
from headway.serve.limits import Limits
from headway.serve.options import Options, Ready, TlsFiles
from headway.serve.served import Settings, default_queue_limit, most_in_flight
from headway.serve.server import serve
from headway.serve.wire import batchable, datatype

__all__ = [
    "FORMAT", "MANIFEST", "TOLERANCE", "Embedded", "Golden", "Limits", "OpenBundle", "Options", "Ready", "Settings", "TlsFiles", "batchable", "bundle_digest", "check_name", "datatype",
    "default_queue_limit", "file_digest", "model_digest", "model_files", "most_in_flight", "open_bundle", "serve",
]  # fmt: skip
