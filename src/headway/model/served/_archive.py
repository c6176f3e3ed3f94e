"""A zip archive that somebody else made, unpacked without trusting its directory."""

from __future__ import annotations

import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from headway.model.served._files import MAX_FILES
from headway.model.zipped import DAMAGED, open_bounded
from headway.records import ModelError

MAX_UNPACKED_BYTES = 16 * 2**30
_ENCRYPTED = 0x1
_PIECE_BYTES = 2**20


def unpack(path: Path, place: Path, wanted: Callable[[str], bool]) -> None:
    """The wanted files of an archive, into an empty folder.

    Raises:
        ModelError: no zip archive, a damaged one, or one whose names, links or sizes cannot be trusted; the message says which.
    """
    try:
        with open_bounded(path) as file, zipfile.ZipFile(file) as archive:
            for entry in _checked(archive, path):
                if wanted(entry.filename):
                    _write(archive, entry, place / entry.filename)
    except OSError as error:
        raise ModelError(f"{path}: must be readable, and there must be space to unpack it, got: {error.strerror or error}") from error
    except DAMAGED as error:
        raise ModelError(
            f"{path}: must be a whole zip archive, got a damaged or foreign one ({str(error)[:150]}); copy it again"
        ) from error


def _checked(archive: zipfile.ZipFile, path: Path) -> list[zipfile.ZipInfo]:
    """The files of the archive, all of them fit to be written."""
    entries = archive.infolist()
    if len(entries) > MAX_FILES:
        raise ModelError(f"{path}: a model's archive must hold at most {MAX_FILES} files, got {len(entries)}; do not trust this file")
    seen: set[str] = set()
    for entry in entries:
        problem = _problem(entry)
        if not problem and entry.filename in seen:
            problem = "is there twice"
        if problem:
            raise ModelError(f"{path}: a file of the archive {problem}: {entry.filename[:200]!r}; do not trust this file")
        seen.add(entry.filename)
    total = sum(entry.file_size for entry in entries)
    if total > MAX_UNPACKED_BYTES:
        raise ModelError(f"{path}: an archive must unpack to at most {MAX_UNPACKED_BYTES / 2**30:g} GiB, got {total / 2**30:.1f} GiB")
    return [entry for entry in entries if not entry.is_dir()]


def _problem(entry: zipfile.ZipInfo) -> str:
    name = PurePosixPath(entry.filename)
    mode = entry.external_attr >> 16
    if not name.parts or name.is_absolute() or ".." in name.parts or "\\" in entry.filename or ":" in entry.filename:
        return "must lie inside of it, and names another place"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "must be a plain file, and is a link or a device"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "must be stored or deflated, and is packed in another way"
    if entry.flag_bits & _ENCRYPTED:
        return "must be readable, and is encrypted"
    return ""


def _write(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    """One file; ``zipfile`` gives no more bytes than the directory says, and checks their sum.

    Raises:
        BadZipFile: there are fewer bytes than the directory says.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as packed, target.open("xb") as plain:
        shutil.copyfileobj(packed, plain, _PIECE_BYTES)
        if plain.tell() != entry.file_size:
            raise zipfile.BadZipFile(f"{entry.file_size} bytes were announced, {plain.tell()} are there")
