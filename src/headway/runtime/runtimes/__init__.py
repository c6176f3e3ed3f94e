"""One runtime a file: DEVICES, versions(), refuse(path, device), open_session(path, threads, device).

Nothing phones home: the telemetry that two of the libraries carry is switched off here, before any of them is imported.
"""

import os
import sys

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # openvino then uses a stub of its own
