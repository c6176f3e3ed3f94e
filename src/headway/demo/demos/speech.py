"""Who speaks: the Resemblyzer LSTM and telephone announcements by seven speakers.

The service checks a caller's voice. Practice asks a diagnosis service of 50 requests a second at 30 ms to hold 100 at 15 ms. On two shared
virtual cores one answer takes 5 to 8 ms and pauses of the machine alone spoil 15 ms (the naive deployment held 36/s within
it in one hour and 5/s in the next), so the demo asks for 50 a second at 30 ms; give ``--slo`` on a quieter machine. The network (Apache-2.0,
package ``resemblyzer``) was trained with the loss of Wan et al., "Generalized End-to-End Loss for Speaker Verification" (ICASSP 2018). The recordings lie in Debian's announcement packages for the Asterisk exchange, which are only read; so this
demo needs Debian or Ubuntu. Twenty clips of a speaker enrol the voice (their mean vector becomes a row of the last layer), the others
are answered. One woman is enrolled in English and also speaks Spanish: that group holds nearly all the errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from scipy.signal import resample_poly
from torch import nn

from headway.demo import sound, store, training
from headway.demo.case import Case, Progress, require
from headway.demo.registry import Package, fetch

WEIGHTS = Package(
    "pip", "resemblyzer", ("resemblyzer/pretrained.pt",), "0.1.4", "8f12eb2f1a9982d32e8db7856de754709b59c93a77bcf0ff536584b619a9dd1f"
)
RECIPE = "speech-4"
OBJECTIVE = "p99<=30ms, rate>=50/s, drop<=1%"
FRAMES, MOST_WINDOWS, ENROLLED, ROWS_AT_ONCE, SEED = 160, 2, 20, 64, 0
LEARN_EVERY = 40
"""Frames between the beginnings of two pieces to learn from: clips that enrol are few, so all of each is used."""
TELEPHONE_HZ = 8000
FLOOR = 0.91  # 94% is usual


@dataclass(frozen=True, slots=True)
class Voice:
    """One set of recordings: whose voice, in which language, and the Debian package that holds it; the first of a speaker enrols."""

    speaker: str
    language: str
    package: str

    def files(self, cache: Path, progress: Progress) -> list[Path]:
        """Its sound files in a fixed order, without the recordings of silence."""
        wanted = Package("apt", self.package, ("*/sounds/*.wav", "*/sounds/*.gsm"))
        folder = fetch(wanted, cache, progress)
        return sorted(path for path in folder.rglob("*.*") if path.is_file() and path.parent.name != "silence")


VOICES = (
    Voice("Allison", "English", "asterisk-core-sounds-en-wav"),
    Voice("Allison", "Spanish", "asterisk-core-sounds-es-wav"),
    Voice("June", "French", "asterisk-core-sounds-fr-wav"),
    Voice("Carlo", "Italian", "asterisk-core-sounds-it-wav"),
    Voice("Ivrvoice", "Russian", "asterisk-core-sounds-ru-wav"),
    Voice("Menardi", "Italian", "asterisk-prompt-it-menardi-wav"),
    Voice("Armelle", "French", "asterisk-prompt-fr-armelle"),
    Voice("Colombian", "Spanish", "asterisk-prompt-es-co"),
)
SPEAKERS = tuple(dict.fromkeys(voice.speaker for voice in VOICES))


class Recogniser(nn.Module):
    """An LSTM over mel frames, a vector of length one, and its cosine with each enrolled speaker."""

    def __init__(self, speakers: int = len(SPEAKERS), width: int = 256, layers: int = 3) -> None:
        super().__init__()
        self.lstm = nn.LSTM(sound.BANDS, width, layers, batch_first=True)
        self.linear = nn.Linear(width, width)
        self.speakers = nn.Linear(width, speakers, bias=False)

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        """``mel`` float32 [N, 160, 40] to scores [N, speakers]."""
        return self.speakers(self.embed(mel))

    def embed(self, mel: torch.Tensor) -> torch.Tensor:
        """Voice vectors of length one [N, width]."""
        frames, _ = self.lstm(mel)
        return nn.functional.normalize(torch.relu(self.linear(frames[:, -1])), dim=1)


def build(cache: Path, progress: Progress) -> Case:
    """The case; recordings are read and speakers enrolled on the first call.

    Raises:
        MissingPackage: not on Debian or Ubuntu.
        InputError: the recordings or the weights cannot be fetched.
        HeadwayError: the model does not answer as it should.
    """
    store.use(cache)
    made = cache / RECIPE
    if not (made / "quality.npz").exists():
        _make(cache, made, progress)
    with np.load(made / "quality.npz", allow_pickle=False) as quality:
        share, clips, rows = float(quality["share"]), int(quality["clips"]), int(quality["rows"])
        groups = dict(zip(quality["names"].tolist(), quality["shares"].tolist(), strict=True))
    require("speech", "the share of voices recognised", share, FLOOR)
    worst = min(groups, key=lambda name: groups[name])
    return Case(
        title="Who speaks, with an LSTM",
        story=f"A telephone service tells which of {len(SPEAKERS)} enrolled speakers is talking, 50 checks a second, 99% of them within 30 ms.",
        model="python:headway.demo.demos.speech:network",
        data=made / "clips.npz",
        objective=OBJECTIVE,
        metric="accuracy",
        train=made / "enrolled.npz",
        notes=(
            f"{share:.1%} of {rows} pieces of 1.6 s right, out of {clips} clips; intervals are taken by clip",
            f"the worst group is {worst} with {groups[worst]:.1%} right; each of the others has at least {sorted(groups.values())[1]:.1%}",
            "speakers also differ in codec and recording session, so the easy groups partly measure the channel and not the voice",
        ),
    )


def network() -> nn.Module:
    """The LSTM with the enrolled speakers: ``mel`` float32 [N, 160, 40] to scores [N, 7]."""
    return training.restore(Recogniser(), store.home() / RECIPE / "weights.pt")


def read(path: Path) -> NDArray[np.float64]:
    """Samples at 16 kHz of a telephone recording: ``.wav``, or raw GSM 06.10 at 8 kHz (``.gsm``)."""
    if path.suffix == ".gsm":
        samples, rate_hz = soundfile.read(path, format="RAW", subtype="GSM610", samplerate=TELEPHONE_HZ, channels=1, dtype="float64")
    else:
        samples, rate_hz = soundfile.read(path, dtype="float64")
    return samples if rate_hz == sound.RATE_HZ else resample_poly(samples, sound.RATE_HZ // TELEPHONE_HZ, 1)


def pieces(mel: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """At most two pieces of 160 frames that do not overlap, the loudest first, later ones only if the clip has room for them."""
    level = mel.sum(axis=1, dtype=np.float64)
    sums = np.convolve(level, np.ones(FRAMES), "valid")
    for _ in range(MOST_WINDOWS):
        start = int(np.argmax(sums))
        if not np.isfinite(sums[start]):
            return
        yield mel[start : start + FRAMES]
        sums[max(0, start - FRAMES + 1) : start + FRAMES] = -np.inf


def _make(cache: Path, made: Path, progress: Progress) -> None:
    weights = fetch(WEIGHTS, cache, progress) / "resemblyzer" / "pretrained.pt"
    model = pretrained(weights)
    rng = np.random.default_rng(SEED)
    centres: dict[str, NDArray] = {}
    parts: dict[str, list[NDArray]] = {"mel": [], "label": [], "group": [], "cluster": []}
    enrolled: list[tuple[NDArray, int]] = []
    clips = 0
    for voice in VOICES:
        files = voice.files(cache, progress)
        progress(f"listening to {voice.speaker}, {voice.language}")
        heard = _listen(files)
        if voice.speaker not in centres:
            chosen = set(rng.permutation(len(heard))[:ENROLLED].tolist())
            vectors = _embed(model, np.stack([next(pieces(heard[index])) for index in sorted(chosen)]))
            enrolled += [(piece, SPEAKERS.index(voice.speaker)) for index in sorted(chosen) for piece in _overlapping(heard[index])]
            centres[voice.speaker] = vectors.mean(axis=0) / np.linalg.norm(vectors.mean(axis=0))
            heard = [clip for index, clip in enumerate(heard) if index not in chosen]
        for mel in heard:
            clip = list(pieces(mel))
            parts["mel"] += clip
            parts["label"] += [np.array(SPEAKERS.index(voice.speaker))] * len(clip)
            parts["group"] += [np.array(f"{voice.speaker}, {voice.language}")] * len(clip)
            parts["cluster"] += [np.array(clips)] * len(clip)
            clips += 1
    with torch.no_grad():
        model.speakers.weight.copy_(torch.from_numpy(np.stack([centres[speaker] for speaker in SPEAKERS])))
    training.save(model, made / "weights.pt")
    data = {name: np.stack(rows) for name, rows in parts.items()}
    store.arrays(made / "clips.npz", lambda: {**data, "labels": np.array(SPEAKERS)})
    learn, label = (np.stack(column) for column in zip(*enrolled, strict=True))
    store.arrays(made / "enrolled.npz", lambda: {"mel": learn, "label": label})
    progress("checking the model on clips that did not enrol")
    right = (_embed(model, data["mel"]) @ model.speakers.weight.detach().numpy().T).argmax(1) == data["label"]
    names = np.unique(data["group"])
    facts = {"share": right.mean(), "clips": clips, "rows": len(right), "names": names}
    facts["shares"] = np.array([right[data["group"] == name].mean() for name in names])
    store.arrays(made / "quality.npz", lambda: {name: np.asarray(value) for name, value in facts.items()})


def _listen(files: list[Path]) -> list[NDArray[np.float32]]:
    """The mel frames [frames, 40] of each clip that is long enough for a piece."""
    heard = []
    for path in files:
        samples = read(path)
        if len(samples) >= FRAMES * sound.HOP and samples.any():
            heard.append(sound.mel_spectrogram(sound.louder(samples)))
    return heard


def _overlapping(mel: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    return [mel[start : start + FRAMES] for start in range(0, len(mel) - FRAMES + 1, LEARN_EVERY)]


def pretrained(weights: Path) -> Recogniser:
    """The recogniser with the published weights, and nobody enrolled."""
    model = Recogniser()
    held = torch.load(weights, map_location="cpu", weights_only=True)["model_state"]
    model.load_state_dict({**model.state_dict(), **{name: held[name] for name in held if name.startswith(("lstm.", "linear."))}})
    return model.eval()


def _embed(model: Recogniser, mel: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        return np.concatenate([model.embed(rows).numpy() for rows in torch.from_numpy(mel).split(ROWS_AT_ONCE)])
