import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from starlette.testclient import TestClient

from serein.corpus.corpus import Corpus
from serein.frames.store import FrameStore
from serein.recipe import Recipe
from serein.recognizer import EmotionRecognizer
from serein.serve.app import make_app
from serein.serve.limits import Limits
from serein.serve.server import Server, make_server
from serein.train.ship import train_model


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def small() -> Limits:
    return Limits(body_bytes=2_000_000, audio_seconds=60.0, body_seconds=1.0, idle_seconds=1.0, message_bytes=100_000)


@pytest.fixture(scope="session")
def served_model(tone_store: FrameStore, tiny_recipe: Recipe, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "tones"
    train_model(tone_store, tone_store.corpus(), folder, tiny_recipe)
    return folder


@pytest.fixture(scope="session")
def recognizer(served_model: Path) -> EmotionRecognizer:
    return EmotionRecognizer.from_pretrained(served_model)


@pytest.fixture(scope="session")
def paths(tones: Corpus) -> list[Path]:
    return [utterance.path for utterance in tones]


@pytest.fixture(scope="session")
def client(recognizer: EmotionRecognizer, small: Limits) -> Iterator[TestClient]:
    """For everything that needs no real connection."""
    with TestClient(make_app(recognizer, small, name="tones")) as client:
        yield client


@pytest.fixture(scope="session")
def serving(recognizer: EmotionRecognizer, small: Limits) -> Callable:
    """Starts a real server on a free port: itself, and its port."""

    @contextmanager
    def start(limits: Limits = small) -> Iterator[tuple[Server, int]]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = make_server(make_app(recognizer, limits, name="tones"), "127.0.0.1", port)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            yield server, port
        finally:
            server.should_exit = True
            thread.join()

    return start


@pytest.fixture(scope="session")
def live(serving: Callable) -> Iterator[tuple[Server, int]]:
    with serving() as started:
        yield started


@pytest.fixture(scope="session")
def sound() -> Callable[..., bytes]:
    """Makes a file with a hum in it."""

    def make(
        seconds: float = 0.5, rate: int = 16_000, channels: int = 1, kind: str = "WAV", coding: str | None = None
    ) -> bytes:
        wave = 0.3 * np.sin(2 * np.pi * 220 * np.arange(int(seconds * rate)) / rate)
        file = io.BytesIO()
        soundfile.write(file, np.repeat(wave[:, None], channels, 1), rate, format=kind, subtype=coding)
        return file.getvalue()

    return make
