from __future__ import annotations

from collections.abc import Iterator

import pytest
from edge_world import LOOPS, Client, World, connected


@pytest.fixture(scope="session", params=sorted(LOOPS))
def edge_loop(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=["fast", "aiohttp"])
def edge_front(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def shared_world(edge_loop: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(edge_loop, tmp_path_factory.mktemp("spool")) as world:
        yield world


@pytest.fixture
def world(shared_world: World) -> Iterator[World]:
    """The shared edge, with an empty memory."""
    invoker = shared_world.invoker
    for memory in (
        invoker.requests, invoker.payloads, invoker.enqueued, invoker.cancelled, invoker.links,
    ):  # fmt: skip
        memory.clear()
    yield shared_world
    assert not shared_world.errors, shared_world.errors


@pytest.fixture
def client(world: World, edge_front: str) -> Iterator[Client]:
    with connected(world, edge_front) as found:
        yield found
