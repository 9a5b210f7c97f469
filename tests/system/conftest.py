"""A whole daemon for each test: started, spoken to and killed like an operator's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.system.node import Node

NodeFactory = Callable[..., Node]


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[NodeFactory]:
    """Make nodes: ``async with node() as n``; a second one on ``data=n.data`` is a restart."""
    async with AsyncExitStack() as stack:
        count = 0

        def make(*, data: Path | None = None, **options: object) -> Node:
            nonlocal count
            count += 1
            made = Node(data or tmp_path / f"node{count}", **options)  # type: ignore[arg-type]
            stack.push_async_callback(made.end)
            return made

        yield make
