"""Prediction: serein's recognizer beside transformers' audio-classification pipeline, with the same encoder.

Usage:  python benchmarks/prediction.py [--quick] [--encoder FOLDER]

The encoder is a HuBERT-large with random weights, made on the spot, or a HuBERT or Whisper from a folder. Both sides
get a random classifier for four emotions, and arrays in memory: given a path the pipeline calls an ffmpeg program,
which would have to be there, so decoding is left out of both. One clip of 5 s, and a batch of clips of 2 to 8 s.
"Times as fast" is against the faster of the pipeline's ways in float32, as it comes; "times bfloat16" is against the
pipeline in bfloat16, clips one by one.

"Own share" is the part of serein's time that passes outside of ``encode``: resampling and checks, pooling to frames,
the adapter and its head, sorting the scores. "Share of the peak" counts the encoder's operations alone, without
padding, against a matrix product of the same precision.

For Whisper serein leaves out the padding to 30 s (``--cut-whisper``).
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import measure
import numpy as np
import torch
import transformers
from operations import HUBERT_LARGE, encoder_flops
from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForAudioClassification, pipeline

from serein.frames.encoder import load_encoder
from serein.frames.sources import Recording
from serein.model import EncoderDescription, ModelConfig, build_adapter, build_classifier
from serein.recipe import Model
from serein.recognizer import EmotionRecognizer

RATE = 16_000
ONE = "one clip of 5 s"
LABELS = ("angry", "happy", "neutral", "sad")
POSITIONS_SECONDS = 30.0
TIMES_GOAL, OWN_SHARE_GOAL = 2.0, 0.05  # for one clip, with a HuBERT-large


class Timed:
    """An encoder that notes how long its ``encode`` takes."""

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode(self, waveforms: Any) -> Any:
        """What the encoder gives."""
        start = time.perf_counter()
        frames = self._encoder.encode(waveforms)
        self.seconds += time.perf_counter() - start
        return frames


def make_hubert_large(folder: Path) -> Path:
    """Random weights and a feature extractor, as transformers saves them."""
    transformers.HubertModel(transformers.HubertConfig(**HUBERT_LARGE)).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(folder)
    return folder


def load_pipeline(encoder: Path, dtype: torch.dtype) -> Any:
    """Transformers' sequence classifier on this encoder, behind its pipeline, which casts its inputs like the model."""
    config = AutoConfig.from_pretrained(encoder, num_labels=len(LABELS))
    model = AutoModelForAudioClassification.from_pretrained(encoder, config=config, dtype=dtype).eval()
    extractor = AutoFeatureExtractor.from_pretrained(encoder)
    return pipeline("audio-classification", model=model, feature_extractor=extractor, device="cpu")


def load_recognizer(encoder: Path, dtype: str) -> EmotionRecognizer:
    """The paper's adapter and head, with random weights, on the encoder's last layer."""
    front = load_encoder(str(encoder), dtype=dtype, whisper_padding=False)
    said = EncoderDescription(
        name=front.name, revision=front.revision, fingerprint=front.fingerprint, layers=front.layers,
        width=front.width, settings=front.settings, pool=1, frame_rate=front.frame_rate,
    )  # fmt: skip
    positions = round(POSITIONS_SECONDS * front.frame_rate)
    config = ModelConfig(architecture="classifier", model=Model(), encoder=said, max_frames=positions, labels=LABELS)
    return EmotionRecognizer(build_classifier(config, build_adapter(config)), config, front)


def clips(seconds: Sequence[float]) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [(0.1 * random.standard_normal(round(RATE * length))).astype(np.float32) for length in seconds]


