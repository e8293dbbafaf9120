"""Nobody works for a client that has left."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

T = TypeVar("T")


async def while_there(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Work for a request whose body has come: after it nothing can come but the news that its client left.

    Raises:
        ClientDisconnect: it left; the work is cancelled.
    """
    news = asyncio.ensure_future(request.receive())
    try:
        return await unless_left(news, work)
    finally:
        news.cancel()


async def unless_left(news: asyncio.Future[Message], work: Coroutine[Any, Any, T]) -> T:
    """Work until it is done or the news is that the client left; other news wait.

    Raises:
        ClientDisconnect: it left; the work is cancelled.
    """
    working = asyncio.ensure_future(work)
    either: set[asyncio.Future[Any]] = {news, working}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not working.done() and news.result()["type"].endswith(".disconnect"):
            raise ClientDisconnect
        return await working
    finally:
        working.cancel()
