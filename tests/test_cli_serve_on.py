"""``headway serve --on``: its words, what it refuses, and what it says where Ray is not installed. No cluster is needed."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest

from headway.cli import main, serve_on
from headway.discovery import Found
from headway.records import HeadwayError
from serving import affine_model, bundle, entry


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    return bundle(folder / "bundle", entry(affine_model(folder / "m.onnx"))).root


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 2) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["serve", *words])
    assert ended.value.code == code
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--control"], "--control: must be left out with --on"),
        (["--log", "json", "--trace", "t.json"], "--trace, --log: must be left out with --on"),
        (["--http", "127.0.0.1:0"], "--http: the port must be given with --on"),
        (["--grpc", "127.0.0.1:9000"], "--grpc must read 0.0.0.0:PORT with --on"),
        (["--route", "deep"], "--route must be / or a path"),
        (["--route", "/deep/"], "--route must be / or a path"),
    ],
)
def test_what_a_cluster_cannot_do_is_refused(packed: Path, capsys: pytest.CaptureFixture[str], more: list[str], told: str) -> None:
    assert told in said(capsys, str(packed), "--on", "ray", *more)


def test_a_place_that_is_no_cluster_is_refused(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--on: must be ray (a cluster that runs on this machine)" in said(capsys, str(packed), "--on", "spark")


def test_one_bundle_is_one_application(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--on takes one run or bundle, got 2" in said(capsys, str(packed), str(packed), "--on", "ray")
    assert "--on takes one run or bundle, got 0" in said(capsys, "--on", "ray")


@pytest.mark.parametrize("more", [["--replicas", "2"], ["--route", "/deep"], ["--detach"]])
def test_words_for_a_cluster_mean_nothing_without_one(packed: Path, capsys: pytest.CaptureFixture[str], more: list[str]) -> None:
    assert "--replicas, --route and --detach are for a cluster" in said(capsys, str(packed), *more)


def test_without_the_package_it_says_what_to_install(
    packed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_on, "find", lambda package, name: Found(missing={name: "needs the package ray, which is not installed"}))
    assert "--on ray: needs the package ray, which is not installed. Run: pip install 'headway[ray]'" in said(
        capsys, str(packed), "--on", "ray"
    )


class Stage:
    """Stands for the file that knows Ray; keeps what it was asked."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.asked: list[Any] = []
        self._failure = failure

    def module(self) -> types.ModuleType:
        made = types.ModuleType("serving")
        made.Asked = lambda **words: words  # type: ignore[attr-defined]
        made.enter = lambda where: self.asked.append(("enter", where))  # type: ignore[attr-defined]
        made.deploy = self._deploy  # type: ignore[attr-defined]
        made.leave = lambda: self.asked.append(("leave",))  # type: ignore[attr-defined]
        return made

    def _deploy(self, asked: Any, note: Any, given_up: Any) -> Any:
        self.asked.append(asked)
        assert not given_up()
        if self._failure is not None:
            raise self._failure
        return types.SimpleNamespace(
            url="http://127.0.0.1:8000/deep", grpc_port=9000, everywhere=False, model="tiny", variant="a", plan="p", replicas=2, updated=False, notes=("n",)
        )  # fmt: skip


def test_what_was_asked_arrives_and_a_detached_application_stays(
    packed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage()
    monkeypatch.setattr(serve_on, "find", lambda package, name: Found(present={name: stage.module()}))
    monkeypatch.setenv("HEADWAY_TOKEN", "sesame")
    words = [
        "--on",
        "ray:127.0.0.1:6379",
        "--replicas",
        "2",
        "--grpc",
        "0.0.0.0:9000",
        "--route",
        "/deep",
        "--deadline",
        "50ms",
        "--detach",
    ]
    with pytest.raises(SystemExit) as ended:
        main(["serve", str(packed), *words])
    assert not ended.value.code
    told = " ".join(capsys.readouterr().err.split())
    (enter, asked, leave) = stage.asked
    assert (enter, leave) == (("enter", "ray:127.0.0.1:6379"), ("leave",))
    assert (asked["replicas"], asked["grpc_port"], asked["route"], asked["http"]) == (2, 9000, "/deep", ("127.0.0.1", 8000))
    assert asked["token"] == "sesame" and asked["settings"].deadline_s == 0.05 and asked["bundle"].manifest.name == "tiny"
    for words_said in (
        "http://127.0.0.1:8000/deep/v2/models/tiny/infer and gRPC on port 9000", "2 replicas of a on p", "note: n", "serve shutdown",
        "headway load http://127.0.0.1:8000/deep",
    ):  # fmt: skip
        assert words_said in told


def test_a_failure_lets_go_of_the_cluster(packed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(HeadwayError("the application 'tiny' could not be started on the cluster: why"))
    monkeypatch.setattr(serve_on, "find", lambda package, name: Found(present={name: stage.module()}))
    assert "could not be started on the cluster: why" in said(capsys, str(packed), "--on", "ray", code=HeadwayError("").exit_code)
    assert stage.asked[-1] == ("leave",)
