"""The conversation over one WebSocket: settings, then samples up and windows down, then the timeline."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np
from pydantic import ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from serein.errors import AudioError
from serein.serve.leaving import unless_left
from serein.serve.refusals import Refusal
from serein.serve.replies import Finish, StreamSettings, compact
from serein.serve.service import Service
from serein.timeline import Window

T = TypeVar("T")

AHEAD = 3  # messages that are taken in while one is worked on

CLOSINGS = {
    "bad_settings": 1003,
    "bad_samples": 1003,
    "bad_message": 1003,
    "idle": 1008,
    "too_long": 1008,
    "too_large": 1009,
    "draining": 1012,
    "busy": 1013,
}
"""Why the server ends a stream, and the closing code, of RFC 6455 and IANA's registry, with which it does."""


class _HangUp(Exception):  # how a conversation ends, not a fault of ours
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Line:
    """Listens a few messages ahead, so that work ends when the client leaves, even one that has sent a little more."""

    def __init__(self, websocket: WebSocket, service: Service) -> None:
        self._websocket, self._service = websocket, service
        self._heard: asyncio.Queue[Message] = asyncio.Queue(AHEAD)
        self._listening = asyncio.ensure_future(self._listen())

    async def _listen(self) -> Message:
        """Take messages in until the last of all, that the client has left."""
        while (event := await self._websocket.receive())["type"] != "websocket.disconnect":
            await self._heard.put(event)
        return event

    async def hear(self) -> str | bytes:
        limits = self._service.limits
        message: str | bytes = b""
        try:
            async with asyncio.timeout(limits.idle_seconds):
                while message == b"":  # which is as good as silence
                    event = await unless_left(self._listening, self._heard.get())
                    message = event["text"] if event.get("text") is not None else event["bytes"]
        except TimeoutError as error:
            raise _HangUp("idle", f"nothing was sent for {limits.idle_seconds:g} s") from error
        if len(message) > limits.message_bytes:
            raise _HangUp("too_large", f"send at most {limits.message_bytes} bytes in one message")
        return message

    async def aside(self, function: Callable[[], T]) -> T:
        return await unless_left(self._listening, self._service.aside(function))

    def close(self) -> None:
        self._listening.cancel()


async def converse(websocket: WebSocket, service: Service) -> None:
    """Answer one client until it finishes, leaves, or breaks a rule, which it is told before the end."""
    try:
        await websocket.accept()
        try:
            with service.streams.place(), service.metrics.streams.track_inprogress():
                await _follow(websocket, service)
            await websocket.close()
        except (Refusal, _HangUp) as end:
            await websocket.send_json({"type": "error", "code": end.code, "message": str(end)})
            await websocket.close(CLOSINGS[end.code])
    except (ClientDisconnect, WebSocketDisconnect):  # it left, at whatever point
        pass
    except asyncio.CancelledError:  # the server stops: it has closed the connection with 1012, and waits no longer
        pass


async def _follow(websocket: WebSocket, service: Service) -> None:
    most, spare = service.limits.stream_seconds, service.limits.idle_seconds
    line = _Line(websocket, service)
    try:
        async with asyncio.timeout(most + spare):  # else a place could be held with a sample now and then
            await _answer(websocket, line, service)
    except TimeoutError as error:
        longest = f"{most + spare:g} s"
        raise _HangUp("too_long", f"this stream is open for more than {longest}, the most allowed here") from error
    finally:
        line.close()


async def _answer(websocket: WebSocket, line: _Line, service: Service) -> None:
    labels, limits = service.recognizer.labels, service.limits
    settings = _settings(await line.hear())
    stream = await line.aside(partial(service.stream, settings.window, settings.hop, settings.rate))
    ready = {"type": "ready", "labels": labels, "window": settings.window, "hop": settings.hop}
    await websocket.send_json(ready)
    room = limits.stream_seconds * settings.rate
    finished = False
    while not finished:
        message = await line.hear()
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
                raise _HangUp("too_long", f"this stream lasts more than {most}, the most allowed here")
            judge = partial(stream.feed, samples)
        try:
            windows = await line.aside(judge)
        except AudioError as error:
            raise _HangUp("bad_samples", str(error)) from error
        for window in windows:
            scores = dict(zip(labels, window.scores, strict=True))
            found = {"start": window.start, "end": window.end, "silent": window.silent, "scores": scores}
            await websocket.send_json({"type": "window", **found})
    whole = await line.aside(lambda: compact({"type": "timeline", **stream.timeline().as_dict()}))
    await websocket.send_text(whole)


def _settings(message: str | bytes) -> StreamSettings:
    example = '{"rate": 48000, "window": 4.0, "hop": 1.0, "format": "f32"}'
    if isinstance(message, bytes):
        raise _HangUp("bad_settings", f"first send the settings, as text: {example}")
    try:
        return StreamSettings.model_validate_json(message)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "settings"
        raise _HangUp("bad_settings", f"{where}: {fault['msg']}; for example {example}") from error


def _expect_finish(message: str) -> None:
    try:
        Finish.model_validate_json(message)
    except ValidationError as error:
        raise _HangUp("bad_message", 'after the settings send samples, or {"type": "finish"}') from error


def _samples(message: bytes, layout: str) -> np.ndarray:
    kind = np.dtype("<f4" if layout == "f32" else "<i2")
    if len(message) % kind.itemsize:
        raise _HangUp("bad_samples", f"{len(message)} bytes are no whole number of samples")
    samples = np.frombuffer(message, dtype=kind)
    return samples if layout == "f32" else samples.astype(np.float32) / np.float32(32768)
