"""Where models come from: bundles named one by one, or a folder of them. It knows files; it opens no session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from headway.records import BundleError
from headway.serve.bundle import MANIFEST, OpenBundle, check_name, open_bundle

FIRST_VERSION = "1"


@dataclass(frozen=True, slots=True)
class Place:
    """One version of one model: where its bundle lies, and the bundle itself when it is open already."""

    name: str
    version: str
    path: Path
    bundle: OpenBundle | None = None

    def open(self) -> OpenBundle:
        """The checked bundle, under this name; read from its folder again each time.

        Raises:
            BundleError: the sentence says what is wrong with which file.
        """
        bundle = open_bundle(self.path)
        return replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, name=self.name))


def named(bundles: Sequence[OpenBundle], name: str | None) -> dict[str, dict[str, Place]]:
    """Places of single bundles, by name and version: names as in their manifests, bundles of one name are versions 1, 2, ... in their order.

    Args:
        name: of the first model, instead of its own.
    """
    found: dict[str, dict[str, Place]] = {}
    for number, bundle in enumerate(bundles):
        called = name if name is not None and number == 0 else bundle.manifest.name
        check_name(called)
        versions = found.setdefault(called, {})
        version = str(len(versions) + 1)
        renamed = replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, name=called))
        versions[version] = Place(called, version, bundle.root, renamed)
    return found


def scan(folder: Path) -> dict[str, dict[str, Place]]:
    """Models of a repository: ``NAME/`` holds a bundle or a run (version 1), or one in each of ``NAME/1/``, ``NAME/2/``, ...

    Folders that hold no bundle are passed over.

    Raises:
        BundleError: the folder is not there.
    """
    if not folder.is_dir():
        raise BundleError(
            f"{folder}: the repository must be a folder of models, and there is none. Give the folder that holds NAME/VERSION/{MANIFEST}."
        )
    found: dict[str, dict[str, Place]] = {}
    for model in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        versions = {path.name: path for path in model.iterdir() if path.name.isdecimal() and _holds_bundle(path)}
        if not versions and _holds_bundle(model):
            versions = {FIRST_VERSION: model}
        if versions:
            check_name(model.name)
            found[model.name] = {version: Place(model.name, version, versions[version]) for version in sorted(versions, key=int)}
    return found


def newest(versions: Mapping[str, object]) -> str:
    """The highest version number."""
    return max(versions, key=int)


def _holds_bundle(path: Path) -> bool:
    return (path / MANIFEST).is_file() or (path / "bundle" / MANIFEST).is_file()
