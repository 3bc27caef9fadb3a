"""Plays chunks row by row and asks for the next one in time.

Hand-over is synchronous, as in training: the next chunk starts from the observation of the
control step at which the previous one ends. It is asked for at that tick, arrives one or two
ticks later (2 to 4 ms), and the robot pursues its last goal meanwhile. Every action then lasts
its full control step, so the schedule slides by those ticks instead of cutting an action short.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genpolicy.spec import PolicySpec
from genpolicy_deploy.history import History
from genpolicy_deploy.inference import Inference


class ChunkPlayer:
    """The current chunk, the pending request and the history behind it.

    Args:
        spec: horizons and observations.
        inference: the policy's process.
        max_age_ns: a chunk whose observation is older is asked for anew.
        on_event: hears ``(kind, text)`` of replies that cannot be used.
    """

    def __init__(
        self,
        spec: PolicySpec,
        inference: Inference,
        max_age_ns: int,
        on_event: Callable[[str, str], None],
    ) -> None:
        self._spec, self._inference = spec, inference
        self._max_age_ns, self._on_event = max_age_ns, on_event
        self._history = History(spec)
        self._actions = np.zeros((spec.chunk, spec.task.action.dim), np.float32)
        self.start(0)

    def start(self, seed: int) -> None:
        """Begin an episode whose noise comes from ``seed``."""
        self._history.reset()
        self._inference.give_up()
        self._seed, self._counter = seed, 0
        self._row = self._spec.exec_steps
        self._waiting_since: int | None = None

    def observe(self, observation: dict[str, NDArray[Any]], *, again: bool = False) -> None:
        """Append the observation of a control step (or, ``again``, a fresher one of the same)."""
        self._history.push(observation, again=again)

    @property
    def empty(self) -> bool:
        """Whether the chunk is used up, so that a new one is needed."""
        return self._row >= self._spec.exec_steps

    @property
    def asking(self) -> bool:
        """Whether a request is on its way."""
        return self._inference.busy

    def ask(self, now: int, t_obs_ns: int) -> None:
        """Request the next chunk from the history as it stands."""
        if self._waiting_since is None:
            self._waiting_since = now
        if self._inference.request(self._history.stacked, self._seed, self._counter, t_obs_ns):
            self._counter += 1

    def poll(self, now: int) -> Any | None:
        """Take the reply if it has come; returns it when its chunk was accepted."""
        reply = self._inference.poll()
        if reply is None or not self.empty:
            return None
        if reply["error"]:
            self._on_event("bad_chunk", bytes(reply["error"]).decode(errors="replace"))
            return None
        if now - int(reply["t_obs_ns"]) > self._max_age_ns:
            self._on_event("stale_chunk", f"{(now - int(reply['t_obs_ns'])) / 1e6:.0f} ms old")
            return None
        self._actions[:] = reply["actions"]
        self._row = 0
        self._waiting_since = None
        return reply

    def next_action(self) -> NDArray[np.float32]:
        """The next row ``[Da]``; only while not ``empty``."""
        row = self._actions[self._row]
        self._row += 1
        return row

    def drop(self) -> None:
        """Forget what is left of the chunk: the robot is not where it was planned from."""
        self._row = self._spec.exec_steps

    def waiting_s(self, now: int) -> float:
        """How long a chunk has been missing, s."""
        return 0.0 if self._waiting_since is None else (now - self._waiting_since) / 1e9
