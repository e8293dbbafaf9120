import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from serein.corpus.corpus import Corpus
from serein.frames.store import FrameStore
from serein.recipe import Recipe
from serein.recognizer import EmotionRecognizer
from serein.train.ship import train_model

RATE = 16_000


@pytest.fixture(scope="session")
def recognizer(tone_store: FrameStore, tiny_recipe: Recipe, tmp_path_factory) -> Iterator[EmotionRecognizer]:
    folder = tmp_path_factory.mktemp("served") / "tones"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train_model(tone_store, tone_store.corpus(), folder, tiny_recipe)
    yield EmotionRecognizer.from_pretrained(folder)
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def address(recognizer: EmotionRecognizer) -> Iterator[str]:
    """Of a real server on a free port."""
    pytest.importorskip("fastapi", reason="serving needs serein[serve]")
    from serein.serve.app import make_app
    from serein.serve.limits import Limits
    from serein.serve.server import make_server

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    limits = Limits(body_bytes=1_000_000, timeline_seconds=100.0)
    server = make_server(make_app(recognizer, limits, name="tones"), "127.0.0.1", port)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="session")
def recording(tones: Corpus, tmp_path_factory) -> Path:
    """About 8 seconds: an angry voice, 3 seconds of silence, a sad voice."""

    def voice(emotion: str) -> np.ndarray:
        takes = [u.path for u in tones if u.talker == "1F" and u.emotion == emotion]
        return np.concatenate([soundfile.read(path, dtype="float32")[0] for path in takes])

    samples = np.concatenate([voice("angry"), np.zeros(3 * RATE, np.float32), voice("sad")])
    path = tmp_path_factory.mktemp("recording") / "two voices.wav"
    soundfile.write(path, samples, RATE)
    return path


playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


@pytest.fixture(scope="module")  # Playwright keeps an event loop running, in which later tests could start none
def browser(recording: Path):
    """A headless Chromium whose microphone plays the recording, over and over."""
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("no chromium on this machine: see `make browser`")
    microphone = [
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={recording}",
    ]
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=microphone)
        yield browser
        browser.close()


@pytest.fixture
def faults() -> list[str]:
    """What the browser complained of; a test that provokes complaints clears it."""
    return []


@pytest.fixture
def page(browser, address: str, faults: list[str]):
    """The page, opened; whatever a test does there, no request leaves the server and nothing complains."""
    page = browser.new_page(viewport={"width": 1100, "height": 900}, color_scheme="light")
    page.set_default_timeout(10_000)
    requested = []
    page.on("request", lambda request: requested.append(request.url))
    page.on("websocket", lambda websocket: requested.append(websocket.url.replace("ws:", "http:")))
    page.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(address)
    playwright.expect(page.locator("#model")).to_contain_text("tones")
    yield page
    page.close()
    assert [url for url in requested if not url.startswith((address, f"blob:{address}"))] == []
    assert faults == []
