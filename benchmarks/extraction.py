"""Extraction: `serein extract`'s way beside transformers', with the same encoders, from files to frames on disk.

Usage:  python benchmarks/extraction.py [--quick] [--encoder FOLDER] [--whisper FOLDER]

The encoders are a HuBERT-large and a Whisper base with random weights, made on the spot, or those of two folders. The
recordings are noise, as long as IEMOCAP's utterances of 2 to 12 s. Every side decodes, computes, and writes float16.
The share of the peak counts what the layers asked for need: matrix products, convolutions, attention; no padding.
"""

import argparse
import copy
import importlib.util
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import measure
import numpy as np
import soundfile
import torch
import transformers
from operations import HUBERT_LARGE
from synthetic import make_corpus, speech_seconds, write_audio

from serein.corpus.corpus import Corpus
from serein.frames.encoder import load_encoder
from serein.frames.extract import extract
from serein.frames.store import FrameStore

RATE = 16_000
SHORTEST, LONGEST = 2.0, 12.0  # seconds
BATCH = 8  # utterances in a padded batch, in the corpus's order
WHISPER_BASE = {
    "d_model": 512, "encoder_layers": 6, "encoder_attention_heads": 8, "encoder_ffn_dim": 2048,
    "decoder_layers": 1, "decoder_attention_heads": 8, "decoder_ffn_dim": 512,
}  # fmt: skip

Side = Callable[[], object]


class Transformers:
    """What most people write: load, run with all hidden states, save.

    Args:
        folder: of the encoder.
        corpus: the recordings.
        output: the hidden states go there, one file an utterance.
    """

    def __init__(self, folder: Path, corpus: Corpus, output: Path) -> None:
        self.extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
        self.model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        self.corpus, self.output = corpus, output
        output.mkdir()

    def file_by_file(self) -> None:
        """Each waveform alone."""
        self.batches(1)

    def batches(self, size: int, autocast: bool = False) -> None:
        """So many waveforms at once, the shorter ones padded and masked."""
        for start in range(0, len(self.corpus), size):
            utterances = self.corpus.utterances[start : start + size]
            waveforms = [soundfile.read(utterance.path, dtype="float32")[0] for utterance in utterances]
            inputs = self.extractor(
                waveforms, sampling_rate=RATE, return_tensors="pt", padding=True, return_attention_mask=size > 1
            )
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                self._save(utterances, waveforms, self.model(**inputs, output_hidden_states=True))

    def padded_whisper(self) -> None:
        """Whisper's encoder on 30 s a file, of which the clip's frames are kept."""
        for utterance in self.corpus:
            waveform = soundfile.read(utterance.path, dtype="float32")[0]
            mel = self.extractor(waveform, sampling_rate=RATE, return_tensors="pt").input_features
            with torch.inference_mode():
                self._save([utterance], [waveform], self.model.encoder(mel, output_hidden_states=True))

    def _save(self, utterances: Sequence[Any], waveforms: Sequence[np.ndarray], output: Any) -> None:
        states = (*output.hidden_states[:-1], output.last_hidden_state)
        stacked = torch.stack(states, dim=2).half().numpy()
        for utterance, waveform, frames in zip(utterances, waveforms, stacked, strict=True):
            np.save(self.output / f"{utterance.id}.npy", frames[: self._frames(len(waveform))])

    def _frames(self, samples: int) -> int:
        if self.model.config.model_type == "whisper":
            return (samples // self.extractor.hop_length + 1) // 2
        return int(self.model._get_feat_extract_output_lengths(samples))


def serein(folder: Path, corpus: Corpus, output: Path, **options: Any) -> Side:
    """Extraction to a fresh store, with an encoder that is loaded already, as on the other side."""
    encoder = load_encoder(str(folder), **options)

    def run() -> None:
        shutil.rmtree(output, ignore_errors=True)
        extract(corpus, encoder, output)

    return run


def operations(config: Any, samples: int, layers: int) -> float:
    """Floating-point operations of one waveform (a multiplication and an addition are two), without norms and such."""
    frames, channels, total = samples, 1, 0
    for width, kernel, stride in zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True):
        frames = (frames - kernel) // stride + 1
        total += frames * width * channels * kernel
        channels = width
    width = config.hidden_size
    total += frames * width * channels
    total += frames * width * width // config.num_conv_pos_embedding_groups * config.num_conv_pos_embeddings
    total += layers * frames * (4 * width**2 + 2 * width * config.intermediate_size + 2 * frames * width)
    return 2.0 * total


