"""What live sessions of one file share, so that instances of one process do not hold the weights once each.

It knows files and that something was made from them; nothing of runtimes. What is shared must be safe to use from several threads.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """Things made from files, kept as long as anybody holds them.

    A file that was replaced or written again is another file: its path, inode, size and time of change are the key. Weights in a second
    file are not looked at, so replace both.
    """

    def __init__(self) -> None:
        self._live: weakref.WeakValueDictionary[tuple[object, ...], T] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()

    def get(self, path: Path, make: Callable[[Path], T]) -> T:
        """The thing made from a file: that of a session that still lives, or a new one."""
        try:
            facts = path.stat()
        except OSError:
            return make(path)  # its error says what is wrong with the file
        key = (str(path.resolve()), facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)
        with self._lock:
            found = self._live.get(key)
            if found is None:
                found = make(path)
                self._live[key] = found
            return found
