"""A person at a device: whether they steer, their actions, and what they think of the episode."""
# ruff: noqa: B027 (a device need not do all that a leader may)

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from genpolicy.spec import GenpolicyError, TaskSpec

Vector = NDArray[np.float64]
Action = NDArray[np.float32]

KEYS = "Enter: success; Backspace: failure; p: let go; q: quit; space: emergency stop"


class Leader(ABC):
    """Polled in every tick of the control loop; nothing but ``connect`` takes time.

    The person's actions count while ``steers``: from the first motion on, until they let go. A
    context manager: entering connects.

    Args:
        task: whose actions they are.
    """

    help = KEYS

    def __init__(self, task: TaskSpec) -> None:
        self.task = task
        self.steers = False
        self.verdict: bool | None = None  # of the episode, which it ends
        self.quits = False  # no further episode
        self._action = np.zeros(task.action.dim, np.float32)

    def connect(self) -> None:
        """Find the device.

        Raises:
            GenpolicyError: it is not there, or another one.
        """

    def check_terminal(self, there: bool) -> None:
        """Whether there is a terminal where keys are heard.

        Raises:
            GenpolicyError: there is none, and this device is one.
        """

    def begin(self) -> None:
        """An episode starts, and the person has not moved yet."""
        self.let_go()
        self.verdict = False if self.quits else None

    def let_go(self) -> None:
        """The person steers no longer."""
        self.steers = False

    def typed(self, keys: bytes) -> None:
        """Keys pressed in the terminal, whatever the device is."""
        for key in keys.decode("ascii", errors="ignore"):
            if key in "\r\n":
                self.verdict = True
            elif key in "\x7f\b":
                self.verdict = False
            elif key == "p":
                self.let_go()
            elif key == "q":
                self.quits, self.verdict = True, self.verdict or False
            else:
                self._pressed(key)

    def _pressed(self, key: str) -> None:
        """A key without a common meaning."""

    def poll(self, now_ns: int) -> None:
        """Take what the device has sent, without waiting.

        Raises:
            GenpolicyError: the device is gone.
        """

    @abstractmethod
    def action(self, command: Vector) -> Action:
        """The person's action ``[Da]`` of this control step, overwritten by the next call.

        Args:
            command: ``[A]`` what the robot was last told.
        """

    def close(self) -> None:
        """Let go of the device."""

    def __enter__(self) -> Leader:
        self.connect()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class HandLeader(Leader):
    """Devices that push the hand: three axes, three turns about them, and a gripper key.

    Args:
        task: with actions of ``osc_pose_delta``: shares of a full step, -1 to 1.

    Raises:
        GenpolicyError: actions of another kind.
    """

    def __init__(self, task: TaskSpec) -> None:
        super().__init__(task)
        if task.control_mode != "osc_pose_delta":
            raise GenpolicyError(
                f"this leader moves the hand, and control_mode '{task.control_mode}' moves joints: "
                "use --leader arm:FILE.toml"
            )
        self._push = np.zeros(6)  # along x, y, z and about them
        self._grip = 0.0  # 1 closes, -1 opens; 0: not yet known
        self._regrip = False  # the key was pressed since the last action

    def let_go(self) -> None:
        """See ``Leader``."""
        super().let_go()
        self._push[:] = 0.0
        self._grip, self._regrip = 0.0, False

    def toggle_gripper(self) -> None:
        """Open it if it is closed, and the other way round."""
        self.steers = self._regrip = True

    def action(self, command: Vector) -> Action:
        """See ``Leader``; the gripper stays as it is until its key is pressed."""
        np.clip(self._push, -1.0, 1.0, out=self._action[:6])
        if len(self._action) > 6:
            self._grip = self._grip or (1.0 if command[6] > 0.0 else -1.0)
            if self._regrip:
                self._grip, self._regrip = -self._grip, False
            self._action[6] = self._grip
        return self._action
