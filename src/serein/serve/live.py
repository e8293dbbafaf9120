"""The conversation over one WebSocket: settings, then samples up and windows down, then the timeline."""

import asyncio
import json
from collections.abc import Callable
from functools import partial
from urllib.parse import urlsplit

import numpy as np
from pydantic import ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from serein.errors import AudioError
from serein.serve.limits import Limits
from serein.serve.refusals import Refusal
from serein.serve.replies import StreamSettings
from serein.serve.service import Service
from serein.timeline import Window

# Closing codes, of RFC 6455 and IANA's registry.
UNSUPPORTED, POLICY, TOO_BIG, RESTART, LATER = 1003, 1008, 1009, 1012, 1013


class _HangUp(Exception):  # how a conversation ends, not a fault of ours
    def __init__(self, closing: int, code: str, message: str) -> None:
        super().__init__(message)
        self.closing, self.code = closing, code


async def converse(websocket: WebSocket, service: Service) -> None:
    """Answer one client until it finishes, leaves, or breaks a rule, which it is told before the end."""
    if not _same_origin(websocket):
        await websocket.send_denial_response(Refusal("foreign_origin").reply())
        return
    try:
        await websocket.accept()
        try:
            with service.streams.place(), service.metrics.streams.track_inprogress():
                await _follow(websocket, service)
            await websocket.close()
        except Refusal as refusal:
            closing = RESTART if refusal.code == "draining" else LATER
            await _hang_up(websocket, _HangUp(closing, refusal.code, refusal.message))
        except _HangUp as end:
            await _hang_up(websocket, end)
    except WebSocketDisconnect:  # it left, at whatever point
        pass


def _same_origin(websocket: WebSocket) -> bool:
    """Browsers name the page that opens a stream; programs need not, and nobody is lured into visiting with them."""
    origin = websocket.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == websocket.headers.get("host")


async def _hang_up(websocket: WebSocket, end: _HangUp) -> None:
    await websocket.send_json({"type": "error", "code": end.code, "message": str(end)})
    await websocket.close(end.closing)


async def _follow(websocket: WebSocket, service: Service) -> None:
    labels, limits = service.recognizer.labels, service.limits
    settings = _settings(await _hear(websocket, limits))
    stream = await service.aside(partial(service.stream, settings.window, settings.hop, settings.rate))
    ready = {"type": "ready", "labels": labels, "window": settings.window, "hop": settings.hop}
    await websocket.send_json(ready)
    room = limits.stream_seconds * settings.rate
    finished = False
    while not finished:
        message = await _hear(websocket, limits)
        finished = isinstance(message, str)
        judge: Callable[[], list[Window]]
        if isinstance(message, str):
            _expect_finish(message)
            judge = stream.finish
        else:
            samples = _samples(message, settings.format)
            room -= len(samples)
            if room < 0:
                most = f"{limits.stream_seconds:g} s"
                raise _HangUp(POLICY, "too_long", f"this stream lasts more than {most}, the most allowed here")
            judge = partial(stream.feed, samples)
        try:
            windows = await service.aside(judge)
        except AudioError as error:
            raise _HangUp(UNSUPPORTED, "bad_samples", str(error)) from error
        for window in windows:
            scores = dict(zip(labels, window.scores, strict=True))
            found = {"start": window.start, "end": window.end, "silent": window.silent, "scores": scores}
            await websocket.send_json({"type": "window", **found})
    await websocket.send_json({"type": "timeline", **stream.timeline().as_dict()})


async def _hear(websocket: WebSocket, limits: Limits) -> str | bytes:
    try:
        async with asyncio.timeout(limits.idle_seconds):
            event = await websocket.receive()
    except TimeoutError as error:
        raise _HangUp(POLICY, "idle", f"nothing was sent for {limits.idle_seconds:g} s") from error
    if event["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(event.get("code", 1005))
    message: str | bytes = event["text"] if event.get("text") is not None else event["bytes"]
    if len(message) > limits.message_bytes:
        raise _HangUp(TOO_BIG, "too_large", f"send at most {limits.message_bytes} bytes in one message")
    return message


def _settings(message: str | bytes) -> StreamSettings:
    example = '{"rate": 48000, "window": 4.0, "hop": 1.0, "format": "f32"}'
    if isinstance(message, bytes):
        raise _HangUp(UNSUPPORTED, "bad_settings", f"first send the settings, as text: {example}")
    try:
        return StreamSettings.model_validate_json(message)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "settings"
        raise _HangUp(UNSUPPORTED, "bad_settings", f"{where}: {fault['msg']}; for example {example}") from error


def _expect_finish(message: str) -> None:
    try:
        wish = json.loads(message)
    except ValueError:
        wish = None
    if wish != {"type": "finish"}:
        raise _HangUp(UNSUPPORTED, "bad_message", 'after the settings send samples, or {"type": "finish"}')


def _samples(message: bytes, layout: str) -> np.ndarray:
    kind = np.dtype("<f4" if layout == "f32" else "<i2")
    if len(message) % kind.itemsize:
        raise _HangUp(UNSUPPORTED, "bad_samples", f"{len(message)} bytes are no whole number of samples")
    samples = np.frombuffer(message, dtype=kind)
    return samples if layout == "f32" else samples.astype(np.float32) / np.float32(32768)
