"""What a driver is: joints of one arm behind a few bounded calls, in a process of its own.

A driver knows a protocol and nothing of safety: only ``arm_process`` calls it, and what it
passes to ``write`` has left the joint envelope one line before. So a driver may wait for its bus
(for a bounded time), and its SDK may hold the interpreter: the control loop does not notice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
LOST_COMMANDS = 2  # in a row: joints that miss no more go on as if they had missed none


@dataclass(frozen=True)
class DeviceSpec:
    """What the hardware behind a driver can do."""

    name: str
    joints: tuple[str, ...]  # their order in every vector
    max_rate_hz: float  # exchanges (one read, one write) per second that the protocol carries
    on_silence: str  # what the hardware does when no command comes, e.g. "holds its last goal"
    reports_effort: bool = False


@dataclass
class DeviceState:
    """A measurement; ``read`` overwrites one instance in place.

    ``t_ns`` is when it was taken, on this computer's monotonic clock: a driver that has nothing
    new leaves ``seq`` and ``t_ns`` as they are, and its age tells.
    """

    position: Vector  # [J] rad (m where the joint slides)
    effort: Vector  # [J] N m or the driver's own unit; empty when not reported
    seq: int = 0
    t_ns: int = 0
    faults: list[str] = field(default_factory=list)  # one sentence each; who reads clears them

    @classmethod
    def of(cls, spec: DeviceSpec) -> Self:
        """Zeros, for the first reading."""
        joints = len(spec.joints)
        return cls(np.zeros(joints), np.zeros(joints if spec.reports_effort else 0))


class Device(Protocol):
    """Built with the keys of its ``[driver]`` table; opens nothing before ``connect``."""

    spec: DeviceSpec  # before connect, too

    def connect(self) -> None:
        """Find the arm, check that it is the one described, and make it ready to move.

        Raises:
            GenpolicyError: it is not there, is another one, or reports a hardware error.
        """
        ...

    def read(self, state: DeviceState) -> None:
        """Update ``state`` from the newest measurement, waiting for at most a few ms.

        A packet that is lost, damaged or late is no error: it is a sentence in ``state.faults``.

        Raises:
            GenpolicyError: the connection is lost for good, or the hardware reports an error.
        """
        ...

    def write(self, command: Vector) -> bool:
        """Send the joints' goals ``[J]`` (finite, inside all limits), waiting for at most a few ms.

        Returns:
            Whether they left. Goals that did not are a sentence in the next ``state.faults``; the
            joints are not led further away from those that did.

        Raises:
            GenpolicyError: the connection is lost for good.
        """
        ...

    def stop(self) -> None:
        """The hardware's safe state; the arm rests already. May be called twice. Raises nothing."""
        ...

    def close(self) -> None:
        """Let go of port and threads. May be called twice. Raises nothing."""
        ...
