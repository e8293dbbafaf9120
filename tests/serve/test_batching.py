import threading

import numpy as np
import pytest

from serein.serve.batching import Batcher


class Judge:
    """Answers with each recording's first sample, when it is let."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()
        self.entered = threading.Semaphore(0)
        self.go.set()

    def __call__(self, recordings: list[np.ndarray]) -> np.ndarray:
        self.batches.append([len(recording) for recording in recordings])
        self.entered.release()
        self.go.wait()
        return np.array([[recording[0], 1 - recording[0]] for recording in recordings], dtype=np.float32)


def len_of(samples: int) -> int:
    return samples


@pytest.fixture
def judge() -> Judge:
    return Judge()


@pytest.fixture
def watched() -> list[tuple[int, float]]:
    return []


@pytest.fixture
def batcher(judge, watched):
    made = Batcher(judge, len_of, lambda *facts: watched.append(facts))
    yield made
    judge.go.set()
    made.close()


def of(value: float, seconds: float = 0.1) -> np.ndarray:
    return np.full(int(seconds * 16_000), value, dtype=np.float32)


def hold(batcher, judge):
    """Keep the thread busy, so that what comes now waits."""
    judge.go.clear()
    first = batcher.submit([of(0.0)])
    judge.entered.acquire()
    return first


def test_everybody_gets_their_own_answer_in_their_order(batcher):
    futures = [batcher.submit([of(n / 100), of(n / 100 + 0.5)]) for n in range(20)]
    for n, future in enumerate(futures):
        assert future.result().tolist() == pytest.approx(
            np.array([[n / 100, 1 - n / 100], [n / 100 + 0.5, 0.5 - n / 100]])
        )


def test_what_waits_is_judged_together(batcher, judge, watched):
    first = hold(batcher, judge)
    others = [batcher.submit([of(0.5, 0.1 * (n + 1))]) for n in range(5)]
    assert batcher.waiting == 5
    judge.go.set()
    for future in (first, *others):
        future.result()
    assert judge.batches == [[1600], [1600, 3200, 4800, 6400, 8000]]
    assert watched == [(1, 0.1), (5, pytest.approx(1.5))]
    assert batcher.waiting == 0


def test_a_batch_ends_at_a_minute_of_audio(batcher, judge):
    first = hold(batcher, judge)
    others = [batcher.submit([of(0.5, seconds)]) for seconds in (25, 25, 25, 600, 1)]
    judge.go.set()
    for future in (first, *others):
        future.result()
    assert [[length // 16_000 for length in batch] for batch in judge.batches[1:]] == [[25, 25], [25], [600], [1]]


def test_a_batch_ends_at_a_minute_of_what_is_computed(judge):
    batcher = Batcher(judge, lambda samples: max(samples, 30 * 16_000), lambda *_: None)
    first = hold(batcher, judge)
    others = [batcher.submit([of(0.5, seconds)]) for seconds in (1, 1, 1, 40, 1)]
    judge.go.set()
    for future in (first, *others):
        future.result()
    batcher.close()
    assert [[length // 16_000 for length in batch] for batch in judge.batches[1:]] == [[1, 1], [1], [40], [1]]


def test_many_windows_do_not_keep_one_recording_waiting(batcher, judge):
    first = hold(batcher, judge)
    many = batcher.submit([of(0.5, 10.0)] * 50)
    one = batcher.submit([of(0.25, 5.0)])
    judge.go.set()
    assert one.result().tolist() == [[0.25, 0.75]]
    assert 5 * 16_000 in judge.batches[1]
    assert many.result().shape == (50, 2)
    first.result()


def test_an_error_reaches_those_of_the_batch_and_nobody_else(batcher, judge, watched):
    first = hold(batcher, judge)
    whole, windows = batcher.submit([of(0.5)]), batcher.submit([of(0.5, 40.0)] * 3)
    real, judge.__class__.__call__ = judge.__class__.__call__, lambda self, recordings: 1 / 0
    try:
        judge.go.set()
        first.result()
        for future in (whole, windows):
            with pytest.raises(ZeroDivisionError):
                future.result()
    finally:
        judge.__class__.__call__ = real
    assert batcher.waiting == 0
    assert batcher.submit([of(0.5)]).result().tolist() == [[0.5, 0.5]]


def test_a_recording_that_cannot_be_judged_does_not_cost_the_others():
    def picky(recordings):
        if any(recording[0] < 0 for recording in recordings):
            raise ValueError("too quiet")
        return np.array([[recording[0]] for recording in recordings], dtype=np.float32)

    entered, go = threading.Event(), threading.Event()

    def slow(recordings):
        entered.set()
        go.wait()
        return picky(recordings)

    batcher = Batcher(slow, len_of, lambda *_: None)
    first = batcher.submit([of(0.5)])
    entered.wait()
    good, bad, mixed = batcher.submit([of(0.25)]), batcher.submit([of(-1.0)]), batcher.submit([of(0.75), of(-1.0)])
    go.set()
    assert first.result().tolist() == [[0.5]]
    assert good.result().tolist() == [[0.25]]
    for future in (bad, mixed):
        with pytest.raises(ValueError, match="too quiet"):
            future.result()
    assert batcher.submit([of(0.5)]).result().tolist() == [[0.5]]
    batcher.close()


def test_what_waits_is_still_judged_when_it_closes(judge):
    batcher = Batcher(judge, len_of, lambda *_: None)
    first = hold(batcher, judge)
    second = batcher.submit([of(0.5)])
    judge.go.set()
    batcher.close()
    assert first.done()
    assert second.done()
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit([of(0.5)])
