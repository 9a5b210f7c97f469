"""Router-only speed: the edge with an invoker that answers from memory, against a bare aiohttp
application. Prints requests per second and the ratio, in interleaved rounds. Needs ``wrk``.

usage: python bench/edge.py [ROUNDS] [SECONDS]
"""

from __future__ import annotations

import asyncio
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import web

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "parts" / "edge"))

BARE = """
import asyncio, sys, uvloop
from aiohttp import web
async def hello(request): return web.Response(body=b"hello", content_type="text/plain")
async def main():
    app = web.Application(); app.router.add_route("*", "/{p:.*}", hello)
    runner = web.AppRunner(app, access_log=None); await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0); await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()
uvloop.run(main())
"""


async def serve() -> None:
    from edge_world import KEY_ID, SECRET, FakeInvoker, FakeMetadata, echo_now, snapshot

    from eventd.api.auth import Authenticator, Credentials
    from eventd.api.edge import Edge
    from eventd.api.http import HttpTriggers
    from eventd.api.server import serving
    from eventd.clock import Clock
    from eventd.config import HttpSettings, ServerSettings
    from eventd.metrics import Metrics
    from eventd.model.invocation import Outcome
    from eventd.pool.call import Call

    outcome = Outcome(payload=b"hello", duration_ms=0.5, memory_mb=20.0, instance_id="c-1")
    answer = Outcome(duration_ms=0.5, memory_mb=20.0, instance_id="c-1")
    functions = {"event": snapshot("event"), "web": snapshot("web")}
    headers = [(b"Content-Type", b"text/plain")]

    class Memory(FakeInvoker):
        def start(self, request: Any, receiver: Any, *, snapshot: Any = None) -> Call:
            call = Call(
                request.kind, request.request_id, functions[request.function],
                request.qualifier, request.payload, receiver, request.http,
            )  # fmt: skip
            if request.http is None:
                receiver.on_end(outcome)
            else:
                receiver.on_head(200, headers)
                receiver.on_data(b"hello")
                receiver.on_end(answer)
            return call

    metadata: Any = FakeMetadata()
    metadata.add("web", auth="anonymous", methods=["GET", "POST"])
    edge = Edge(
        invoker=Memory({"event": echo_now, "web": echo_now}),
        authenticator=Authenticator(Credentials(KEY_ID, SECRET), Clock()),
        triggers=HttpTriggers(metadata),
        settings=HttpSettings(),
        metrics=Metrics(),
        clock=Clock(),
        spool_dir=Path(tempfile.gettempdir()),
    )
    settings = ServerSettings(listen="127.0.0.1:0")
    async with serving(web.Application(), edge, settings, drain_s=float) as listening:
        print(listening.port, flush=True)
        await asyncio.Event().wait()


def wrk(url: str, seconds: int, script: str = "") -> float:
    command = ["wrk", "-t1", "-c64", f"-d{seconds}s"]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        if script:
            file.write(script)
            file.flush()
            command += ["-s", file.name]
        out = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in out, out
    found = re.search(r"Requests/sec:\s+([\d.]+)", out)
    assert found, out
    return float(found[1])


def signed_script(varied: int) -> str:
    """Signed calls; with ``varied`` > 1 consecutive heads differ, so that each is verified."""
    from edge_world import INVOKE, signed_request

    entries = []
    for n in range(varied):
        request = signed_request(INVOKE.format("event"), b"hello", unsigned={"X-N": str(n)})
        lines = request.split(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
        pairs = (
            line.partition(": ") for line in lines if not line.startswith(("Host", "Content-L"))
        )
        entries.append("{" + ",".join(f'["{n}"]="{v}"' for n, _, v in pairs) + "}")
    return (
        f"local heads = {{{','.join(entries)}}}\nlocal n = 0\nlocal made = {{}}\n"
        "init = function() for i, h in ipairs(heads) do "
        'made[i] = wrk.format("POST", nil, h, "hello") end end\n'
        "request = function() n = n % #made + 1 return made[n] end\n"
    )


def main() -> None:
    if sys.argv[1:] == ["serve"]:
        uvloop.run(serve())
        return
    from edge_world import INVOKE, PROXY

    rounds, seconds = (int(text) for text in [*sys.argv[1:], "3", "3"][:2])
    bare = subprocess.Popen([sys.executable, "-c", BARE], stdout=subprocess.PIPE, text=True)
    edge = subprocess.Popen([sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True)
    try:
        assert bare.stdout
        assert edge.stdout
        bare_url = f"http://127.0.0.1:{bare.stdout.readline().strip()}/"
        url = f"http://127.0.0.1:{edge.stdout.readline().strip()}"
        web_url, event_url = url + PROXY.format("web/"), url + INVOKE.format("event")
        varied = (
            "local n = 0\nrequest = function() n = n + 1 "
            'return wrk.format("GET", nil, {["X-N"] = n}) end\n'
        )
        results: dict[str, list[float]] = {}
        for _ in range(rounds):
            reference = wrk(bare_url, seconds)
            results.setdefault("bare aiohttp", []).append(1.0)
            for name, target, script in (
                ("anonymous, http trigger", web_url, ""),
                ("anonymous, every head differs", web_url, varied),
                ("signed, invocations", event_url, signed_script(1)),
                ("signed, every head differs", event_url, signed_script(61)),
            ):
                rate = wrk(target, seconds, script)
                results.setdefault(name, []).append(rate / reference)
                print(f"{name}: {rate:,.0f}/s, bare {reference:,.0f}/s", flush=True)
        for name, ratios in results.items():
            print(f"{name:32} {statistics.median(ratios):.2f} x bare aiohttp")
    finally:
        for process in (bare, edge):
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
