import threading
import time
import weakref
from concurrent.futures import CancelledError, ThreadPoolExecutor

import numpy as np
import pytest

from serein.serve.batching import Batcher, Caller


class Judge:
    """Answers with each window's first sample, when it is let."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()
        self.entered = threading.Semaphore(0)
        self.go.set()

    def __call__(self, windows: list[np.ndarray]) -> np.ndarray:
        self.batches.append([len(window) for window in windows])
        self.entered.release()
        self.go.wait()
        return np.array([[window[0], 1 - window[0]] for window in windows], dtype=np.float64)


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


@pytest.mark.parametrize(
    ("cost", "seconds", "batches"),
    [
        (len_of, (8, 8, 8, 30, 1), [[8, 8], [8], [30], [1]]),
        (len_of, (3, 3, 3, 3, 12, 2), [[3, 3, 3, 3], [12], [2]]),  # five of which one has 12 s are 60 s, padded
        (lambda samples: max(samples, 10 * 16_000), (1, 1, 1, 30, 1), [[1, 1], [1], [30], [1]]),
        (lambda samples: max(samples, 30 * 16_000), (1, 1), [[1], [1]]),
    ],
)
def test_a_batch_ends_at_twenty_seconds_of_what_is_computed(judge, cost, seconds, batches):
    batcher = Batcher(judge, cost, lambda *_: None)
    first = hold(batcher, judge)
    others = [batcher.submit([of(0.5, length)]) for length in seconds]
    judge.go.set()
    for future in (first, *others):
        future.result()
    batcher.close()
    assert [[length // 16_000 for length in batch] for batch in judge.batches[1:]] == batches


def test_many_windows_do_not_keep_one_recording_waiting(batcher, judge):
    first = hold(batcher, judge)
    many = batcher.submit([of(0.5, 10.0)] * 50)
    one = batcher.submit([of(0.25, 5.0)])
    judge.go.set()
    assert one.result().tolist() == [[0.25, 0.75]]
    assert 5 * 16_000 in judge.batches[1]
    assert many.result().shape == (50, 2)
    first.result()


def test_who_comes_while_a_long_recording_is_judged_is_next(batcher, judge):
    judge.go.clear()
    long = batcher.submit([of(0.5, 30.0)] * 3)
    judge.entered.acquire()
    others = [batcher.submit([of(0.25, 3.0)]) for _ in range(2)]
    other_long = batcher.submit([of(0.5, 25.0)] * 2)
    judge.go.set()
    for future in (long, other_long, *others):
        future.result()
    in_seconds = [[length // 16_000 for length in batch] for batch in judge.batches]
    assert in_seconds == [[30], [3, 3], [25], [30], [25], [30]]


def test_the_windows_of_who_has_left_are_not_judged(batcher, judge):
    first = hold(batcher, judge)
    gone, stays = batcher.submit([of(0.5, 5.0)] * 50), batcher.submit([of(0.25, 5.0)] * 4)
    gone.cancel()
    judge.go.set()
    assert stays.result().tolist() == [[0.25, 0.75]] * 4
    first.result()
    assert judge.batches[1:] == [[80_000] * 4]


def test_who_leaves_in_the_middle_is_forgotten(batcher, judge, watched):
    judge.go.clear()
    gone = batcher.submit([of(0.5, 15.0)] * 50)
    judge.entered.acquire()
    assert batcher.waiting == 1
    assert gone.cancel()
    judge.go.set()
    assert batcher.submit([of(0.5)]).result().tolist() == [[0.5, 0.5]]
    assert judge.batches == [[240_000], [1_600]]
    assert batcher.waiting == 0


def test_a_caller_that_leaves_waits_no_longer_and_asks_in_vain(batcher, judge):
    hold(batcher, judge)
    caller = Caller(batcher)
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(caller.ask, [of(0.5)])
        while not batcher.waiting:
            pass
        caller.leave()
        assert isinstance(asked.exception(), CancelledError)  # while the judge still holds on to the first one
        with pytest.raises(CancelledError):
            caller.ask([of(0.5)])
    judge.go.set()
    assert Caller(batcher).ask([of(0.25)]).tolist() == [[0.25, 0.75]]
    assert judge.batches == [[1_600], [1_600]]


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


def test_where_windows_of_several_fail_each_caller_is_judged_alone(batcher, judge):
    first = hold(batcher, judge)
    futures = [batcher.submit([of(0.5)] * 2), batcher.submit([of(0.25)])]
    real, judge.__class__.__call__ = judge.__class__.__call__, picky_about_three
    try:
        judge.go.set()
        first.result()
        assert [future.result().shape for future in futures] == [(2, 2), (1, 2)]
    finally:
        judge.__class__.__call__ = real
    assert judge.batches[1:] == [[1600, 1600, 1600], [1600, 1600], [1600]]


def picky_about_three(judge, windows):
    judge.batches.append([len(window) for window in windows])
    if len(windows) == 3:
        raise ValueError("three are too many")
    return np.zeros((len(windows), 2))


def test_nobodys_sound_is_kept_while_nothing_is_asked(batcher):
    window = of(0.5)
    kept = weakref.ref(window)
    batcher.submit([window]).result()
    del window
    deadline = time.monotonic() + 20
    while kept() is not None:
        assert time.monotonic() < deadline, "it is kept"
        time.sleep(0.001)


def test_the_rest_of_a_failed_job_is_not_judged():
    seen = []

    def picky(windows):
        seen.append([float(window[0]) for window in windows])
        if windows[0][0] < 0:
            raise ValueError("too quiet")
        return np.array([[window[0]] for window in windows], dtype=np.float64)

    batcher = Batcher(picky, len_of, lambda *_: None)
    with pytest.raises(ValueError, match="too quiet"):
        batcher.submit([of(-1.0, 10.0), of(0.5, 10.0), of(0.25, 10.0)]).result()
    batcher.submit([of(0.75)]).result()
    batcher.close()
    assert seen == [[-1.0, 0.5], [0.75]]


@pytest.mark.parametrize("fault", ["too few rows", "too many rows", "counting"])
def test_the_thread_outlives_whatever_goes_wrong_in_it(fault):
    wrong = [True]

    def judge(windows):
        rows = np.ones((len(windows), 2))
        return {"too few rows": rows[1:], "too many rows": np.ones((len(windows) + 1, 2))}.get(
            fault if wrong else "", rows
        )

    def watch(*_):
        if wrong and fault == "counting":
            raise KeyError("no such counter")

    batcher = Batcher(judge, len_of, watch)
    with pytest.raises((ValueError, KeyError)):
        batcher.submit([of(0.5)]).result(timeout=30)
    wrong.clear()
    assert batcher.submit([of(0.5)]).result(timeout=30).tolist() == [[1.0, 1.0]]
    batcher.close()


def test_when_it_closes_who_waits_is_told_and_nothing_more_is_judged(judge):
    batcher = Batcher(judge, len_of, lambda *_: None)
    first = hold(batcher, judge)
    second, cancelled = batcher.submit([of(0.5)] * 900), batcher.submit([of(0.5)])
    cancelled.cancel()
    with ThreadPoolExecutor(1) as thread:
        closing = thread.submit(batcher.close)
        while not batcher._closed:
            pass
        judge.go.set()
        closing.result()
    assert first.result().tolist() == [[0.0, 1.0]]
    with pytest.raises(RuntimeError, match="closed"):
        second.result(timeout=0)
    assert judge.batches == [[1_600]]
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit([of(0.5)])
