"""``/healthz`` and ``/readyz``: public, for probes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aiohttp import web


def routes(not_ready: Callable[[], Sequence[str]]) -> list[web.RouteDef]:
    """``/healthz`` answers 200 while the loop turns; ``/readyz`` answers 200 when intake is open,
    else 503 with one reason a line.

    Args:
        not_ready: why nothing is accepted now (starting, draining, disk); empty = ready.
    """

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        reasons = not_ready()
        if reasons:
            return web.Response(status=503, text="".join(f"{reason}\n" for reason in reasons))
        return web.Response(text="ready\n")

    return [web.get("/healthz", healthz), web.get("/readyz", readyz)]
