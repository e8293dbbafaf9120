from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 12,
}
STABLE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
TINY = {
    "hubert": ("Hubert", SMALL),
    "hubert-stable": ("Hubert", {**SMALL, **STABLE}),
    "hubert-batch-norm": ("Hubert", {**SMALL, "conv_pos_batch_norm": True}),
    "wav2vec2": ("Wav2Vec2", SMALL),
    "wav2vec2-stable": ("Wav2Vec2", {**SMALL, **STABLE}),
    "wavlm": ("WavLM", SMALL),
    "wavlm-stable": ("WavLM", {**SMALL, **STABLE}),
    "data2vec-audio": ("Data2VecAudio", {**SMALL, "num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 5}),
    "unispeech-sat": ("UniSpeechSat", {**SMALL, "codevector_dim": 16, "proj_codevector_dim": 16}),
    "unispeech-sat-stable": (
        "UniSpeechSat",
        {**SMALL, **STABLE, "codevector_dim": 16, "proj_codevector_dim": 16},
    ),
    "whisper": (
        "Whisper",
        {
            "d_model": 32,
            "encoder_layers": 3,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "num_mel_bins": 80,
            "max_source_positions": 100,
            "vocab_size": 12,
            **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0),
        },
    ),
}


def _lively(model: torch.nn.Module) -> torch.nn.Module:
    """Weights large enough that attention, positions and norms change what passes through them."""
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
        elif tensor.is_floating_point() and "original0" not in name:
            tensor.add_(torch.randn_like(tensor), alpha=0.15)
    return model.eval()


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Save a tiny random checkpoint: ``tiny_checkpoint("hubert")``; with a head: ``("hubert", "ForCTC")``."""
    made: dict[tuple[str, str], Path] = {}

    def make(kind: str, head: str = "Model") -> Path:
        if (kind, head) not in made:
            family, settings = TINY[kind]
            with torch.random.fork_rng():
                torch.manual_seed(0)
                config = getattr(transformers, f"{family}Config")(**settings)
                model = _lively(getattr(transformers, family + head)(config))
            folder = tmp_path_factory.mktemp(f"{kind}-{head}")
            model.save_pretrained(folder)
            if kind == "whisper":
                extractor = transformers.WhisperFeatureExtractor(chunk_length=2)
            else:
                extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
            extractor.save_pretrained(folder)
            made[kind, head] = folder
        return made[kind, head]

    return make


@pytest.fixture(scope="session")
def waveforms() -> list[np.ndarray]:
    """Tones in noise of 0.03 to 1.6 seconds at 16 kHz, two of the same length, none of the same loudness."""
    random = np.random.default_rng(0)
    made = []
    for number, samples in enumerate((9000, 500, 25_600, 14_321, 9000)):
        time = np.arange(samples) / 16_000
        tone = np.sin(2 * np.pi * (150 + 90 * number) * time * (1 + time))
        made.append((0.1 * (number + 1) * tone + 0.05 * random.standard_normal(samples)).astype(np.float32))
    return made
