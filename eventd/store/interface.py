"""What must survive: the interfaces of the store, and what each promises on a crash.

Two engines implement them: ``sqlite`` (one machine) and, later, ``postgres`` (cluster). All
methods run on the event loop's thread and never block it: engines work in threads of their own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from eventd.model.invocation import DeadLetter, Invocation, InvocationRecord
from eventd.model.resources import Alias, AsyncConfig, Function, Service, TriggerRecord, Version


class StaleWrite(Exception):
    """The row changed since it was read; nothing was written."""


class StoreFailed(Exception):
    """The disk refused a write or a sync. After it the store takes nothing more.

    ``full`` tells ENOSPC (the store recovers when space returns) from EIO (it does not).
    """

    def __init__(self, message: str, *, full: bool = False) -> None:
        super().__init__(message)
        self.full = full


@dataclass(frozen=True, slots=True)
class Change:
    """A committed change of a resource.

    Attributes:
        kind: ``service``, ``function``, ``trigger``, ``version``, ``alias``, ``async_config``.
        service, name: of the resource; for a function or trigger also ``function``.
        deleted: whether it is gone.
    """

    kind: str
    service: str
    name: str
    function: str = ""
    deleted: bool = False


class Metadata(Protocol):
    """Resources. Reads come from an image in memory that every commit keeps current, so they are
    plain calls; a write returns after its synced commit, and the image changes with it.

    Every ``save_*`` is a compare-and-set: ``expect`` is the ``etag`` that the row must still have,
    ``None`` for a row that must not exist; else ``StaleWrite``, and nothing was written. That is
    also the answer when what it belongs to is gone, and when what is to be deleted is not there.
    Deleting a service or function deletes what belongs to it in the same transaction.
    On a crash each write happened whole or not at all.
    """

    def service(self, name: str) -> Service | None: ...
    def services(self) -> Iterable[Service]:
        """All, ascending by name (byte order); the same holds for the other listings."""

    def function(self, service: str, name: str) -> Function | None: ...
    def functions(self, service: str) -> Iterable[Function]: ...
    def trigger(self, service: str, function: str, name: str) -> TriggerRecord | None: ...
    def triggers(
        self, service: str | None = None, function: str | None = None
    ) -> Iterable[TriggerRecord]: ...
    def version(self, service: str, version_id: int) -> Version | None: ...
    def versions(self, service: str) -> Iterable[Version]:
        """Ascending by number."""

    def alias(self, service: str, name: str) -> Alias | None: ...
    def aliases(self, service: str) -> Iterable[Alias]: ...
    def async_config(self, service: str, function: str, qualifier: str) -> AsyncConfig | None: ...
    def async_configs(self, service: str, function: str) -> Iterable[AsyncConfig]: ...

    async def save_service(self, service: Service, *, expect: str | None) -> None: ...
    async def delete_service(self, name: str, *, expect: str) -> None: ...
    async def save_function(self, function: Function, *, expect: str | None) -> None: ...
    async def delete_function(self, service: str, name: str, *, expect: str) -> None: ...
    async def save_trigger(self, trigger: TriggerRecord, *, expect: str | None) -> None: ...
    async def delete_trigger(
        self, service: str, function: str, name: str, *, expect: str
    ) -> None: ...
    async def publish_version(self, version: Version, *, expect: str) -> Version:
        """Store the snapshot under the next id of the service and raise ``last_version``, in one
        transaction; ``version.version_id`` is ignored. ``expect``: the service's etag."""

    async def delete_version(self, service: str, version_id: int) -> None: ...
    async def save_alias(self, alias: Alias, *, expect: str | None) -> None: ...
    async def delete_alias(self, service: str, name: str, *, expect: str) -> None: ...
    async def save_async_config(self, config: AsyncConfig) -> None: ...
    async def delete_async_config(self, service: str, function: str, qualifier: str) -> None: ...

    def code_digests(self) -> set[str]:
        """Every package that a function or a version still refers to."""

    def subscribe(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        """Call ``listener`` after each commit, on the loop, in commit order; returns the undo.
        ``listener`` must not block or raise."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a source is, stored in the transaction that puts its events.

    Attributes:
        source: source key.
        cursor: replaces the stored cursor; ``None`` leaves it.
        state: rows of the source's own table; ``None`` as a value removes the row.
    """

    source: str
    cursor: str | None = None
    state: Mapping[str, str | None] | None = None


@dataclass(frozen=True, slots=True)
class QueueStatistics:
    """Counts at one moment: waiting (runnable or delayed), claimed, dead letters kept."""

    waiting: int
    claimed: int
    dead_letters: int
    waiting_by_function: Mapping[tuple[str, str], int]


class Queue(Protocol):
    """Invocations between acceptance and outcome, with the sources' progress.

    Calls of one loop tick share one synced commit. Each method returns after its commit: what it
    took is then on disk (``synchronous=FULL``). After a crash every invocation that was put and
    neither finished nor buried is runnable again at once; claims live in memory only.
    A store that fails raises ``StoreFailed`` from every call from then on.
    """

    async def put(
        self, invocations: Sequence[Invocation], progress: Progress | None = None
    ) -> Sequence[Invocation]:
        """Store invocations and the source's progress in one transaction.

        Returns those that are new: an invocation with an event key that was put before (24 h or a
        million per trigger) is dropped; one without ``event_id`` has no key. Waits while the queue
        holds more than its bound in flight to disk. Cancelling: all of it is stored, or nothing.
        """

    async def claim(self) -> Invocation:
        """The next runnable invocation: fair between functions, in order within one, delayed ones
        when due, a lane's next only after its head ended. Waits until there is one. Cancelling
        claims nothing."""

    async def finish(self, invocation_id: str) -> None:
        """It ended; remove it. ``KeyError``, here and in ``retry`` and ``release``: it is not
        claimed."""

    async def retry(self, invocation: Invocation) -> None:
        """Store ``attempts``, ``version`` and ``due_ms`` and make it claimable at ``due_ms``."""

    def release(self, invocation_id: str) -> None:
        """Give a claim back without a result: it is claimable again, no attempt was used."""

    async def bury(self, letter: DeadLetter) -> None:
        """Move it to the dead letters; also takes one that was never put (direct delivery)."""

    async def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        """The newest first."""

    async def bury_waiting(
        self, *, reason: str, trigger_id: str = "", function: str = "", incarnation: str = ""
    ) -> int:
        """Dead-letter everything that waits for a deleted trigger or function; how many."""

    async def load_cursor(self, source: str) -> str | None: ...
    async def load_state(self, source: str) -> dict[str, str]: ...
    async def forget_source(self, source: str) -> None:
        """Drop a source's cursor and table: nobody asks for it any more."""

    def statistics(self) -> QueueStatistics: ...


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of output as it is stored.

    Attributes:
        seq: position in the store, ascending with arrival; 0 before it is stored.
        time_ms: wall clock of arrival.
        request_id: of the request that wrote it; empty if that is not known.
        text: without the line break, at most 32 KiB.
    """

    time_ms: int
    service: str
    function: str
    version: int
    request_id: str
    instance_id: str
    text: str
    seq: int = 0


class History(Protocol):
    """Records of finished attempts. Stored soon after (``synchronous=NORMAL``): a crash may lose
    the last ones, never an invocation."""

    def add(self, record: InvocationRecord) -> None:
        """Hand over a record; never waits. Beyond its bound the oldest unsaved is dropped and
        counted."""

    def find(
        self,
        *,
        service: str = "",
        function: str = "",
        request_id: str = "",
        since_ms: int = 0,
        limit: int = 100,
    ) -> AsyncIterator[InvocationRecord]:
        """Newest first."""

    async def flush(self) -> None:
        """Return when everything added before is stored."""


class Blobs(Protocol):
    """Content-addressed bytes; the key is the SHA-256 in hex. ``put`` returns after file and
    directory are synced: a row may then refer to it."""

    async def put(self, data: bytes) -> str:
        """``StoreFailed``: the disk refused it; nothing is left of it."""

    async def get(self, digest: str) -> bytes:
        """``KeyError``: unknown digest; ``ValueError``: the bytes no longer match it."""

    async def delete(self, digest: str) -> None: ...
    def digests(self) -> set[str]: ...
