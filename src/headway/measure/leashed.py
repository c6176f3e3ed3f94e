"""``python -m headway.measure.leashed PID MODULE [ARGUMENT...]``: run a module that ends when process PID does.

A run that is killed cannot stop the servers it started; left alone they would hold memory and disturb every later measurement.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading
import time

LOOK_S = 1.0


def main() -> None:
    """Watch the parent from a thread of its own and run the module as ``__main__``."""
    parent, module = int(sys.argv[1]), sys.argv[2]
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    sys.argv = sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os._exit(1)


if __name__ == "__main__":
    main()
