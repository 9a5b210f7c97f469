"""FC's start, end and report lines, made from records when somebody reads. Pure.

Source: FC 2.0, "Log tail" (``X-Fc-Log-Result``); shapes are recorded ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import ceil

from eventd.model.invocation import ErrorType, InvocationRecord
from eventd.store.interface import LogLine

TAIL_BYTES = 4096

_INITIALIZER_ERRORS = ("Initializ", "initializ")


def start_lines(record: InvocationRecord) -> list[str]:
    """What stands before the function's own lines; the initializer's frame after a cold start."""
    request = record.request_id
    lines = []
    if record.initializer:
        lines.append(f"FC Initialize Start RequestId: {request}")
        failed = _failed_initializer(record)
        lines.append(f"FC Initialize End RequestId: {request}{_suffix(record) if failed else ''}")
        if failed:
            return lines
    lines.append(f"FC Invoke Start RequestId: {request}")
    return lines


def end_lines(record: InvocationRecord) -> list[str]:
    """What stands after them: the end, an empty line, the report."""
    end = []
    if not _failed_initializer(record):
        end = [f"FC Invoke End RequestId: {record.request_id}{_suffix(record)}"]
    return [*end, "", report_line(record)]


def report_line(record: InvocationRecord) -> str:
    """Duration in ms with two decimals, billed up to the next whole one, memory in MB."""
    billed = max(1, ceil(record.duration_ms))
    return (
        f"Duration: {record.duration_ms:.2f} ms, Billed Duration: {billed} ms, "
        f"Memory Size: {record.memory_size_mb} MB, Max Memory Used: {record.memory_mb:.2f} MB"
    )


def log_tail(lines: Iterable[str], record: InvocationRecord) -> bytes:
    """The decoded ``X-Fc-Log-Result``: the last 4 KiB of the invocation's log as UTF-8; a
    character that the cut would halve is left out."""
    text = "\n".join((*start_lines(record), *lines, *end_lines(record)))
    data = text.encode(errors="replace")
    if len(data) <= TAIL_BYTES:
        return data
    cut = len(data) - TAIL_BYTES
    while data[cut] & 0xC0 == 0x80:
        cut += 1
    return data[cut:]


def merged(lines: Sequence[LogLine], records: Sequence[InvocationRecord]) -> list[LogLine]:
    """The functions' lines and FC's, oldest first; each attempt's lines inside its frame."""
    attempts = defaultdict(list)
    for record in sorted(records, key=lambda record: record.started_ms):
        attempts[record.service, record.function, record.request_id].append(record)
    ends = {id(record): _end_ms(record) for record in records}
    ranked: list[tuple[int, int, int, str, int, LogLine]] = []
    for line in lines:
        key = (line.service, line.function, line.request_id)
        attempt = _attempt_of(line, attempts.get(key, ()))
        time_ms = line.time_ms
        if attempt is not None:  # the clocks of instance and router differ by some ms
            time_ms = max(time_ms, attempt.started_ms)
            ends[id(attempt)] = max(ends[id(attempt)], time_ms)
        ranked.append((time_ms, 1, line.seq, "", 0, line))
    for record in records:
        start_ms, end_ms = record.started_ms, ends[id(record)]
        for place, text in enumerate(start_lines(record)):
            line = _platform_line(record, start_ms, text)
            ranked.append((start_ms, 0, 0, record.request_id, place, line))
        for place, text in enumerate(end_lines(record)):
            line = _platform_line(record, end_ms, text)
            ranked.append((end_ms, 2, 0, record.request_id, place, line))
    ranked.sort(key=lambda entry: entry[:5])
    return [entry[5] for entry in ranked]


class LiveRenderer:
    """FC's lines while they come: the start with the first line of a request, the rest with its
    record. Remembers at most ``MAX_OPEN`` requests without a record."""

    MAX_OPEN = 10_000

    def __init__(self) -> None:
        self._open: dict[tuple[str, str, str], None] = {}

    def feed(self, lines: Sequence[LogLine], records: Sequence[InvocationRecord]) -> list[LogLine]:
        """``records`` are those stored before ``lines`` were read: their lines are among these, or
        came in an earlier call."""
        begun = dict(self._open)
        known = {(record.service, record.function, record.request_id) for record in records}
        shown: list[LogLine] = []
        for line in merged(lines, records):
            key = (line.service, line.function, line.request_id)
            starts = line.seq == 0 and line.text.startswith(("FC Invoke Start", "FC Initialize"))
            if starts and key in begun and key in known:
                continue  # shown when its first line came
            if line.seq and line.request_id and key not in known and key not in self._open:
                shown.append(_first_line(line))
                self._remember(key)
            shown.append(line)
        for key in known:
            self._open.pop(key, None)
        return shown

    def _remember(self, key: tuple[str, str, str]) -> None:
        self._open[key] = None
        if len(self._open) > self.MAX_OPEN:
            del self._open[next(iter(self._open))]


def _suffix(record: InvocationRecord) -> str:
    if not record.error_type and not record.error:
        return ""
    if record.error_type == ErrorType.HANDLED:
        return ", Error: Handled function error"
    return ", Error: Unhandled function error"


def _failed_initializer(record: InvocationRecord) -> bool:
    return record.initializer and any(word in record.error for word in _INITIALIZER_ERRORS)


def _end_ms(record: InvocationRecord) -> int:
    return record.started_ms + ceil(record.duration_ms)


def _attempt_of(line: LogLine, attempts: Sequence[InvocationRecord]) -> InvocationRecord | None:
    """The last attempt that had begun when ``line`` came; a retry has the same request id."""
    found = None
    for record in attempts:
        if found is None or record.started_ms <= line.time_ms:
            found = record
    return found


def _platform_line(record: InvocationRecord, time_ms: int, text: str) -> LogLine:
    return LogLine(
        time_ms=time_ms,
        service=record.service,
        function=record.function,
        version=record.version,
        request_id=record.request_id,
        instance_id=record.instance_id,
        text=text,
    )


def _first_line(line: LogLine) -> LogLine:
    return LogLine(
        time_ms=line.time_ms,
        service=line.service,
        function=line.function,
        version=line.version,
        request_id=line.request_id,
        instance_id=line.instance_id,
        text=f"FC Invoke Start RequestId: {line.request_id}",
    )
