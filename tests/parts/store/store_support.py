"""Types and constants that the store's tests share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from eventd.model.invocation import Invocation
from eventd.store.opened import Store

BALLAST_BYTES = 1 << 20
LONG_S = 10

Opener = Callable[..., AbstractAsyncContextManager[Store]]
Maker = Callable[..., Invocation]
