import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial

import numpy as np
import pytest

from serein.frames.audio import load_audio
from serein.frames.sources import Recording
from serein.recognizer import EmotionRecognizer
from serein.serve import decoding
from serein.serve.batching import Batcher
from serein.serve.decoding import DecoderFailed
from serein.serve.limits import Limits
from serein.serve.service import Service

LIMITS = Limits(decoders=1, queue=3, streams=1)


@pytest.fixture(scope="module")
def samples(paths) -> np.ndarray:
    return np.concatenate([load_audio(path) for path in paths[:24]])


class Gate:
    """In front of an encoder: whatever it is given waits until it is opened."""

    def __init__(self, recognizer: EmotionRecognizer, monkeypatch) -> None:
        self.groups: list[list[int]] = []
        self.entered, self.opened = threading.Event(), threading.Event()
        self._encode = recognizer.encoder.encode
        monkeypatch.setattr(recognizer.encoder, "encode", self)

    def __call__(self, windows: list[np.ndarray]) -> list:
        self.groups.append([len(window) for window in windows])
        self.entered.set()
        assert self.opened.wait(60)
        return self._encode(windows)

    def hold(self) -> None:
        self.groups.clear()
        self.entered.clear()
        self.opened.clear()

    async def held(self) -> None:
        await asyncio.to_thread(self.entered.wait, 60)


@pytest.fixture
def gate(recognizer, monkeypatch) -> Gate:
    gate = Gate(recognizer, monkeypatch)
    gate.opened.set()
    return gate


def ran(recognizer: EmotionRecognizer, work: Callable[[Service], Awaitable]) -> object:
    """What the work gives in a service that runs; afterwards nothing of the service is left."""

    async def run() -> object:
        service = Service(recognizer, LIMITS)
        async with service.running():
            return await asyncio.wait_for(work(service), 60)

    before = set(threading.enumerate())
    found = asyncio.run(run())
    assert {thread.name for thread in set(threading.enumerate()) - before} == set()
    return found


def test_answers_put_together_from_windows_are_those_of_the_recognizer(recognizer, samples):
    settings = {"max_frames": 30, "speeds": (1.0, 0.9), "temperature": 1.7}
    model = EmotionRecognizer(recognizer.classifier, recognizer.config.model_copy(update=settings), recognizer.encoder)
    pieces = [samples[:100_000], samples[:400], samples[20_000:65_000]]
    assert len(pieces[0]) > 4 * model.longest_window

    async def work(service: Service):
        rows = await asyncio.gather(*map(service.predict, pieces))
        return rows, await service.timeline(samples, 3.0, 1.0)

    rows, timeline = ran(model, work)
    assert all(row.dtype == np.float32 for row in rows)
    np.testing.assert_allclose(np.stack(rows), model.probabilities_of(pieces).numpy(), atol=1e-5)
    expected = model.timeline(Recording(samples, 16_000), 3.0, 1.0)
    assert len(timeline.windows) == len(expected.windows)
    for window, other in zip(timeline.windows, expected.windows, strict=True):
        assert window.scores == pytest.approx(other.scores, abs=1e-5)


def test_a_short_recording_is_next_after_the_window_of_a_long_one_that_is_judged(recognizer, samples, gate):
    async def work(service: Service):
        gate.hold()
        long = asyncio.create_task(service.predict(np.tile(samples, 12)))
        await gate.held()
        short = asyncio.create_task(service.predict(samples[:48_000]))
        while service._batcher.waiting < 2:
            await asyncio.sleep(0.001)
        gate.opened.set()
        await asyncio.gather(long, short)

    ran(recognizer, work)
    assert gate.groups.pop(1) == [48_000]
    assert len(gate.groups) > 5
    assert all(len(group) == 1 and group[0] > 20 * 16_000 for group in gate.groups)


@pytest.mark.parametrize("how", ["predict", "timeline", "stream"])
def test_nobody_works_for_who_has_left(recognizer, samples, gate, how):
    long = np.tile(samples, 12)

    async def work(service: Service):
        gate.hold()
        asked = {
            "predict": lambda: service.predict(long),
            "timeline": lambda: service.timeline(long, 4.0, 1.0),
            "stream": lambda: service.aside(partial(service.stream(4.0, 1.0, 16_000).feed, long)),
        }[how]
        leaving = [asyncio.create_task(asked()) for _ in range(LIMITS.queue + LIMITS.streams)]
        await gate.held()
        while service._batcher.waiting < len(leaving):
            await asyncio.sleep(0.001)
        for task in leaving:
            task.cancel()
        await asyncio.wait(leaving)
        # All threads are free again while the judge still holds the first batch, of all the windows that are left.
        await service.aside(lambda: None)
        gate.opened.set()
        return await service.predict(samples[:16_000])

    ran(recognizer, work)
    assert len(gate.groups) == 2
    assert gate.groups[1] == [16_000]


def test_a_service_that_ends_judges_the_batch_that_runs_and_nothing_more(recognizer, samples, gate):
    async def work(service: Service):
        gate.hold()
        task = asyncio.create_task(service.timeline(np.tile(samples, 12), 4.0, 1.0))
        await gate.held()
        threading.Thread(target=open_when_closed, args=[service._batcher]).start()
        return task

    def open_when_closed(batcher: Batcher) -> None:
        while not batcher._closed:
            time.sleep(0.001)
        gate.opened.set()

    ran(recognizer, work)
    assert len(gate.groups) == 1


def test_a_service_is_not_up_before_its_decoders_are(recognizer, monkeypatch):
    monkeypatch.setattr(decoding, "INHERITED", ())
    monkeypatch.setattr(decoding, "ONE_THREAD", {"PYTHONHOME": "/nowhere"})
    with pytest.raises(DecoderFailed, match="stderr says why"):
        ran(recognizer, lambda _: pytest.fail("it is up"))


def test_a_window_that_the_encoder_cannot_take_leaves_the_rest_of_a_timeline(recognizer, samples):
    bad = samples[:64_000].copy()
    bad[16_000:32_000] *= 1e30
    found = ran(recognizer, lambda service: service.timeline(bad, 1.0, 1.0))
    expected = recognizer.timeline(Recording(samples[:64_000], 16_000), 1.0, 1.0)
    assert [window.silent for window in found.windows] == [False, True, False, False]
    assert found.windows[1].scores == (0.25,) * 4
    assert found.windows[3].scores == pytest.approx(expected.windows[3].scores, abs=1e-5)
