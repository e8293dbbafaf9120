"""The bytes of a recording out of a request: in memory, and counted as they arrive."""

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import Request

from serein.serve.forms import OneFile
from serein.serve.limits import Limits
from serein.serve.refusals import Refusal

FORM = "multipart/form-data"
# The form's type is what `curl --data-binary` says, whatever it sends.
PLAIN_TYPES = ("", "application/octet-stream", "application/ogg", "application/x-www-form-urlencoded")


async def receive(request: Request, limits: Limits) -> bytearray:
    """Read the body, or the one file in a multipart body.

    Raises:
        Refusal: of another type, too large, too slow, or not multipart as it says.
        ClientDisconnect: the client left before all of it came.
    """
    content_type = request.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    if not (kind in PLAIN_TYPES or kind == FORM or kind.startswith("audio/")):
        raise Refusal("unsupported_type")
    if int(request.headers.get("content-length", 0)) > limits.body_bytes:
        raise Refusal("too_large")
    chunks = _counted(request, limits.body_bytes)
    try:
        async with asyncio.timeout(limits.body_seconds):
            return await (_file(content_type, chunks) if kind == FORM else _whole(chunks))
    except TimeoutError as error:
        raise Refusal("slow_body") from error


async def _counted(request: Request, most: int) -> AsyncIterator[bytes]:
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > most:
            raise Refusal("too_large")
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
