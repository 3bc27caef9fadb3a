"""The states of a run and the only ways between them.

    INIT -> WARMUP -> RAMP -> RUN <-> HOLD -> STOP        (STOP can be reached from everywhere)

INIT: connecting. WARMUP: the policy is loaded and run until it is warm. RAMP: an episode starts,
nothing has been commanded yet. RUN: chunks are executed. HOLD: something is late or stale, the
robot brakes inside its limits and waits. STOP: final; nothing leads out of it.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum


class State(IntEnum):
    """Numbers as they stand in the flight log."""

    INIT = 0
    WARMUP = 1
    RAMP = 2
    RUN = 3
    HOLD = 4
    STOP = 5


_NEXT = {
    State.INIT: {State.WARMUP, State.STOP},
    State.WARMUP: {State.RAMP, State.STOP},
    State.RAMP: {State.RUN, State.HOLD, State.STOP},
    State.RUN: {State.RAMP, State.HOLD, State.STOP},
    State.HOLD: {State.RAMP, State.RUN, State.STOP},
    State.STOP: set(),
}


class StateMachine:
    """Holds the present state; ``on_change(state, reason)`` hears of every change."""

    def __init__(self, on_change: Callable[[State, str], None]) -> None:
        self.state = State.INIT
        self._on_change = on_change

    def to(self, state: State, reason: str = "") -> None:
        """Change state; staying is allowed and says nothing.

        Raises:
            RuntimeError: there is no such way, which is an error in the program.
        """
        if state is self.state:
            return
        if state not in _NEXT[self.state]:
            raise RuntimeError(f"no way from {self.state.name} to {state.name}")
        self.state = state
        self._on_change(state, reason)
