"""Start-up: how long fresh processes take to import serein, to print its help, and to name one clip's emotion.

Usage:  python benchmarks/startup.py [--quick]

The model is tiny (a HuBERT of two blocks with random weights, the paper's adapter on it), so that ``serein predict``
costs its imports and little else. Beside it stands what anyone pays who runs such an encoder with transformers: the
import of its model and feature extractor. Files are in the page cache: the first round is not measured.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import measure

GOALS = {"import serein": 0.3, "serein --help": 0.5}
BEYOND_TRANSFORMERS = 0.5
TRANSFORMERS = "import of transformers' HuBERT"
PIPELINE = "import of transformers' pipeline"


def make_model(folder: Path) -> tuple[Path, Path]:
    """A model's folder, and a clip of a second."""
    import numpy as np
    import soundfile
    import transformers

    from serein.frames.encoder import load_encoder
    from serein.model import EncoderDescription, ModelConfig, build_adapter, build_classifier, save_model
    from serein.recipe import Model

    transformers.logging.disable_progress_bar()
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    convolutions = {"conv_dim": (16,) * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
    encoder = folder / "encoder"
    transformers.HubertModel(transformers.HubertConfig(**sizes, **convolutions)).save_pretrained(encoder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(encoder)
    front = load_encoder(str(encoder))
    said = EncoderDescription(
        name=front.name, revision=front.revision, fingerprint=front.fingerprint, layers=front.layers,
        width=front.width, settings=front.settings, pool=1, frame_rate=front.frame_rate,
    )  # fmt: skip
    config = ModelConfig(architecture="classifier", model=Model(), encoder=said, max_frames=1500, labels=("a", "b"))
    save_model(folder / "model", build_classifier(config, build_adapter(config)), config)
    clip = folder / "clip.wav"
    soundfile.write(clip, 0.1 * np.random.default_rng(0).standard_normal(16_000), 16_000)
    return folder / "model", clip


def sides(model: Path, clip: Path, threads: int) -> dict[str, Callable[[], object]]:
    commands = {
        "python": ["-c", "pass"],
        "import serein": ["-c", "import serein"],
        "serein --help": ["-m", "serein", "--help"],
        TRANSFORMERS: ["-c", "from transformers import HubertModel, Wav2Vec2FeatureExtractor"],
        PIPELINE: ["-c", "from transformers import pipeline"],
        "serein predict": ["-m", "serein", "predict", str(model), str(clip)],
    }
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}

    def process(words: list[str]) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, *words], check=True, capture_output=True, env=environment)

    return {name: process(words) for name, words in commands.items()}


def main(arguments: Sequence[str]) -> None:
    args = measure.parser(__doc__).parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        seconds = measure.alternate(sides(*make_model(Path(temporary)), args.threads), 3 if args.quick else 15)
    summaries = {name: measure.summary(taken) for name, taken in seconds.items()}
    limits = GOALS | {"serein predict": summaries[TRANSFORMERS]["median"] + BEYOND_TRANSFORMERS}
    goals = {
        f"{name}: seconds": measure.goal(summaries[name]["median"], at_most=limit) for name, limit in limits.items()
    }
    facts = {"seconds in a fresh process": summaries, "goals": goals}
    print(measure.write("startup", facts, args.results, quick=args.quick))


if __name__ == "__main__":
    measure.run(main)
