"""Mel spectrograms of speech, as the recogniser in ``demos/speech.py`` learned from, with NumPy alone.

The same numbers as ``librosa.feature.melspectrogram(y, sr=16000, n_fft=400, hop_length=160, n_mels=40)`` with its defaults: frames centred
on their sample and filled with zeros at the ends, a periodic Hann window, power, and Slaney's mel filters (Slaney, "Auditory Toolbox",
version 2, Interval Research Technical Report 1998-010): the mel scale is linear below 1 kHz and logarithmic above, each filter is a
triangle with area one. No logarithm is taken.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RATE_HZ, WINDOW, HOP, BANDS = 16_000, 400, 160, 40
_BREAK_HZ, _BREAK_MEL, _LOG_STEP = 1000.0, 15.0, np.log(6.4) / 27


def mel_of(frequency_hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slaney's mel: 3/200 of the frequency up to 1 kHz, then 27 steps for each factor 6.4."""
    high = np.maximum(frequency_hz, _BREAK_HZ)
    return np.where(frequency_hz < _BREAK_HZ, frequency_hz * 3 / 200, _BREAK_MEL + np.log(high / _BREAK_HZ) / _LOG_STEP)


def frequency_of(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of ``mel_of``, in hertz."""
    high = np.maximum(mel, _BREAK_MEL)
    return np.where(mel < _BREAK_MEL, mel * 200 / 3, _BREAK_HZ * np.exp(_LOG_STEP * (high - _BREAK_MEL)))


def filters(rate_hz: int = RATE_HZ, window: int = WINDOW, bands: int = BANDS) -> NDArray[np.float64]:
    """Weights [bands, window // 2 + 1] of the spectrum's bins in each band; bands are evenly spaced in mel from 0 to half the rate."""
    bins_hz = np.fft.rfftfreq(window, 1 / rate_hz)
    corners_hz = frequency_of(np.linspace(0, float(mel_of(np.array(rate_hz / 2))), bands + 2))
    left, middle, right = corners_hz[:-2, None], corners_hz[1:-1, None], corners_hz[2:, None]
    triangles = np.minimum((bins_hz - left) / (middle - left), (right - bins_hz) / (right - middle)).clip(min=0)
    return triangles * 2 / (right - left)


def mel_spectrogram(samples: NDArray[np.float64]) -> NDArray[np.float32]:
    """Mel power [frames, 40] of samples at 16 kHz, one frame for every 10 ms, and one more."""
    padded = np.pad(samples, WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    power = np.abs(np.fft.rfft(frames * hann, axis=1)) ** 2
    return (power @ filters().T).astype(np.float32)


def louder(samples: NDArray[np.float64], target_db: float = -30.0) -> NDArray[np.float64]:
    """Samples raised to a level of -30 dB (root mean square, full scale 1); louder ones and silence stay as they are."""
    level = float(np.sqrt(np.mean(samples**2)))
    wanted = 10 ** (target_db / 20)
    return samples * (wanted / level) if 0 < level < wanted else samples
