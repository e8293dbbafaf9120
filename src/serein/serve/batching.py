"""One thread that judges what waits, together."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np
from jaxtyping import Float32, Float64

from serein.frames.audio import SAMPLE_RATE

BATCH_SECONDS = 20  # of audio, padding included, that are judged at once, unless a single window is longer
Windows = list[Float32[np.ndarray, " _"]]
Rows = Float64[np.ndarray, "windows values"]


class _Job:
    def __init__(self, windows: Windows) -> None:
        self.left = deque(windows)  # no batch has taken them
        self.windows = len(windows)
        self.rows: list[np.ndarray] = []
        self.future: Future[Rows] = Future()


class Batcher:
    """Gathers the windows of several callers into batches for one thread.

    A batch takes one window of each caller in turn, and who came while it was judged stands before those that had a
    turn in it: somebody with hundreds of windows does not keep somebody with one waiting for longer than the batch that
    runs. Who cancels their future is not waited for: their windows that are in no batch yet are dropped.

    Args:
        judge: gives a row for each window; called in one thread only.
        cost: how many samples are computed for a window of so many.
        watch: told the number of windows of each batch and their seconds.
    """

    def __init__(
        self, judge: Callable[[Windows], Rows], cost: Callable[[int], int], watch: Callable[[int, float], None]
    ) -> None:
        self._judge = judge
        self._cost = cost
        self._watch = watch
        self._jobs: list[_Job] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Callers who have windows that no batch has taken; who has left counts until the next batch is chosen."""
        return sum(bool(job.left) for job in self._jobs)

    def submit(self, windows: Windows) -> Future[Rows]:
        """Ask for the rows of windows, at least one; an error of ``judge`` comes out of the future."""
        job = _Job(windows)
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """End the thread after the batch that runs; who still waits gets an error."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        served: set[_Job] = set()
        while batch := self._take(served):
            self._answer(batch)
            served = {job for job, _ in batch}
            del batch  # nobody's sound is kept while there is nothing to do
        while self._jobs:
            self._fail(self._jobs.pop(), RuntimeError("the batcher is closed"))

    def _take(self, served: set[_Job]) -> list[tuple[_Job, np.ndarray]]:
        """What waits, in turns, up to so many seconds, but at least one window; empty after the end."""
        batch: list[tuple[_Job, np.ndarray]] = []
        room, longest = BATCH_SECONDS * SAMPLE_RATE, 0
        with self._changed:
            waiting = (job for job in self._jobs if job.left and not job.future.done())
            self._jobs = sorted(waiting, key=served.__contains__)
            self._changed.wait_for(lambda: self._jobs or self._closed)
            turns = deque(self._jobs) if not self._closed else deque()
            while turns:
                job = turns.popleft()
                longest = max(longest, self._cost(len(job.left[0])))
                if batch and (len(batch) + 1) * longest > room:
                    break
                batch.append((job, job.left.popleft()))
                if job.left:
                    turns.append(job)
        return batch

    def _answer(self, batch: list[tuple[_Job, np.ndarray]]) -> None:
        batch = [(job, window) for job, window in batch if not job.future.done()]
        if not batch:
            return
        windows = [window for _, window in batch]
        try:
            rows = list(zip(batch, self._judge(windows), strict=True))
            self._watch(len(windows), sum(map(len, windows)) / SAMPLE_RATE)
        except Exception as error:  # whatever it is: who waits must hear of it, and the thread must live on
            jobs = [*dict.fromkeys(job for job, _ in batch)]
            if len(jobs) == 1:
                self._fail(jobs[0], error)
            else:  # somebody's windows cannot be judged; the others' can
                for one in jobs:
                    self._answer([(job, window) for job, window in batch if job is one])
            return
        for (job, _), row in rows:
            job.rows.append(row)
            if len(job.rows) == job.windows and job.future.set_running_or_notify_cancel():
                job.future.set_result(np.stack(job.rows))

    def _fail(self, job: _Job, error: Exception) -> None:
        if not job.future.done() and job.future.set_running_or_notify_cancel():
            job.future.set_exception(error)


class Caller:
    """Somebody who asks a batcher again and again, in a thread that waits, and may be told to stop from another."""

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher
        self._asked: Future[Rows] | None = None
        self._left = False

    def ask(self, windows: Windows) -> Rows:
        """Wait for the rows of windows; after :meth:`leave` the wait is over, with a ``CancelledError``."""
        self._asked = self._batcher.submit(windows)
        if self._left:
            self._asked.cancel()
        return self._asked.result()

    def leave(self) -> None:
        """Want no more answers."""
        self._left = True
        if self._asked:
            self._asked.cancel()
