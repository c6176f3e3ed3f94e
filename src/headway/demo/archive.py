"""The files that are wanted out of a package's archive, never outside the folder they are unpacked to."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO

from headway.records import DataError


def unpack(archive: Path, wanted: Sequence[str], folder: Path) -> int:
    """How many files were unpacked into ``folder`` (which must exist): those whose name fits one of the patterns.

    Reads wheels (``.whl``), npm packages (``.tgz``) and Debian packages (``.deb``, through ``dpkg-deb``). Only plain files are written:
    links and devices are passed over. Patterns are those of ``fnmatch`` on the name inside the archive, ``*`` crosses folders.

    Raises:
        DataError: not such an archive, damaged, a wanted name that would leave the folder, or nothing that fits.
    """
    try:
        count = _READERS[archive.suffix](archive, wanted, folder)
    except KeyError as error:
        raise DataError(f"{archive.name}: must be a .whl, .tgz or .deb archive, got {archive.suffix or 'no suffix'}") from error
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, ValueError, subprocess.CalledProcessError) as error:
        raise DataError(f"{archive.name}: must be a whole archive, got: {error}; fetch it again") from error
    if not count:
        raise DataError(f"{archive.name}: must hold {' or '.join(wanted)}, got no such file; the package has changed")
    return count


def target(name: str, folder: Path) -> Path:
    """Where the archive's member ``name`` goes in ``folder``.

    Raises:
        DataError: the name is absolute, has a drive or a backslash, or climbs out of the folder.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name or not path.parts:
        raise DataError(f"an archive's files must stay in their folder, got the name {name!r}; the package must not be used")
    return folder.joinpath(*path.parts)


def _unzip(archive: Path, wanted: Sequence[str], folder: Path) -> int:
    with zipfile.ZipFile(archive) as opened:
        members = [item for item in opened.infolist() if not item.is_dir() and _fits(item.filename, wanted)]
        for item in members:
            with opened.open(item) as source:
                _write(source, target(item.filename, folder))
        return len(members)


def _untar(archive: Path, wanted: Sequence[str], folder: Path) -> int:
    with tarfile.open(archive, "r:*") as opened:
        return _from_tar(opened, wanted, folder)


def _undeb(archive: Path, wanted: Sequence[str], folder: Path) -> int:
    done = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(archive)], stdin=subprocess.DEVNULL, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as opened:
        return _from_tar(opened, wanted, folder)


def _from_tar(opened: tarfile.TarFile, wanted: Sequence[str], folder: Path) -> int:
    count = 0
    for item in opened:
        source = opened.extractfile(item) if item.isreg() and _fits(item.name, wanted) else None
        if source is not None:
            _write(source, target(item.name, folder))
            count += 1
    return count


def _fits(name: str, wanted: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in wanted)


def _write(source: IO[bytes], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        shutil.copyfileobj(source, file)


_READERS: dict[str, Callable[[Path, Sequence[str], Path], int]] = {".whl": _unzip, ".tgz": _untar, ".deb": _undeb}
