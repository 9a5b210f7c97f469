"""Paths that wait until they have been left alone for long enough, pure."""

from __future__ import annotations

from heapq import heappop, heappush


class Settling:
    """A due time for each path; a new hint moves it."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._due)

    def hint(self, path: str, due: float) -> None:
        """Look at ``path`` at ``due`` (s), instead of at any other time said before."""
        before = self._due.get(path)
        self._due[path] = due
        if before is None or due < before:
            heappush(self._heap, (due, path))

    def take_due(self, now: float, limit: int) -> list[str]:
        """Remove and return up to ``limit`` paths that are due, roughly the first hinted first."""
        taken: list[str] = []
        while self._heap and self._heap[0][0] <= now and len(taken) < limit:
            _, path = heappop(self._heap)
            due = self._due.get(path)
            if due is None:
                continue  # taken by an earlier entry
            if due > now:
                heappush(self._heap, (due, path))
                continue
            del self._due[path]
            taken.append(path)
        return taken

    def next_due(self) -> float | None:
        """When to look next; may be early, never late."""
        return self._heap[0][0] if self._heap else None
