"""Zip files that nobody vouches for: opened without a directory that fills the memory, and with all the errors that a damaged one raises."""

from __future__ import annotations

import io
import lzma
import struct
import zipfile
import zlib
from pathlib import Path

MAX_DIRECTORY_BYTES = 16 * 2**20
DAMAGED = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError,
)  # fmt: skip
"""What ``zipfile`` raises of a file that is damaged, encrypted or of a foreign kind."""


class _BoundedFile(io.BufferedReader):
    """A file that is read in small pieces only; ``zipfile`` reads an archive's directory in one."""

    def read(self, size: int | None = -1, /) -> bytes:
        """At most ``MAX_DIRECTORY_BYTES``."""
        if size is not None and size > MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f"its directory takes {size} bytes")
        return super().read(size)


def open_bounded(path: Path) -> io.BufferedReader:
    """The file, to be given to ``zipfile.ZipFile``."""
    return _BoundedFile(io.FileIO(path))
