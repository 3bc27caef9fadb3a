"""From a JointState message to a measurement: which numbers, whether usable, and how old.

A measurement is as old as its header says. The publisher's clock is related to ours by the
smallest difference seen between the two, so that a message which waited on its way, or in our
queue, is known to be old, and one that repeats its stamp is no measurement at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from genpolicy_deploy.robots.device import DeviceState
from genpolicy_deploy.robots.remote_clock import RemoteClock


class JointStates:
    """Takes messages of one publisher.

    Args:
        joints: the names that count, in the driver's order; messages may have others besides.
        effort: whether the efforts are wanted.
    """

    def __init__(self, joints: Sequence[str], effort: bool) -> None:
        self._joints, self._effort = tuple(joints), effort
        self._clock = RemoteClock()
        self._stamp_ns: int | None = None
        self._names: list[str] = []
        self._order: list[int] = []

    def take(self, message: Any, now_ns: int, state: DeviceState) -> str:
        """Update ``state`` from a JointState, or leave it alone and say why in one sentence.

        Args:
            message: with the fields of ``ros2_messages.JointState``.
            now_ns: monotonic clock, at its reception.
            state: of the driver.
        """
        stamp_ns = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
        if self._stamp_ns is not None and stamp_ns <= self._stamp_ns:
            return "the stamp of JointState does not advance"
        if message.name != self._names and (problem := self._learn(message.name)):
            return problem
        lists = [message.position] + ([message.effort] if self._effort else [])
        if any(len(values) != len(message.name) for values in lists):
            return "JointState has names and values of different numbers"
        chosen = [np.array([values[i] for i in self._order]) for values in lists]
        if not all(np.isfinite(values).all() for values in chosen):
            return "JointState has values that are not finite"
        state.position[:] = chosen[0]
        if self._effort:
            state.effort[:] = chosen[1]
        self._stamp_ns = stamp_ns
        state.t_ns = self._clock.local_ns(stamp_ns, now_ns)
        state.seq += 1
        return ""

    def _learn(self, names: list[str]) -> str:
        """Where our joints are in the publisher's list, which may change with every message."""
        for joint in self._joints:
            if (count := names.count(joint)) != 1:
                return f"JointState has joint '{joint}' {count} times, not once"
        self._names = list(names)
        self._order = [names.index(joint) for joint in self._joints]
        return ""
