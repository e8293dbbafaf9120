"""Every request comes in here and every answer goes out: counted, and sealed against the tricks of other pages."""

import asyncio
import math
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serein.serve.metrics import Metrics
from serein.serve.refusals import Refusal

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; media-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
SLOW, LEFT = 408, 499  # statuses; the second is counted where nobody is there to be answered


class Door:
    """ASGI middleware, the outermost.

    Args:
        app: what is behind it, which answers its own faults.
        metrics: where requests are counted.
        routes: paths that are counted by their names; anything else is ``other``, whatever strangers think up.
        patience: how many bytes of a body that was answered before it came are read on, so that its sender comes to
            see the answer; where more are to come, or nobody knows how many, the connection is closed. It is also
            closed where the rest has not come, and another request after it, 10 seconds after the answer
            (:data:`serein.serve.server.HEADER_SECONDS`).
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: frozenset[str], patience: int) -> None:
        self._app = app
        self._metrics = metrics
        self._routes = routes
        self._patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        app = self._app if _welcome(scope) else Refusal("foreign_origin").reply()
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        started, status, to_come = time.perf_counter(), LEFT, _announced(scope)

        async def hear() -> Message:
            nonlocal to_come
            message = await receive()
            to_come = to_come - len(message.get("body", b"")) if message.get("more_body") else 0
            return message

        async def seal(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-cache" if scope["path"].startswith("/static/") else "no-store")
                if to_come > self._patience or status == SLOW:
                    headers["Connection"] = "close"
            await send(message)

        try:
            await app(scope, hear, seal)
        except asyncio.CancelledError:  # the server stops, and waits no longer
            if status == LEFT:
                await Refusal("draining").reply()(scope, hear, seal)
        finally:
            route = scope["path"] if scope["path"] in self._routes else "other"
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.latency.labels(route).observe(time.perf_counter() - started)


def _welcome(scope: Scope) -> bool:
    """Whether no page of another site asks: browsers say whose page posts or opens a stream, programs need not."""
    if not (scope["type"] == "websocket" or scope.get("method") == "POST"):
        return True
    headers = Headers(scope=scope)
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2] == headers.get("host")


def _announced(scope: Scope) -> float:
    """How many bytes of body a request brings; nobody knows where it comes in chunks."""
    headers = Headers(scope=scope)
    return math.inf if "transfer-encoding" in headers else float(headers.get("content-length", 0))
