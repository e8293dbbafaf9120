"""Full-size check: frames of `serein extract` against transformers' own forward.

    python tests/parity_check.py hubert-large        # HuBERT-large's configuration, random weights, saved to a folder
    python tests/parity_check.py FOLDER [--cut-whisper]

Prints, for each utterance and layer, the cosine between the store's float16 frames and transformers' hidden states,
computed for the utterance alone; and for the transformer alone against in a batch with others.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import torch
from transformers import AutoFeatureExtractor, AutoModel, HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

from serein.corpus.corpus import Corpus, Utterance
from serein.frames.encoder import load_encoder
from serein.frames.store import FrameStore

SECONDS = (1.3, 2.0, 2.9, 3.7, 4.4)


def save_hubert_large(folder: Path) -> None:
    torch.manual_seed(0)
    config = HubertConfig(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096,
        do_stable_layer_norm=True, feat_extract_norm="layer", conv_bias=True,
    )  # fmt: skip
    HubertModel(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(folder)


def speechlike(folder: Path) -> Corpus:
    random = np.random.default_rng(0)
    utterances = []
    for number, seconds in enumerate(SECONDS):
        time = np.arange(int(16_000 * seconds)) / 16_000
        tone = np.sin(2 * np.pi * (150 + 30 * np.sin(5 * time)) * time) * (1 + np.sin(2 * np.pi * 3 * time))
        path = folder / f"{number}.wav"
        soundfile.write(path, 0.1 * tone + 0.02 * random.standard_normal(len(time)), 16_000)
        utterances.append(Utterance(str(number), path, f"T{number}", "neutral", seconds=seconds))
    return Corpus("speechlike", tuple(utterances))


@torch.inference_mode()
def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        encoder = folder / "encoder" if sys.argv[1] == "hubert-large" else Path(sys.argv[1])
        if sys.argv[1] == "hubert-large":
            save_hubert_large(encoder)
        corpus = speechlike(folder)
        corpus.to_csv(folder / "corpus.csv")
        model = AutoModel.from_pretrained(encoder, dtype=torch.float32).eval()
        whisper = model.config.model_type == "whisper"
        blocks = model.config.num_hidden_layers
        layers = sorted({0, 1, blocks // 2, blocks})
        command = [
            "extract",
            folder / "corpus.csv",
            "--encoder",
            encoder,
            "--layers",
            ",".join(map(str, layers)),
            "-o",
            folder / "frames",
        ]
        subprocess.run([sys.executable, "-m", "serein", *map(str, command), *sys.argv[2:]], check=True)
        array = FrameStore(folder / "frames").load()
        extractor = AutoFeatureExtractor.from_pretrained(encoder)
        worst = 1.0
        for index, utterance in enumerate(corpus):
            samples, _ = soundfile.read(utterance.path, dtype="float32")
            inputs = extractor(samples, sampling_rate=16_000, return_tensors="pt")
            network = model.encoder if whisper else model
            output = network(**{k: v for k, v in inputs.items() if k != "attention_mask"}, output_hidden_states=True)
            states = [*output.hidden_states[:blocks], output.last_hidden_state]
            ours = array.batch(torch.tensor([index])).frames[0]
            for place, layer in enumerate(layers):
                theirs = states[layer][0, : len(ours)]
                cosine = torch.cosine_similarity(ours[:, place].flatten(), theirs.flatten(), dim=0).item()
                worst = min(worst, cosine)
                print(f"utterance {utterance.id} layer {layer}: {len(ours)} frames, cosine {cosine:.7f}")
        front = load_encoder(str(encoder), layers=layers, whisper_padding="--cut-whisper" not in sys.argv)
        waves = [soundfile.read(utterance.path, dtype="float32")[0] for utterance in corpus]
        together = front.encode(waves)
        apart = [front.encode([wave])[0] for wave in waves]
        difference = max((a - b).abs().max().item() for a, b in zip(together, apart, strict=True))
        batch = min(
            torch.cosine_similarity(a.flatten(), b.flatten(), dim=0).item()
            for a, b in zip(together, apart, strict=True)
        )
        print(f"least cosine against transformers, alone: {worst:.7f}")
        print(f"in a batch against alone: least cosine {batch:.7f}, largest difference {difference:.2e}")


if __name__ == "__main__":
    main()
