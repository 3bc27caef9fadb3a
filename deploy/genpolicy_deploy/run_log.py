"""What a control loop says of itself: counted events, and the flight log if one is kept."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genpolicy_deploy.recorder import Recorder
from genpolicy_deploy.states import State


class RunLog:
    """Counts every event by its kind; without a ``recorder`` that is all it does."""

    def __init__(self, recorder: Recorder | None) -> None:
        self.events: dict[str, int] = {}
        self._recorder = recorder

    def count(self, kind: str) -> None:
        """One more of what is too frequent to be written down each time."""
        self.events[kind] = self.events.get(kind, 0) + 1

    def event(self, t_ns: int, kind: str, text: str) -> None:
        """A fault, a note: counted and written down."""
        self.count(kind)
        if self._recorder is not None:
            self._recorder.event(t_ns, kind, text)

    def state(self, state: State, reason: str) -> None:
        """The loop's state has changed."""
        if self._recorder is not None:
            self._recorder.event(time.monotonic_ns(), "state", f"{state.name} {reason}".strip())

    def tick(self, t_ns: int, tick: int, *rest: Any) -> None:
        """One tick: see ``Recorder.put_tick``."""
        if self._recorder is not None:
            self._recorder.put_tick(t_ns, tick, *rest)

    def observe(self, observation: Mapping[str, NDArray[Any]]) -> None:
        """What the next control step is decided from, ``{key: [D]}``."""
        if self._recorder is not None:
            self._recorder.observe(observation)

    def step(
        self,
        t_ns: int,
        place: tuple[int, int, int],
        action: NDArray[np.float32] | None,
        success: bool,
        intervention: bool,
    ) -> None:
        """One control step.

        Args:
            t_ns: monotonic.
            place: the episode's seed, the episode, the step within it.
            action: ``[Da]``; None at the end of an episode.
            success: whether the task is solved.
            intervention: whether a person acted.
        """
        if self._recorder is None:
            return
        step = self._recorder.step
        step["t_ns"], (step["seed"], step["episode"], step["step"]) = t_ns, place
        step["acted"], step["success"] = action is not None, success
        step["intervention"] = intervention
        step["action"] = 0.0 if action is None else action
        self._recorder.put("step")

    def chunk(self, t_ns: int, episode: int, step: int, reply: np.void, request: np.void) -> None:
        """A chunk: what the policy was asked and what it replied (see ``inference``)."""
        if self._recorder is None:
            return
        chunk = self._recorder.chunk
        for name in ("t_obs_ns", "seed", "counter", "index", "score", "compute_us", "actions"):
            chunk[name] = reply[name]
        for name in ("obs", "prev_actions", "prev_weights", "delay"):
            chunk[name] = request[name]
        chunk["t_ns"], chunk["episode"], chunk["step"] = t_ns, episode, step
        self._recorder.put("chunk")
