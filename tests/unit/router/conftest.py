"""The router in memory."""

from __future__ import annotations

import pytest
from memory_router import Router


@pytest.fixture
async def router() -> Router:
    return Router()
