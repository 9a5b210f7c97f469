"""The daemon's own log on stderr: for a person on a terminal, one JSON object a line otherwise."""

from __future__ import annotations

import json
import logging
import queue
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener
from typing import TextIO

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_COLOURS = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31;1m"}
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"

REPEAT_S = 300.0


class JsonFormatter(logging.Formatter):
    """One object a line: ``time`` (RFC 3339, UTC), ``level``, ``logger``, ``message``, the
    record's ``extra`` fields, ``exception`` if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        content = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in record.__dict__.items():
            if name not in _STANDARD and name not in content:
                content[name] = value
        if record.exc_info:
            content["exception"] = self.formatException(record.exc_info)
        return json.dumps(content, default=str, ensure_ascii=False)


class HumanFormatter(logging.Formatter):
    """``15:50:43 WARNING pool: the message`` in local time; level and logger in colour."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).astimezone()
        name = record.name.removeprefix("eventd.")
        level = f"{record.levelname.lower():<7}"
        extra = "".join(
            f" {key}={value}" for key, value in record.__dict__.items() if key not in _STANDARD
        )
        if self._colour:
            level = f"{_COLOURS.get(record.levelname, _DIM)}{level}{_PLAIN}"
            name = f"{_DIM}{name}:{_PLAIN}"
            extra = f"{_DIM}{extra}{_PLAIN}" if extra else ""
        else:
            name += ":"
        text = f"{moment:%H:%M:%S} {level} {name} {record.getMessage()}{extra}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


class _BoundedHandler(QueueHandler):
    """Hands records to the writer thread; beyond the bound they are dropped and counted, since a
    reader of stderr that stops must not stop the event loop."""

    dropped = 0

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record  # same process: the formatter wants exc_info and extra as they are


class _Once(logging.Filter):
    """A library says the same thing once in ``REPEAT_S``: clients report each vain attempt."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] in ("eventd", "triggers"):
            return True
        key = record.name, str(record.msg)
        if record.created - self._said.get(key, -REPEAT_S) < REPEAT_S:
            return False
        if len(self._said) >= 1000:
            self._said.clear()
        self._said[key] = record.created
        return True


@contextmanager
def console_log(level: str, form: str, stream: TextIO | None = None) -> Iterator[None]:
    """Log to ``stream`` (stderr) during the block, written by a thread of its own.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``, for eventd's loggers; libraries are
            heard from ``warning`` on, and not with the same again and again.
        form: ``auto`` (human on a terminal, else JSON), ``human`` or ``json``.

    Leaving the block writes what is waiting.
    """
    target = sys.stderr if stream is None else stream
    terminal = target.isatty()
    human = form == "human" or (form == "auto" and terminal)
    output = logging.StreamHandler(target)
    output.setFormatter(HumanFormatter(colour=terminal) if human else JsonFormatter())
    waiting: queue.Queue[logging.LogRecord] = queue.Queue(maxsize=10_000)
    handler = _BoundedHandler(waiting)
    handler.addFilter(_Once())
    listener = QueueListener(waiting, output)
    root, own, adapters = (logging.getLogger(name) for name in ("", "eventd", "triggers"))
    before = root.level, own.level, adapters.level
    root.setLevel(logging.WARNING)
    own.setLevel(level.upper())
    adapters.setLevel(level.upper())
    root.addHandler(handler)
    listener.start()
    try:
        yield
    finally:
        root.removeHandler(handler)
        _stop(listener)
        root.setLevel(before[0])
        own.setLevel(before[1])
        adapters.setLevel(before[2])
        if handler.dropped:
            target.write(f"eventd: {handler.dropped} log records were dropped\n")


def _stop(listener: QueueListener) -> None:
    """``QueueListener.stop`` puts its end mark without waiting and fails on a full queue."""
    while True:
        try:
            listener.stop()
            return
        except queue.Full:
            thread = listener._thread
            assert thread is not None
            thread.join(0.05)  # the writer makes room
