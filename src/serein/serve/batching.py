"""One thread that judges what waits, together."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np
from jaxtyping import Float32

from serein.frames.audio import SAMPLE_RATE
from serein.recognizer import BATCH_SECONDS

Judge = Callable[[list[Float32[np.ndarray, " _"]]], Float32[np.ndarray, "recordings classes"]]
"""Gives a row of class probabilities for each recording (mono, 16 kHz)."""


class _Job:
    def __init__(self, recordings: list[Float32[np.ndarray, " _"]]) -> None:
        self.recordings = recordings
        self.taken = 0
        self.rows: list[Float32[np.ndarray, " classes"]] = []
        self.future: Future[Float32[np.ndarray, "recordings classes"]] = Future()
        self.future.set_running_or_notify_cancel()  # who has asked will be answered, listening or not


class Batcher:
    """Gathers the recordings of several callers into batches for one thread.

    A batch takes one recording of each caller in turn, so that somebody with hundreds of windows does not keep somebody
    with one recording waiting for longer than the batch that runs.

    Args:
        judge: called in one thread only.
        cost: how many samples are computed for a recording of so many.
        watch: told the number of recordings of each batch and their seconds.
    """

    def __init__(self, judge: Judge, cost: Callable[[int], int], watch: Callable[[int, float], None]) -> None:
        self._judge = judge
        self._cost = cost
        self._watch = watch
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Callers of whose recordings no batch has taken all yet."""
        return len(self._jobs)

    def submit(self, recordings: list[Float32[np.ndarray, " _"]]) -> Future[Float32[np.ndarray, "recordings classes"]]:
        """Ask for the probabilities of recordings, at least one; an error of ``judge`` comes out of the future."""
        job = _Job(recordings)
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """Judge what waits, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._take():
            self._answer(batch)

    def _answer(self, batch: list[tuple[_Job, Float32[np.ndarray, " _"]]]) -> None:
        recordings = [recording for _, recording in batch]
        try:
            rows = self._judge(recordings)
        except Exception as error:  # whatever it is: who waits must hear of it, and the thread must live on
            if len(batch) == 1:
                self._fail(batch[0][0], error)
            else:  # one of them cannot be judged; the others can
                for single in batch:
                    self._answer([single])
            return
        self._watch(len(recordings), sum(map(len, recordings)) / SAMPLE_RATE)
        for (job, _), row in zip(batch, rows, strict=True):
            job.rows.append(row)
            if len(job.rows) == len(job.recordings) and not job.future.done():
                job.future.set_result(np.stack(job.rows))

    def _take(self) -> list[tuple[_Job, Float32[np.ndarray, " _"]]]:
        """What waits, in turns, up to a minute of computed audio, but at least one recording; empty after the end."""
        batch: list[tuple[_Job, Float32[np.ndarray, " _"]]] = []
        room = BATCH_SECONDS * SAMPLE_RATE
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            while self._jobs:
                job = self._jobs.popleft()
                recording = job.recordings[job.taken]
                cost = self._cost(len(recording))
                if batch and cost > room:
                    self._jobs.appendleft(job)
                    break
                room -= cost
                job.taken += 1
                batch.append((job, recording))
                if job.taken < len(job.recordings):
                    self._jobs.append(job)
        return batch

    def _fail(self, job: _Job, error: Exception) -> None:
        with self._changed:
            self._jobs = deque(other for other in self._jobs if other is not job)
        if not job.future.done():
            job.future.set_exception(error)
