"""Sync handlers at ``instanceConcurrency`` above 1.

One thread, the *reader*, takes frames from the socket. While handlers are quick it runs them
itself, one after the other: a hand-over to another thread costs more than such a handler. A
handler that takes its time must not hold up the others, so

- the reader times each handler; after a slow one it hands calls over to a thread per slot for a
  while (``SHARE_S``, longer each time), and
- a watching thread sees within ``WATCH_S`` that the reader is stuck in a handler, and makes
  another thread the reader.
"""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from typing import Any, Optional

from . import wire
from .request import Request

SLOW_S = 0.0003
"""A handler that takes longer, in the mean of the last ten or so, is worth a thread."""
CAPPED_S = 0.002
"""What a single call counts at most: a busy machine may take the processor away for a while."""
SHARE_S = 0.05
MAX_SHARE_S = 5.0
TRUSTED = 1000
"""After so many calls in the reader the next pause is a short one again."""
WATCH_S = 0.004
QUIET = 100
"""The watching thread sleeps after so many looks at nothing."""
HELD = 16
"""So many answers leave in one write while further calls wait."""


class ThreadMode:
    """Runs handlers in the reader or in a thread per slot, started when needed."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._queue: queue.SimpleQueue[Optional[Request]] = queue.SimpleQueue()
        self._threads = 0
        self._changed = threading.Condition()
        self._role = threading.Lock()
        """Guards who is the reader and whether it is in a handler."""
        self._reader = 0
        self._runs = 0
        """Number of the handler that runs in the reader; 0: none."""
        self._count = 0
        self._share_until = 0.0
        self._share_s = SHARE_S
        self._mean_s = 0.0
        self._trust = 0
        self._watched = False
        self._watch = threading.Semaphore(0)

    def run(self) -> None:
        """In the main thread, until the router says stop."""
        self._reader = threading.get_ident()
        threading.Thread(target=self._look_after, name="eventd-watch", daemon=True).start()
        if not self._read():
            self._threads += 1  # this thread came out of its handler as one more of them
            self._work()

    # -- the reader

    def _read(self) -> bool:
        """False: another thread has become the reader."""
        server = self._server
        while True:
            if server.waiting and not self._run_waiting():
                return False
            if server.stopping:
                self._queue.put(None)
                return True
            for kind, call_id, body in server.wire.receive():
                request = server.take(kind, call_id, body)
                if request is not None and kind in (wire.CREDIT, wire.CANCEL):
                    with self._changed:
                        self._changed.notify_all()

    def _run_waiting(self) -> bool:
        """Run or hand over what waits. False: the thread was stuck, it is no reader any more."""
        server, waiting = self._server, self._server.waiting
        link = server.wire
        while waiting:
            if time.perf_counter() < self._share_until:
                self._hand_over(waiting.popleft())
                continue
            request = waiting.popleft()
            link.hold = HELD if waiting else 0
            if not self._run(request):
                return False
        if link.hold:
            link.hold = 0
            link.flush()
        return True

    def _run(self, request: Request) -> bool:
        self._count += 1
        self._runs = self._count
        if not self._watched:
            self._watched = True
            self._watch.release()
        self._server.call(request, self._wait_credit)
        with self._role:
            if self._reader != threading.get_ident():
                return False
            self._runs = 0
        now = time.perf_counter()
        took = now - request.started
        self._mean_s += (min(took, CAPPED_S) - self._mean_s) * 0.1
        self._trust += 1
        if self._mean_s > SLOW_S:
            self._share(now)
        elif self._trust == TRUSTED:
            self._share_s = SHARE_S
        return True

    def _share(self, now: float) -> None:
        """Hand calls over for a while."""
        self._mean_s = 0.0
        self._trust = 0
        self._share_until = now + self._share_s
        self._share_s = min(self._share_s * 2, MAX_SHARE_S)

    def _give_up(self) -> None:
        """Make another thread the reader; ``_role`` is held. ``RuntimeError``: there can be no
        further thread."""
        successor = threading.Thread(target=self._take_over, name="eventd-reader", daemon=True)
        contextvars.Context().run(successor.start)  # it does not belong to the running request
        self._runs = 0
        self._reader = 0
        self._share(time.perf_counter())

    def _take_over(self) -> None:
        with self._role:
            self._reader = threading.get_ident()
        self._server.wire.hold = 0
        self._server.wire.flush()
        self._read()

    def _look_after(self) -> None:
        """See to it that calls are read while the reader is stuck in a handler."""
        seen, looks = 0, 0
        while True:
            if looks > QUIET:
                looks = 0
                self._watched = False
                self._watch.acquire()
            time.sleep(WATCH_S)
            runs = self._runs
            if runs and runs == seen:
                with self._role:
                    if self._runs == runs:
                        try:
                            self._give_up()
                        except RuntimeError:  # no further thread: it stays the reader
                            pass
            looks = 0 if runs else looks + 1
            seen = runs

    # -- the slots' threads

    def _hand_over(self, request: Request) -> None:
        if len(self._server.requests) > self._threads:  # as many threads as calls at once so far
            name = f"eventd-slot-{self._threads + 1}"
            try:
                threading.Thread(target=self._work, name=name, daemon=True).start()
                self._threads += 1
            except RuntimeError:  # a limit of the machine: those that there are do the work
                if not self._threads:
                    raise
        self._queue.put(request)

    def _work(self) -> None:
        """Until the instance stops."""
        while True:
            request = self._queue.get()
            if request is None:
                self._queue.put(None)
                return
            self._server.call(request, self._wait_credit)

    def _wait_credit(self, request: Request) -> None:
        with self._role:
            if self._reader == threading.get_ident():
                self._give_up()  # somebody has to read the credit
        with self._changed:
            self._changed.wait_for(lambda: request.window > 0 or request.cancelled)
