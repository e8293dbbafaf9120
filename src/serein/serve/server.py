"""uvicorn, with patience for those who wait and none for those who make others wait."""

import asyncio
import errno
import logging
import math
import socket
import time
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from serein.errors import SereinError
from serein.serve.service import Service

HEADER_SECONDS = 10.0  # from the connection, or the last answer, to the end of a request's header
UNREAD_SECONDS = 30.0  # for a client that takes nothing of what it is sent
HALF_CLOSED_SECONDS = 5.0  # for the answer to one that has closed its half, as those that left look the same
MOST_CONNECTIONS = 800  # of the 1,024 files that a process may usually have open
DRAIN_SECONDS = 60.0  # for the work that was begun before the first signal
STOP_SECONDS = 5  # for answers that are on their way


class _Connection(H11Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
            line = transport.get_extra_info("socket")
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_SECONDS * 1000))
        self._await_request()

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn's closes at once
        """Answer who has sent all of a request and then closed its half of the connection."""
        if self.cycle is None or self.cycle.more_body or self.cycle.response_complete:
            return False
        self.cycle.keep_alive = False
        self.loop.call_later(HALF_CLOSED_SECONDS, self.transport.close)
        return True

    def on_response_complete(self) -> None:
        self._await_request()  # first, as the next request may be here already
        super().on_response_complete()

    def _await_request(self) -> None:
        self.loop.call_later(HEADER_SECONDS, self._close_unless_asked, self.cycle)

    def _close_unless_asked(self, last: RequestResponseCycle | None) -> None:
        upgraded = self.transport.get_protocol() is not self
        if self.cycle is last and not upgraded:
            self.transport.close()


class _Stream(WebSocketsSansIOProtocol):
    async def send(self, message: Any) -> None:
        if self.close_sent:  # uvicorn has hung up, for a message too large, say, over the application's head
            raise ClientDisconnected
        await super().send(message)
        if self.close_sent:  # else uvicorn takes a refused handshake for one that the application forgot
            self.handshake_complete = True


class Server(uvicorn.Server):
    """Drains: after SIGTERM or Ctrl-C it still listens, says that it is stopping, and stops when its work is done.

    A second signal ends the work that is not; so does a minute, within ``STOP_SECONDS``.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._deadline = math.inf  # on the clock of time.monotonic

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start to drain, or stop."""
        if self._service.draining:
            self.config.timeout_graceful_shutdown = 0
            super().handle_exit(sig, frame)
        else:
            self._service.drain()
            self._deadline = time.monotonic() + DRAIN_SECONDS

    async def _serve(self, sockets: list[socket.socket] | None = None) -> None:
        # Not as uvicorn's lifespan, which prints a traceback, and hides the error, where the service does not start.
        async with self._service.running():
            await super()._serve(sockets)
            await asyncio.sleep(0)  # who was cut short is told so before the judge's last batch is waited for

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop; asked ten times a second."""
        idle = self._service.draining and not self._service.requests.taken
        return await super().on_tick(counter) or idle or time.monotonic() > self._deadline


def check_port(host: str, port: int) -> None:
    """See that a server can listen here, before a model is loaded for it.

    Raises:
        SereinError: it cannot.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
            line.bind(address)
    except UnicodeError as error:  # such as of a name with an empty part
        raise SereinError(f"cannot listen at {host!r}: it is no name of a host; give another with --host") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SereinError(f"port {port} is taken; give another with --port") from error
        raise SereinError(f"cannot listen at {host}, port {port}: {error.strerror}") from error


def make_server(app: FastAPI, host: str, port: int) -> Server:
    """A server for an application of :func:`serein.serve.app.make_app`; ``run()`` blocks until it is stopped.

    ``run()`` raises :class:`serein.serve.decoding.DecoderFailed` where decoding does not start.
    """
    service: Service = app.state.service
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # it would quote from bodies
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=_Connection,
        ws=_Stream,
        ws_max_size=service.limits.message_bytes,
        ws_ping_timeout=None,  # nobody reads pongs while a message waits for its turn
        ws_per_message_deflate=False,  # samples hardly shrink, and nobody sends us bombs
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
        lifespan="off",
    )
    return Server(config, service)
