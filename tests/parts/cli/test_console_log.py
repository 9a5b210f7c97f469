"""The daemon's own log."""

from __future__ import annotations

import io
import json
import logging
import threading

from eventd.console_log import console_log


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_off_a_terminal_each_record_is_one_json_object() -> None:
    stream = io.StringIO()

    with console_log("info", "auto", stream):
        logging.getLogger("eventd.pool").info("started %s", "c-1", extra={"memory_mb": 3})
        try:
            raise ValueError("bad")
        except ValueError:
            logging.getLogger("eventd.pool").exception("failed")

    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first["message"] == "started c-1"
    assert (first["level"], first["logger"], first["memory_mb"]) == ("info", "eventd.pool", 3)
    assert first["time"].endswith("Z")
    assert "ValueError: bad" in second["exception"]


def test_on_a_terminal_a_person_reads_it() -> None:
    stream = Terminal()

    with console_log("warning", "auto", stream):
        logging.getLogger("eventd.pool").info("not shown")
        logging.getLogger("eventd.pool").warning("look", extra={"n": 1})

    (line,) = stream.getvalue().splitlines()
    assert "\x1b[33mwarning" in line
    assert "look" in line
    assert "n=1" in line


def test_libraries_are_heard_from_warning_on_and_levels_are_put_back() -> None:
    stream = io.StringIO()
    before = logging.getLogger().level, logging.getLogger("eventd").level

    with console_log("debug", "human", stream):
        logging.getLogger("aiokafka").info("chatter")
        logging.getLogger("triggers.oss").debug("ours")

    assert "chatter" not in stream.getvalue()
    assert "ours" in stream.getvalue()
    assert (logging.getLogger().level, logging.getLogger("eventd").level) == before
    logging.getLogger("eventd").error("after the end")
    assert "after the end" not in stream.getvalue()


def test_a_reader_that_stops_holds_up_nobody_and_the_loss_is_counted() -> None:
    may_write = threading.Event()

    class Stuck(io.StringIO):
        def write(self, text: str) -> int:
            assert may_write.wait(20)
            return super().write(text)

    stream = Stuck()
    with console_log("info", "human", stream):
        for number in range(10_500):
            logging.getLogger("eventd").info("%d", number)
        may_write.set()

    lines = stream.getvalue().splitlines()
    assert 10_000 <= len(lines) - 1 < 10_500
    assert lines[-1] == f"eventd: {10_500 - (len(lines) - 1)} log records were dropped"


def test_a_library_says_the_same_once() -> None:
    stream = io.StringIO()

    with console_log("info", "json", stream):
        for attempt in range(3):
            logging.getLogger("some.client").error("attempt %d failed", attempt)
            logging.getLogger("eventd.pool").info("again")
        logging.getLogger("some.client").error("something else")

    said = [json.loads(line)["message"] for line in stream.getvalue().splitlines()]
    assert said == ["attempt 0 failed", "again", "again", "again", "something else"]