def cosines(store: FrameStore, reference: Path) -> dict[str, float]:
    """By layer, the lowest cosine of an utterance (mean over its frames) with transformers' file-by-file run."""
    array, layers = store.load(), store.settings["encoder"]["layers"]
    lowest = dict.fromkeys(map(str, layers), 1.0)
    for frames, name in zip(array.flat.split(array.lengths.tolist()), array.ids, strict=True):
        expected = torch.from_numpy(np.load(reference / f"{name}.npy"))[:, layers]
        similarity = torch.cosine_similarity(frames.float(), expected.float(), dim=2).mean(0)
        for layer, value in zip(lowest, similarity.tolist(), strict=True):
            lowest[layer] = min(lowest[layer], value)
    return lowest


def hubert_sides(folder: Path, corpus: Corpus, scratch: Path, blocks: int) -> dict[str, Side]:
    theirs = Transformers(folder, corpus, scratch / "one by one")
    batched = copy.copy(theirs)  # the same model, which would not fit twice everywhere
    batched.output = scratch / "batched"
    batched.output.mkdir()
    every, half = list(range(1, blocks + 1)), [blocks // 2]
    sides: dict[str, Side] = {
        "transformers, file by file, float32": theirs.file_by_file,
        f"transformers, batches of {BATCH}, float32": lambda: batched.batches(BATCH),
        f"transformers, batches of {BATCH}, bfloat16 autocast": lambda: batched.batches(BATCH, autocast=True),
    }
    for dtype in ("float32", "bfloat16"):
        for layers in (every, half):
            name = f"serein, {'all layers' if layers == every else f'layer {layers[0]}'}, {dtype}"
            sides[name] = serein(folder, corpus, scratch / name, layers=layers, dtype=dtype)
    return sides


def whisper_sides(folder: Path, corpus: Corpus, scratch: Path) -> dict[str, Side]:
    sides: dict[str, Side] = {
        "transformers, padded to 30 s, float32": Transformers(folder, corpus, scratch / "whisper").padded_whisper
    }
    for padding in (True, False):
        for dtype in ("float32", "bfloat16"):
            name = f"serein, {'padded to 30 s' if padding else 'cut to the clip'}, {dtype}"
            options = {"layers": [-1], "dtype": dtype, "whisper_padding": padding}
            sides[name] = serein(folder, corpus, scratch / name, **options)
    return sides


def random_encoder(folder: Path, whisper: bool) -> Path:
    """A checkpoint of full size whose weights mean nothing."""
    torch.manual_seed(0)
    if whisper:
        model = transformers.WhisperModel(transformers.WhisperConfig(**WHISPER_BASE))
        extractor = transformers.WhisperFeatureExtractor()
    else:
        model = transformers.HubertModel(transformers.HubertConfig(**HUBERT_LARGE))
        extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return folder


def facts_of(sides: Mapping[str, Side], audio_seconds: float, repeats: int) -> dict[str, dict[str, Any]]:
    """Of each side: audio seconds a second, and how many times as fast as the first."""
    seconds = measure.alternate(sides, repeats)
    first = next(iter(seconds.values()))
    return {
        name: {
            "seconds": measure.summary(taken),
            "audio_seconds_a_second": measure.summary([audio_seconds / second for second in taken]),
            "times_the_first": measure.ratio(first, taken),
        }
        for name, taken in seconds.items()
    }


def rows(facts: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, fact in facts.items():
        speed, ratio = fact["audio_seconds_a_second"], fact["times_the_first"]
        cells = [
            name,
            f"{speed['median']:.1f} ({speed['lowest']:.1f} to {speed['highest']:.1f})",
            f"{ratio['median']:.2f} ({ratio['lowest']:.2f} to {ratio['highest']:.2f})",
            f"{fact['share_of_peak']:.0%}" if "share_of_peak" in fact else "",
            f"{min(fact['cosines'].values()):.5f}" if "cosines" in fact else "",
        ]
        yield f"| {' | '.join(cells)} |"


def goals_of(hubert: Mapping[str, Any], whisper: Mapping[str, Any], half: int) -> dict[str, dict[str, float | bool]]:
    """Held against limits that were set for HuBERT-large and Whisper base on a CPU that multiplies bfloat16."""
    every, middle = hubert["serein, all layers, bfloat16"], hubert[f"serein, layer {half}, bfloat16"]
    cut = whisper["serein, cut to the clip, bfloat16"]
    times = "times_the_first"
    return {
        "all layers, bfloat16: times file by file": measure.goal(every[times]["median"], at_least=2.4),
        "all layers, bfloat16: smallest cosine": measure.goal(min(every["cosines"].values()), at_least=0.999),
        "all layers, bfloat16: share of the bf16 peak": measure.goal(every["share_of_peak"], at_least=0.72),
        f"layer {half}, bfloat16: times file by file": measure.goal(middle[times]["median"], at_least=4.2),
        "whisper cut to the clip, bfloat16: times padded to 30 s": measure.goal(cut[times]["median"], at_least=6.0),
    }


def run(args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    hubert = args.encoder or random_encoder(scratch / "hubert", whisper=False)
    whisper = args.whisper or random_encoder(scratch / "whisper-base", whisper=True)
    lengths = [seconds for seconds in speech_seconds(4 * args.utterances) if SHORTEST <= seconds <= LONGEST]
    corpus = make_corpus(lengths[: args.utterances], 5, scratch / "audio")
    write_audio(corpus)
    audio = sum(utterance.seconds or 0.0 for utterance in corpus)
    config = transformers.AutoConfig.from_pretrained(hubert)
    blocks = config.num_hidden_layers

    peaks = measure.peaks(args.threads)
    hubert_facts = facts_of(hubert_sides(hubert, corpus, scratch, blocks), audio, args.repeats)
    for name, fact in hubert_facts.items():
        highest = blocks // 2 if f"layer {blocks // 2}" in name else blocks
        counted = sum(operations(config, round((u.seconds or 0.0) * RATE), highest) for u in corpus)
        peak = peaks["bf16" if "bfloat16" in name else "fp32"] * 1e9
        fact["share_of_peak"] = counted / fact["seconds"]["median"] / peak
        if name.startswith("serein"):
            fact["cosines"] = cosines(FrameStore(scratch / name), scratch / "one by one")
    whisper_facts = facts_of(whisper_sides(whisper, corpus, scratch), audio, args.repeats)
    for name, fact in whisper_facts.items():
        if name.startswith("serein"):
            fact["cosines"] = cosines(FrameStore(scratch / name), scratch / "whisper")
    return {
        "peaks_gflops": peaks,
        "utterances": len(corpus),
        "audio_seconds": audio,
        "median_seconds": statistics.median(lengths[: args.utterances]),
        "repeats": args.repeats,
        "threads": args.threads,
        "hubert": hubert_facts,
        "whisper": whisper_facts,
        "goals": goals_of(hubert_facts, whisper_facts, blocks // 2),
        "s3prl": "is installed, but not measured" if importlib.util.find_spec("s3prl") else "is not installed",
    }


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    options = measure.parser(__doc__)
    options.add_argument("--encoder", type=Path, metavar="FOLDER", help="a HuBERT with layer norm in its front end")
    options.add_argument("--whisper", type=Path, metavar="FOLDER")
    options.add_argument("--utterances", type=int, help="default: 12; with --quick 3")
    options.add_argument("--repeats", type=int, help="default: 5; with --quick 1")
    args = options.parse_args(arguments)
    args.utterances = args.utterances or (3 if args.quick else 12)
    args.repeats = args.repeats or (1 if args.quick else 5)
    return args


def main(arguments: Sequence[str]) -> None:
    args = parse(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        facts = run(args, Path(scratch))
    path = measure.write("extraction", facts, args.results, quick=args.quick)
    peaks = facts["peaks_gflops"]
    print(
        f"{facts['utterances']} utterances, {facts['audio_seconds']:.1f} s, {args.threads} threads; large products "
        f"reach {peaks['fp32']:.0f} GFLOP/s in float32, {peaks['bf16']:.0f} in bfloat16\n"
    )
    for title in ("hubert", "whisper"):
        print(f"| {title} | audio seconds a second | times the first | share of peak | lowest cosine |")
        print("|---|---:|---:|---:|---:|", *rows(facts[title]), "", sep="\n")
    print(f"s3prl {facts['s3prl']}. Written to {path}")


if __name__ == "__main__":
    measure.run(main)
