"""The bytes of a recording out of a request: in memory, and counted as they arrive."""

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request

from serein.serve.forms import OneFile
from serein.serve.limits import Limits
from serein.serve.refusals import Refusal

FORM = "multipart/form-data"
PLAIN_TYPES = ("", "application/octet-stream", "application/ogg")
HEARD_OUT = 4  # a body up to so many times too large is read on, so that its sender comes to see the answer


async def receive(request: Request, limits: Limits) -> bytearray:
    """Read the body, or the one file in a multipart body.

    Raises:
        Refusal: of another type, too large, too slow, cut off, or not multipart as it says.
    """
    content_type = request.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    if not (kind in PLAIN_TYPES or kind == FORM or kind.startswith("audio/")):
        raise Refusal("unsupported_type")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limits.body_bytes:
        raise Refusal("too_large", close=int(length) > HEARD_OUT * limits.body_bytes)
    chunks = _counted(request, limits.body_bytes)
    try:
        async with asyncio.timeout(limits.body_seconds):
            return await (_file(content_type, chunks) if kind == FORM else _whole(chunks))
    except TimeoutError as error:
        raise Refusal("slow_body", close=True) from error
    except ClientDisconnect as error:
        raise Refusal("incomplete_body") from error


async def _counted(request: Request, most: int) -> AsyncIterator[bytes]:
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > most:
            raise Refusal("too_large", close=True)
        yield chunk


async def _whole(chunks: AsyncIterator[bytes]) -> bytearray:
    body = bytearray()
    async for chunk in chunks:
        body += chunk
    return body


async def _file(content_type: str, chunks: AsyncIterator[bytes]) -> bytearray:
    form = OneFile(content_type)
    async for chunk in chunks:
        form.write(chunk)
    return form.body()
