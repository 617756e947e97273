"""A small real HTTP service for the demo: says who it is and who called, and fails on command.

    python -m peer.demo.app NAME VERSION HOST PORT

    GET  /            {"service", "version", "caller", "traceparent"}, or 500 while failing
    GET  /healthz     always 200: the process is up, whatever its answers are worth
    POST /failing     body "on" or "off"

`caller` is what the mesh wrote into `x-forwarded-client-cert`; the service itself has no TLS and no key.
"""

import re
import sys

from aiohttp import web

_URI = re.compile(r"URI=([^;,]+)")


def build_app(name: str, version: str) -> web.Application:
    """The application for one service instance."""
    failing = False

    async def answer(request: web.Request) -> web.Response:
        if failing:
            return web.json_response(
                {"service": name, "version": version, "error": "told to fail"}, status=500
            )
        found = _URI.search(request.headers.get("x-forwarded-client-cert", ""))
        body = {
            "service": name,
            "version": version,
            "caller": found.group(1) if found else None,
            "traceparent": request.headers.get("traceparent"),
        }
        return web.json_response(body)

    async def healthy(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def switch(request: web.Request) -> web.Response:
        nonlocal failing
        failing = (await request.text()).strip() == "on"
        return web.json_response({"failing": failing})

    app = web.Application(client_max_size=1024)
    app.router.add_get("/healthz", healthy)
    app.router.add_post("/failing", switch)
    app.router.add_get("/{path:.*}", answer)
    return app


def main() -> None:
    name, version, host, port = sys.argv[1:5]
    web.run_app(build_app(name, version), host=host, port=int(port), print=None, access_log=None)


if __name__ == "__main__":
    main()
