"""The states of an instance and the legal moves between them."""

from __future__ import annotations

from enum import IntEnum


class State(IntEnum):
    STARTING = 0
    INITIALIZING = 1
    READY = 2
    DRAINING = 3
    GONE = 4


MOVES = {
    State.STARTING: {State.INITIALIZING, State.READY, State.DRAINING, State.GONE},
    State.INITIALIZING: {State.READY, State.DRAINING, State.GONE},
    State.READY: {State.DRAINING, State.GONE},
    State.DRAINING: {State.GONE},
    State.GONE: set(),
}
