"""One call before the first fork: what the interpreter sets up at a first use (caches, specialised
code, import machinery) it sets up here, once, on pages that all instances share."""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import Any, Dict

from . import wire
from .context import ContextMaker, environment
from .logs import Logs
from .request import CURRENT, Request
from .serving import VERSION, Server

MODULE = "_eventd_rehearsal"
SETTINGS: Dict[str, Any] = {
    "instanceId": "c-0", "requestId": "r-0", "qualifier": "LATEST", "accountId": "0",
    "region": "local", "service": "s", "function": "f", "version": "LATEST",
    "handler": f"{MODULE}.handler", "initializer": "", "initializationTimeout": 3, "memory": 128,
    "timeout": 3, "concurrency": 1, "runtime": "python3", "logProject": "", "logStore": "",
    "credentials": {}, "environment": {}, "preStop": "", "logBytesPerSecond": 1 << 20,
}  # fmt: skip
ROUNDS = 3


def rehearse(directory: str) -> None:
    """Load a module from below ``directory`` (empty, writable) and call its handler. Leaves no
    file, descriptor, module or variable behind; no output is taken over, no thread started."""
    path = os.path.join(directory, f"{MODULE}.py")
    with open(path, "w", encoding="utf-8") as file:
        file.write("def handler(event, context):\n    return event\n")
    sys.path.insert(0, directory)
    before, writes = dict(os.environ), sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        for _ in range(ROUNDS):
            _once(directory)
    finally:
        sys.dont_write_bytecode = writes
        sys.path.remove(directory)
        sys.path_importer_cache.pop(directory, None)
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.unlink(path)


def _once(directory: str) -> None:
    router, instance = socket.socketpair()
    with router, instance:
        server = Server(instance, directory)
        server.settings = json.loads(json.dumps(SETTINGS).encode())
        server.logs = Logs(server.wire, server.running, 1 << 20)
        try:
            for name, value in environment(server.settings, directory, VERSION).items():
                os.environ[name] = value
            server.contexts = ContextMaker(server.settings)
            text = b"r-0\0LATEST"
            body = wire.OPEN_FIELDS.pack(wire.OPEN_LAST, len(text)) + text
            request = Request.opened(1, body)
            server.handler = server._loader.load(SETTINGS["handler"])
            server.call(request, lambda _: None)
        finally:
            server.logs.close()
            sys.modules.pop(MODULE, None)
            CURRENT.set(None)
