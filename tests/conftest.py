from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import transformers
from hypothesis import settings

from serein.corpus.corpus import Corpus, Utterance
from serein.frames.encoder import load_encoder
from serein.frames.extract import extract
from serein.frames.store import FrameStore
from serein.recipe import Recipe

settings.register_profile("serein", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("serein")

SHARED = Path(__file__).resolve().parents[2] / "shared"
PITCH = {"angry": 320.0, "happy": 260.0, "neutral": 180.0, "sad": 140.0}  # Hz
WOBBLE = {"angry": 9.0, "happy": 5.0, "neutral": 0.0, "sad": 2.0}  # tremolo, Hz


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """What a test draws without a generator of its own does not depend on the tests before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def settings_kept() -> Iterator[None]:
    """For tests of scripts that set torch's threads and what transformers tells."""
    threads, verbosity = torch.get_num_threads(), transformers.logging.get_verbosity()
    yield
    torch.set_num_threads(threads)
    transformers.logging.set_verbosity(verbosity)
    transformers.logging.enable_progress_bar()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real corpora and models beside the checkout."""
    if not (SHARED / "data").is_dir():
        pytest.skip("no ../shared/data beside this checkout: real corpora and models are not shipped")
    return SHARED


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Three sessions of two talkers who hum: four emotions that differ in pitch and tremolo, with noise."""
    folder = tmp_path_factory.mktemp("tones")
    random = np.random.default_rng(0)
    utterances = []
    for session in ("1", "2", "3"):
        for voice, factor in (("F", 1.5), ("M", 1.0)):
            for emotion in PITCH:
                for take in range(4):
                    time = np.arange(int(16_000 * random.uniform(0.4, 1.0))) / 16_000
                    pitch = PITCH[emotion] * factor * random.uniform(0.9, 1.1)
                    tremolo = 1 + 0.6 * np.sin(2 * np.pi * WOBBLE[emotion] * time)
                    signal = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in (1, 2, 3)) * tremolo
                    samples = 0.1 * signal + 0.02 * random.standard_normal(len(time))
                    name = f"{session}{voice}_{emotion}_{take}"
                    soundfile.write(folder / f"{name}.wav", samples, 16_000)
                    utterances.append(
                        Utterance(
                            name,
                            folder / f"{name}.wav",
                            f"{session}{voice}",
                            emotion,
                            session,
                            seconds=len(time) / 16_000,
                        )
                    )
    corpus = Corpus("tones", tuple(utterances))
    corpus.to_csv(folder / "tones.csv")
    return Corpus.from_csv(folder / "tones.csv")


@pytest.fixture(scope="session")
def tone_store(tones: Corpus, tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    """Log-mel frames of the tones, 25 a second."""
    return extract(tones, load_encoder("logmel"), tmp_path_factory.mktemp("store") / "frames", pool=2)


@pytest.fixture(scope="session")
def tiny_recipe() -> Recipe:
    """A network that learns the tones in seconds, in float32."""
    return Recipe.from_toml(
        """
        [model]
        width = 16
        blocks = 2
        heads = 2
        [adapt]
        epochs = 2
        batch_size = 12
        attributes = 16
        learning_rate = 1e-3
        [finetune]
        epochs = 8
        batch_size = 12
        learning_rate = 3e-3
        head_learning_rate = 1e-2
        baseline_learning_rates = [1e-2]
        [speed]
        precision = "float32"
        device = "cpu"
        """
    )
