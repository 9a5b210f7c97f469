"""Sync handlers at ``instanceConcurrency`` above 1: a thread per slot, started when needed."""

from __future__ import annotations

import queue
import threading
from typing import Any

from . import wire
from .request import Request


class ThreadMode:
    """The main thread reads frames; threads run handlers."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._queue: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._threads = 0
        self._idle = 0
        self._changed = threading.Condition()

    def run(self) -> None:
        server = self._server
        while True:
            while server.waiting:
                self._hand_over(server.waiting.popleft())
            if server.stopping:
                return
            for kind, call_id, body in server.wire.receive():
                request = server.take(kind, call_id, body)
                if request is not None and kind in (wire.CREDIT, wire.CANCEL):
                    with self._changed:
                        self._changed.notify_all()

    def _hand_over(self, request: Request) -> None:
        with self._changed:
            if self._idle:
                self._idle -= 1
            else:
                self._threads += 1
                name = f"eventd-slot-{self._threads}"
                threading.Thread(target=self._work, name=name, daemon=True).start()
        self._queue.put(request)

    def _work(self) -> None:
        while True:
            self._server.call(self._queue.get(), self._wait_credit)
            with self._changed:
                self._idle += 1

    def _wait_credit(self, request: Request) -> None:
        with self._changed:
            self._changed.wait_for(lambda: request.window > 0 or request.cancelled)
