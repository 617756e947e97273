"""A reverse proxy written with aiohttp, as one would write it in an hour: the lower bar of the comparison.

python -m benchmarks.dataplane_aiohttp PORT BACKEND_PORT
"""

import asyncio
import sys
import uuid
from collections import Counter
from typing import Final

import uvloop
from aiohttp import ClientError, ClientSession, DummyCookieJar, TCPConnector, web

FAILURES_MAX: Final = 5  # in a row, then the backend rests
REST_S: Final = 30.0
_HOP_BY_HOP: Final = {"connection", "keep-alive", "transfer-encoding", "upgrade", "te", "trailer"}


class ReverseProxy:
    def __init__(self, session: ClientSession, backend: str) -> None:
        self._session, self._backend = session, backend
        self._failures = 0
        self._ejected_until = 0.0
        self.counts: Counter[int] = Counter()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        response = await self._answer(request)
        self.counts[response.status] += 1
        return response

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.path.startswith("/forbidden"):
            return web.Response(status=403)
        now = asyncio.get_running_loop().time()
        if now < self._ejected_until:
            return web.Response(status=503)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        headers["X-Request-Id"] = str(uuid.uuid4())
        body = request.content if request.can_read_body else None
        try:
            async with self._session.request(
                request.method, self._backend + request.raw_path, headers=headers, data=body
            ) as answer:
                kept = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP_BY_HOP}
                self._failures = self._failures + 1 if answer.status >= 500 else 0
                if self._failures >= FAILURES_MAX:
                    self._ejected_until = now + REST_S
                return web.Response(status=answer.status, headers=kept, body=await answer.read())
        except ClientError:
            return web.Response(status=502)


async def serve(port: int, backend: int) -> None:
    connector = TCPConnector(limit=0)
    async with ClientSession(
        connector=connector, auto_decompress=False, cookie_jar=DummyCookieJar()
    ) as session:
        application = web.Application()
        application.router.add_route(
            "*", "/{path:.*}", ReverseProxy(session, f"http://127.0.0.1:{backend}").handle
        )
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
