"""Answers that tell how far the work is: lines of JSON, for who asks for them with `Accept: application/x-ndjson`.

    {"progress": {...}}                          any number of these, at most ten a second
    {"result": ...}   or   {"error": words, "code": exit code}

What fails before there was any progress is answered as any other request is. Where the caller goes away, the work is
cancelled; what it had published stays published.

Invariant: a stream ends with exactly one line that is not progress, or was cut off.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from peer.api import ApiError, Json, Progress

LINES_TYPE: Final = "application/x-ndjson"
BETWEEN_S: Final = 0.1


def reply(data: Any, *, status: int = 200) -> web.Response:
    return web.json_response(data, status=status)


async def streamed(
    request: web.Request, work: Callable[[Progress | None], Awaitable[list[Json]]]
) -> web.StreamResponse:
    """Do `work` and answer with its result, and with its progress if the caller wants that."""
    if LINES_TYPE not in request.headers.get("Accept", ""):
        return reply(await work(None))
    latest: Json = {}  # what has been told since the last line; of each key the last word
    news = asyncio.Event()

    def told(event: Json) -> None:
        latest.update(event)
        news.set()

    task = asyncio.ensure_future(work(told))
    task.add_done_callback(lambda _task: news.set())
    try:
        await news.wait()
        if task.done() and not latest:
            return reply(await task)  # also what failed: as any other request
        response = web.StreamResponse(headers={"Content-Type": LINES_TYPE})
        await response.prepare(request)
        while True:
            if latest:
                line = {"progress": dict(latest)}
                latest.clear()
                await _write(response, line)
            if task.done():
                break
            news.clear()
            await news.wait()
            if not task.done():
                await asyncio.sleep(BETWEEN_S)
        await _write(response, await _outcome(task))
        await response.write_eof()
        return response
    finally:
        task.cancel()


async def _outcome(task: "asyncio.Future[list[Json]]") -> Json:
    try:
        return {"result": await task}
    except ApiError as error:
        return {"error": str(error), "code": error.code}


async def _write(response: web.StreamResponse, line: Json) -> None:
    await response.write(json.dumps(line).encode() + b"\n")
