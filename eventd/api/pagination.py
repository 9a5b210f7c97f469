"""Listings: ``limit``, ``prefix``, ``startKey``, ``nextToken``.

The token is the key of the next page's first item. FC 2016-08-15, "Pagination".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from eventd.errors import InvalidArgument

DEFAULT_LIMIT = 20
MAX_LIMIT = 100

ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class PageQuery:
    """The list parameters of a request; an empty value is an absent one."""

    limit: int = DEFAULT_LIMIT
    prefix: str = ""
    start_key: str = ""
    next_token: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> PageQuery:
        """Raises ``InvalidArgument`` for a ``limit`` outside 1-100."""
        return cls(
            limit=_limit(query.get("limit", "")),
            prefix=query.get("prefix", ""),
            start_key=query.get("startKey", ""),
            next_token=query.get("nextToken", ""),
        )


def _limit(text: str) -> int:
    if not text:
        return DEFAULT_LIMIT
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:9]) <= MAX_LIMIT:
        raise InvalidArgument(
            f"Limit is set to an invalid value (allowed: 1 - {MAX_LIMIT}, actual: '{text[:50]}')"
        )
    return int(text)


def page(
    items: Iterable[ItemT], key: Callable[[ItemT], str], query: PageQuery
) -> tuple[list[ItemT], str]:
    """One page of ``items`` (ascending by ``key``, byte order) and the next token, or ``""``.

    A token goes before ``startKey``; ``prefix`` applies with both.
    """
    first = query.next_token or query.start_key
    found: list[ItemT] = []
    for item in items:
        name = key(item)
        if name < first or not name.startswith(query.prefix):
            continue
        if len(found) == query.limit:
            return found, name
        found.append(item)
    return found, ""


def with_token(content: dict[str, object], token: str) -> dict[str, object]:
    """``content`` with ``nextToken`` unless this is the last page."""
    if token:
        content["nextToken"] = token
    return content
