"""A client of a service: so many GET requests a second through its host's outbound port, each told as one line of JSON.

Started inside the namespace of its node. Requests do not wait for one another, so a slow answer delays no other (open
load); at most PENDING_MAX are under way, and what would be one more counts as failed. Every FORBIDDEN_EVERY-th goes to
a path that a policy of the experiment denies: an answer below 400 to one of those is an access that should not be.

Usage: caller.py HOST PORT AUTHORITY RATE

Invariant: the line of a request, {"at": Unix s, "ok": bool, "status": int, "forbidden": bool}, is written once it is
decided.
"""

import asyncio
import json
import sys
import time
from typing import Final

import aiohttp

TIMEOUT_S: Final = 5.0
PENDING_MAX: Final = 200
FORBIDDEN_EVERY: Final = 10
FORBIDDEN: Final = "/chaos-forbidden"


async def main(host: str, port: int, authority: str, rate: float) -> None:
    pending: set[asyncio.Task[None]] = set()
    loop = asyncio.get_running_loop()
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        number, next_at = 0, loop.time()
        while True:
            number += 1
            forbidden = number % FORBIDDEN_EVERY == 0
            if len(pending) < PENDING_MAX:
                url = f"http://{host}:{port}{FORBIDDEN if forbidden else '/'}"
                task = asyncio.create_task(one(session, url, authority, forbidden=forbidden))
                pending.add(task)
                task.add_done_callback(pending.discard)
            else:
                tell(time.time(), status=0, forbidden=forbidden)
            next_at += 1 / rate
            await asyncio.sleep(max(0.0, next_at - loop.time()))


async def one(session: aiohttp.ClientSession, url: str, authority: str, *, forbidden: bool) -> None:
    """One request. Whatever goes wrong with it is its outcome."""
    at, status = time.time(), 0
    try:
        async with session.get(url, headers={"Host": authority}) as answer:
            await answer.read()
            status = answer.status
    except (aiohttp.ClientError, TimeoutError, OSError):
        status = 0
    tell(at, status=status, forbidden=forbidden)


def tell(at: float, *, status: int, forbidden: bool) -> None:
    ok = status == 403 if forbidden else 200 <= status < 400
    line = {"at": round(at, 3), "ok": ok, "status": status, "forbidden": forbidden}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4])))
