"""A bundle on its way to another machine: its files' bytes where they are few, or else the path where every machine finds them."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from headway.records import BundleError
from headway.serve import MANIFEST, OpenBundle, bundle_digest, model_files, open_bundle

MOST_BYTES = 64 * 2**20
"""A bundle up to this size travels with the deployment [B]; Ray keeps what travels in the memory of its head node, so more would burden that."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A bundle, or where it lies.

    Attributes:
        path: the bundle's folder on every machine; where ``files`` has some, only for messages.
        digest: of the manifest and the golden set, which hold the digests of all else; empty: whatever lies there.
        files: the bytes of every file, by its path in the bundle.
    """

    path: str
    digest: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)

    @contextlib.contextmanager
    def opened(self) -> Iterator[OpenBundle]:
        """The checked bundle on this machine; what was unpacked is gone after the block.

        Raises:
            BundleError: it is not there, or not the one that was meant.
        """
        if not self.files:
            if not Path(self.path).exists():
                raise BundleError(
                    f"{self.path}: the bundle must lie here on every node of the cluster, and it does not; copy it there, or use a shared folder"
                )
            yield self._meant(open_bundle(self.path))
            return
        with tempfile.TemporaryDirectory(prefix="headway-bundle-") as name:
            for inner, content in self.files.items():
                place = Path(name) / inner
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
            yield self._meant(open_bundle(name))

    def _meant(self, bundle: OpenBundle) -> OpenBundle:
        found = bundle_digest(bundle)
        if self.digest and found != self.digest:
            raise BundleError(
                f"{self.path}: the bundle must be the one that was deployed (digest {self.digest[:12]}), got {found[:12]}; copy it anew, or deploy anew"
            )
        return bundle


def parcel(bundle: OpenBundle, most_bytes: int = MOST_BYTES) -> Parcel:
    """The bundle with its files, or without them where they are more than ``most_bytes``."""
    root, manifest = bundle.root, bundle.manifest
    files = {root / MANIFEST, root / manifest.golden}
    for bundled in manifest.variants:
        files |= {*model_files(root, bundled.file)}
    if sum(file.stat().st_size for file in files) > most_bytes:
        return Parcel(str(root.resolve()), bundle_digest(bundle))
    return Parcel(str(root), bundle_digest(bundle), {file.relative_to(root).as_posix(): file.read_bytes() for file in sorted(files)})
