"""How loud each frame of a recording is, and whether a voice sounds in it."""

import numpy as np
from jaxtyping import Bool, Float, Float64

from serein.frames.audio import SAMPLE_RATE

WINDOW = SAMPLE_RATE * 50 // 1000  # samples: three periods of the lowest pitch
LOWEST_PITCH, HIGHEST_PITCH = 60, 400  # Hz
VOICED = 0.5  # normalised autocorrelation: white noise stays below 0.4, vowels reach 0.8 and more
FLOOR = 1e-10  # power: -100 dB, below one step of 16-bit samples
_BLOCK = 4096  # frames at once, so that memory does not grow with the recording


def frame_energy_and_voicing(
    samples: Float[np.ndarray, " samples"], frames: int, frame_rate: float
) -> tuple[Float64[np.ndarray, " frames"], Bool[np.ndarray, " frames"]]:
    """Energy and voicing of the 50 ms round the middle of each frame; beyond the recording's ends there is silence.

    Voiced: the autocorrelation has a peak of at least 0.5 at the period of a pitch of 60 to 400 Hz. It is divided by
    that of the window, so that long periods do not count less (Boersma 1993, eq. 9).

    Args:
        samples: at 16 kHz, full scale is 1.
        frames: how many frames the recording has.
        frame_rate: frames a second.

    Returns:
        mean square in dB (a full-scale sine has -3 dB, silence -100 dB), and True where voiced.

    Example:
        >>> tone = np.sin(2 * np.pi * 200 * np.arange(16_000) / 16_000)
        >>> decibels, voiced = frame_energy_and_voicing(tone, 50, 50.0)
        >>> float(decibels[25].round(2)), bool(voiced[25])
        (-3.01, True)
    """
    middles = np.round((np.arange(frames) + 0.5) * SAMPLE_RATE / frame_rate).astype(np.int64)
    # one window of silence on each side, and as much behind as the last frame's window may need
    behind = max(0, WINDOW + (int(middles[-1]) if frames else 0) - len(samples))
    padded = np.pad(samples.astype(np.float64), (WINDOW // 2, behind))
    energies, voicings = np.empty(frames), np.empty(frames, dtype=np.bool_)
    for start in range(0, frames, _BLOCK):
        block = slice(start, start + _BLOCK)
        windows = padded[middles[block, None] + np.arange(WINDOW)]
        energies[block] = np.square(windows).mean(1)
        voicings[block] = _periodicity(windows) >= VOICED
    return 10 * np.log10(np.maximum(energies, FLOOR)), voicings


def _periodicity(windows: Float64[np.ndarray, "frames window"]) -> Float64[np.ndarray, " frames"]:
    """The highest peak of the normalised autocorrelation among the periods of a voice; 0 where there is none."""
    taper = np.hanning(WINDOW)
    shape = _autocorrelation(taper[None])[0]
    correlation = _autocorrelation((windows - windows.mean(1, keepdims=True)) * taper)
    energy = np.maximum(correlation[:, :1], FLOOR)
    normalised = correlation / energy * (shape[0] / shape)
    inner = normalised[:, 1:-1]
    peaks = (inner > normalised[:, :-2]) & (inner >= normalised[:, 2:])
    peaks[:, : SAMPLE_RATE // HIGHEST_PITCH - 1] = False  # inner starts at lag 1
    return np.asarray(np.where(peaks, inner, 0.0).max(1))


def _autocorrelation(windows: Float64[np.ndarray, "frames window"]) -> Float64[np.ndarray, "frames lags"]:
    """Of lags 0 up to one beyond the longest period."""
    spectra = np.fft.rfft(windows, 2 * WINDOW)
    lags = SAMPLE_RATE // LOWEST_PITCH + 2
    return np.fft.irfft(np.square(np.abs(spectra)), 2 * WINDOW)[:, :lags]
