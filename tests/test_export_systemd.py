"""The export to a systemd unit: its text, systemd's own check of it, and the unit's command line started without systemd."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headway import __version__
from headway.deploy import Request, verify, write_export
from headway.deploy.targets import systemd
from headway.records import BundleError, ConfigError, Export, Objective, Plan
from headway.serve import Limits, OpenBundle
from serving import affine_model, bundle, entry

PLAN = Plan(runtime="onnx_runtime", instances=2, threads=3, max_batch=4)
ODD = 'odd "name"\\ $HOME ${HOME} {{x}} %h %% \té\n; --'
ANALYZE = shutil.which("systemd-analyze")

GOLDEN = """\
[Unit]
Description=Headway serving tiny
Wants=network-online.target
After=network-online.target

[Service]
Type=exec
ExecStart=/opt/headway/tiny/venv/bin/headway "serve" "/opt/headway/tiny/bundle" "--http=127.0.0.1:8000" "--log=text"
EnvironmentFile=-/etc/headway/tiny.env
DynamicUser=yes
Restart=on-failure
RestartSec=2
RestartPreventExitStatus=2
KillSignal=SIGTERM
TimeoutStopSec=15
LimitNOFILE=16384
CPUQuota=700%
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RemoveIPC=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
UMask=0077
CapabilityBoundingSet=
AmbientCapabilities=

[Install]
WantedBy=multi-user.target
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> OpenBundle:
    """Two variants that answer differently."""
    folder = tmp_path_factory.mktemp("two")
    entries = (entry(affine_model(folder / "m.onnx"), "a", PLAN), entry(affine_model(folder / "n.onnx", 3.0), ODD, PLAN))
    return bundle(folder / "b", *entries)


def exported(folder: Path, opened: OpenBundle, variant: str = "", **chosen: str) -> Export:
    return write_export("systemd", opened, folder, variant=variant, settings=chosen)


def unit(folder: Path) -> dict[str, list[str]]:
    """The values of the service's section, by name; every line must be a section or an assignment, no name may stand twice."""
    found: dict[str, list[str]] = {}
    section = ""
    (file,) = folder.glob("*.service")
    for line in file.read_text("utf-8").split("\n"):
        if line.startswith("["):
            section = line
        elif line:
            name, equals, value = line.partition("=")
            assert equals and name.isalnum(), line
            found.setdefault(f"{section}{name}" if section != "[Service]" else name, []).append(value)
    assert all(len(values) == 1 for values in found.values())
    return found


def words_of(line: str) -> list[str]:
    """A command line as systemd.service(5) has it: double quotes, escapes of C in them, ``%%`` and ``$$``; anything else is an error here."""
    escapes = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\\": "\\", '"': '"'}
    words, at = [], 0
    while at < len(line):
        word, inside = "", line[at] == '"'
        at += inside
        while at < len(line) and line[at] != ('"' if inside else " "):
            if line[at] == "\\":
                step = 6 if line[at + 1] == "u" else 2
                word += chr(int(line[at + 2 : at + 6], 16)) if step == 6 else escapes[line[at + 1]]
                at += step
            elif line[at] in "%$":
                assert line[at + 1] == line[at], line
                word, at = word + line[at], at + 2
            else:
                word, at = word + line[at], at + 1
        words.append(word)
        at += 1 + inside
    return words


def test_the_text_is_as_it_was(tmp_path: Path, two: OpenBundle) -> None:
    export = exported(tmp_path / "e", two)
    assert (tmp_path / "e" / "headway-tiny.service").read_text("utf-8") == GOLDEN
    assert len(export.start) == 4
    readme = (tmp_path / "e" / "README.md").read_text("utf-8")
    assert all(line in readme for line in export.start) and "HEADWAY_TOKEN=..." in readme
    assert f"'headway=={__version__}'" in export.start[1]


def test_the_stop_waits_longer_than_the_server_drains(tmp_path: Path, two: OpenBundle) -> None:
    exported(tmp_path / "e", two)
    assert float(unit(tmp_path / "e")["TimeoutStopSec"][0]) > Limits().drain_s


@pytest.mark.parametrize("which", [0, 1])
def test_the_command_line_of_the_unit_serves_the_variant(tmp_path: Path, two: OpenBundle, which: int) -> None:
    export = exported(tmp_path / "e", two, variant=two.manifest.variants[which].variant.name)
    words = words_of(unit(tmp_path / "e")["ExecStart"][0])
    assert words[1:3] == ["serve", "/opt/headway/tiny/bundle"]
    assert (f"--variant={ODD}" in words) == bool(which)
    found = verify(tmp_path / "e")
    assert found.server_difference is not None and found.server_difference <= export.tolerance


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize(
    ("which", "chosen"),
    [
        (0, {}), (1, {"user": "serving", "cpus": "0-3,8", "memory": "2GiB"}), (0, {"http": "[::1]:80", "grpc": "0.0.0.0:8001"}),
    ],
)  # fmt: skip
def test_systemd_finds_nothing_wrong(tmp_path: Path, two: OpenBundle, which: int, chosen: dict[str, str]) -> None:
    exported(tmp_path / "e", two, variant=two.manifest.variants[which].variant.name, **chosen)
    there = tmp_path / "there" / "venv" / "bin" / "headway"
    there.parent.mkdir(parents=True)
    there.write_text("#!/bin/sh\n")
    there.chmod(0o755)
    file = tmp_path / "headway-tiny.service"
    text = (tmp_path / "e" / file.name).read_text("utf-8")
    file.write_text(text.replace("/opt/headway/tiny", str(tmp_path / "there")), "utf-8")
    assert analyzed(file) == (0, "")
    file.write_text(file.read_text("utf-8").replace("RestartSec=2", "RestartSec=soon\nRestartSecs=2"), "utf-8")
    assert "RestartSecs" in analyzed(file)[1]


