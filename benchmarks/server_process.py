"""A server in a process of its own: started on a free port, asked, looked at through /proc, and stopped."""

import http.client
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

START_SECONDS, STOP_SECONDS = 120.0, 60.0


class Reply(NamedTuple):
    """An answer over HTTP."""

    status: int
    body: bytes

    @property
    def code(self) -> str:
        """The word for an error, or nothing."""
        try:
            return str(json.loads(self.body)["error"]["code"])
        except (ValueError, KeyError, TypeError):
            return ""


class ServerProcess:
    """A running server; :func:`started` makes it.

    Attributes:
        port: on the loopback interface.
        scratch: what the server takes for the system's temporary folder; empty at the start.
        log: all that it has printed.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int, scratch: Path, log: Path) -> None:
        self._process = process
        self.port = port
        self.scratch = scratch
        self.log = log

    def connection(self) -> http.client.HTTPConnection:
        """For :func:`exchange`; its owner closes it."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def get(self, path: str) -> Reply:
        """Ask over a connection of its own."""
        connection = self.connection()
        try:
            return exchange(connection, "GET", path)
        finally:
            connection.close()

    def metric(self, name: str) -> float:
        """The value of a counter or gauge without labels."""
        lines = self.get("/metrics").body.decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))

    def children(self) -> list[int]:
        """Processes that it started and that are still there, dead ones that nobody asked after included."""
        tasks = Path(f"/proc/{self._process.pid}/task").glob("*/children")
        return [int(child) for task in tasks for child in task.read_text(encoding="ascii").split()]

    def resident(self) -> int:
        """Bytes of memory that it and its children hold, shared pages counted in each."""
        return sum(_resident(pid) for pid in (self._process.pid, *self.children()))

    def open_files(self) -> int:
        """Its descriptors, sockets included."""
        return len(list(Path(f"/proc/{self._process.pid}/fd").iterdir()))

    def stop(self) -> int:
        """End it as a service manager does; returns its exit status."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def exchange(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None, kind: str = "audio/wav"
) -> Reply:
    """Send one request over a connection that may have carried others, and read its answer."""
    connection.request(method, path, body, {"Content-Type": kind} if body is not None else {})
    response = connection.getresponse()
    return Reply(response.status, response.read())


@contextmanager
def started(command: Sequence[str], threads: int) -> Iterator[ServerProcess]:
    """Start a server, wait until it is ready, and stop it at the end.

    Args:
        command: to which ``--port`` and a number are added.
        threads: of torch.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as temporary:
        scratch, log = Path(temporary, "scratch"), Path(temporary, "log")
        scratch.mkdir()
        environment = {**os.environ, "TMPDIR": str(scratch), "OMP_NUM_THREADS": str(threads)}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, "--port", str(port)], stdout=output, stderr=subprocess.STDOUT, env=environment
            )
        server = ServerProcess(process, port, scratch, log)
        try:
            eventually(lambda: process.poll() is not None or _ready(server), START_SECONDS)
            if process.poll() is not None:
                raise SystemExit(f"the server did not start:\n{log.read_text(encoding='utf-8')}")
            yield server
        finally:
            server.stop()


def eventually(true: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Wait until something holds; False where it does not come to hold in time."""
    deadline = time.monotonic() + seconds
    while not (holds := true()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds


def _ready(server: ServerProcess) -> bool:
    try:
        return server.get("/readyz").status == 200
    except OSError:
        return False


def _resident(pid: int) -> int:
    """Bytes; none where the process is dead."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))
