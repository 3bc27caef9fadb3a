"""Plays chunks row by row and asks for the next one in time.

``sync``, as in training: the next chunk starts from the observation of the control step at which
the previous one ends. It is asked for at that tick, arrives one or two ticks later (2 to 4 ms),
and the robot pursues its last goal meanwhile. Every action then lasts its full control step, so
the schedule slides by those ticks instead of cutting an action short.

``async``, for policies that are slower: at the same control step the next chunk is asked for, and
the rest of the present one is executed until it is there. It begins at the row that is due then,
counted in actions executed since it was asked for. A controller exported with real-time chunking
is told that rest, and which part of it will have been executed.

``ensemble``: a chunk is asked for at every control step at which none is on its way, and what is
executed is the mean of all that were planned for that step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genpolicy_deploy.contract import Contract
from genpolicy_deploy.handover import DelayEstimate, Ensemble, check_handover, soft_weights
from genpolicy_deploy.history import History
from genpolicy_deploy.inference import Inference


class ChunkPlayer:
    """The current chunk, the pending request and the history behind it.

    Args:
        contract: horizons, observations, and whether the graph goes on from another chunk.
        inference: the policy's process.
        max_age_ns: a chunk whose observation is older is asked for anew.
        on_event: hears ``(kind, text)`` of replies that cannot be used.
        handover: ``sync``, ``async`` or ``ensemble``.

    Raises:
        GenpolicyError: the controller's horizons leave no room for this mode.
    """

    def __init__(
        self,
        contract: Contract,
        inference: Inference,
        max_age_ns: int,
        on_event: Callable[[str, str], None],
        handover: str = "sync",
    ) -> None:
        check_handover(handover, contract)
        self._inference, self._mode, self._rtc = inference, handover, contract.rtc
        self._max_age_ns, self._on_event = max_age_ns, on_event
        spec = self._spec = contract.spec
        self._end = spec.exec_steps if handover == "sync" else spec.chunk  # rows that are played
        self._history = History(spec)
        self._actions = np.zeros((spec.chunk, spec.task.action.dim), np.float32)
        self._action = self._actions[0].copy()
        self._ensemble = Ensemble(*self._actions.shape)
        self.delay = DelayEstimate()  # a fact about this machine: kept from episode to episode
        self.start(0)

    def start(self, seed: int) -> None:
        """Begin an episode whose noise comes from ``seed``."""
        self._history.reset()
        self._inference.give_up()
        self._seed, self._counter = seed, 0
        self._waiting_since: int | None = None
        self._taken = 0  # actions since the chunk on its way was asked for
        self._asked_empty = True
        self.drop()

    def observe(self, observation: dict[str, NDArray[Any]], *, again: bool = False) -> None:
        """Append the observation of a control step (or, ``again``, a fresher one of the same)."""
        self._history.push(observation, again=again)

    @property
    def empty(self) -> bool:
        """Whether the chunk is used up, so that nothing can be executed."""
        return self._row >= self._end

    @property
    def due(self) -> bool:
        """Whether a control step that begins now has to ask for a chunk, or to wait for one."""
        if self._mode == "sync" or self.empty:
            return self.empty
        early = self._mode == "ensemble" or self._row >= self._spec.exec_steps
        return early and not self.asking

    @property
    def asking(self) -> bool:
        """Whether a request is on its way."""
        return self._inference.busy

    def ask(self, now: int, t_obs_ns: int) -> None:
        """Request the next chunk from the history as it stands, if none is on its way."""
        if self.empty and self._waiting_since is None:
            self._waiting_since = now
        if self.asking:
            return
        if self._mode == "async" and self._rtc is not None:
            self._go_on(self._rtc.max_delay)
        if self._inference.request(self._history.stacked, self._seed, self._counter, t_obs_ns):
            self._counter += 1
            self._taken, self._asked_empty = 0, self.empty

    def _go_on(self, max_delay: int) -> None:
        """Tell the request what is left of this chunk, and how it binds the next one."""
        request = self._inference.last_request
        left = self._end - self._row
        delay = min(self.delay.steps, max_delay, left)
        request["prev_actions"][:left] = self._actions[self._row :]
        request["prev_actions"][left:] = 0.0
        soft_weights(delay, left, request["prev_weights"])
        request["delay"] = delay

    def poll(self, now: int) -> Any | None:
        """Take the reply if it has come; returns it when its chunk was accepted."""
        reply = self._inference.poll()
        if reply is None or (self._mode == "sync" and not self.empty):
            return None
        if reply["error"]:
            self._on_event("bad_chunk", bytes(reply["error"]).decode(errors="replace"))
            return None
        if now - int(reply["t_obs_ns"]) > self._max_age_ns:
            self._on_event("stale_chunk", f"{(now - int(reply['t_obs_ns'])) / 1e6:.0f} ms old")
            return None
        self.delay.add(self._steps_taken(now))
        self._actions[:] = reply["actions"]
        self._row = self._taken
        if self._mode == "ensemble":
            self._ensemble.add(self._actions[self._row :])
        self._waiting_since = None
        return reply

    def _steps_taken(self, now: int) -> int:
        """By the chunk that has come: in actions, or by the clock where the robot waited."""
        if not self._asked_empty:
            return self._taken
        return math.ceil(self.waiting_s(now) * self._spec.task.control_hz)

    def next_action(self) -> NDArray[np.float32]:
        """The next action ``[Da]``; only while not ``empty``. The next call overwrites it."""
        if self._mode == "ensemble":
            self._ensemble.take(self._action)
        else:
            self._action[:] = self._actions[self._row]
        self._row += 1
        self._taken += 1
        return self._action

    def drop(self) -> None:
        """Forget what is left of the chunk: the robot is not where it was planned from."""
        self._row = self._end
        self._ensemble.clear()

    def void(self, now: int) -> None:
        """Forget the chunk on its way, too: its observation is from before what happened now.

        Call ``drop`` as well. A policy that is merely late is another matter: its chunk is used.
        """
        if self._waiting_since is not None:
            self._waiting_since = now
        if self.asking:
            self._inference.give_up()
            self._on_event("void_chunk", "asked for before the hold")

    def abandon(self) -> None:
        """Somebody else acts: forget the chunk, and the one that was asked for."""
        self.drop()
        self._inference.give_up()
        self._waiting_since = None

    def waiting_s(self, now: int) -> float:
        """How long a chunk has been missing, s."""
        return 0.0 if self._waiting_since is None else (now - self._waiting_since) / 1e9