def compare(
    encoder: Path, batch: int, repeats: int, peaks: Mapping[str, float], config: Mapping[str, Any] | None
) -> dict[str, Any]:
    """All sides on one clip and on a batch, with ratios to the pipeline's.

    With the configuration of a HuBERT also the share of the peak that its own operations make up.
    """
    pipe, half = (load_pipeline(encoder, dtype) for dtype in (torch.float32, torch.bfloat16))
    recognizers = {dtype: load_recognizer(encoder, dtype) for dtype in ("float32", "bfloat16")}
    timers = {}
    for dtype, recognizer in recognizers.items():
        recognizer.encoder = timers[dtype] = Timed(recognizer.encoder)

    def alone(recognizer: EmotionRecognizer, samples: np.ndarray) -> Callable[[], object]:
        return lambda: recognizer(Recording(samples, RATE))

    def together(recognizer: EmotionRecognizer, many: list[np.ndarray]) -> Callable[[], object]:
        return lambda: recognizer([Recording(samples, RATE) for samples in many])

    lengths = np.linspace(2.0, 8.0, batch).tolist()
    (one,), many = clips([5.0]), clips(lengths)
    single = {"transformers": lambda: pipe(one.copy()), "transformers, bfloat16": lambda: half(one.copy())}
    single |= {f"serein, {dtype}": alone(recognizer, one) for dtype, recognizer in recognizers.items()}
    several = {
        "transformers": lambda: pipe([samples.copy() for samples in many]),
        "transformers, batch_size": lambda: pipe([samples.copy() for samples in many], batch_size=batch),
        "transformers, bfloat16": lambda: half([samples.copy() for samples in many]),
    }
    several |= {f"serein, {dtype}": together(recognizer, many) for dtype, recognizer in recognizers.items()}

    def rows(sides: dict[str, Callable[[], object]], lengths: Sequence[float]) -> dict[str, dict[str, Any]]:
        inside: dict[str, list[float]] = {}
        for dtype in recognizers:
            sides[f"serein, {dtype}"] = _noting(sides[f"serein, {dtype}"], timers[dtype], inside.setdefault(dtype, []))
        seconds = measure.alternate(sides, repeats)
        in_float32 = [name for name in ("transformers", "transformers, batch_size") if name in seconds]
        fastest = min(in_float32, key=lambda name: min(seconds[name]))
        table = {
            name: {"seconds": measure.summary(taken), "times as fast": measure.ratio(seconds[fastest], taken)}
            for name, taken in seconds.items()
        }
        for dtype, encoding in inside.items():
            name = f"serein, {dtype}"
            shares = [1 - part / whole for part, whole in zip(encoding[1:], seconds[name], strict=True)]
            table[name]["own share"] = measure.summary(shares)
        if config:
            work = encoder_flops(dict(config), lengths) / 1e9
            for name, taken in seconds.items():
                peak = peaks["bf16" if "bfloat16" in name else "fp32"]
                table[name]["share of the peak"] = measure.summary([work / each / peak for each in taken])
        both = (seconds[f"{side}, bfloat16"] for side in ("transformers", "serein"))
        table["serein, bfloat16"]["times bfloat16"] = measure.ratio(*both)
        return table

    return {ONE: rows(single, [5.0]), f"{batch} clips of 2 to 8 s": rows(several, lengths)}


def goals_of(table: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float | bool]]:
    """What serein's sides of a table are held against, by its medians."""
    goals = {}
    for dtype in ("float32", "bfloat16"):
        row = table[f"serein, {dtype}"]
        times, share = row["times as fast"]["median"], row["own share"]["median"]
        goals[f"one clip, {dtype}: times as fast as transformers"] = measure.goal(times, at_least=TIMES_GOAL)
        goals[f"one clip, {dtype}: own share"] = measure.goal(share, at_most=OWN_SHARE_GOAL)
    return goals


def _noting(side: Callable[[], object], timer: Timed, inside: list[float]) -> Callable[[], object]:
    """The same call, which also writes down how much of it passed in the encoder."""

    def noted() -> None:
        before = timer.seconds
        side()
        inside.append(timer.seconds - before)

    return noted


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    options = measure.parser(__doc__)
    options.add_argument("--encoder", type=Path, help="folder of a HuBERT or Whisper (default: random HuBERT-large)")
    return options.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    args = parse(arguments)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.manual_seed(0)
    peaks = measure.peaks(args.threads, size=256 if args.quick else 4096)
    with tempfile.TemporaryDirectory() as temporary:
        encoder = args.encoder or make_hubert_large(Path(temporary, "hubert-large"))
        batch, repeats = (2, 1) if args.quick else (8, 5)
        tables = compare(encoder, batch, repeats, peaks, None if args.encoder else HUBERT_LARGE)
    name = "prediction" if args.encoder is None else f"prediction-{args.encoder.name}"
    facts = {
        "encoder": args.encoder.name if args.encoder else "HuBERT-large, random weights",
        "peak, GFLOP/s": peaks,
        **tables,
    }
    if args.encoder is None:
        facts["goals"] = goals_of(tables[ONE])
    print(measure.write(name, facts, args.results, quick=args.quick))


if __name__ == "__main__":
    measure.run(main)