def analyzed(file: Path) -> tuple[int, str]:
    """Exit status and words about this file of ``systemd-analyze verify``; words about other units of this machine are not about it."""
    said = subprocess.run(
        [str(ANALYZE), "verify", "--recursive-errors=no", "--man=no", str(file)], capture_output=True, text=True, check=False, timeout=60
    )
    return said.returncode, "\n".join(line for line in (said.stdout + said.stderr).splitlines() if file.name in line)


def test_many_threads_widen_the_quota(tmp_path: Path, two: OpenBundle) -> None:
    first, second = two.manifest.variants
    wide = msgspec.structs.replace(first, plan=msgspec.structs.replace(PLAN, instances=16, threads=12))
    opened = replace(two, manifest=msgspec.structs.replace(two.manifest, variants=(wide, second)))
    systemd.write(Request(bundle=opened, folder=tmp_path, name="tiny"))
    assert unit(tmp_path)["CPUQuota"] == ["19300%"]


def test_cores_user_memory_ports_and_place_as_set(tmp_path: Path, two: OpenBundle) -> None:
    chosen = {"cpus": "0-3,8", "user": "serving", "memory": "1GiB", "http": "0.0.0.0:443", "grpc": "0.0.0.0:8001", "prefix": "/srv/m"}
    export = exported(tmp_path / "e", two, **chosen)
    found = unit(tmp_path / "e")
    assert found["CPUAffinity"] == ["0-3 8"] and "CPUQuota" not in found
    assert found["User"] == ["serving"] and "DynamicUser" not in found
    assert found["MemoryMax"] == [str(2**30)]
    assert found["CapabilityBoundingSet"] == found["AmbientCapabilities"] == ["CAP_NET_BIND_SERVICE"]
    assert words_of(found["ExecStart"][0]) == [
        "/srv/m/venv/bin/headway", "serve", "/srv/m/bundle", "--http=0.0.0.0:443", "--log=text", "--grpc=0.0.0.0:8001",
    ]  # fmt: skip
    assert f"'headway[grpc]=={__version__}'" in export.start[1]


def test_the_objectives_bound_on_memory_becomes_a_limit(tmp_path: Path, two: OpenBundle) -> None:
    opened = replace(two, manifest=msgspec.structs.replace(two.manifest, objective=Objective(memory_bytes=10**9)))
    systemd.write(Request(bundle=opened, folder=tmp_path, name="tiny"))
    assert unit(tmp_path)["MemoryMax"] == [str(1_250_000_000)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prefix", "relative"), ("prefix", "/opt/../etc"), ("prefix", "/opt/a b"), ("prefix", "/opt/$HOME"), ("prefix", "/home/me/m"),
        ("prefix", "/opt/x\nUser=root"), ("http", "8000"), ("http", "a b:80"), ("http", "0.0.0.0:0"), ("grpc", "0.0.0.0:99999"),
        ("user", "Root!"), ("cpus", "0-"), ("cpus", "all"), ("memory", "2"), ("memory", "-1GB"), ("memory", "1GB,rate>=1/s"),
    ],
)  # fmt: skip
def test_settings_out_of_range_write_nothing(tmp_path: Path, two: OpenBundle, name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"--set {name} must"):
        exported(tmp_path / "e", two, **{name: value})
    assert list(tmp_path.iterdir()) == []


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_any_word_comes_through_the_quotes(word: str) -> None:
    assert words_of(systemd.quoted(word)) == [word] == systemd.unquoted(f"/bin/x {systemd.quoted(word)}")
    assert "\n" not in systemd.quoted(word)


@settings(max_examples=30)
@given(st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}", fullmatch=True))
@example("-m")
@example("_m..")
def test_any_name_makes_a_unit(two: OpenBundle, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        systemd.write(Request(bundle=two, folder=Path(folder), name=name))
        words = words_of(unit(Path(folder))["ExecStart"][0])
        assert words[0] == f"/opt/headway/{name}/venv/bin/headway"
        assert (f"--name={name}" in words) == (name != "tiny")


def test_a_unit_without_a_command_is_one_sentence(tmp_path: Path, two: OpenBundle) -> None:
    export = exported(tmp_path / "e", two)
    (tmp_path / "e" / "headway-tiny.service").write_text("[Service]\n")
    with pytest.raises(BundleError, match="ExecStart"):
        systemd.answers(tmp_path / "e", export, dict(two.golden.inputs))
