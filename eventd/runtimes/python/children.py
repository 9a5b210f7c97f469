"""Threads and processes that function code starts keep the request that started them."""

from __future__ import annotations

import concurrent.futures.thread  # the package itself would load it on first use, per instance
import contextvars
import os
import random
import subprocess
import threading
from collections.abc import Callable
from typing import Any

from .logs import Logs
from .request import CURRENT
from .wire import Wire


def install(link: Wire, logs: Logs) -> None:
    """Patch the ways in which Python starts threads and processes; once per process."""
    _patch_threads()
    _patch_executor()
    _patch_subprocess(logs)
    _patch_spawn(logs)
    _patch_exit(link)
    _patch_fork(link, logs)


def _patch_threads() -> None:
    start = threading.Thread.start

    def start_with_context(self: threading.Thread) -> None:
        if CURRENT.get() is not None:
            context, run = contextvars.copy_context(), self.run
            self.run = lambda: context.run(run)  # type: ignore[method-assign]
        start(self)

    threading.Thread.start = start_with_context  # type: ignore[method-assign]


def _patch_executor() -> None:
    executor: Any = concurrent.futures.thread.ThreadPoolExecutor
    submit = executor.submit

    def submit_with_context(self: Any, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if CURRENT.get() is None:
            return submit(self, fn, *args, **kwargs)
        return submit(self, contextvars.copy_context().run, fn, *args, **kwargs)

    executor.submit = submit_with_context


def _patch_subprocess(logs: Logs) -> None:
    init: Any = subprocess.Popen.__init__

    def init_with_pipe(
        self: Any,
        args: Any,
        bufsize: int = -1,
        executable: Any = None,
        stdin: Any = None,
        stdout: Any = None,
        stderr: Any = None,
        *rest: Any,
        **more: Any,
    ) -> None:
        request = CURRENT.get()
        if request is not None and not logs.disowned and (stdout is None or stderr is None):
            pipe = logs.pipe_of(request)
            stdout = pipe if stdout is None else stdout
            stderr = pipe if stderr is None else stderr
        init(self, args, bufsize, executable, stdin, stdout, stderr, *rest, **more)

    subprocess.Popen.__init__ = init_with_pipe  # type: ignore[method-assign]


def _patch_spawn(logs: Logs) -> None:
    for name in ("posix_spawn", "posix_spawnp"):
        setattr(os, name, _spawn_with_pipe(getattr(os, name), logs))


def _spawn_with_pipe(spawn: Callable[..., int], logs: Logs) -> Callable[..., int]:
    def spawn_with_pipe(path: Any, argv: Any, env: Any, **more: Any) -> int:
        request = CURRENT.get()
        actions = list(more.get("file_actions") or ())
        if request is not None and not logs.disowned:
            pipe = logs.pipe_of(request)
            dup2 = os.POSIX_SPAWN_DUP2
            taken = {action[2 if action[0] == dup2 else 1] for action in actions}
            own = [(dup2, pipe, fd) for fd in (1, 2) if fd not in taken]
            more["file_actions"] = own + actions
        return spawn(path, argv, env, **more)

    return spawn_with_pipe


def _patch_exit(link: Wire) -> None:
    leave = os._exit

    def flush_and_leave(status: int) -> None:
        link.flush()
        leave(status)

    os._exit = flush_and_leave  # type: ignore[assignment]


def _patch_fork(link: Wire, logs: Logs) -> None:
    def before() -> None:
        request = CURRENT.get()
        if request is not None and not logs.disowned:
            logs.pipe_of(request)

    def in_child() -> None:
        link.disown()
        logs.in_child(CURRENT.get())
        random.seed()

    os.register_at_fork(before=before, after_in_child=in_child)
